"""The usual estimators as cells of the grid, and their exact mean and variance in a tiny language."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from group_estimators import GreedyReturn, GroupRelative, by_constant_length, by_own_length
from tiny_language import Answers, Language
from torch import Tensor

import policygrad as pg
from policygrad.lab.exact import tabular

Reduction = str | Callable[[pg.Rollout], Tensor]


@dataclass(frozen=True)
class Named:
    """A name, and its cell of the grid. what: estimator and reduction in words."""

    name: str
    estimator: Any
    baseline: Any
    reduction: Reduction
    what: str

    def adv(self, rollout: pg.Rollout) -> Tensor:
        """What multiplies ∇log π, (T, N); the columns are one group."""
        rollout = replace(rollout, extra={"group": torch.zeros_like(rollout.time)})
        return pg.advantages(rollout, pg.Values.zeros(rollout), self.estimator, self.baseline)[0]

    def weighted(self, rollout: pg.Rollout, adv: Tensor) -> Tensor:
        """Weight · adv of every column, (N,): what the whole score of the answer is multiplied by."""
        batch = rollout.flatten(adv, self.reduction)
        rows = rollout.scatter(batch.weight * batch.adv)
        assert torch.equal(torch.where(rollout.mask, rows[0], 0.0), rows), "all tokens of an answer have the same"
        return rows[0]

    def coefficients(self, rollout: pg.Rollout) -> Tensor:
        """`weighted` with the batch's own advantages, (N,)."""
        return self.weighted(rollout, self.adv(rollout))


def named(language: Language, greedy: float) -> list[Named]:
    """The names, with their cells. greedy: the reward of the greedy answer."""
    none, loo, plain = pg.NoBaseline(), pg.LeaveOneOut(by="group"), pg.TotalReturn()
    remax = GreedyReturn(lambda rollout: torch.full((rollout.rew.shape[1],), greedy))
    grpo, centred = GroupRelative(), GroupRelative(scaled=False)
    constant = by_constant_length(language.longest)
    return [
        Named("REINFORCE", plain, none, "trajectory", "R, mean over answers"),
        Named("ReMax", plain, remax, "trajectory", "R − R of the greedy answer, mean over answers"),
        Named("RLOO", plain, loo, "trajectory", "R − mean R of the others, mean over answers"),
        Named("Dr. GRPO", centred, none, constant, "R − r̄, divided by a constant length"),
        Named("GRPO without σ", centred, none, by_own_length, "R − r̄, divided by the own length"),
        Named("GRPO without length", grpo, none, "trajectory", "(R − r̄)/σ, mean over answers"),
        Named("GRPO", grpo, none, by_own_length, "(R − r̄)/σ, divided by the own length"),
        Named("DAPO", grpo, none, "step", "(R − r̄)/σ, mean over tokens"),
        Named(
            "REINFORCE++", pg.Standardized(plain), none, "step", "(R − mean)/σ of the batch's tokens, mean over tokens"
        ),
    ]


@dataclass(frozen=True)
class Audited:
    """A row of the table. bias2 and variance are in units of ‖∇J‖². noise: variance / ‖E ĝ‖², whatever the scale of ĝ.

    longer, wrong_longer: how fast the mean length of all answers and of the wrong ones grows along E ĝ, for a step as long as
    that along ∇J that raises J by 0.1, to first order.
    """

    named: Named
    bias2: float
    variance: float
    noise: float
    cosine: float  # of E ĝ with ∇J
    longer: float
    wrong_longer: float
    mean: Tensor  # (P,)


class Classes:
    """Answers that agree in reward and length are one class c: no estimator here tells them apart.

    So a group is known by how many answers of each class it has, n_c, and the library is asked once for each such group. Given
    n, the estimate is ĝ = Σ_c a_c (sum of the scores of the answers of class c) with a_c = weight · adv, and its moments follow
    from those of the scores within a class. This is the sum over all 40ᴳ groups, in another order.
    """

    def __init__(self, answers: Answers, group: int) -> None:
        self.group, self.rollout = group, answers.rollout
        seen = torch.stack([answers.reward, answers.length], 1)
        self.kinds, self.of = torch.unique(seen, dim=0, return_inverse=True)  # (C, 2), (N,)
        self.first = torch.stack([(self.of == c).nonzero()[0, 0] for c in range(len(self.kinds))])
        groups = list(itertools.combinations_with_replacement(range(len(self.kinds)), group))
        self.members = torch.tensor(groups)  # (M, G)
        self.counts = torch.nn.functional.one_hot(self.members, len(self.kinds)).sum(1).double()  # (M, C)

    def table(self, named: Named) -> Tensor:
        """a_c of every group, (M, C); 0 where the group has no answer of the class."""
        columns = [named.coefficients(self.rollout.columns(self.first[members])) for members in self.members]
        return torch.zeros_like(self.counts).scatter_(1, self.members, torch.stack(columns))

    def moments(self, table: Tensor, answers: Answers) -> tuple[Tensor, float]:
        """E ĝ (P,) and the trace of its covariance, at the parameters of `answers`."""
        P = answers.p.new_zeros(len(self.kinds)).index_add_(0, self.of, answers.p)  # (C,)
        share = (answers.p / P[self.of]).unsqueeze(-1)
        mean = torch.zeros(len(P), answers.score.shape[1]).double().index_add_(0, self.of, share * answers.score)
        spread = torch.zeros_like(P).index_add_(0, self.of, (share * (answers.score - mean[self.of]).square()).sum(1))
        ways = math.lgamma(self.group + 1) - torch.lgamma(self.counts + 1.0).sum(1)
        p = (ways + (self.counts * P.log()).sum(1)).exp()  # (M,) multinomial
        given = (table * self.counts) @ mean  # (M, P)  E[ĝ | n]
        expected = p @ given
        variance = p @ ((given - expected).square().sum(1) + (table.square() * self.counts) @ spread)
        return expected, float(variance)


def audit(language: Language, policy: pg.Policy, group: int) -> list[Audited]:
    """Every name's mean and variance, exactly."""
    answers = Answers.of(language, policy)
    classes, g, rows = Classes(answers, group), answers.gradient, []
    unit, step = g.square().sum(), 0.1 / g.norm()
    wrong = 1.0 - answers.reward
    mean_wrong = (answers.p * wrong * answers.length).sum() / (answers.p * wrong).sum()
    slopes = answers.slope(answers.length), answers.slope(wrong * (answers.length - mean_wrong)) / (answers.p @ wrong)
    for each in named(language, greedy_reward(language, policy)):
        mean, variance = classes.moments(classes.table(each), answers)
        size = mean.norm()
        longer, wrong_longer = (float(step * (slope @ mean) / size) for slope in slopes)
        bias2, cosine = (mean - g).square().sum() / unit, mean @ g / (size * g.norm())
        noise = variance / float(size**2)
        rows.append(
            Audited(each, float(bias2), variance / float(unit), noise, float(cosine), longer, wrong_longer, mean)
        )
    return rows


def greedy_reward(language: Language, policy: pg.Policy) -> float:
    """The reward of the answer that takes the most likely action everywhere."""
    greedy = tabular.greedy(tabular.policy_matrix(language.mdp, policy).detach())
    return float(tabular.objective(language.mdp, greedy))


def difficulty_weight(p: Tensor, group: int, named: Named) -> Tensor:
    """c(p) with E ĝ = c(p) ∇p, where p is the probability of a right answer and all answers have the same length.

    (R − r̄)/σ of a right answer minus that of a wrong one, averaged over how many of the other G − 1 are right.
    """
    right = torch.arange(group + 1)
    length = torch.ones(group, dtype=torch.long)
    gains = [named.coefficients(_one_token((torch.arange(group) < k).double(), length)) * group for k in right]
    k = torch.arange(group)  # of the others
    binomial = torch.distributions.Binomial(group - 1, p.unsqueeze(-1)).log_prob(k.to(p.dtype)).exp()
    gap = torch.stack([gains[i + 1][0] - gains[i][-1] for i in range(group)])
    return binomial @ gap


def _one_token(reward: Tensor, length: Tensor) -> pg.Rollout:
    """Answers of one token."""
    yes, obs = torch.ones(1, len(reward), dtype=torch.bool), torch.zeros(2, len(reward), 1)
    rew = reward.view(1, -1)
    return pg.Rollout(
        obs, obs[1:], length.view(1, -1), rew, rew * 0, yes, ~yes, ~yes, yes, torch.zeros_like(yes).long()
    )
