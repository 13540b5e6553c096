"""Ratios, temperatures and micro-batches: what changes a gradient, and what must not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from exact_names import Named
from tiny_language import Answers, Language
from torch import Tensor, nn

import policygrad as pg
from policygrad.data import resolve_reduction
from policygrad.lab.exact import tabular
from policygrad.lab.exact.trajectories import seen_by


@dataclass(frozen=True)
class RatioRow:
    """bias2 and variance of one answer's estimate, in units of ‖∇J‖² at the new parameters, and the cosine of the mean."""

    name: str
    bias2: float
    variance: float
    cosine: float
    mean: Tensor  # (P,)


def ratio_weights(rollout: pg.Rollout, adv: Tensor) -> dict[str, Tensor]:
    """What each ratio makes of adv (T, N), as a weight of every token's ∇log π: (T, N).

    rollout: of the policy that sampled, `behavior`, seen by the one that learns, `logp`.
    """
    N = adv.shape[1]
    batch = rollout.seen_with(rollout.behavior).flatten(adv, "trajectory")  # as PPO has it: log π of the old policy
    logp = rollout.valid(rollout.logp)

    def ppo(clip: float) -> Tensor:
        return N * rollout.scatter(pg.ClippedSurrogate(clip=clip).score_weights(logp, batch))

    whole = pg.ImportanceWeighted(pg.TotalReturn()).wrap(adv, rollout)
    geometric = (torch.where(rollout.mask, rollout.logp - rollout.behavior, 0.0).sum(0) / rollout.mask.sum(0)).exp()
    return {
        "no ratio": adv,
        "token ratio (PPO)": ppo(1e9),
        "token ratio, clipped at 0.2": ppo(0.2),
        "sequence ratio": whole,
        "geometric mean (GSPO)": geometric * adv,
    }


def ratio_rows(language: Language, old: pg.Policy, new: pg.Policy) -> list[RatioRow]:
    """The gradient at the policy `new` from answers of `old`, with every ratio. The baseline is J of `old`, a number."""
    mdp, answers = language.mdp, Answers.of(language, old)
    rollout = seen_by(answers.rollout, tabular.log_policy(mdp, new).detach())
    baseline = pg.Constant(float(answers.p @ answers.reward))
    adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), pg.TotalReturn(), baseline)
    scores = tabular.scores(mdp, new)[rollout.obs[:-1].argmax(-1), rollout.act]
    g, rows = tabular.exact_gradient(mdp, new), []
    for name, weight in ratio_weights(rollout, adv).items():
        each = (torch.where(rollout.mask, weight, 0.0).unsqueeze(-1) * scores).sum(0)
        rows.append(_row(name, each, answers.p, g))
    return rows


def _row(name: str, each: Tensor, p: Tensor, g: Tensor) -> RatioRow:
    mean, unit = p @ each, g.square().sum()
    variance = p @ (each - mean).square().sum(1) / unit
    cosine = mean @ g / (mean.norm() * g.norm())
    return RatioRow(name, float((mean - g).square().sum() / unit), float(variance), float(cosine), mean)


class Tempered(nn.Module):
    """A network whose logits are divided by a temperature: the policy that a sampler of this temperature plays."""

    def __init__(self, inner: nn.Module, temperature: float) -> None:
        super().__init__()
        self.inner, self.temperature = inner, temperature

    def forward(self, obs: Tensor) -> Tensor:
        return self.inner(obs) / self.temperature


def tempered(language: Language, policy: pg.Policy, temperature: float) -> pg.Policy:
    """A policy with the same parameters (a copy of them), whose logits are divided by the temperature."""
    made = tabular.tabular_policy(language.mdp)
    made = pg.Policy(Tempered(made.network, temperature), pg.Categorical(len(language.letters) + 1)).double()
    made.flat.copy_(policy.flat)
    return made


@dataclass(frozen=True)
class TemperatureRow:
    """ratio: the largest |π/π_old − 1| of a token before any step. bias2 and cosine: against ∇J of the policy that is named."""

    what: str
    ratio: float
    against: str
    bias2: float
    cosine: float


def temperature_rows(language: Language, policy: pg.Policy, temperature: float) -> list[TemperatureRow]:
    """Answers are sampled at a temperature: three ways to learn from them."""
    mdp, sampler = language.mdp, tempered(language, policy, temperature)
    answers, log_pi = Answers.of(language, sampler), tabular.log_policy(mdp, policy).detach()
    plain, rows = seen_by(answers.rollout, log_pi), []
    ways: list[tuple[str, pg.Policy, pg.Rollout, Any, str]] = [
        ("the temperature is forgotten", policy, plain, pg.TotalReturn(), "π"),
        ("importance weights", policy, plain, pg.ImportanceWeighted(pg.TotalReturn()), "π"),
        (
            "the logits are divided by it in training, too",
            sampler,
            answers.rollout,
            pg.TotalReturn(),
            "π of the sampler",
        ),
    ]
    for what, learner, rollout, estimator, against in ways:
        adv, _ = pg.advantages(rollout, pg.Values.zeros(rollout), estimator, pg.NoBaseline())
        scores = tabular.scores(mdp, learner)[rollout.obs[:-1].argmax(-1), rollout.act]
        each = (torch.where(rollout.mask, adv, 0.0).unsqueeze(-1) * scores).sum(0)
        row = _row(what, each, answers.p, tabular.exact_gradient(mdp, learner))
        ratio = torch.where(rollout.mask, rollout.logp - rollout.behavior, 0.0).exp() - 1.0
        rows.append(TemperatureRow(what, float(ratio.abs().max()), against, row.bias2, row.cosine))
    return rows


@dataclass(frozen=True)
class MicroRow:
    """How far the mean gradient of micro-batches is from that of the whole batch, relative to it.

    rows: advantages and weights of the whole batch, only its rows are split, as the library does. mean: the mean is taken in
    each micro-batch. all: mean and statistics are.
    """

    name: str
    rows: float
    mean: float
    all: float


def micro_rows(policy: pg.Policy, rollout: pg.Rollout, names: list[Named], pieces: int) -> list[MicroRow]:
    """The answers in the columns of a rollout, one group: all at once against equally many in each of some micro-batches."""
    parts, rows = torch.arange(rollout.rew.shape[1]).view(pieces, -1), []
    for each in names:
        adv = each.adv(rollout)
        whole = gradient(policy, each, rollout, adv)
        batch, column = rollout.flatten(adv, each.reduction), rollout.valid(torch.arange(len(adv[0])).expand_as(adv))
        taken = [batch.take(torch.isin(column, part).nonzero().squeeze(1)) for part in parts]
        found = (
            sum(policy.evaluate(b).gradient(b.weight * b.adv) for b in taken),
            sum(gradient(policy, each, rollout.columns(part), adv[:, part]) for part in parts) / pieces,
            sum(gradient(policy, each, rollout.columns(p), each.adv(rollout.columns(p))) for p in parts) / pieces,
        )
        rows.append(MicroRow(each.name, *(float((x - whole).norm() / whole.norm()) for x in found)))
    return rows


def gradient(policy: pg.Policy, each: Named, rollout: pg.Rollout, adv: Tensor) -> Tensor:
    """Σ weight · adv · ∇log π of a batch, (P,), in memory of its own."""
    batch = rollout.flatten(adv, resolve_reduction(each.reduction))
    return policy.evaluate(batch).gradient(batch.weight * batch.adv).clone()
