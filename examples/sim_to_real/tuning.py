"""Fine-tuning a policy from simulation with a few episodes of reality, with and without a bound on the KL divergence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from physics import reality

import policygrad as pg
from policygrad.models.ascent import mean_kl

EPISODES, PER_UPDATE, LENGTH = 20, 2, 200  # episodes of reality, those of an update, steps of one
SETTINGS = {"max_kl": 0.01, "lr": 0.0003}  # lr: chosen by `experiment.py --choose`


def bounded(settings: Mapping[str, float], seed: int) -> pg.TrustRegion:
    """The surrogate of TRPO and PPO, ascended while mean KL(old ‖ new) ≤ max_kl."""
    return pg.TrustRegion(settings["max_kl"])


def unbounded(settings: Mapping[str, float], seed: int) -> pg.ClippedSurrogate:
    """The same surrogate, ascended by Adam for ten epochs, without a bound and without a clip."""
    return pg.ClippedSurrogate(settings["lr"], clip=float("inf"), epochs=10, minibatches=4, seed=seed)


RULES: dict[str, Callable[[Mapping[str, float], int], Any]] = {"KL bound": bounded, "no bound": unbounded}
SIDES = ("untouched", *RULES)


def going_on(simulated: pg.Agent, side: str, settings: Mapping[str, float]) -> Callable[[pg.Task], pg.Plan]:
    """The recipe that goes on with policy and critic of an agent, by another update rule."""

    def recipe(task: pg.Task) -> pg.Plan:
        policy, critic = deepcopy(simulated.policy), deepcopy(simulated.learner.critic)
        gae = pg.Standardized(pg.GAE(gamma=0.95, lam=0.9))  # as in simulation
        learner = pg.Learner(policy, gae, RULES[side](settings, task.seed), critic=critic)
        return pg.Plan(learner, episodes=PER_UPDATE, compile_from=None)

    return recipe


class Divergence:
    """A callback: exact mean KL from the policy before each update, and from the simulation's, on the states of the update."""

    def __init__(self, agent: pg.Agent, simulation: pg.Policy) -> None:
        self.simulation, self.policy = simulation, agent.policy
        self.per_update: list[float] = []
        self.total: list[float] = []
        agent.learner.observers.append(self.before)

    def before(self, rollout: pg.Rollout) -> None:
        self.batch = pg.Batch.of(rollout.valid(rollout.obs[:-1]), rollout.valid(rollout.act))
        self.old = self.policy.distributions(self.batch)

    def __call__(self, agent: pg.Agent, row: Any) -> None:
        self.per_update.append(mean_kl(self.policy, self.old, self.batch))
        self.total.append(mean_kl(self.policy, self.simulation.distributions(self.batch), self.batch))


def tune(
    simulated: pg.Agent,
    side: str,
    world: str,
    seed: int,
    settings: Mapping[str, float] = SETTINGS,
    episodes: int = EPISODES,
    evaluated: int = 25,
) -> dict[str, Any]:
    """Fine-tune a copy of the agent's policy in a reality, or with "untouched" only evaluate it. Returns numbers as data.

    after: mean return of the greedy policy. returns: of all episodes of fine-tuning, in their order, with sampled actions.
    worst: the lowest of them from the first update on, as before it the simulation's policy plays with either rule.
    kl_update: the largest mean KL(old ‖ new) of an update. kl_total: from the simulation's policy to the last one, on the
    states of the last update. The simulated agent is left as it was. Raises ValueError for fewer episodes than those of two
    updates.
    """
    if episodes < 2 * PER_UPDATE:
        raise ValueError(f"episodes must be at least {2 * PER_UPDATE}, some of them after an update, got {episodes}")
    if side == "untouched":
        return {"after": round(simulated.evaluate(evaluated, env=partial(reality, world)).mean, 2)}
    with pg.Agent(going_on(simulated, side, settings), partial(reality, world), seed=seed, num_envs=1) as agent:
        divergence = Divergence(agent, simulated.policy)
        agent.learn(episodes * LENGTH, divergence)
        returns = [round(float(x), 2) for x in agent.collector.returns]
        after = agent.evaluate(evaluated, env=partial(reality, world)).mean
    return {
        "after": round(after, 2),
        "worst": min(returns[PER_UPDATE:]),
        "returns": returns,
        "kl_update": round(max(divergence.per_update), 5),
        "kl_total": round(divergence.total[-1], 5),
    }
