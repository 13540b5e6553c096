"""Gradient ascent: the one loop of epochs × minibatches, and the terms that update rules hand to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

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


def gradient_of(terms: Sequence[Term], policy: PolicyLike, batch: Batch) -> Tensor:
    """∇θ of the sum of the terms, (P,): one forward pass and one vector-Jacobian product, however many terms there are."""
    evaluation = policy.evaluate(batch)
    first, *others = (term(evaluation, batch) for term in terms)
    return evaluation.pull_back(sum(others, first))


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
