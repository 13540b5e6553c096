"""What users of an agent ask it: actions, values, evaluations, and the numbers that Stable-Baselines3's models have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from policygrad.algorithms import foreign
from policygrad.algorithms.config import Option, aliases, check
from policygrad.envs.checks import singles
from policygrad.envs.collector import Collector
from policygrad.envs.naming import registered_task
from policygrad.envs.single import EnvLike
from policygrad.envs.twin import twin
from policygrad.models.flat import FlatModule
from policygrad.stored.trajectories import Trajectories, collect
from policygrad.training import values
from policygrad.training.evaluate import EVALUATION_SEED, Evaluation, Told, evaluate
from policygrad.training.kept import Kept, renew
from policygrad.training.predicting import predict
from policygrad.training.threads import Turns, single_thread, threads_for

COLLECT_SEED = 20_000  # of the episodes that `collect` plays, neither training's nor an evaluation's
EPISODES = Option(low=1, high=10**7)  # of an evaluation


class Face(Kept):
    """The part of an `Agent` that looks at what was learned. Nothing here trains."""

    lent: bool
    _turns: Turns

    @property
    def observation_space(self) -> spaces.Space:
        """Of one environment."""
        return self.envs.single_observation_space

    @property
    def action_space(self) -> spaces.Space:
        """Of one environment."""
        return self.envs.single_action_space

    @property
    def num_timesteps(self) -> int:
        """Environment steps learned from so far, in all calls of `learn`: the name that Stable-Baselines3 has for it."""
        return self.collector.steps_done

    @property
    def steps_done(self) -> int:
        """The same, by our own name."""
        return self.collector.steps_done

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise foreign.ForeignWordError(f"an Agent is not called: {foreign.ACT}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses hyperparameters, which are given to `change`: an attribute of their name would do nothing."""
        config = self.__dict__.get("config")
        if (
            config is not None
            and "recipe" in self.__dict__
            and name not in self.__dict__
            and not hasattr(type(self), name)
        ):
            known = aliases(self.recipe).get(name, name)
            if known in config:
                raise AttributeError(f"setting {name} would change nothing: use agent.change({known}={value!r})")
        object.__setattr__(self, name, value)

    def _repr_html_(self) -> str:
        from policygrad.training.notebooks import agent_html

        return agent_html(self)

    def __getattr__(self, name: str) -> Any:
        instead = foreign.ATTRIBUTES.get(name)
        text = f"an Agent has no {name!r}" + (f": {instead}" if instead else "")
        raise AttributeError(text, name=name, obj=self)

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:
        """Actions for one observation or a batch, ready for `env.step`, and the state for the next call, of an agent with a
        memory; of others it is None. See `predicting.predict`.

        action_masks: for an agent that learned with mask_source = info. Raises ValueError for what is no observation,
        NotFiniteError for one with numbers that are not finite.
        """
        given = self.observation_space, self.action_space, obs
        with self._turns:
            if isinstance(self.policy, FlatModule):
                self.policy.renew()
            return predict(self.policy, *given, self.rng, deterministic, action_masks, state, episode_start)

    def value(self, obs: Any, action_masks: Any = None) -> Any:
        """V of one observation, a number, or of a batch, (B,), in units of the return: see `values.value`.

        Raises NoValueError for an agent without a critic, or with an untrained one as it was loaded from a file of the policy
        alone, and what `predict` raises.
        """
        with self._turns, single_thread():
            renew(self.learner)
            return values.value(self.learner, self.observation_space, obs, action_masks, self.policy_only)

    def log_prob(self, obs: Any, act: Any, action_masks: Any = None) -> Any:
        """Log π(a|s) of one observation and action, a number, or of a batch, (B,); act: as `predict` returns it.

        Of Box actions it is a density, see `values.log_prob`. Raises NoValueError for a deterministic policy.
        """
        with self._turns, single_thread():
            renew(self.learner)
            return values.log_prob(self.learner, self.observation_space, self.action_space, obs, act, action_masks)

    def evaluate(
        self,
        episodes: int = 100,
        greedy: bool = True,
        seed: int = EVALUATION_SEED,
        env: EnvLike | None = None,
        progress: Told | None = None,
        return_range: tuple[float, float] | None = None,
        **others: Any,
    ) -> Evaluation:
        """Returns of whole episodes on fixed seeds. env: another environment to play in; a vector environment plays its own.

        return_range: the lowest and the highest return that an episode can plausibly have, for the interval of the mean: by
        default `self.return_range`, those of all episodes that the agent was trained on, which its files keep.

        progress(done, episodes) is called whenever an episode has ended. Where env is the one that is trained in, training
        begins new episodes afterwards.
        """
        if others:
            foreign.refuse_keyword("evaluate", others)
        episodes, seed = check("episodes", int, episodes, EPISODES), check("seed", int, seed)
        env = self.evaluation_env() if env is None else env
        with self._turns, self._playing(env):
            renew(self.learner)
            same = self.backend if env is self.env and self.backend == "compiled" else "gymnasium"
            said: Any = {"progress": progress, "backend": same, "return_range": return_range}
            return evaluate(self, env, episodes, greedy, seed, **said)

    def collect(self, episodes: int = 100, seed: int = COLLECT_SEED, env: EnvLike | None = None) -> Trajectories:
        """Play whole episodes with sampled actions, for other policies to learn from; `.save(path)` then saves them."""
        episodes, seed = check("episodes", int, episodes, EPISODES), check("seed", int, seed)
        env = self.evaluation_env() if env is None else env
        with self._turns, self._playing(env):
            renew(self.learner)
            return collect(self.policy, env, episodes, seed, 1 if isinstance(env, gym.Env) else 8, self.env_name)

    def _forget(self) -> None:
        if isinstance(self.collector, Collector):
            self.collector.forget()

    @contextmanager
    def _playing(self, env: EnvLike) -> Iterator[None]:
        """Others are played in this environment; if it is the training's own, that begins anew."""
        try:
            with single_thread(threads_for(self.policy)):
                yield
        finally:
            if isinstance(env, gym.Env):
                moved = any(env.unwrapped is each.unwrapped for each in singles(self.envs))
            else:
                moved = isinstance(env, VectorEnv) and env.unwrapped is self.envs.unwrapped
            if moved:
                self._forget()

    def evaluation_env(self, keyword: str = "env") -> EnvLike:
        """The environment of `evaluate` by default: the id or callable, or an environment like the given one.

        Of a vector environment it is the id of the environments inside, where they are exactly what the id makes. keyword: the
        caller's, by which another one is passed. Raises ValueError for other vector environments.
        """
        if isinstance(self.env, VectorEnv):
            task = registered_task(self.env)
            if task is not None:
                return task
            raise ValueError(
                f"this agent was made from a vector environment: pass {keyword}=, an id or a callable, to evaluate in"
            )
        return twin(self.env) if isinstance(self.env, gym.Env) else self.env
