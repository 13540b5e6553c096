"""Q(λ) in parallel environments, without a replay buffer and without a target network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from policygrad.data import Record, Rollout, Stats
from policygrad.forms import Form, form_of, mersenne, number, table
from policygrad.gradient.returns import gae
from policygrad.models.ascent import epochs_of, minibatch_ascent
from policygrad.models.exploring import ExploringPolicy
from policygrad.models.optim import Adam
from policygrad.models.schedules import Schedule, at
from policygrad.models.workspace import AscentPlan
from policygrad.pieces import shuffled
from policygrad.total import mean, total
from policygrad.tree import in_chunks, take, tree_map


class QLambdaLearner:
    """Regresses q(s_t, a_t) on λ-returns of what was just played, G_t = r_t + γ ((1 − λ) max_a q(s_{t+1}, a) + λ G_{t+1}).

    This is Peng's Q(λ): returns are not cut where an action explored, so ε should be small in the end. With V = max_a q it is
    the target of generalised advantage estimation, G = V + GAE(γ, λ). PQN (Gallici et al. 2024, arXiv 2407.04811) is this with
    layer normalisation in the network, which is not needed for small networks.
    """

    def __init__(
        self,
        policy: ExploringPolicy,
        *,
        gamma: float = 0.99,
        lam: float = 0.65,
        lr: Schedule = 1e-3,
        epochs: int = 2,
        minibatches: int = 4,
        max_grad_norm: float | None = 10.0,
        epsilon: Schedule = 0.05,
        seed: int = 0,
    ) -> None:
        self.policy, self.gamma, self.lam = policy, gamma, lam
        self.lr, self.epochs, self.minibatches, self.max_grad_norm = lr, epochs, minibatches, max_grad_norm
        self.epsilon, self.optimizer = epsilon, Adam()
        self.generator = torch.Generator().manual_seed(int(seed))
        self.last: Stats = {}
        policy.epsilon = at(epsilon, 0.0)

    def values(self, obs: Any) -> Tensor:
        """max_a q(s, a) of observations (T, N, *), in passes of bounded size: (T, N)."""
        T, N = next(iter(obs.values())).shape[:2] if isinstance(obs, dict) else obs.shape[:2]
        rows = tree_map(lambda x: x.flatten(0, 1), obs)
        return in_chunks(lambda rows: self.policy.action_values(rows).amax(-1), rows).view(T, N)

    def step(self, record: Record, progress: float = 0.0) -> Stats:
        """Learn from one record. progress in [0, 1] drives schedules."""
        policy, rollout = self.policy, Rollout.of(record, None)
        if total(rollout.steps) == 0:
            return {}
        val = self.values(take(rollout.obs, slice(-1)))
        target = val + gae(rollout, val, self.values(rollout.next_obs), self.gamma, self.lam)
        rows = {
            "obs": rollout.valid_obs,
            "act": rollout.valid(rollout.act).unsqueeze(-1),
            "target": rollout.valid(target).unsqueeze(-1),
        }
        error = torch.zeros(0)

        def gradient(piece: tuple[dict[str, Any], int]) -> Tensor:  # of −½ mean error²
            nonlocal error
            mb, size = piece
            q = policy.kernel.forward(policy.features(mb["obs"]))
            error = mb["target"] - q.gather(-1, mb["act"])
            return policy.kernel.vjp(torch.zeros_like(q).scatter_(-1, mb["act"], error / size))

        how = AscentPlan(self.optimizer, at(self.lr, progress), self.max_grad_norm, self.minibatches, self.generator)
        ascent = epochs_of(policy.flat, lambda: shuffled(rows, self.minibatches, self.generator), gradient, how)
        stats = minibatch_ascent(ascent, self.epochs, owner="the network of action values")
        if policy.normalizer is not None:
            policy.normalizer.merge(policy.raw_features(rollout.valid_obs))
        policy.epsilon = at(self.epsilon, progress)
        td_error = float(mean(error.square()).sqrt())
        q_mean = float(mean(val))
        self.last = {"grad_norm": stats["grad_norm"], "q_mean": q_mean, "td_error": td_error}
        return {}

    def report(self) -> Stats:
        """q_mean (of greedy actions, before the step), td_error (root of the mean squared error), grad_norm, epsilon."""
        return self.last | {"epsilon": self.policy.epsilon}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the environments."""
        parts = {"policy": self.policy, "optimizer": self.optimizer}
        own = {"generator": self.generator.get_state(), "report": self.last}
        return {name: dict(part.state_dict()) for name, part in parts.items()} | own

    def state_form(self) -> Form:
        """Of `state_dict`."""
        moments = self.optimizer.state_form(self.policy.flat)
        generator = mersenne(len(self.generator.get_state()))
        parts = {"policy": form_of(self.policy), "optimizer": moments, "generator": generator}
        return table(parts | {"report": table({}, others=number())})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.last = dict(state["report"])
