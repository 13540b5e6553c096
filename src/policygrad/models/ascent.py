"""Gradient ascent: the one loop of epochs × minibatches, and the terms that update rules hand to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from policygrad.data import Batch, Stats
from policygrad.models.contracts import EvaluationLike, PolicyLike
from policygrad.models.optim import check_norm, clip_by_norm
from policygrad.models.workspace import AscentPlan, Epochs
from policygrad.total import total

if TYPE_CHECKING:
    from policygrad.models.policy import Policy

Piece = TypeVar("Piece")
ScoreWeights = Callable[[Tensor, Batch], Tensor]  # (logp (B,), batch) → the weights w (B,) of Σ w ∇log π
# What is ascended: (evaluation, batch) → its derivative by the network's outputs, (B, outputs); see `Evaluation.pull_back`
Term = Callable[[EvaluationLike, Batch], Tensor]
Gain = Callable[[Any, Batch], Tensor]  # (policy, batch) → a number with its graph, see `auxiliary_gradient`


@dataclass(frozen=True)
class Objective:
    """Σ_b w_b ∇log π(a_b|s_b) + ent_coef · Σ_b weight_b ∇entropy_b, w = score_weights(logp, batch): a rule's term.

    kind and numbers say the same as data, for compiled functions: "plain" for weight · adv, "ratio" for that times π/π_old, or
    "clipped", with the number `clip`; None for anything else. `score_weights` is the reference.
    """

    kind: str | None
    numbers: Mapping[str, float]
    score_weights: ScoreWeights
    ent_coef: float = 0.0

    def __call__(self, evaluation: EvaluationLike, batch: Batch) -> Tensor:
        ent_weight = batch.weight * self.ent_coef if self.ent_coef else None
        return evaluation.score(self.score_weights(evaluation.logp, batch), ent_weight)


@dataclass(frozen=True)
class KLPenalty:
    """−coef · Σ_b weight_b ∇KL(old_b ‖ π_b), old = batch.dist: a term."""

    coef: float

    def __call__(self, evaluation: EvaluationLike, batch: Batch) -> Tensor:
        assert batch.dist is not None
        return evaluation.divergence(batch.dist, batch.weight * -self.coef)


@dataclass(frozen=True, eq=False)
class ValueLoss:
    """−weight · unit · Σ_b weight_b ∇ ½ (out_b − (target_b − mean) / std)², out the last of the network's outputs: a term.

    mean and std are what `scale` has under these names, see `models.critic.Scaled`. unit: 1 where the advantages are
    standardised, otherwise std, so that this has the unit of the policy's gain.
    """

    weight: float
    scale: Any
    standardized: bool = True

    @property
    def coef(self) -> float:
        """The weight of the loss, unit included."""
        return self.weight if self.standardized else self.weight * self.scale.std

    def scaled(self, batch: Batch) -> Tensor:
        """The targets (B,) of the output."""
        assert batch.target is not None
        return (batch.target - self.scale.mean) / self.scale.std

    def __call__(self, evaluation: Any, batch: Batch) -> Tensor:
        derivative = torch.zeros_like(evaluation.outputs)
        derivative[:, -1] = self.coef * batch.weight * (self.scaled(batch) - evaluation.outputs[:, -1])
        return derivative


def gradient_of(terms: Sequence[Term], policy: PolicyLike, batch: Batch, auxiliary: Gain | None = None) -> Tensor:
    """∇θ of the sum of the terms, (P,): one forward pass and one vector-Jacobian product, however many terms there are.

    auxiliary: a gain whose gradient is added, by autograd.
    """
    more = None if auxiliary is None else auxiliary_gradient(auxiliary, policy, batch)
    evaluation = policy.evaluate(batch)
    first, *others = (term(evaluation, batch) for term in terms)
    gradient = evaluation.pull_back(sum(others, first))
    return gradient if more is None else gradient.add_(more)


def auxiliary_gradient(auxiliary: Gain, policy: Any, batch: Batch) -> Tensor:
    """∇θ auxiliary(policy, batch), (P,): of a scalar built from `policy(batch.obs)` or `policy.latent(batch.obs)`.

    Raises ValueError for what is no scalar, or does not depend on the policy's parameters.
    """
    with torch.enable_grad():
        gain = auxiliary(policy, batch)
        if not isinstance(gain, Tensor) or gain.numel() != 1:
            shape = f"a tensor {tuple(gain.shape)}" if isinstance(gain, Tensor) else repr(gain)
            raise ValueError(
                f"an auxiliary gain must be a tensor with one number, such as (batch.weight * x).sum(), got {shape}"
            )
        if not gain.requires_grad:
            raise ValueError(
                "the auxiliary gain has no gradient: build it from policy(batch.obs) or policy.latent(batch.obs), without "
                "detach() and torch.no_grad()"
            )
        return policy.gradient(gain.sum())


def minibatch_ascent(
    ascend: Epochs,
    epochs: int = 1,
    *,
    enough: Callable[[], bool] | None = None,
    owner: str = "the policy",
    remedy: str = "lower lr, or set max_grad_norm",
) -> Stats:
    """So many passes of ascent, a step for every piece; enough() is asked after each pass and ends it early.

    owner, remedy: for the NotFiniteError where a gradient is not finite. Stats: epochs, and the mean gradient norm before
    clipping.
    """
    norms, steps, done = 0.0, 0, 0
    while done < epochs:
        passes = epochs if enough is None else 1
        for norm in ascend(passes):
            check_norm(norm, owner, remedy)
            norms, steps = norms + norm, steps + 1
        done += passes
        if enough is not None and enough():
            break
    return {"epochs": done, "grad_norm": norms / max(steps, 1)}


def epochs_of(
    flat: Tensor, pieces: Callable[[], Iterable[Piece]], gradient: Callable[[Piece], Tensor], how: AscentPlan
) -> Epochs:
    """Passes that ascend `gradient(piece)` (P,) from the parameters `flat` (P,), in place, for every piece: the reference for
    compiled epochs. A norm is given before its step is taken, and whoever gets it may refuse it.
    """

    def ascend(passes: int) -> Iterator[float]:
        for _ in range(passes):
            for piece in pieces():
                grad = total(gradient(piece))
                yield clip_by_norm(grad, how.max_grad_norm)
                how.optimizer.step(flat, grad, how.lr)

    return ascend


def mean_kl(policy: Policy, old: Tensor, batch: Batch, new: Tensor | None = None) -> float:
    """Exact mean KL(old ‖ new) over the batch, with the batch's weights; new: the policy's distribution (B, P), if at hand.

    In float64, and `canonical` once more: of two float32 distributions that are close, the difference would be rounding, and
    their log-probabilities do not quite sum to 1.
    """
    head, new = policy.head, policy.distributions(batch) if new is None else new
    kl = head.kl(head.canonical(old.double()), head.canonical(new.double()))
    return float(total((batch.normalized_weight.double() * kl).sum()))
