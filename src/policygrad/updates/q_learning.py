"""Q-learning with a network (Mnih et al. 2015, Nature 518): the policy is greedy in the values that its network outputs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor

from policygrad.data import Stats
from policygrad.forms import Form, form_of, table
from policygrad.models.action_values import FlatNetwork
from policygrad.models.exploring import ExploringPolicy
from policygrad.models.optim import check_norm, clip_by_norm, make_optimizer
from policygrad.models.schedules import Schedule, at
from policygrad.replay import Transitions
from policygrad.total import mean, total
from policygrad.tree import Tree
from policygrad.updates.compiling import CompiledStep


class QLearning:
    """One step towards ret + discount · max_a q̄(s', a), with q̄ a copy of the network that is made now and then.

    target_every: environment steps between copies; None: q̄ is the network itself. double: q̄(s', argmax_a q(s', a)), in which
    one network chooses and the other one values (van Hasselt, Guez & Silver 2016, arXiv 1509.06461). loss: of the error δ,
    ½ δ², or Huber's, whose derivative is δ clipped to ±1.
    """

    def __init__(
        self,
        policy: ExploringPolicy,
        *,
        lr: Schedule = 1e-3,
        optimizer: str = "adam",
        double: bool = True,
        target_every: int | None = 500,
        loss: Literal["huber", "squared"] = "huber",
        max_grad_norm: float | None = 10.0,
    ) -> None:
        self.lr, self.double, self.loss, self.max_grad_norm = lr, double, loss, max_grad_norm
        self.target_every = target_every
        self.optimizer = make_optimizer(optimizer)
        self.copy = None if target_every is None else FlatNetwork(copied_network(policy), policy.kernel_choice)
        self.last: tuple[Tensor, Tensor, float] | None = None
        self.compiled = CompiledStep("QStep", [], [self.optimizer]) if type(self) is QLearning else None

    def synchronise(self, policy: ExploringPolicy, before: int, now: int) -> None:
        """Copy the network where a multiple of `target_every` environment steps has been reached."""
        if self.copy is not None and self.target_every and before // self.target_every < now // self.target_every:
            self.copy.follow(policy, 1.0)

    def next_value(self, policy: ExploringPolicy, obs: Tree) -> Tensor:
        """max_a q̄(s', a), or q̄ of the action that the network itself prefers: (B,). Illegal actions do not count, and 0 is the
        value where there is no legal one.
        """
        q = policy.action_values(obs, None if self.copy is None else self.copy.kernel)
        if not self.double or self.copy is None:
            value = q.amax(-1)
        else:
            chosen = policy.action_values(obs).argmax(-1, keepdim=True)
            value = q.gather(-1, chosen).squeeze(-1)
        context = policy.context(obs, {})
        return value if context is None else torch.where(context.any(-1), value, 0.0)

    def __call__(self, policy: ExploringPolicy, batch: Transitions, progress: float = 0.0) -> None:
        """Move the policy's network. Raises NotFiniteError, before it moves, where the gradient is not finite."""
        if self.compiled is not None and self.compiled(self, policy, batch, progress):
            return
        target = batch.ret + batch.discount * self.next_value(policy, batch.next_obs)
        q = policy.kernel.forward(policy.features(batch.obs))
        act = batch.act.unsqueeze(-1)
        error = target.unsqueeze(-1) - q.gather(-1, act)
        slope = error.clamp(-1.0, 1.0) if self.loss == "huber" else error
        grad = total(policy.kernel.vjp(torch.zeros_like(q).scatter_(-1, act, slope / total(len(q)))))
        norm = clip_by_norm(grad, self.max_grad_norm)
        self.check(norm)
        self.optimizer.step(policy.flat, grad, at(self.lr, progress))
        self.last = q, error, norm

    def check(self, norm: float) -> None:
        """Raises NotFiniteError for a gradient's norm that is not finite."""
        check_norm(norm, "the network of action values", "lower lr, or set max_grad_norm")

    def report(self) -> Stats:
        """q_mean, td_error (the root of the mean squared error) and grad_norm of the last step."""
        if self.last is None:
            return {}
        q, error, norm = self.last
        return {"q_mean": float(mean(q)), "td_error": float(mean(error.square()).sqrt()), "grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """The optimiser, and the copy."""
        copy = {} if self.copy is None else dict(self.copy.state_dict())
        return {"optimizer": self.optimizer.state_dict(), "copy": copy}

    def state_form(self, params: Tensor) -> Form:
        """Of `state_dict`, of a network with these parameters (P,)."""
        copy = table({}) if self.copy is None else form_of(self.copy)
        return table({"optimizer": form_of(self.optimizer, params), "copy": copy})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.copy is not None:
            self.copy.load_state_dict(state["copy"])


def copied_network(policy: ExploringPolicy) -> Any:
    """A copy of a policy's network, on memory of its own."""
    return deepcopy(policy).network
