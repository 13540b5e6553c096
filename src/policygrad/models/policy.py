"""The policy: normaliser → network → head, on flat parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.compiled import usable
from policygrad.forms import Form
from policygrad.models import compiling
from policygrad.models.action_spaces import make_head, resolve_mask_source
from policygrad.models.bodies import Body, make_network
from policygrad.models.continuous import Gaussian
from policygrad.models.contracts import Rows
from policygrad.models.flat import FlatModule
from policygrad.models.heads import Head
from policygrad.models.kernels import Kernel, trainable
from policygrad.models.networks import (
    TabularNetwork,
    WithLogStd,
    inner_network,
    output_layer,
)
from policygrad.models.normalizer import Normalizer
from policygrad.models.observations import ACTION_MASK, Encoding, check_space
from policygrad.models.pictures import standardize
from policygrad.models.refused import refused
from policygrad.models.workspace import Workspace
from policygrad.tree import Tree, as_float, in_chunks, to_numpy

NOISE = "noise"  # among a record's named arrays: the noise of the step before
NOTHING: dict[str, Tree] = {}


@dataclass(frozen=True)
class PolicyEvaluation:
    """One forward pass of a policy on a batch, and the gradient of any weighted score at it: an `EvaluationLike`.

    Valid until the policy's next forward pass, which reuses the memory; `gradient` raises RuntimeError after that.
    The head owns the first `head.size` of the network's outputs. Others, such as a column of values on a shared trunk, are
    `outputs[:, head.size:]`; a term's derivative by them goes into the same columns.
    """

    kernel: Kernel
    head: Head
    outputs: Tensor  # (B, outputs)  the network's
    dist: Tensor  # (B, P)
    act: Tensor  # (B, *)
    logp: Tensor  # (B,)
    context: Tensor | None  # (B, C)  what else conditions the distribution
    passes: int  # the kernel's count at this pass
    product: Callable[[Tensor, Tensor], Tensor] | None = None  # `fisher_product` in another way

    def gradient(
        self,
        weight: Tensor,
        ent_weight: Tensor | None = None,
        kl_weight: Tensor | None = None,
        old: Tensor | None = None,
    ) -> Tensor:
        """Σ_b weight_b ∇log π(a_b|s_b) + ent_weight_b ∇entropy_b + kl_weight_b ∇KL(old_b ‖ π_b), (P,).

        The weights (B,) are held constant; old: a distribution (B, P), where there is a kl_weight.
        """
        if kl_weight is None:
            return self.pull_back(self.score(weight, ent_weight))
        if old is None:
            raise ValueError("kl_weight needs old, the distribution (B, P) that KL(old ‖ π) is taken from")
        return self.pull_back(self.score(weight, ent_weight) + self.divergence(old, kl_weight))

    def score(self, weight: Tensor, ent_weight: Tensor | None = None) -> Tensor:
        """∂/∂outputs of Σ_b weight_b log π(a_b|s_b) + ent_weight_b entropy_b, (B, outputs)."""
        return self._widened(self.head.gradient(self.dist, self.act, weight, ent_weight))

    def divergence(self, old: Tensor, weight: Tensor) -> Tensor:
        """∂/∂outputs of Σ_b weight_b KL(old_b ‖ π_b), (B, outputs)."""
        return self._widened(self.head.kl_gradient(old, self.dist, weight))

    def pull_back(self, derivative: Tensor) -> Tensor:
        """∇θ from ∂/∂outputs (B, outputs), those of the head taken after its `apply_context`: (P,)."""
        self._check_current()
        if self.context is not None:
            own, others = derivative[:, : self.head.size], derivative[:, self.head.size :]
            derivative = torch.cat([self.head.context_vjp(own, self.dist, self.context), others], dim=-1)
        return self.kernel.vjp(derivative)

    def fisher_product(self, v: Tensor, weight: Tensor) -> Tensor:
        """F v = Σ_b weight_b Jᵀ M J v, (P,), for a direction v (P,): J = ∂out_b/∂θ, M the head's Fisher matrix of row b.

        With weights that sum to 1, F is the mean Fisher matrix, exact in the actions: E_{a∼π}, not the ones sampled.
        """
        if self.product is not None:
            return self.product(v, weight)
        rows = self.head.fisher(self.dist, self._jvp(v)) * weight.unsqueeze(-1)
        return self.pull_back(self._widened(rows)).clone()

    def fisher_norm(self, v: Tensor, weight: Tensor) -> float:
        """vᵀF v with F as in `fisher_product`: twice the KL of the step v, to second order."""
        tangent = self._jvp(v)
        return float((weight.unsqueeze(-1) * tangent * self.head.fisher(self.dist, tangent)).sum())

    def score_jvp(self, v: Tensor) -> Tensor:
        """∇log π(a_b|s_b) · v of every row, (B,), for a direction v (P,): how fast each log-probability moves along it."""
        return (self.head.gradient(self.dist, self.act, torch.ones_like(self.logp)) * self._jvp(v)).sum(-1)

    def _widened(self, derivative: Tensor) -> Tensor:
        """0 at the outputs that are not the head's."""
        others = self.outputs.shape[-1] - self.head.size
        return nn.functional.pad(derivative, (0, others)) if others else derivative

    def _jvp(self, v: Tensor) -> Tensor:
        """How the distribution's parameters move along v, (B, P)."""
        self._check_current()
        tangent = self.kernel.jvp(v)[:, : self.head.size]
        return tangent if self.context is None else self.head.context_jvp(tangent, self.dist, self.context)

    def _check_current(self) -> None:
        if self.kernel.passes != self.passes:
            raise RuntimeError("the policy has made another forward pass since: evaluate again, then take the gradient")


@refused
class Policy(FlatModule):
    """π(a|s) = head(network(normaliser(s))). `policy(obs)` is the autograd path, differentiable and for any use;
    `dist`, `evaluate` and `outputs` are the fast ones, through the kernel. All take encoded observations.

    The network may have more outputs than the head: see `PolicyEvaluation`. encoding: how observations become tensors; without
    one they are taken as they come. Whoever acts is a policy, too: see `Actor`.
    """

    begins_once = True  # the noise is stationary
    known = True  # of this class, not of those derived from it: compiled functions may take its network and head
    trains_long = False  # whether the training is so long that compiling pays, even where it takes some seconds
    segment = 1  # rows that belong together in a batch

    def __init__(
        self,
        network: nn.Module,
        head: Head,
        normalizer: Normalizer | None = None,
        kernel: str = "auto",
        encoding: Encoding | None = None,
    ) -> None:
        super().__init__()
        if head.context and not head.stateful and (encoding is None or encoding.context != head.context):
            raise ValueError(f"{head} needs action masks of {head.context} entries: give an Encoding with this context")
        self.network = network
        self.head = head
        self.normalizer = normalizer
        self.encoding = encoding
        self._plain = encoding is not None and encoding.plain
        self.workspace = Workspace()
        self.flatten(kernel)

    @property
    def compiles(self) -> bool:
        """Whether epochs and steps that move this policy are compiled, where there are such functions."""
        return self.compiles_in(self.trains_long)

    def compiles_in(self, long: bool) -> bool:
        """The same, in a training that is long or not."""
        wanted = self.kernel_choice == "compiled" or (self.kernel_choice == "auto" and long)
        return wanted and self.flat.is_cpu and usable()

    def _forms(self) -> dict[str, Form]:
        own = (
            {} if self.normalizer is None else {f"normalizer.{k}": form for k, form in self.normalizer.forms().items()}
        )
        return super()._forms() | own

    def features(self, obs: Tree) -> Tensor:
        """The features that the networks get, the critic's included."""
        features = self.raw_features(obs)
        return features if self.normalizer is None else self.normalizer(features)

    def raw_features(self, obs: Tree) -> Tensor:
        """The features before the normaliser, which learns its moments from them."""
        dtype = self.flat.dtype
        return as_float(obs, dtype) if self.encoding is None else self.encoding.features(obs, dtype)

    def context(self, obs: Tree, extra: Mapping[str, Tree]) -> Tensor | None:
        """What conditions the distribution besides the network's outputs, (B, C): the action mask, the noise of the step
        before, or None.
        """
        if not self.head.context:
            return None
        return as_float(extra[NOISE] if self.head.stateful else obs[ACTION_MASK], self.flat.dtype)

    def _distribution(self, out: Tensor, context: Tensor | None) -> Tensor:
        if out.shape[-1] > self.head.size:
            out = out[..., : self.head.size]
        return self.head.canonical(out if context is None else self.head.apply_context(out, context))

    def forward(self, obs: Tree, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """The distribution (B, P), with its graph."""
        return self._distribution(self.network(self.features(obs)), self.context(obs, extra))

    def latent(self, obs: Tree) -> Tensor:
        """What the body, or the last hidden layer, makes of observations, (B, F), with its graph."""
        network: Any = inner_network(self.network)
        return network.body(self.features(obs))

    def logp(self, obs: Tree, act: Tensor, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """Log π(a|s), (B,), with its graph."""
        return self.head.logp(self(obs, extra), act)

    def dist(self, obs: Tree, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """The distribution (B, P), no graph."""
        return self._distribution(self.kernel.forward(self.features(obs), grad=False), self.context(obs, extra))

    def distributions(self, batch: Rows) -> Tensor:
        """The distributions of a batch (B, P), no graph."""
        return self.dist(batch.obs, batch.extra)

    def evaluate(self, batch: Rows) -> PolicyEvaluation:
        """Log-probabilities of a batch, no graph, ready to be differentiated with `PolicyEvaluation.gradient`."""
        context, out = self.context(batch.obs, batch.extra), self.kernel.forward(self.features(batch.obs))
        dist = self._distribution(out, context)
        logp = self.head.logp(dist, batch.act)
        return PolicyEvaluation(self.kernel, self.head, out, dist, batch.act, logp, context, self.kernel.passes)

    def log_probs(self, obs: Tree, act: Tensor, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """Log π(a|s) of a whole rollout, (T, N, *) → (T, N), no graph, in passes of bounded size."""

        def logp(rows: Tree) -> Tensor:
            return self.head.logp(self.dist(rows["obs"], rows["extra"]), rows["act"])

        rows = {"obs": _flat(obs), "act": act.flatten(0, 1), "extra": _flat(dict(extra))}
        return in_chunks(logp, rows).view(act.shape[:2])

    def inputs(self, obs: Tree) -> np.ndarray:
        """`features` in NumPy, for acting."""
        features = obs if self._plain else as_float(obs) if self.encoding is None else self.encoding.features(obs)
        if self.normalizer is None:
            return features
        return to_numpy(self.normalizer(torch.from_numpy(features).to(self.flat)))

    def outputs(self, obs: Tree, noise: np.ndarray | None = None) -> np.ndarray:
        """What the head samples from, for a batch of observations, in NumPy: all that acting needs. noise: of the step before,
        for a head that is conditioned on it; without it the head's outputs are the network's.
        """
        return self.conditioned(self.kernel.outputs(self.inputs(obs)), obs, noise)

    def conditioned(self, out: np.ndarray, obs: Tree, noise: np.ndarray | None) -> np.ndarray:
        """The head's part of the network's outputs, with what else conditions it, in NumPy: see `outputs`."""
        head = self.head
        if out.shape[1] > head.size:
            out = out[:, : head.size]
        context = noise if head.stateful else obs[ACTION_MASK].astype(out.dtype) if head.context else None
        return out if context is None else head.apply_context(out, context)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The randomness of so many steps, drawn at once."""
        return self.head.noise(rng, shape)

    @property
    def stateful(self) -> bool:
        """Whether acting has a state: the noise of the step before, where noise is autocorrelated."""
        return self.head.stateful

    def begin(self, noise: np.ndarray) -> np.ndarray:
        """The state at the beginning of an episode, (N, C), from a step's noise (N, …)."""
        return self.head.first_noise(noise)

    def act(self, obs: Tree, state: Any, noise: np.ndarray) -> tuple[np.ndarray, Any, dict[str, Tree]]:
        """Sampled actions, the next state, and what a learner must know besides: see `Actor`."""
        head = self.head
        act = head.sample(self.outputs(obs, state), noise)
        return (act, head.next_noise(state, noise), {NOISE: state}) if head.stateful else (act, None, NOTHING)

    def acting(self, rows: int) -> Callable[..., tuple[np.ndarray, Any, dict[str, Tree]]]:
        """`act` as it is to be called for the steps of one record, of so many environments: compiled, in long trainings."""
        return compiling.acting(self.workspace, self, rows) or self.act

    @property
    def rolls(self) -> bool:
        """Whether whole rollouts may be compiled: the observations are the features, normalised or as they are."""
        return self.compiles and self._plain

    def mode(self, obs: Tree, state: Any = None) -> tuple[np.ndarray, Any]:
        """The most likely actions, without noise, and the state, which they do not change."""
        return self.head.mode(self.outputs(obs)), state

    def to_env(self, act: np.ndarray) -> np.ndarray:
        """Stored actions in the scale of the action space."""
        return self.head.to_env(act)

    def has_legal_action(self, obs: Tree) -> np.ndarray:
        """(N,) bool: whether the observations' action masks leave any action."""
        return self.head.has_legal_action(obs[ACTION_MASK])

    def gradient(self, gain: Tensor) -> Tensor:
        """∇θ of any scalar built from `policy(obs)` or `latent(obs)`, by autograd, as one vector (P,): 0 at the parameters that
        it does not depend on.
        """
        grads = torch.autograd.grad(gain, trainable(self.network), allow_unused=True, materialize_grads=True)
        return torch.cat([g.reshape(-1) for g in grads])


def _flat(rows: Tree) -> Tree:
    """(T, N, *) → (T · N, *)."""
    return rows.flatten(0, 1) if isinstance(rows, Tensor) else {key: _flat(part) for key, part in rows.items()}


def _normalizer(net: nn.Module, encoding: Encoding) -> Normalizer:
    """A new normaliser, in place of the network's own scaling of pictures."""
    standardize(net)
    return Normalizer(encoding.features_shape)


P = TypeVar("P", bound=Policy)

STDS = ("parameter", "network")


def make_policy(
    observation_space: spaces.Space,
    action_space: spaces.Space | None = None,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    head: str | Callable[[bool], Head] = "gaussian",
    std: str = "parameter",
    log_std: float = 0.0,
    noise_autocorrelation: float = 0.0,
    mask_source: str = "auto",
    normalize_obs: bool = False,
    network: str = "auto",
    body: Body | None = None,
    kernel: str = "auto",
    seed: int = 0,
    kind: type[P] = Policy,
    network_of: Callable[..., nn.Module] | None = None,
) -> P:
    """A policy for the given spaces, with a new network. Raises TypeError, naming the space, for an unsupported space.

    hidden = () is linear in the features; on Discrete observations a table, one number a state and output, 0 at first.
    head, std, log_std, noise_autocorrelation: of Box actions; std is a parameter of its own or an output of the
    network; or head is a function that makes one of your own, told whether actions are masked. mask_source: where action masks
    come from. network: whether pictures go through convolutions, see `pictures.layouts_of`. kind: the class. network_of: who
    makes the network, where it is not `make_network`, with the same keywords.
    """
    check_space("observation_space", observation_space)
    check_space("action_space", action_space)
    assert action_space is not None
    mask_source = resolve_mask_source(observation_space, action_space, mask_source)
    masked = mask_source != "none"
    if isinstance(head, str):
        made = make_head(action_space, head=head, noise_autocorrelation=noise_autocorrelation, masked=masked)
    else:
        made = head(masked)
    encoding = Encoding(observation_space, 0 if made.stateful else made.context, mask_source)
    if std not in STDS:
        raise ValueError(f"std must be one of {STDS}, got {std!r}")
    separate = isinstance(made, Gaussian) and std == "parameter"
    outputs = made.size // 2 if separate else made.size
    table = not hidden and body is None and network_of is None and isinstance(observation_space, spaces.Discrete)
    if table:
        net: nn.Module = TabularNetwork(encoding.width, outputs)
    else:
        net = (network_of or make_network)(
            observation_space,
            outputs,
            hidden=hidden,
            activation=activation,
            output_gain=0.01,
            generator=torch.Generator().manual_seed(int(seed)),
            body=body,
            network=network,
        )
    net = _with_log_std(net, made, outputs if separate else 0, log_std)
    return kind(net, made, _normalizer(net, encoding) if normalize_obs else None, kernel, encoding)


def _with_log_std(net: nn.Module, head: Head, own: int, log_std: float) -> nn.Module:
    """The network with so many free log-stds; if none, those among the outputs of a Gaussian's network begin at log_std."""
    if own:
        return WithLogStd(net, own, log_std)
    if isinstance(head, Gaussian):
        with torch.no_grad():
            start = net.table if isinstance(net, TabularNetwork) else output_layer(net).bias
            start[..., head.dims :] = log_std
    return net
