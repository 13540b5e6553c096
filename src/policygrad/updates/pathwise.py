"""The pathwise gradient: ∇J = E[ ∇θ a · ∇_a q(s, a) ], a = π_θ(s, ε), instead of the score function's E[ q ∇ log π ].

With a deterministic policy it is the deterministic policy gradient (Silver et al. 2014; DDPG, Lillicrap et al. 2015, arXiv
1509.02971; TD3, Fujimoto et al. 2018, arXiv 1802.09477). With a squashed normal and an entropy bonus it is that of soft
actor-critic (Haarnoja et al. 2018, arXiv 1801.01290 and 1812.05905): E[ ∇θ (q(s, a) − α log π(a|s)) ].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policygrad.data import Stats
from policygrad.forms import PCG64, Form, array, form_of, table, whole
from policygrad.models.action_values import ActionCritic, FlatNetwork
from policygrad.models.exploring import ExploringPolicy
from policygrad.models.optim import Adam, check_norm, clip_by_norm, make_optimizer
from policygrad.models.schedules import Schedule, at
from policygrad.replay import Transitions
from policygrad.total import mean, span, total
from policygrad.updates.compiling import CompiledStep
from policygrad.updates.q_learning import copied_network


class Temperature:
    """The weight α of the entropy: constant, or moved so that the entropy of the policy's actions becomes `target`.

    log α ascends (log π(a|s) + target), so α grows where the policy has less entropy than the target (Haarnoja et al. 2018,
    arXiv 1812.05905, eq. 18, with the derivative by log α taken without the factor α).
    """

    most = 20.0  # the largest |log α|: an entropy that never comes near its target would move it for ever

    def __init__(self, alpha: Schedule = 1.0, target: float | None = None, lr: Schedule = 3e-4) -> None:
        if callable(alpha) and target is not None:
            raise ValueError("alpha is learned, so a schedule of it needs learn_alpha = false")
        self.schedule, alpha = alpha if callable(alpha) else None, at(alpha, 0.0)
        if alpha <= 0.0 and target is not None:
            raise ValueError(f"an α that is learned must begin above 0, got {alpha}")
        self.constant, self.target, self.lr = alpha, target, lr
        self.log_alpha = torch.tensor([math.log(alpha) if alpha > 0.0 else -math.inf]).clamp(-self.most, self.most)
        self.optimizer = Adam()

    @property
    def alpha(self) -> float:
        """Its value."""
        return self.constant if self.target is None else math.exp(float(self.log_alpha))

    def follow(self, progress: float) -> None:
        """Take α from its schedule, if it has one."""
        if self.schedule is not None:
            self.constant = self.schedule(progress)

    def step(self, logp: Tensor, progress: float) -> None:
        """Move α, given log π (B,) of actions sampled now."""
        if self.target is not None:
            self.optimizer.step(self.log_alpha, mean(logp + self.target).reshape(1), at(self.lr, progress))
            self.log_alpha.clamp_(-self.most, self.most)

    def state_dict(self) -> dict[str, Any]:
        """Its logarithm and the optimiser's moments."""
        return {} if self.target is None else {"log_alpha": self.log_alpha, "optimizer": self.optimizer.state_dict()}

    def state_form(self) -> Form:
        """Of `state_dict`."""
        moments = self.optimizer.state_form(self.log_alpha)
        return table(
            {}
            if self.target is None
            else {"log_alpha": array((1,), "float32", -self.most, self.most), "optimizer": moments}
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self.target is not None:
            self.log_alpha = state["log_alpha"].clone()
            self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class Smoothing:
    """Noise on the actions in the targets of a critic: σ ε, clipped to ±limit, in units of x (TD3)."""

    sigma: float = 0.2
    limit: float = 0.5


class Pathwise:
    """A critic step, and every `delay` of them a step of the policy along the pathwise gradient.

    temperature: the entropy bonus, of a policy with a density; the next action is then sampled from the policy itself. Without
    one the policy is deterministic, and the next action is that of a copy of it which follows with the critic's τ, with
    `smoothing`. Moves the policy, the critic and the temperature.
    """

    def __init__(
        self,
        policy: ExploringPolicy,
        critic: ActionCritic,
        *,
        lr: Schedule = 3e-4,
        critic_lr: Schedule = 3e-4,
        optimizer: str = "adam",
        temperature: Temperature | None = None,
        smoothing: Smoothing | None = None,
        delay: int = 1,
        max_grad_norm: float | None = None,
        seed: int | np.random.SeedSequence = 0,
    ) -> None:
        self.critic, self.lr, self.critic_lr, self.temperature = critic, lr, critic_lr, temperature
        self.smoothing, self.delay, self.max_grad_norm = smoothing, delay, max_grad_norm
        self.optimizer = make_optimizer(optimizer)
        self.copy = None if temperature is not None else FlatNetwork(copied_network(policy), policy.kernel_choice)
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.last: tuple[Tensor | None, float] | None = None
        self.compiled = None
        if type(self) is Pathwise and type(critic) is ActionCritic:  # others may do something else
            self.compiled = CompiledStep("PathwiseStep", [critic.network], [self.optimizer, critic.optimizer])

    def synchronise(self, policy: ExploringPolicy, before: int, now: int) -> None:
        """Copies follow after every step instead."""

    def noise(self, rows: int, dims: int) -> Tensor:
        """Normal noise (B, D) for paths. Shards draw that of all rows, and take their own."""
        first, whole = span(rows)
        drawn = self.rng.standard_normal((whole, dims), dtype=np.float32)
        return torch.from_numpy(drawn[first : first + rows])

    def next_value(self, policy: ExploringPolicy, features: Tensor) -> Tensor:
        """q̄(s', a') − α log π(a'|s') of a sampled a', or q̄ of the copied policy's, smoothed: (B,)."""
        head, count = policy.head, len(features)
        if self.copy is None:
            assert self.temperature is not None
            out = policy.kernel.forward(features, grad=False)
            path = head.walk(out, self.noise(count, head.dims).to(out.dtype))
            return self.critic.target_value(features, path.x) - self.temperature.alpha * path.logp
        x = torch.tanh(self.copy.kernel.forward(features, grad=False))
        if self.smoothing is not None:
            sigma, limit = self.smoothing.sigma, self.smoothing.limit
            x = (x + (sigma * self.noise(count, head.dims)).clamp(-limit, limit)).clamp(-1.0, 1.0)
        return self.critic.target_value(features, x)

    def __call__(self, policy: ExploringPolicy, batch: Transitions, progress: float = 0.0) -> None:
        """One step on a minibatch, compiled where it can be. Raises NotFiniteError where a gradient is not finite."""
        if self.temperature is not None:
            self.temperature.follow(progress)
        if self.compiled is not None and self.compiled(self, policy, batch, progress):
            return
        target = batch.ret + batch.discount * self.next_value(policy, policy.features(batch.next_obs))
        features = policy.features(batch.obs)
        self.critic.fit(features, policy.head.to_unit(batch.act), target, at(self.critic_lr, progress))
        self.count += 1
        if self.count % self.delay == 0:
            self.improve(policy, features, progress)
            if self.copy is not None:
                self.copy.follow(policy, self.critic.tau)
        if self.copy is None or self.count % self.delay == 0:
            self.critic.follow()

    def gradient(self, policy: ExploringPolicy, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """∇θ of the mean of q(s, a) − α log π(a|s) over the features (B, F), and log π (B,), if there is one. Moves nothing.

        The critic is held constant: its parameters get no gradient.
        """
        head, count = policy.head, total(len(features))
        noise = self.noise(len(features), head.dims)
        out = policy.kernel.forward(features)
        path = head.walk(out, noise.to(out.dtype))
        _, slope = self.critic.action_gradient(features, path.x, smallest=self.temperature is not None)
        alpha = 0.0 if self.temperature is None else self.temperature.alpha
        return total(policy.kernel.vjp(path.pull_back(slope.div_(count), -alpha / count))), path.logp

    def improve(self, policy: ExploringPolicy, features: Tensor, progress: float) -> None:
        """A step of the policy, and of the temperature."""
        grad, logp = self.gradient(policy, features)
        norm = clip_by_norm(grad, self.max_grad_norm)
        self.check(norm)
        self.optimizer.step(policy.flat, grad, at(self.lr, progress))
        if self.temperature is not None and logp is not None:
            self.temperature.step(logp, progress)
        self.last = logp, norm

    def check(self, norm: float) -> None:
        """Raises NotFiniteError for a gradient's norm that is not finite."""
        check_norm(norm, "the policy", "lower lr, or set max_grad_norm")

    def report(self) -> Stats:
        """What the critic reports, grad_norm, and with a density entropy (of x, in nats) and alpha."""
        stats = self.critic.report()
        if self.last is not None:
            logp, stats["grad_norm"] = self.last
            if logp is not None and self.temperature is not None:
                stats |= {"entropy": -float(mean(logp)), "alpha": self.temperature.alpha}
        return stats

    def state_dict(self) -> dict[str, Any]:
        """Everything that steps change but for the policy."""
        parts = {"critic": self.critic, "optimizer": self.optimizer}
        parts |= {name: part for name in ("temperature", "copy") if (part := getattr(self, name)) is not None}
        own = {"count": self.count, "rng": self.rng.bit_generator.state}
        return {name: dict(part.state_dict()) for name, part in parts.items()} | own

    def state_form(self, params: Tensor) -> Form:
        """Of `state_dict`, of a policy with these parameters (P,)."""
        forms = {
            "critic": form_of(self.critic),
            "optimizer": form_of(self.optimizer, params),
            "count": whole(),
            "rng": PCG64,
        }
        forms |= {name: form_of(part) for name in ("temperature", "copy") if (part := getattr(self, name)) is not None}
        return table(forms)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("critic", "optimizer", "temperature", "copy"):
            if name in state:
                getattr(self, name).load_state_dict(state[name])
        self.count = state["count"]
        self.rng.bit_generator.state = state["rng"]
