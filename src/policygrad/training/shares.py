"""What each process of a data-parallel learner has of it: its environments, and what cannot be divided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.simulated import SimulatedLearner
from policygrad.envs.collector import Collector
from policygrad.envs.columns import quotas
from policygrad.envs.single import EnvLike
from policygrad.training.ranks import Ranks


@contextmanager
def sharing(ranks: Ranks | None) -> Iterator[None]:
    """In this context sums over a batch go over all ranks, where there are several."""
    if ranks is None:
        yield
        return
    with ranks.sharing():
        yield


def place(ranks: Ranks | None, num_envs: int, rank: int | None = None) -> tuple[int, int]:
    """Which of all environments are this rank's, or another's: the number of the first, and of the one after the last."""
    if ranks is None:
        return 0, num_envs
    rank = ranks.rank if rank is None else rank
    return num_envs * rank // ranks.size, num_envs * (rank + 1) // ranks.size


def check_divides(ranks: Ranks | None, env: EnvLike, config: Mapping[str, Any]) -> None:
    """Raises ConfigError where there are no environments for every rank."""
    if ranks is None:
        return
    if isinstance(env, gym.Env | VectorEnv):
        raise ConfigError(
            f"each of the {ranks.size} processes makes its own environments: give an id, or a callable that makes one, in "
            "place of an environment"
        )
    num_envs, episodes = config["num_envs"], config.get("episodes")
    if num_envs < ranks.size:
        raise ConfigError(
            f"num_envs = {num_envs} cannot be divided among {ranks.size} processes: it is the number of all environments "
            f"together, so give num_envs = {ranks.size} or more"
        )
    if isinstance(episodes, int):
        first, stop = place(ranks, num_envs, ranks.size - 1)
        if not quotas(episodes, first, num_envs, stop - first).any():
            raise ConfigError(
                f"episodes = {episodes} leaves one of the {ranks.size} processes without an episode, as each of the "
                f"{num_envs} environments plays its own: give episodes = {num_envs}, or fewer processes"
            )


def refuse_undivided(agent: Any) -> None:
    """Raises ConfigError for what a data-parallel learner cannot do, and says what can be done instead."""
    if agent.ranks is None:
        return
    learner, plan, why = agent.learner, agent.plan, None
    if agent.dataset is not None:
        why = "it learns from a dataset, and only environments are divided: leave out dataset, or train in one process"
    elif plan.source is not None or isinstance(learner, SimulatedLearner):
        why = f"{agent.algo} has workers of its own: use a2c, or train in one process"
    elif not isinstance(agent.collector, Collector):
        why = f"backend = {agent.backend} keeps its environments on one device: take another backend"
    elif getattr(getattr(learner, "earlier", None), "most", 0):
        why = "earlier episodes are kept by one process: set replay_episodes = 0"
    elif agent.gradient_meter:
        why = "the gradient meter measures the batch of one process: leave gradient_meter off"
    if why is not None:
        agent.close()
        raise ConfigError(f"this cannot be divided among {agent.ranks.size} processes: {why}")
