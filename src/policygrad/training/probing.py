"""The library's probes as a test of an algorithm: is the learner fine, so that the environment or its settings are to blame?

Five tasks of one or two steps, `TASKS`, each of which needs one part more than the one before (Jones 2019).

The algorithm trains in each until the answer is right and stays so for as long again, for `ITERATIONS` iterations at most. The
answers hold for γ = ½.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from policygrad.algorithms.config import find_recipe, resolve
from policygrad.algorithms.recipe import Recipe
from policygrad.algorithms.recipes import RECIPES
from policygrad.data import Row
from policygrad.diagnosis.symptoms import CannotTell, Diagnosis, Symptom, SymptomRule, examine
from policygrad.envs.probes import ActionReward, ConstantReward, MatchObservation, ObservedReward, Probe, TwoSteps
from policygrad.reports.columns import num
from policygrad.stored.directory import RunDirectory
from policygrad.training.agent import Agent
from policygrad.training.values import NoValueError

ITERATIONS = 200
STAYS = 10  # iterations, and as many as there were before, for which an answer is to stay right: values pass by it, too
ERROR = 0.1  # of V
PROBABILITY = 0.9  # of the best action
JONES = "Jones 2019, Debugging RL"
BATCH = {"num_envs": 8, "num_steps": 32, "episodes": 64, "warmup": 200, "minibatches": 1}
OF_THE_TASK = {  # which the probes have their own of
    *("steps", "gamma", "num_envs", "num_steps", "episodes", "minibatches", "warmup", "gradient_steps", "mask_source"),
    *("network", "head", "std", "log_std", "noise_autocorrelation"),
}
STEPS = 2  # of an episode, at most
FEWEST = 4_000
REPLAYED = 4_000  # steps of algorithms that learn from replayed ones


@dataclass(frozen=True)
class Asked:
    """A probe. values: whether its values are asked for, and otherwise its best actions. broken: what is, where it fails.

    answer: what is asked for.
    """

    name: str
    task: type[Probe]
    values: bool
    broken: str
    answer: str


TASKS = (
    Asked("probe of value", ConstantReward, True, "the critic does not fit a constant", "V = 1"),
    Asked("probe of observation", ObservedReward, True, "observations do not reach the critic", "V(s) = s"),
    Asked(
        "probe of discount",
        TwoSteps,
        True,
        "rewards are not discounted, or not carried from step to step",
        "V(s₀) = ½ and V(s₁) = 1, for γ = ½",
    ),
    Asked(
        "probe of action",
        ActionReward,
        False,
        "the policy gradient has the wrong sign, or is too small",
        f"π(1) ≥ {PROBABILITY:g}*",
    ),
    Asked(
        "probe of both",
        MatchObservation,
        False,
        "actions do not depend on observations, or belong to other ones",
        f"π(s given s) ≥ {PROBABILITY:g}*",
    ),
)


class Pushed(gym.ActionWrapper):
    """The two actions as the sign of a continuous one."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(-1.0, 1.0, (1,))

    def action(self, action: Any) -> int:
        """1 for a positive action."""
        return int(action[0] > 0.0)


def probe(algo: Any, settings: Mapping[str, Any] | None = None, *, seed: int = 0) -> Diagnosis:
    """Whether an algorithm learns what the smallest tasks ask for: `print(probe("ppo"))` takes some seconds.

    algo: its name, or a recipe. settings: its keywords; γ, the number of environments, the steps and the size of a batch are
    the probes' own. A symptom names the first part that does not work. What an algorithm does not learn, such as values without
    a critic, is not looked at. Raises ConfigError for settings that the algorithm does not have.
    """
    recipe = find_recipe(algo)
    given = {**(settings or {})}
    rules = [SymptomRule(each.name, partial(_examine, recipe, given, seed, each)) for each in TASKS]
    return examine(f"{recipe.name}: five probes, whose answers are known", rules, [])


def probe_run(run: RunDirectory) -> Diagnosis:
    """The same of the algorithm of a run, with its settings; of a recipe that is not of the package nothing is tried."""
    told = run.config()
    if told["algo"] not in RECIPES:
        why = "the recipe is not of the package: policygrad.probe(recipe) tries it"
        return Diagnosis(str(run.path), silent={asked.name: why for asked in TASKS})
    return probe(told["algo"], changed_settings(told["algo"], told["config"]), seed=told["seed"])


def changed_settings(algo: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration differs from the defaults, without what belongs to an environment."""
    usual = resolve(algo, "", {}, {})[0]
    plain = lambda x: list(x) if isinstance(x, tuple) else x  # noqa: E731
    return {k: x for k, x in config.items() if k in usual and k not in OF_THE_TASK and plain(x) != plain(usual[k])}


def _examine(recipe: Recipe, settings: Mapping[str, Any], seed: int, asked: Asked, failed: list[str]) -> Symptom | None:
    """Train in a probe until the answer is right and stays so, and say how wrong it is in the end. failed: earlier probes."""
    if failed:
        raise CannotTell(f"the {failed[0]} fails already")
    agent = agent_for(recipe, settings, seed, asked.task)
    answer = value_error if asked.values else least_probability
    right = (lambda x: x <= ERROR) if asked.values else (lambda x: x >= PROBABILITY)
    count = since = 0

    def enough(agent: Agent, row: Row | None) -> bool | None:
        nonlocal count, since
        count += 1
        since = since if right(answer(agent, asked.task)) else count
        return False if count >= 2 * since + STAYS else None

    answer(agent, asked.task)  # raises CannotTell where there is none
    agent.learn(agent.config["steps"], enough)
    number = answer(agent, asked.task)
    if right(number):
        return None
    failed.append(asked.name)
    what = "V is wrong by" if asked.values else "the best action has probability"
    text = f"after {agent.collector.steps_done:,} steps in {asked.task.__name__} {what} {num(number)}: {asked.broken}"
    limits = f"above {ERROR:g}" if asked.values else f"below {PROBABILITY:g}"
    advice = f"policygrad train {recipe.name} policygrad.envs.probes:{asked.task.__name__}"
    return Symptom(asked.name, text, number, limits, advice, JONES)


def agent_for(recipe: Recipe, settings: Mapping[str, Any], seed: int, task: type[Probe]) -> Agent:
    """The algorithm on a probe, with these settings and small batches."""
    known = {**resolve(recipe, "", {})[0], **settings}
    small = {name: value for name, value in BATCH.items() if known.get(name) is not None}
    replayed = "buffer_size" in known
    batch = 1 if replayed else small.get("num_envs", 1) * (recipe.spec.num_steps or small.get("num_steps") or 1)
    if "episodes" in small:
        batch = STEPS * small["episodes"]
    small |= {"num_envs": 1, "num_steps": 1, "gradient_steps": None} if replayed else {}
    steps = REPLAYED if replayed else max(ITERATIONS * batch, FEWEST)
    small = {name: value for name, value in (small | {"gamma": task.gamma}).items() if name in known}
    wrappers = [Pushed] if recipe.spec.gradient == "pathwise" else None
    return Agent(recipe, task, seed=seed, preset={}, wrappers=wrappers, **{**settings, **small, "steps": steps})


def value_error(agent: Agent, task: type[Probe]) -> float:
    """The largest |V(s) − answer| of a probe. Raises CannotTell where no values are learned."""
    try:
        return max(abs(float(agent.value(np.array([obs], np.float32))) - value) for obs, value in task.values)
    except NoValueError:
        raise CannotTell("the algorithm learns no values") from None


def least_probability(agent: Agent, task: type[Probe]) -> float:
    """The least probability of a best action in a probe; of a policy without a density, whether its greedy actions are best."""
    found = []
    for obs, best in task.best:
        given = np.array([obs], np.float32)
        try:
            found.append(math.exp(float(agent.log_prob(given, best))))
        except NoValueError:
            act = agent.predict(given, deterministic=True)[0]
            found.append(float((float(act[0]) > 0.0 if np.ndim(act) else int(act)) == best))
    return min(found)
