"""The rules about environments: what random play shows before anything is trained, the cheapest first.

Every rule is a function of the `EnvironmentCase`; `RULES` says what it calls a symptom, and docs/doctor.md has this as a table.
Thresholds with * were set on CartPole and Pendulum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from policygrad.algorithms.recipes import USUAL
from policygrad.diagnosis.play import RandomPlay
from policygrad.diagnosis.statistics import LEFT, UNEXPLAINED, action_effect, few_above, past_helps, shows_time
from policygrad.diagnosis.symptoms import CannotTell, Symptom, SymptomRule, percent
from policygrad.envs.advice import far_bounds, normalized, unscaled_pictures
from policygrad.envs.serial import SerialVectorEnv

SCHULMAN = "Schulman 2016, Nuts and bolts of deep RL"
JONES = "Jones 2019, Debugging RL"
GYMNASIUM = "Gymnasium's interface"

SHORT = 1_000  # steps of the plays that are compared
LEVEL = 0.01  # of the permutation test
OUTSIDE = 0.01  # share of observations
FAR_MEAN, SMALL_STD, LARGE_STD = 5.0, 0.01, 10.0
SMALL_REWARD, LARGE_REWARD = 1e-3, 1e3
OUTLIER, MANY_REWARDS = 0.5, 100
RARE = 0.01  # share of random episodes above the commonest return
WEIGHT, REWARDED = 0.01, 5  # γᵗ of the earliest informative reward, over at least so many episodes that have one
SAME_LENGTH = 5  # episodes
LONG = 5_000  # steps without an end
FEW = 50  # steps that say nothing
RESCALE = "gymnasium.wrappers.RescaleObservation(env, -1.0, 1.0), or divide by the scale of every number"


@dataclass
class EnvironmentCase:
    """An environment, and what was played in it.

    first, again: the same seed and the same actions twice; other: other actions, from the same seed; parts: other values of
    one component of the action. long: the long play. config: what the algorithm is told, for γ and normalisation.
    """

    name: str
    make: Callable[[], gym.Env]
    first: RandomPlay
    again: RandomPlay
    other: RandomPlay
    parts: list[RandomPlay]
    long: RandomPlay
    algo: str | None
    config: Mapping[str, Any]

    def played(self) -> RandomPlay:
        """The long play, if there is enough of it."""
        if self.long.steps < FEW:
            raise CannotTell("the environment failed before there was enough to look at")
        return self.long

    def train(self, flag: str, instead: str) -> str:
        """The command that trains with a flag, or what to do instead, where the algorithm has no such flag."""
        name = flag.split()[0].lstrip("-").replace("-", "_")
        return f"policygrad train {self.algo or USUAL} {self.name} {flag}" if name in self.config else instead


def contract(case: EnvironmentCase) -> Symptom | None:
    """Every answer of the environment has the shapes and types of its spaces, and finite numbers."""
    for played in (case.first, case.again, case.other, *case.parts, case.long):
        if played.error is not None:
            text = str(played.error).splitlines()[0]
            advice = f'gymnasium.utils.env_checker.check_env(gymnasium.make("{case.name}"))'
            return Symptom("contract", text, 1.0, "at 1 refused answer", advice, GYMNASIUM, sure=True)
    return None


def seeds(case: EnvironmentCase) -> Symptom | None:
    """The same seed begins with the same observation."""
    if case.first.error or case.again.error:
        raise CannotTell("the environment failed")
    if case.first.digests[0] == case.again.digests[0]:
        return None
    text = "reset(seed=0) twice gave two different observations, so that no run can be repeated"
    advice = "call super().reset(seed=seed) in reset, and draw from self.np_random alone"
    return Symptom("seeds", text, 1.0, "at 1 difference", advice, GYMNASIUM, sure=True)


def determinism(case: EnvironmentCase) -> Symptom | None:
    """The same seed and the same actions lead to the same observations and rewards."""
    if case.first.error or case.again.error:
        raise CannotTell("the environment failed")
    if case.first.digests[0] != case.again.digests[0]:
        raise CannotTell("the environment ignores seeds")
    if case.first.same(case.again):
        return None
    pairs = zip(case.first.digests, case.again.digests, strict=False)
    step = next((i for i, (x, y) in enumerate(pairs) if x != y), 0)
    text = f"the same seed and the same actions gave something else from row {step} on, so that no run can be repeated"
    advice = "draw from self.np_random alone, and set back in reset whatever step changes"
    return Symptom("determinism", text, 1.0, "at 1 difference", advice, "Henderson et al. 2018")


def actions(case: EnvironmentCase) -> Symptom | None:
    """Actions change what happens: exactly, where the environment can be repeated; otherwise by a permutation test.

    Repeated with other actions, an environment in which any action had any visible effect shows something else.
    """
    if case.first.error or case.again.error or case.other.error:
        raise CannotTell("the environment failed")
    wiring = "env.reset(seed=0); print([env.step(env.action_space.sample())[:2] for _ in range(3)])"
    if case.first.same(case.again):
        if case.first.same(case.other):
            text = f"{case.first.steps:,} steps with other actions and the same seed showed the same to the last bit"
            return Symptom("actions", text, 0.0, "at 0 differences", wiring, JONES, sure=True)
        dead = [i for i, part in enumerate(case.parts) if part.error is None and case.first.same(part)]
        if not dead:
            return None
        text = f"component {', '.join(map(str, dead))} of the action changed nothing in {case.first.steps:,} steps"
        return Symptom("actions", text, float(len(dead)), "from 1 component on", wiring, JONES)
    played = case.played()
    p = action_effect(played)
    if p is None or p <= LEVEL:
        return None
    text = "neither the next observation nor the reward depends on the action, as far as a permutation test can tell"
    return Symptom("actions", text, p, f"where its p-value is above its level, {LEVEL:g}", wiring, JONES)


def known_advice(case: EnvironmentCase) -> list[Symptom]:
    """What training warns of: see `policygrad.envs.advice`."""
    envs = SerialVectorEnv([case.make])
    try:
        pictures = len(envs.single_observation_space.shape or ()) == 3  # which go through convolutions, scaled
        scaled = pictures or case.config.get("normalize_obs") or case.config.get("network", "auto") != "auto"
        found = [
            normalized(envs),
            far_bounds(envs.single_action_space) if case.config.get("head") == "gaussian" else None,
            None if scaled else unscaled_pictures(envs.single_observation_space),
        ]
    finally:
        envs.close()
    rescale = "gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)"
    tries = ("leave the wrapper out", case.train("--head squashed", rescale), case.train("--normalize-obs", RESCALE))
    return [
        Symptom("spaces", text, 1.0, "at 1 warning", advice, "policygrad.envs.advice")
        for text, advice in zip(found, tries, strict=True)
        if text is not None
    ]


def bounds(case: EnvironmentCase) -> Symptom | None:
    """Observations are inside of their space."""
    share = case.played().outside
    if share <= OUTSIDE:
        return None
    text = f"{share:.0%} of the observations are outside of the observation space"
    advice = "give the space the bounds that hold, or -numpy.inf and numpy.inf"
    return Symptom("bounds", text, share, f"above {OUTSIDE:g}", advice, GYMNASIUM)


def numeric(case: EnvironmentCase) -> np.ndarray:
    """The observations' features that are numbers and no choices (M, D)."""
    played = case.played()
    if played.choices.all():
        raise CannotTell("observations are choices")
    return played.obs[:, ~played.choices].astype(float)


def constant_observations(case: EnvironmentCase) -> Symptom | None:
    """Some number of the observation changes; that a few never do is common."""
    std = numeric(case).std(0)
    if std.max() > 0.0 or not case.played().choices.size:
        return None
    text = f"all {std.size} numbers of the observation are constant: the policy sees nothing"
    advice = "env.reset(seed=0); print(env.step(env.action_space.sample())[0])"
    return Symptom(
        "constant observations", text, 0.0, "at 0 that change", advice, SCHULMAN, sure=not case.played().choices.any()
    )


def observation_scale(case: EnvironmentCase) -> Symptom | None:
    """The numbers of the observation are about 1 in size, or are normalised."""
    if case.config.get("normalize_obs"):
        raise CannotTell("observations are normalised")
    x = numeric(case)
    if isinstance(x, np.ndarray) and x.shape[1] >= 256:
        raise CannotTell("observations have so many numbers that they are pictures")
    mean, std = np.abs(x.mean(0)), x.std(0)
    off = (std > 0.0) & ((mean > FAR_MEAN) | (std < SMALL_STD) | (std > LARGE_STD))
    if not off.any():
        return None
    extent = np.where(std < SMALL_STD, 1.0 / np.maximum(std, 1e-12), np.maximum(std, mean))
    worst = int(np.argmax(np.where(off, extent, -1.0)))
    number = float(std[worst]) if not SMALL_STD <= std[worst] <= LARGE_STD else float(mean[worst])
    text = (
        f"{int(off.sum())} of {x.shape[1]} numbers of the observation are not about 1 in size; number {worst} has mean "
    )
    text += f"{x[:, worst].mean():.3g} and standard deviation {std[worst]:.3g}"
    limits = f"for a mean beyond ±{FAR_MEAN:g} or a standard deviation outside {SMALL_STD:g} to {LARGE_STD:g}"
    return Symptom("observation scale", text, number, limits, case.train("--normalize-obs", RESCALE), SCHULMAN)


def reward_scale(case: EnvironmentCase) -> Symptom | None:
    """Rewards are neither tiny nor huge. Harmless where advantages are standardised."""
    if case.algo is not None and case.config.get("standardize", "none") != "none":
        raise CannotTell(f"{case.algo} standardises advantages, so that the scale of rewards does not matter")
    rew = case.played().rew
    rew = rew[rew != 0.0]
    if not rew.size:
        return None
    size = float(np.sqrt(np.mean(rew**2)))
    if SMALL_REWARD <= size <= LARGE_REWARD:
        return None
    text = "rewards are far from 1 in size, which matters to algorithms that do not standardise advantages"
    advice = f"gymnasium.wrappers.TransformReward(env, lambda r: r / {float(f'{size:.1g}'):g})"
    limits = f"outside {SMALL_REWARD:g} to {LARGE_REWARD:g}, as the root mean square of the rewards that are not 0"
    return Symptom("reward scale", text, size, limits, advice, SCHULMAN)


def reward_outlier(case: EnvironmentCase) -> Symptom | None:
    """No single reward is as large as all others together."""
    size = np.abs(case.played().rew)
    if np.count_nonzero(size) < MANY_REWARDS:
        raise CannotTell(f"fewer than {MANY_REWARDS} rewards are not 0")
    share = float(size.max() / size.sum())
    if share <= OUTLIER:
        return None
    text = f"one reward, {case.played().rew[size.argmax()]:.4g}, is larger than the other {size.size - 1:,} together"
    advice = "gymnasium.wrappers.TransformReward(env, lambda r: max(-10.0, min(r, 10.0)))"
    return Symptom("reward outlier", text, share, f"above {OUTLIER:g} of Σ|r|", advice, SCHULMAN)


def no_end(case: EnvironmentCase) -> Symptom | None:
    """Episodes end."""
    played = case.played()
    if played.over.any():
        return None
    if played.steps < LONG:
        raise CannotTell(f"fewer than {LONG:,} steps were played")
    text = f"no episode ended in {played.steps:,} steps of random play, so that there is no return to judge by"
    advice = "gymnasium.wrappers.TimeLimit(env, max_episode_steps=1000)"
    return Symptom("no end", text, float(played.steps), f"from {LONG:,} steps on", advice, SCHULMAN)


def limit_as_end(case: EnvironmentCase) -> Symptom | None:
    """A time limit is `truncated`, or the observation shows the time."""
    played = case.played()
    lengths = played.lengths
    if len(lengths) < SAME_LENGTH:
        raise CannotTell(f"fewer than {SAME_LENGTH} episodes ended")
    if len(set(lengths.tolist())) > 1 or lengths[0] == 1 or played.truncated.any() or shows_time(played):
        return None
    text = f"all {len(lengths)} episodes are terminated after {lengths[0]} steps, and no observation shows the time: if that "
    text += "is a limit and no part of the task, the value of what would follow is lost"
    advice = f"return truncated = True there, e.g. by gymnasium.wrappers.TimeLimit(env, {lengths[0]})"
    limits = f"from {SAME_LENGTH} episodes on"
    return Symptom(
        "time limit as an end", text, float(len(lengths)), limits, advice, "Pardo et al. 2018, Time limits in RL"
    )


def reachable_reward(case: EnvironmentCase) -> Symptom | None:
    """Random play has returns of different sizes: the first policy is about random, and learns from differences."""
    played = case.played()
    advice = f"policygrad.PotentialShaping, or {case.train('--ent-coef 0.01', 'a start that is nearer to the goal')}"
    if not played.rew.any():
        text = f"every reward of {played.steps:,} steps of random play is 0: there is nothing to learn from"
        return Symptom("reachable reward", text, 0.0, "at 0 rewards", advice, SCHULMAN)
    returns = np.round(played.returns, 6)
    if len(returns) == 0:
        raise CannotTell("no episode ended")
    values, counts = np.unique(returns, return_counts=True)
    commonest = values[counts.argmax()]
    if counts.max() < len(returns) / 2:
        return None
    above = int((returns > commonest).sum())
    if above >= RARE * len(returns):
        return None
    if not few_above(above, len(returns), RARE):
        raise CannotTell(f"{len(returns)} episodes are too few to tell: give more steps")
    text = f"{above} of {len(returns)} random episodes have a return above the commonest one, {commonest:g}"
    return Symptom("reachable reward", text, above / len(returns), f"below {RARE:g}", advice, SCHULMAN)


def horizon(case: EnvironmentCase) -> Symptom | None:
    """γ lets the policy see the rewards: γᵗ is not about 0 where the earliest informative one comes, at step t."""
    gamma, played = case.config.get("gamma"), case.played()
    if not isinstance(gamma, float) or gamma >= 1.0:
        raise CannotTell("nothing is discounted")
    values, counts = np.unique(played.rew, return_counts=True)
    informative = played.rew != values[counts.argmax()]
    if not informative.any() or counts.max() < played.steps / 2:
        return None
    episode = np.cumsum(np.concatenate([[0], played.over[:-1]]))[informative]
    first = np.unique(episode, return_index=True)[1]
    if len(first) < REWARDED:
        raise CannotTell(f"fewer than {REWARDED} episodes have an informative reward")
    earliest = int(played.time[informative][first].min())
    weight = gamma**earliest
    if weight >= WEIGHT:
        return None
    text = f"no informative reward comes before step {earliest:,}, where γ = {gamma:g} leaves γᵗ = {weight:.2g} of it; "
    text += f"1/(1 − γ) is {1 / (1 - gamma):.0f} steps"
    enough = f"{1 - 1 / earliest:.5f}".rstrip("0")
    advice = case.train(f"--gamma {enough}", f"a discount of {enough}")
    return Symptom("horizon", text, weight, f"below {WEIGHT:g}", advice, SCHULMAN)


def memory(case: EnvironmentCase) -> Symptom | None:
    """The present observation is enough: the past does not predict what follows much better."""
    played = case.played()
    without, with_past, what = past_helps(played)
    if what is None:
        return None
    text = f"the observation and action leave {without:.0%} of the next {what} unexplained, and with those of the step before "
    text += f"and the first observation {with_past:.0%}: something that matters is hidden"
    advice = case.train("--memory gru", "gymnasium.wrappers.FrameStackObservation(env, 4)")
    limits = f"below {LEFT:g}, where at least {UNEXPLAINED:g} is unexplained"
    return Symptom("memory", text, with_past / without, limits, advice, "kernel regression")


RULES = [
    SymptomRule(
        "contract",
        contract,
        "what training refuses, too: wrong shape or type, a number that is not finite, an exception",
        "yes",
    ),
    SymptomRule("seeds", seeds, "another first observation after the same `reset(seed=0)`", "yes"),
    SymptomRule("determinism", determinism, "another observation, reward or end after the same seed and actions"),
    SymptomRule(
        "actions",
        actions,
        f"other actions change nothing, to the last bit; one component changes nothing in {SHORT:,} steps; or, if not "
        f"repeatable, p > {LEVEL:g} in a permutation test",
        "the first",
    ),
    SymptomRule("spaces", known_advice, "far bounds of Gaussian actions, unscaled bytes, wrappers that standardise"),
    SymptomRule("bounds", bounds, f"over {percent(OUTSIDE)}* of observations outside their space"),
    SymptomRule(
        "constant observations", constant_observations, "no number changes", "yes, unless a part is a choice (Discrete)"
    ),
    SymptomRule(
        "observation scale",
        observation_scale,
        f"unnormalised mean beyond ±{FAR_MEAN:g} or standard deviation outside {SMALL_STD:g} to {LARGE_STD:g}*",
    ),
    SymptomRule(
        "reward scale",
        reward_scale,
        f"root mean square of rewards other than 0 outside {SMALL_REWARD:g} to {LARGE_REWARD:,.0f}*",
    ),
    SymptomRule("reward outlier", reward_outlier, f"one reward above {percent(OUTLIER)}* of Σ|r|"),
    SymptomRule("no end", no_end, f"no episode ends in {LONG:,} steps*"),
    SymptomRule(
        "time limit as an end",
        limit_as_end,
        f"all episodes ({SAME_LENGTH}* or more) terminate after equally many steps, and no observation shows the time",
    ),
    SymptomRule(
        "reachable reward",
        reachable_reward,
        f"rewards all 0, or significantly fewer than {percent(RARE)} of random episodes above the commonest return",
    ),
    SymptomRule(
        "horizon",
        horizon,
        f"γᵗ < {WEIGHT:g}* for the earliest unusual reward's step t, over {REWARDED}* or more episodes with one",
    ),
    SymptomRule(
        "memory",
        memory,
        f"the past leaves under {percent(LEFT)} of what the present leaves unexplained, if over {percent(UNEXPLAINED)}*",
    ),
]
