"""Policies of off-policy learners: greedy in action values, deterministic, or a squashed normal; and how they explore.

With probability ε an `ExploringPolicy` takes an action drawn uniformly from all (legal) ones. Of greedy policies that is
ε-greedy, with ε falling as training goes on; of the others ε is 1 for the first steps, which fill
the replay buffer, and then 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.forms import Form, number, table
from policygrad.models.continuous import LOG_STD_MAX, LOG_STD_MIN, SquashedGaussian, bounds_of
from policygrad.models.heads import MASK_PENALTY, Categorical, Head
from policygrad.models.kernels import Kernel
from policygrad.models.observations import ACTION_MASK
from policygrad.models.policy import NOTHING, Policy
from policygrad.tree import Tree, flat, tree_map

EDGE = 1e-6  # how near to ±1 a uniform action of a squashed head may be, for its inverse tanh


class ActionValues(Categorical):
    """The outputs are action values q(s, a), and the action is the one with the largest.

    As a distribution it is deterministic: log π is 0 for the greedy action and −∞ for others, and there is no score function.
    """

    def __repr__(self) -> str:
        return f"ActionValues({self.size}{', masked=True' if self.context else ''})"

    @property
    def family(self) -> str:
        return repr(Categorical(self.size, bool(self.context)))

    def canonical(self, out: Tensor) -> Tensor:
        best = out.argmax(-1, keepdim=True)
        return torch.full_like(out, -math.inf).scatter_(-1, best, 0.0)

    def entropy(self, dist: Tensor) -> Tensor:
        return dist.new_zeros(dist.shape[:-1])

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.empty((*shape, 0), np.float32)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return out.argmax(-1)

    def uniform_logp(self, act: Tensor, context: Tensor | None) -> Tensor:
        """The log-probability of actions that `uniform` draws, (B,); context: the mask, where there is one."""
        legal = torch.full(act.shape, float(self.size)) if context is None else context.sum(-1)
        return -legal.log()

    def uniform(self, numbers: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        """A legal action for each row, uniformly, from numbers (N, actions) in [0, 1)."""
        return (numbers if legal is None else numbers + (legal - 1.0) * MASK_PENALTY).argmax(-1)


@dataclass(frozen=True)
class ActionPath:
    """Actions x (B, D) in [−1, 1]ᴰ, with their log density (B,) if there is one, and how they depend on the outputs.

    pull_back(v, c) is ∂/∂out of Σ_b v_b · x_b + c · log π(x_b), (B, P), for v (B, D) and a number c, along the noise.
    """

    x: Tensor
    logp: Tensor | None
    pull_back: Callable[[Tensor, float], Tensor]


class PathwiseHead(Head):
    """What the pathwise gradient needs of a head: actions x in [−1, 1]ᴰ as a differentiable function of outputs and noise.

    The actions of the environment are low + (high − low)(x + 1)/2.
    """

    dims: int  # D
    low: np.ndarray
    scale: np.ndarray
    shape: tuple[int, ...]

    def path(self, out: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Actions x (B, D) from outputs (B, P) and normal noise (B, D), and their log density (B,), if there is one."""
        raise NotImplementedError

    def walk(self, out: Tensor, noise: Tensor) -> ActionPath:
        """`path`, ready to be pulled back to the outputs: by autograd, unless a head knows better."""
        with torch.enable_grad():
            out = out.detach().requires_grad_()
            x, logp = self.path(out, noise)

        def pull_back(by_x: Tensor, by_logp: float) -> Tensor:
            with torch.enable_grad():
                gain = (by_x * x).sum()
                gain = gain if logp is None else gain + by_logp * logp.sum()
            return torch.autograd.grad(gain, out, retain_graph=True)[0]

        return ActionPath(x.detach(), None if logp is None else logp.detach(), pull_back)

    def to_unit(self, act: Tensor) -> Tensor:
        """Stored actions (B, *) as x, (B, D)."""
        raise NotImplementedError

    def uniform(self, numbers: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        """An action as it is stored, uniform between the bounds, from numbers (N, D) in [0, 1)."""
        raise NotImplementedError


class Deterministic(PathwiseHead):
    """x = tanh(out), and for training x + σ ε, clipped to [−1, 1]: the policy of DDPG and TD3. What is stored is x.

    noise: σ, in units of x. noise_autocorrelation ρ: ε of an episode is autoregressive, ε_t = ρ ε_{t−1} + √(1 − ρ²) z_t, an
    Ornstein–Uhlenbeck process (Lillicrap et al. 2015) with ρ = 1 − θ dt; every ε_t alone is N(0, 1).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        low: np.ndarray,
        high: np.ndarray,
        noise: float = 0.1,
        noise_autocorrelation: float = 0.0,
    ) -> None:
        self.shape, self.sigma, self.rho = shape, noise, noise_autocorrelation
        self.size = self.dims = math.prod(shape)
        self.low, self.scale = bounds_of(low, high)
        self.correlated = noise_autocorrelation > 0.0

    def __repr__(self) -> str:
        correlated = f", noise_autocorrelation={self.rho:g}" if self.rho else ""
        return f"Deterministic({self.shape}, noise={self.sigma:g}{correlated})"

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, self.dims), dtype=np.float32)

    def sample(self, out: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return (np.tanh(out) + np.float32(self.sigma) * noise).clip(-1.0, 1.0).reshape(-1, *self.shape)

    def mode(self, out: np.ndarray) -> np.ndarray:
        return np.tanh(out).reshape(-1, *self.shape)

    def to_env(self, act: np.ndarray) -> np.ndarray:
        return self.low + self.scale * (0.5 * (act + 1.0))

    def path(self, out: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.tanh(out), None

    def walk(self, out: Tensor, noise: Tensor) -> ActionPath:
        x = torch.tanh(out)
        return ActionPath(x, None, lambda by_x, _: by_x * (1.0 - x.square()))

    def to_unit(self, act: Tensor) -> Tensor:
        return flat(act)

    def uniform(self, numbers: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        return (2.0 * numbers - 1.0).reshape(-1, *self.shape)


class Squashed(SquashedGaussian, PathwiseHead):
    """x = tanh(μ + σ ε): the policy of SAC. What is stored is u = μ + σ ε.

    The log density of `path` is that of x, so the entropy does not depend on the bounds: log N(u) − Σ log(1 − tanh² u).
    noise_autocorrelation: of ε while acting, as for `Deterministic`; what is learned does not depend on it.
    """

    def __init__(
        self, shape: tuple[int, ...], low: np.ndarray, high: np.ndarray, noise_autocorrelation: float = 0.0
    ) -> None:
        super().__init__(shape, low, high)
        self.rho, self.correlated = noise_autocorrelation, noise_autocorrelation > 0.0

    @property
    def family(self) -> str:
        return repr(SquashedGaussian(self.shape, self.low, self.low + self.scale, self.rho))

    def uniform_logp(self, act: Tensor, context: Tensor | None) -> Tensor:
        """The log density of actions that `uniform` draws, in the scale of the action space, (B,)."""
        return torch.full((len(act),), -float(np.log(self.scale).sum()))

    def path(self, out: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        mean, log_std = self.canonical(out).split(self.dims, dim=-1)
        u = mean + log_std.exp() * noise
        normal = (0.5 * noise.square() + log_std).sum(-1) + 0.5 * self.dims * math.log(2.0 * math.pi)
        return torch.tanh(u), -normal - self._log_jacobian(u).sum(-1)

    def walk(self, out: Tensor, noise: Tensor) -> ActionPath:
        # along the path u = μ + σ ε:  ∂x/∂u = 1 − x²,  ∂log π/∂u = 2x,  and besides ∂log π/∂log σ = −1
        o, eps = out.numpy(), noise.numpy()
        log_std = o[:, self.dims :].clip(LOG_STD_MIN, LOG_STD_MAX)
        moved = np.exp(log_std) * eps
        u = o[:, : self.dims] + moved
        x = np.tanh(u)
        size = np.abs(u)
        # log N(u) − log(1 − tanh² u), the latter as 2 (log 2 − |u| − log(1 + e^{−2|u|}))
        logp = 2.0 * (size + np.log1p(np.exp(-2.0 * size))) - log_std - 0.5 * eps * eps
        constant = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)

        def pull_back(by_x: Tensor, by_logp: float) -> Tensor:
            by_u = by_x.numpy() * (1.0 - x * x) + (2.0 * by_logp) * x
            return torch.from_numpy(np.concatenate([by_u, by_u * moved - by_logp], axis=-1))

        total = logp.sum(-1) - self.dims * constant
        return ActionPath(torch.from_numpy(x), torch.from_numpy(total), pull_back)

    def to_unit(self, act: Tensor) -> Tensor:
        return torch.tanh(flat(act))

    def uniform(self, numbers: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        x = (2.0 * numbers - 1.0).clip(EDGE - 1.0, 1.0 - EDGE)
        return np.arctanh(x).astype(np.float32).reshape(-1, *self.shape)


class ExploringPolicy(Policy):
    """A policy that takes a uniformly random action with probability `epsilon`, which a checkpoint keeps.

    The noise of a step is the head's, then one number for the choice, then one for every action or dimension.
    """

    head: Any  # `ActionValues` or a `PathwiseHead`
    epsilon = 1.0

    @property
    def stateful(self) -> bool:
        """Whether the noise is correlated: the state is the noise of the step before."""
        return bool(getattr(self.head, "correlated", False))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        own = self.head.noise(rng, shape)
        return np.concatenate([own, rng.random((*shape, 1 + self._choices), dtype=np.float32)], axis=-1)

    @property
    def _choices(self) -> int:
        return self.head.actions or self.head.dims

    def begin(self, noise: np.ndarray) -> np.ndarray:
        return noise[:, : self.head.dims]

    def act(self, obs: Tree, state: Any, noise: np.ndarray) -> tuple[np.ndarray, Any, dict[str, Tree]]:
        """Actions of a training step: see `Actor`."""
        head, choices = self.head, self._choices
        own, coin, numbers = noise[:, : -1 - choices], noise[:, -1 - choices], noise[:, -choices:]
        following = state
        if self.stateful:
            own, rho = state, head.rho
            following = rho * state + math.sqrt(1.0 - rho**2) * noise[:, : head.dims]
        explores = coin < self.epsilon
        if not explores.any():
            return head.sample(self.outputs(obs), own), following, NOTHING
        uniform = head.uniform(numbers, obs[ACTION_MASK].astype(np.float32) if head.context else None)
        if explores.all():
            return uniform, following, NOTHING
        act = head.sample(self.outputs(obs), own)
        act[explores] = uniform[explores]
        return act, following, NOTHING

    def action_values(self, obs: Tree, kernel: Kernel | None = None) -> Tensor:
        """q(s, a) of every action, (B, A), no graph; of illegal ones a very small number. kernel: of another network."""
        out = (kernel or self.kernel).forward(self.features(obs), grad=False)
        context = self.context(obs, {})
        return out if context is None else self.head.apply_context(out, context)

    def log_probs(self, obs: Tree, act: Tensor, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
        """Log-probabilities of a training step with the ε of now: log(ε · uniform + (1 − ε) · the head's), (T, N)."""
        own = super().log_probs(obs, act, extra)
        if self.epsilon == 0.0:
            return own
        rows = tree_map(lambda x: x.flatten(0, 1), obs)
        uniform = self.head.uniform_logp(act.flatten(0, 1), self.context(rows, extra)).view(own.shape)
        one, other = (math.log(p) if p > 0.0 else -math.inf for p in (self.epsilon, 1.0 - self.epsilon))
        return torch.logaddexp(uniform + one, own + other)

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps besides parameters."""
        return {"epsilon": float(self.epsilon)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`."""
        self.epsilon = state["epsilon"]

    def _forms(self) -> dict[str, Form]:
        return super()._forms() | {"_extra_state": table({"epsilon": number(0.0, 1.0)})}
