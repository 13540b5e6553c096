"""Critics: V(s) or q(s,a) by a network and an optimiser of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.data import Rollout, Stats, Values, shares_memory
from policygrad.errors import NotFiniteError
from policygrad.forms import Form, FormError, anything, each, form_of, mersenne, number, table, whole
from policygrad.models.ascent import epochs_of, minibatch_ascent
from policygrad.models.compiling import value_epochs
from policygrad.models.flat import FlatModule
from policygrad.models.networks import MLP, BodyNetwork, output_layer
from policygrad.models.optim import Adam
from policygrad.models.policy import Body, Policy, make_network
from policygrad.models.schedules import Schedule, at
from policygrad.models.workspace import AscentPlan, Workspace
from policygrad.pieces import shuffled
from policygrad.total import moments
from policygrad.tree import Tree, in_chunks, tree_leaves, tree_map

LEAST_STD = 0.01  # of the targets


class NoCritic:
    """No critic: V = 0 and nothing bootstraps."""

    bootstraps = False

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        return Values.zeros(rollout)

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def state_form(self) -> Form:
        """Nothing is kept."""
        return table({})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


Output = tuple[Tensor, Tensor]  # the weight and the bias of a layer, or of some of its outputs


class Scaled:
    """Values mean + std · out, of outputs that are regressed on standardised targets, (target − mean) / std.

    mean and std follow the targets, an exponential average; when they move, the output layer is rescaled so that the values
    do not (van Hasselt et al. 2016, arXiv 1602.07714, eq. 9). scale_rate: how fast mean and std follow, a fit.
    """

    scale_rate: float
    output: Output
    seen, mean, std, var = 0, 0.0, 1.0, 1.0

    def follow(self, count: int, mean: Tensor, var: Tensor, output: Output | None = None) -> None:
        """Move mean and std towards the targets' and rescale the output layer so that the values stay what they were.

        output: the layer; None: `self.output`. Raises NotFiniteError, before anything is changed, for targets that are not
        finite.
        """
        first = self.seen == 0
        delta = float(mean) - self.mean
        if not math.isfinite(delta):
            raise NotFiniteError("a target of the critic is not finite: nothing was fitted")
        self.seen += count
        rate = max(count / self.seen, self.scale_rate)
        # of the mixture; E[x²] − E[x]² would cancel where the mean is large
        self.var = (1.0 - rate) * (self.var + rate * delta**2) + rate * float(var)
        new = self.mean + rate * delta, max(math.sqrt(self.var), LEAST_STD)
        if first:
            self.mean, self.std = new
        else:
            self.rescale(*new, output)

    def rescale(self, mean: float, std: float, output: Output | None = None) -> None:
        """Change the scale of the values, and the output layer so that the values stay what they were."""
        weight, bias = output or self.output
        weight.mul_(self.std / std)
        bias.mul_(self.std / std).add_((self.mean - mean) / std)
        self.mean, self.std = mean, std

    def scale_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"seen": self.seen, "scale": [self.mean, self.std, self.var]}

    @staticmethod
    def scale_forms() -> dict[str, Form]:
        """Of `scale_state`."""
        numbers = each(number(), 3, least=3)

        def scale(name: str, value: Any) -> None:
            numbers(name, value)
            if value[2] < 0.0 or not math.isclose(value[1], max(math.sqrt(value[2]), LEAST_STD), rel_tol=1e-6):
                raise FormError(f"{name} must be a mean, a standard deviation and its square, got {value}")

        return {"seen": whole(), "scale": scale}


class _Regression(FlatModule, Scaled):
    """The common part of critics: a network of their own, regressed on scaled targets, ½ squared error, Adam.

    Observations go through the policy's normaliser. No value clipping: it hurts (Andrychowicz et al. 2020). scale_rate: see
    `Scaled`.
    """

    bootstraps = True
    made = (*FlatModule.made, "output")

    def __init__(
        self,
        network: MLP | BodyNetwork,
        *,
        lr: Schedule = 3e-4,
        epochs: int = 1,
        minibatches: int = 1,
        max_grad_norm: float | None = 0.5,
        scale_rate: float = 0.05,
        kernel: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.lr, self.epochs, self.minibatches, self.max_grad_norm = lr, epochs, minibatches, max_grad_norm
        self.scale_rate = scale_rate
        self.optimizer = Adam()
        self.generator = torch.Generator().manual_seed(int(seed))
        self.workspace = Workspace()
        self.seen = 0
        self.mean, self.std, self.var = 0.0, 1.0, 1.0
        self.flatten(kernel)

    def flatten(self, kernel: str | None = None) -> None:
        """As `FlatModule` does; `output` are the weight and the bias of the last layer."""
        super().flatten(kernel)
        layer = output_layer(self.network)
        self.output = layer.weight.data, layer.bias.data

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """The values of every row and of every next row."""
        raise NotImplementedError

    def _rows(self, rollout: Rollout) -> dict[str, Tensor]:
        """What `_error` needs besides the targets, of the valid rows."""
        return {}

    def _error(self, out: Tensor, rows: dict[str, Tensor]) -> Tensor:
        """Target − prediction where there is one, 0 at the other outputs: (B, outputs)."""
        raise NotImplementedError

    def fit(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> Stats:
        """Follow the scale of the targets (T, N) of the valid rows, and regress on them."""
        self.follow(*moments(rollout.valid(target)))
        self.regress(rollout, target, policy, progress)
        return {}

    def regress(self, rollout: Rollout, target: Tensor, policy: Policy, progress: float = 0.0) -> None:
        """The regression of `fit`, in the scale that there is: epochs × minibatches of Adam."""
        # bytes become floats minibatch by minibatch, unless all of them are wanted at once
        late = isinstance(self.network, BodyNetwork) and policy.normalizer is None
        features = rollout.valid_obs if late else policy.features(rollout.valid_obs)
        target = ((rollout.valid(target) - self.mean) / self.std).unsqueeze(-1)
        rows = {"features": features, "target": target} | self._rows(rollout)
        how = AscentPlan(self.optimizer, at(self.lr, progress), self.max_grad_norm, self.minibatches, self.generator)

        def gradient(piece: tuple[dict[str, Tensor], int]) -> Tensor:  # of −½ mean error²
            mb, size = piece
            features = policy.features(mb["features"]) if late else mb["features"]
            error = self._error(self.kernel.forward(features), mb)
            return self.kernel.vjp(error.div_(size))

        ascent = None if late else value_epochs(self.workspace, policy, self, features, target, rows.get("act"), how)
        ascent = ascent or epochs_of(self.flat, lambda: shuffled(rows, self.minibatches, self.generator), gradient, how)
        minibatch_ascent(ascent, self.epochs, owner="the critic", remedy="lower critic_lr")

    def scaled(self, seen: int, mean: float, std: float, var: float) -> None:
        """The scale of the targets becomes this one, and the output layer stays: a compiled function has moved it."""
        vars(self).update(seen=seen, mean=mean, std=std, var=var)  # a module's own way takes 60 µs

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps besides parameters: the optimiser, the shuffling, the scale of the targets."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            **self.scale_state(),
        }

    def _forms(self) -> dict[str, Form]:
        parts = {
            "optimizer": self.optimizer.state_form(self.flat),
            "generator": mersenne(len(self.generator.get_state())),
            **self.scale_forms(),
        }
        return super()._forms() | {"_extra_state": table(parts)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`; `load_state_dict` calls it. Raises FormError for what it cannot have returned."""
        if form_of(self) is not anything:
            self._forms()["_extra_state"]("state of the critic", state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.seen = state["seen"]
        self.mean, self.std, self.var = state["scale"]


def values_of(value: Callable[[Tree], Tensor], rollout: Rollout) -> Values:
    """The values at every row and at every next row, in one pass if next_obs is a view of obs[1:], otherwise in two.

    value: of raw observations (B, *), (B,).
    """

    def every(obs: Tree) -> Tensor:
        T, N = tree_leaves(obs)[0].shape[:2]
        return in_chunks(value, tree_map(lambda x: x.flatten(0, 1), obs)).view(T, N)

    val = every(rollout.obs)
    if shares_memory(rollout.obs, rollout.next_obs):
        return Values(val[:-1], val[1:])
    return Values(val[:-1], every(rollout.next_obs))


class Critic(_Regression):
    """V(s), regressed on the estimator's targets."""

    known = True  # of this class, not of those derived from it: compiled functions know its `_error`

    def value(self, features: Tensor) -> Tensor:
        """V of normalised observations (B, *): (B,)."""
        return self.kernel.forward(features, grad=False).squeeze(-1) * self.std + self.mean

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """V at every row and at every next row, see `values_of`."""
        return values_of(lambda obs: self.value(policy.features(obs)), rollout)

    def _error(self, out: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return rows["target"] - out


class QCritic(_Regression):
    """q(s,a) for Discrete actions, one output per action; V(s) = Σ_a π(a|s) q(s,a). Only q(s_t, a_t) is regressed.

    V is exact in the policy's probabilities, whatever was sampled, so the target of `TDError` and `QValue` is that of
    expected SARSA: r + γ Σ_a π(a|s') q(s',a).
    """

    known = True  # see `Critic`

    def action_values(self, features: Tensor) -> Tensor:
        """Q of normalised observations (B, *), for every action: (B, A)."""
        return self.kernel.forward(features, grad=False) * self.std + self.mean

    def __call__(self, rollout: Rollout, policy: Policy) -> Values:
        """V at every row and at every next row, and q of the actions taken."""
        if policy.head.actions is None:
            raise TypeError(f"a QCritic has a value for every Discrete action, and the policy's head is {policy.head}")
        q, val = self._values(rollout.obs, policy)
        act_val = q[:-1].gather(-1, rollout.act.unsqueeze(-1)).squeeze(-1)
        if shares_memory(rollout.obs, rollout.next_obs):
            return Values(val[:-1], val[1:], act_val=act_val)
        return Values(val[:-1], self._values(rollout.next_obs, policy)[1], act_val=act_val)

    def _values(self, obs: Tree, policy: Policy) -> tuple[Tensor, Tensor]:
        """Q (T, N, A) and V (T, N) of raw observations (T, N, *), in passes of bounded size."""
        T, N = tree_leaves(obs)[0].shape[:2]

        def both(rows: Tree) -> dict[str, Tensor]:
            q = self.action_values(policy.features(rows))
            return {"q": q, "val": (policy.head.probabilities(policy.dist(rows)) * q).sum(-1)}

        found = in_chunks(both, tree_map(lambda x: x.flatten(0, 1), obs))
        return found["q"].view(T, N, -1), found["val"].view(T, N)

    def _rows(self, rollout: Rollout) -> dict[str, Tensor]:
        return {"act": rollout.valid(rollout.act).unsqueeze(-1)}

    def _error(self, out: Tensor, rows: dict[str, Tensor]) -> Tensor:
        act = rows["act"]
        return torch.zeros_like(out).scatter_(1, act, rows["target"] - out.gather(1, act))


def make_critic(observation_space: spaces.Space, **keywords: Any) -> Critic:
    """A critic of V(s) for an observation space, with a new network; keywords as in `make_network` and `Critic`."""
    return _make(Critic, observation_space, 1, **keywords)


def make_q_critic(observation_space: spaces.Space, action_space: spaces.Space, **keywords: Any) -> QCritic:
    """A critic of q(s,a) for Discrete actions, with a new network; keywords as in `make_critic`."""
    if not isinstance(action_space, spaces.Discrete):
        raise TypeError(
            f"a critic of q(s, a) needs Discrete actions, the space is {action_space}: use a critic of V(s) (critic = v)"
        )
    return _make(QCritic, observation_space, int(action_space.n), **keywords)


C = TypeVar("C", Critic, QCritic)


def _make(
    kind: type[C],
    observation_space: spaces.Space,
    outputs: int,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    body: Body | None = None,
    network: str = "auto",
    seed: int = 0,
    **keywords: Any,
) -> C:
    net = make_network(
        observation_space,
        outputs,
        hidden=hidden,
        activation=activation,
        output_gain=1.0,
        generator=torch.Generator().manual_seed(int(seed)),
        body=body,
        network=network,
    )
    assert isinstance(net, MLP | BodyNetwork)
    return kind(net, seed=seed, **keywords)
