"""What trainers of language models multiply ∇log π by, as estimators, baselines and reductions of policygrad.

An answer is an episode: the state is the prompt and the tokens so far, an action is the next token, and the reward comes with
the last one. Answers to the same prompt are a group, whose key is `extra["group"]`. The rest of the names is in the library:
RLOO is `TotalReturn` with `LeaveOneOut(by="group")`, and the batch's σ of REINFORCE++ is `Standardized`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import policygrad as pg
from policygrad.gradient.groups import groups_of, sums_of


@dataclass(frozen=True)
class GroupRelative(pg.TotalReturn):
    """(R − r̄) / σ on every token, r̄ and σ the mean and standard deviation of R in the group, the answer's own R included.

    scaled: whether there is a σ: with it, GRPO (Shao et al. 2024, arXiv 2402.03300); without, Dr. GRPO (Liu et al. 2025, arXiv
    2503.20783). σ divides by G − 1, as torch.std does. A group whose rewards are all equal says nothing: it gets 0.
    """

    scaled: bool = True
    by: str = "group"

    def __call__(self, rollout: pg.Rollout, values: pg.Values) -> pg.Estimate:
        estimate, group = super().__call__(rollout, values), groups_of(rollout, self.by)
        size = sums_of(estimate.ret.new_ones(len(group)), group)
        centred = estimate.ret - sums_of(estimate.ret, group) / size
        if self.scaled:
            sigma = (sums_of(centred.square(), group) / (size - 1.0).clamp(min=1.0)).sqrt()
            centred = torch.where(sigma > 1e-9, centred / sigma, 0.0)
        return pg.Estimate(centred, estimate.target)


class GreedyReturn(pg.NoBaseline):
    """b = the reward of the greedy answer to the same prompt: ReMax (Li et al. 2024, arXiv 2310.10505).

    greedy: a function of the rollout that gives it for every column, (N,). The greedy answer is no sample, so b is independent
    of the actions taken, hence unbiased.
    """

    def __init__(self, greedy: Callable[[pg.Rollout], Tensor]) -> None:
        self.greedy = greedy

    def __call__(self, rollout: pg.Rollout, ret: Tensor, values: pg.Values) -> Tensor:
        return self.greedy(rollout).to(ret).expand_as(ret)


def by_own_length(rollout: pg.Rollout) -> Tensor:
    """1 / (N |o|) for every token of an answer o: the mean over its own tokens first, then over the N answers, as in GRPO."""
    length = rollout.mask.sum(0).to(rollout.rew.dtype)
    return rollout.valid((1.0 / (len(length) * length)).expand_as(rollout.rew))


def by_constant_length(longest: int) -> Callable[[pg.Rollout], Tensor]:
    """1 / (N · longest) for every token, whatever the answer's length, as in Dr. GRPO."""
    return lambda rollout: rollout.rew.new_full((rollout.steps,), 1.0 / (rollout.rew.shape[1] * longest))
