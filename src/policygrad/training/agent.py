"""The Agent: a recipe with its environments, in the shape that Stable-Baselines3 users' hands know."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from torch import nn

from policygrad.algorithms import foreign
from policygrad.algorithms.config import (
    Algo,
    ConfigError,
    Configuration,
    Option,
    Preset,
    changed,
    check,
    find_recipe,
    resolve,
)
from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.algorithms.task import Plan, Task
from policygrad.data import Record, Row, Stats
from policygrad.envs.advice import far_bounds, unscaled_pictures
from policygrad.envs.checks import check_vector, singles
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.envs.single import EnvLike, EnvMaker, Wrapper, check_env_id, env_name, with_words
from policygrad.envs.twin import twin
from policygrad.models.continuous import Gaussian
from policygrad.models.policy import Body
from policygrad.models.schedules import at
from policygrad.stored.minari import open_dataset
from policygrad.stored.replay import Replay
from policygrad.stored.storage import save_state, space_to_json, with_suffix
from policygrad.stored.trajectories import Trajectories, collect
from policygrad.streams import stream
from policygrad.training.callbacks import combine
from policygrad.training.evaluate import EVALUATION_SEED, Evaluation, Told, evaluate
from policygrad.training.lifetime import Lifetime
from policygrad.training.predicting import predict
from policygrad.training.sizes import check_sizes
from policygrad.training.threads import single_thread

Callback = Callable[["Agent", Row | None], bool | None]

COLLECT_SEED = 20_000  # of the episodes that `collect` plays, neither training's nor an evaluation's
LOG_EVERY = 2_000  # steps between rows of metrics: the diagnostics then cost a few per cent at most
EPISODES = Option(low=1, high=10**7)  # of an evaluation


class Agent(Lifetime):
    """A recipe on an environment: `learn`, `predict`, `evaluate`, `save`, `load`.

    algo: a recipe's name, or any function `(task, *, keywords) → Plan`, or the text `module:function` or `file.py:function`.
    env: an id, a callable, an environment, or a Gymnasium vector environment (any autoreset mode). Keywords override the
    preset and the recipe's defaults. preset: the environment's tuned one, where it has one; or the name of another
    environment, a TOML file, or a mapping, see `policygrad.algorithms.config.find_preset`. env_kwargs, wrappers: what an id or
    a callable is made with, and what is put around it, the innermost first; evaluations and videos use both. A wrapper is a
    function environment → environment, or the text `module:name` or `file.py:name`. body, critic_body: modules of your
    own, or functions observation space → module; a linear layer to actions, or to the value, is put after each. backend: who
    steps the environments, see `make_envs`. fisher_eigenvalues: how many of the largest Fisher eigenvalues every row of
    metrics has, as fisher_1, fisher_2, …; they cost some hundredths of a second a row and change nothing. gradient_meter:
    measure signal and noise of the gradient in every second row, see `policygrad.algorithms.meter`; it changes nothing.
    dataset: stored trajectories to learn from instead of playing, for off_policy_pg: `Trajectories`, a path, "minari:NAME".

    Agents can be copied and pickled, and closed: `with pg.ppo(env) as agent: …`. The environments of a copy are new ones,
    made as the agent's own were. `predict`, `evaluate` and `collect` may be called from many threads, which take turns.
    Raises ConfigError or ValueError for what cannot be, TypeError for unsupported spaces.
    """

    def __init__(
        self,
        algo: Algo,
        env: EnvLike,
        *,
        seed: int = 0,
        preset: Preset | None = None,
        env_kwargs: Mapping[str, object] | None = None,
        wrappers: Sequence[Wrapper] | None = None,
        body: Body | None = None,
        critic_body: Body | None = None,
        kernel: str = "auto",
        backend: str = "auto",
        fisher_eigenvalues: int = 0,
        gradient_meter: bool = False,
        dataset: Trajectories | str | Path | None = None,
        **overrides: Any,
    ) -> None:
        self.asked, self.recipe, self.seed = algo, find_recipe(algo), int(check("seed", int, seed))
        self.algo = self.recipe.name
        if isinstance(env, str):
            check_env_id(env)
        elif not isinstance(env, gym.Env | VectorEnv) and not callable(env):
            raise TypeError(f"env must be an id, an environment or a callable, got {env!r}")
        self.env = with_words(env, env_kwargs, wrappers)
        overrides = _with_num_envs(env, overrides)
        self.env_name = env_name(self.env)
        self.lent = isinstance(env, gym.Env | VectorEnv)  # somebody else holds the environment, too
        config, self.tuned = resolve(self.recipe, self.env_name, overrides, preset)
        self.config = Configuration(config)
        self.backend = resolve_backend(self.env, backend)
        self.envs = make_envs(self.env, self.config["num_envs"], self.backend)
        self.kernel = kernel
        self.custom = body is not None or critic_body is not None
        self.closed = False
        try:
            check_sizes(self.config, self.envs, self.custom)
            self.plan = self._plan(self.config, body, critic_body)
        except BaseException:  # nobody will have the agent, to close it
            self.close()
            raise
        self.learner = self.plan.learner
        self.fisher_eigenvalues = int(check("fisher_eigenvalues", int, fisher_eigenvalues))
        self.gradient_meter = bool(check("gradient_meter", bool, gradient_meter))
        self.policy = self.learner.policy
        self.dataset = None if dataset is None else str(dataset)
        self.collector: Collector | Replay = self._collector() if dataset is None else self._replay(dataset)
        self.rng = np.random.default_rng(stream(self.seed, "prediction"))
        self._begin()
        for advice in self._advice(body is not None):
            warnings.warn(advice, stacklevel=2)

    def _collector(self) -> Collector:
        """Who plays, knowing whether somebody else holds the environment; `lambda: env` may hand out one that is held."""
        held = self.lent or (callable(self.env) and self.envs.num_envs == 1)
        return Collector(self.envs, self.seed, lent=held)

    def _advice(self, own_body: bool) -> list[str]:
        """What is likely to go wrong with these spaces and this policy."""
        head, found = getattr(self.policy, "head", None), []
        if type(head) is Gaussian:
            found.append(far_bounds(self.envs.single_action_space, math.exp(self.config.get("log_std", 0.0))))
        if not own_body and getattr(self.policy, "normalizer", self) is None:
            found.append(unscaled_pictures(self.envs.single_observation_space))
        return [text for text in found if text is not None]

    def _plan(self, config: Mapping[str, Any], body: Body | None = None, critic_body: Body | None = None) -> Plan:
        """What the recipe makes of the task and a configuration."""
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        critic_body = critic_body if critic_body is not None or isinstance(body, nn.Module) else body
        task = Task(*spaces, self.seed, body, critic_body, self.kernel)
        with single_thread():  # the initial weights' last bits would depend on their number
            plan = self.recipe(task, **{k: v for k, v in config.items() if k != "steps"})
        if not isinstance(plan, Plan):
            raise TypeError(f"{self.algo} must return a Plan, got {type(plan).__name__}")
        return plan

    def _replay(self, dataset: Trajectories | str | Path) -> Replay:
        """Who draws stored trajectories, if the recipe weighs them and the policy is one for them."""
        if not self.recipe.spec.dataset:
            raise ConfigError(
                f"{self.algo} learns from episodes of its own policy; only off_policy_pg learns from a dataset"
            )
        trajectories = dataset if isinstance(dataset, Trajectories) else open_dataset(dataset, self.policy)
        trajectories.check(self.policy, self.envs.single_observation_space, self.envs.single_action_space)
        with single_thread():
            return Replay(trajectories, self.policy, self.seed, self.plan.clone_epochs)

    def __repr__(self) -> str:
        return f"{self.algo}({self.env_name!r}, seed={self.seed}, steps_done={self.collector.steps_done})"

    def learn(
        self,
        steps: int | None = None,
        callback: Callback | Sequence[Callback] | None = None,
        log_every: int = LOG_EVERY,
        *,
        horizon: int | None = None,
        total_timesteps: int | None = None,
        **others: Any,
    ) -> Agent:
        """Train for `steps` environment steps (default: the configuration's): whole iterations, as many as fit, at least one.

        Of iterations of whole episodes it is the last one's length that says whether another fits.
        horizon: how many steps the schedules run for, where `learn` is called several times for one training: two calls of
        n steps with horizon = 2n are one of 2n, where n steps are whole iterations.
        callback(agent, row) is called once an iteration, with a row of metrics every `log_every` steps and None between;
        returning False stops; of several all are called, in order (see `policygrad.training.callbacks`). Calling `learn` again
        goes on where it stopped, with schedules starting anew. An exception, Ctrl-C too, leaves the agent at its last whole
        iteration if it came while episodes were played: `learn` then goes on from there. An environment object of yours is
        reset first, because you may have moved it meanwhile; the episode that was open is then not counted. Raises BusyError
        for an agent that is closed, or that learns in another thread.
        """
        if others:
            foreign.refuse("learn", others)
        steps = total_timesteps if steps is None else steps  # the name that Stable-Baselines3 has for it
        total = self.config["steps"] if steps is None else check("steps", int, steps)
        if horizon is not None:
            horizon = check("steps", int, horizon)
            if horizon < total:
                raise ConfigError(f"horizon = {horizon}, but this call alone takes {total} steps")
        with self._learning():
            if self.lent:
                self._forget()
            self.trainer.begin(total, horizon)
            call = combine(callback, self)
            self.trainer.run(log_every, None if call is None else lambda row: call(self, row))
        return self

    def go_on(self, callback: Callback | Sequence[Callback] | None = None, log_every: int = LOG_EVERY) -> Agent:
        """Take the rest of the steps of the last `learn`, where that was interrupted, in this process or before `load`: to the
        last bit as if it had not been. Nothing is left to do where it was not.
        """
        call = combine(callback, self)
        with self._learning():
            self.trainer.run(log_every, None if call is None else lambda row: call(self, row))
        return self

    def _step(self, record: Record, progress: float, diagnose: bool, meter: bool) -> Stats:
        """The learner's step, with diagnostics around it where they are due and the learner can be measured."""
        learner = self.learner
        if not diagnose or not hasattr(learner, "prepare"):
            return learner.step(record, progress)
        meter = meter and self.gradient_meter
        stats = diagnosed_step(learner, record, progress, meter=meter, eigenvalues=self.fisher_eigenvalues)
        lr = getattr(learner.update, "lr", None)
        return stats if lr is None else stats | {"lr": float(at(lr, progress))}

    def change(self, **overrides: Any) -> Agent:
        """Go on with other hyperparameters, as in `agent.change(lr=1e-4)`, from the next iteration on.

        The learner is made anew and takes over all that the old one has learned; `agent.policy` is another object then. Raises
        ConfigError for what cannot change any more, networks and environments, and leaves the agent as it was.
        """
        config = changed(self.recipe, self.config, overrides)
        if config | {"steps": 0} == self.config | {"steps": 0}:  # which no learner knows of
            self.config = Configuration(config)
            return self
        if self.custom:
            raise ConfigError(
                "an agent with a network of its own cannot change its configuration: save it, and give load what is to change"
            )
        if config["num_envs"] != self.config["num_envs"]:
            raise ConfigError("num_envs cannot change while an agent runs: save it, and load(path, num_envs=…)")
        with self._turns:
            plan = self._plan(config)
            try:
                plan.learner.load_state_dict(deepcopy(self.learner.state_dict()))
            except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
                raise ConfigError(
                    f"{', '.join(overrides)} cannot change in an agent that has learned: {error}"
                ) from error
            if hasattr(self.learner, "observers"):
                plan.learner.observers = self.learner.observers
            self.config, self.plan, self.learner = Configuration(config), plan, plan.learner
            self.policy = self.trainer.actor = plan.learner.policy
        return self

    def predict(self, obs: Any, deterministic: bool = False, action_masks: Any = None) -> tuple[np.ndarray, None]:
        """Actions for one observation or a batch, ready for `env.step`; the second value is None, as there is no state.

        action_masks: for an agent that learned with mask_source = info. An actor's state starts anew at each call. Raises
        ValueError for what is no observation, NotFiniteError for one with numbers that are not finite.
        """
        given = self.envs.single_observation_space, self.envs.single_action_space, obs
        with self._turns:
            return predict(self.policy, *given, self.rng, deterministic, action_masks), None

    def evaluate(
        self,
        episodes: int = 100,
        greedy: bool = True,
        seed: int = EVALUATION_SEED,
        env: EnvLike | None = None,
        progress: Told | None = None,
        **others: Any,
    ) -> Evaluation:
        """Returns of whole episodes on fixed seeds. env: another environment to play in; a vector environment plays its own.

        progress(done, episodes) is called whenever an episode has ended. Where env is the one that is trained in, training
        begins new episodes afterwards.
        """
        if others:
            foreign.refuse("evaluate", others)
        episodes, seed = check("episodes", int, episodes, EPISODES), check("seed", int, seed)
        env = self.evaluation_env() if env is None else env
        try:
            with self._turns, single_thread():
                return evaluate(self.policy, env, episodes, greedy, seed, progress=progress)
        finally:
            self._played(env)

    def collect(self, episodes: int = 100, seed: int = COLLECT_SEED, env: EnvLike | None = None) -> Trajectories:
        """Whole episodes of the policy as it is, its actions sampled, for others to learn from; `.save(path)` keeps them."""
        episodes, seed = check("episodes", int, episodes, EPISODES), check("seed", int, seed)
        env = self.evaluation_env() if env is None else env
        try:
            with self._turns, single_thread():
                return collect(self.policy, env, episodes, seed, 1 if isinstance(env, gym.Env) else 8, self.env_name)
        finally:
            self._played(env)

    def _forget(self) -> None:
        if isinstance(self.collector, Collector):
            self.collector.forget()

    def _played(self, env: EnvLike) -> None:
        """Others were played in this environment; if it is the training's own, that begins anew."""
        if isinstance(env, gym.Env):
            moved = any(env.unwrapped is each.unwrapped for each in singles(self.envs))
        else:
            moved = isinstance(env, VectorEnv) and env.unwrapped is self.envs.unwrapped
        if moved:
            self._forget()

    def evaluation_env(self) -> EnvLike:
        """What `evaluate` plays in by default: the id or callable, or an environment like the one given."""
        if isinstance(self.env, VectorEnv):
            raise ValueError(
                "this agent was made from a vector environment: pass env=, an id or a callable, to evaluate in"
            )
        return twin(self.env) if isinstance(self.env, gym.Env) else self.env

    def metadata(self) -> dict[str, Any]:
        """What a model file says of itself: enough to rebuild the agent, no times, no paths."""
        return {
            "algo": self.algo,
            "env": self.env_name,
            "seed": self.seed,
            "config": self.config,
            "custom": self.custom,
            "kernel": self.kernel,
            "backend": self.backend,
            "observation_space": space_to_json(self.envs.single_observation_space),
            "action_space": space_to_json(self.envs.single_action_space),
        } | self.env_words()

    def env_words(self) -> dict[str, Any]:
        """The keywords and wrappers of the environment, for files; nothing where there are none."""
        return self.env.words() if isinstance(self.env, EnvMaker) else {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the insides of the environments."""
        parts = {"learner": self.learner, "collector": self.collector, "trainer": self.trainer}
        return {name: part.state_dict() for name, part in parts.items()} | {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. A policy alone is enough to act."""
        if "collector" not in state:
            self.policy.load_state_dict(state["learner"]["policy"])
            self.collector.begun = True
            return
        self.learner.load_state_dict(state["learner"])
        self.collector.load_state_dict(state["collector"])
        if "trainer" in state:  # files of 0.4 have none
            self.trainer.load_state_dict(state["trainer"])
        self.rng.bit_generator.state = state["rng"]

    def save(self, path: str | Path) -> Path:
        """Write the agent, training state included, to one safetensors file; the suffix is added if missing."""
        path = with_suffix(path)
        save_state(path, self.state_dict(), self.metadata())
        return path

    def save_policy(self, path: str | Path) -> Path:
        """Write what acting needs and no more: weights and normaliser. Equal policies are equal bytes."""
        path = with_suffix(path)
        save_state(path, {"learner": {"policy": dict(self.policy.state_dict())}}, self.metadata())
        return path


def _with_num_envs(env: EnvLike, overrides: dict[str, Any]) -> dict[str, Any]:
    """An environment is one, and a vector environment brings its number."""
    given = {name for name in ("num_envs", "n_envs") if name in overrides}
    if isinstance(env, VectorEnv):
        check_vector(env)
        if any(overrides[name] != env.num_envs for name in given):
            raise ConfigError(f"num_envs = {overrides[given.pop()]}, but the vector environment has {env.num_envs}")
        return overrides if given else overrides | {"num_envs": env.num_envs}
    return overrides | {"num_envs": 1} if isinstance(env, gym.Env) and not given else overrides
