"""k1, k2 and k3 as estimates of KL(π ‖ reference), in the reward and as a loss: which gradient does each of them have?

With r = reference/π of what was sampled from π: k1 = −log r, k2 = ½ (log r)², k3 = r − 1 − log r (Schulman 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tiny_language import Answers, Language
from torch import Tensor

import policygrad as pg
from policygrad.lab.exact import tabular
from policygrad.lab.exact.trajectories import seen_by

KINDS = ("k1", "k2", "k3")


def value_of(kind: str, log_r: Tensor) -> Tensor:
    """The estimate of the KL divergence."""
    return {"k1": -log_r, "k2": 0.5 * log_r.square(), "k3": log_r.expm1() - log_r}[kind]


def slope_of(kind: str, log_r: Tensor) -> Tensor:
    """Its derivative by log π: what a loss of this kind multiplies ∇log π by."""
    return {"k1": torch.ones_like(log_r), "k2": -log_r, "k3": -log_r.expm1()}[kind]


@dataclass(frozen=True)
class Truth:
    """The exact gradients, (P,). tokens: of the sum over tokens, the visited prefixes held fixed."""

    reverse: Tensor  # ∇KL(π ‖ reference)
    forward: Tensor  # ∇KL(reference ‖ π)
    reverse_tokens: Tensor  # Σ_s d(s) ∇KL(π(·|s) ‖ reference(·|s))
    forward_tokens: Tensor  # Σ_s d(s) ∇KL(reference(·|s) ‖ π(·|s))

    @staticmethod
    def of(language: Language, policy: pg.Policy, reference: pg.Policy) -> Truth:
        """By autograd through the tables, without a sample and without a score."""
        mdp = language.mdp
        ref = tabular.policy_matrix(mdp, reference).detach()
        d = tabular.visits(mdp, tabular.policy_matrix(mdp, policy).detach()).sum(0)

        def tokens(first: Tensor, second: Tensor) -> Tensor:
            return (d.unsqueeze(-1) * first * (first.log() - second.log())).sum()

        pi = tabular.policy_matrix
        return Truth(
            policy.gradient(tabular.exact_trajectory_kl(mdp, pi(mdp, policy), ref)),
            policy.gradient(tabular.exact_trajectory_kl(mdp, ref, pi(mdp, policy))),
            policy.gradient(tokens(pi(mdp, policy), ref)),
            policy.gradient(tokens(ref, pi(mdp, policy))),
        )


@dataclass(frozen=True)
class KLRow:
    """A penalty: what it is the gradient of, and how noisy one answer's estimate is.

    reverse, forward: cosines of the mean with ∇KL(π ‖ reference) and ∇KL(reference ‖ π); NaN where the mean is 0.
    size, variance: ‖mean‖ and the variance, in units of ‖∇KL(π ‖ reference)‖ and of its square.
    """

    kind: str
    placed: str
    mean: Tensor  # (P,)
    size: float
    reverse: float
    forward: float
    variance: float


def kl_rows(language: Language, policy: pg.Policy, reference: pg.Policy) -> list[KLRow]:
    """Every kind in the reward, as a loss of whole answers, and as a loss of tokens."""
    answers, truth = Answers.of(language, policy), Truth.of(language, policy, reference)
    log_ref = tabular.log_policy(language.mdp, reference).detach()
    token = torch.where(answers.rollout.mask, seen_by(answers.rollout, log_ref).logp - answers.rollout.logp, 0.0)
    states, actions = answers.rollout.obs[:-1].argmax(-1), answers.rollout.act
    scores = tabular.scores(language.mdp, policy)[states, actions]  # (T, N, P)
    rows = []
    for kind in KINDS:
        summed = torch.where(answers.rollout.mask, value_of(kind, token), 0.0).sum(0)
        slopes = torch.where(answers.rollout.mask, slope_of(kind, token), 0.0)
        for placed, each in (
            ("in the reward", summed.unsqueeze(-1) * answers.score),
            ("loss of answers", slope_of(kind, token.sum(0)).unsqueeze(-1) * answers.score),
            ("loss of tokens", (slopes.unsqueeze(-1) * scores).sum(0)),
        ):
            rows.append(_row(kind, placed, each, answers.p, truth))
    return rows


def _row(kind: str, placed: str, each: Tensor, p: Tensor, truth: Truth) -> KLRow:
    mean, unit = p @ each, truth.reverse.norm()
    size = mean.norm()

    def cosine(g: Tensor) -> float:
        return torch.nan if size <= 1e-12 * unit else float(mean @ g / (size * g.norm()))

    variance = float(p @ (each - mean).square().sum(1) / unit.square())
    return KLRow(kind, placed, mean, float(size / unit), cosine(truth.reverse), cosine(truth.forward), variance)


def kl_values(language: Language, policy: pg.Policy, reference: pg.Policy) -> dict[str, tuple[float, float]]:
    """The mean and the standard deviation of each kind's estimate for one answer, and of "exact" KL(π ‖ reference), with 0."""
    answers = Answers.of(language, policy)
    log_ref = tabular.log_policy(language.mdp, reference).detach()
    seen, found = seen_by(answers.rollout, log_ref), {}
    pi, ref = (tabular.policy_matrix(language.mdp, each).detach() for each in (policy, reference))
    found["exact"] = (float(tabular.exact_trajectory_kl(language.mdp, pi, ref)), 0.0)
    for kind in KINDS:
        x = pg.trajectory_kl(seen, kind)  # from the policy that acted to the one that looks
        mean = answers.p @ x
        found[kind] = (float(mean), float((answers.p @ (x - mean).square()).sqrt()))
    return found
