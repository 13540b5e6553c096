"""The Agent: a recipe with its environments, with methods as in Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
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
    check_dataset,
    check_measurements,
    find_recipe,
    resolve,
)
from policygrad.algorithms.devices import check_device, find_device
from policygrad.algorithms.diagnosed import measured_step
from policygrad.algorithms.task import Plan, Task
from policygrad.data import Record, Row, Stats
from policygrad.envs.adapters import to_arrays
from policygrad.envs.advice import advise
from policygrad.envs.checks import singles
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.envs.on_device import DeviceCollector
from policygrad.envs.single import EnvLike, Wrapper, check_env_id, env_name, with_words
from policygrad.envs.torch_envs import TorchVectorEnv
from policygrad.envs.twin import twin
from policygrad.errors import EnvError
from policygrad.models.policy import Body, Policy
from policygrad.stored.minari import open_dataset
from policygrad.stored.replay import Replay
from policygrad.stored.trajectories import Trajectories, collect
from policygrad.streams import stream
from policygrad.training.callbacks import combine
from policygrad.training.evaluate import EVALUATION_SEED, Evaluation, Told, evaluate
from policygrad.training.kept import Kept, unobserved
from policygrad.training.predicting import predict
from policygrad.training.sizes import advise_steps, check_sizes, with_num_envs
from policygrad.training.threads import BusyError, Turns, single_thread
from policygrad.training.trainer import Trainer

Callback = Callable[["Agent", Row | None], bool | None]

COLLECT_SEED = 20_000  # of the episodes that `collect` plays, neither training's nor an evaluation's
EPISODES = Option(low=1, high=10**7)  # of an evaluation


class Agent(Kept):
    """A recipe on an environment: `learn`, `predict`, `evaluate`, `save`, `load`.

    algo: a recipe's name, or any function `(task, *, keywords) → Plan`, or the text `module:function` or `file.py:function`.
    env: an id, a callable, an environment, or a Gymnasium vector environment (any autoreset mode). Keywords override the
    preset and the recipe's defaults. preset: the environment's tuned one, where it has one; or the name of another
    environment, a TOML file, or a mapping, see `policygrad.algorithms.config.find_preset`. env_kwargs, wrappers: what an id or
    a callable is made with, and what is put around it, the innermost first; evaluations and videos use both. A wrapper is a
    function environment → environment, or the text `module:name` or `file.py:name`. body, critic_body: modules of your
    own, or functions observation space → module; a linear layer to actions, or to the value, is put after each. device: where
    the networks are and learn, "cpu", "cuda", "cuda:1", or "auto", see `algorithms.devices`. backend: who steps the
    environments, see `make_envs`. fisher_eigenvalues: how many of the largest Fisher eigenvalues every row of
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
        device: str = "cpu",
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
        overrides = with_num_envs(env, overrides)
        self.env_name = env_name(self.env)
        self.lent = isinstance(env, gym.Env | VectorEnv)  # somebody else holds the environment, too
        config, self.tuned = resolve(self.recipe, self.env_name, overrides, preset)
        self.config = Configuration(config)
        self.kernel, self.device = kernel, find_device(device)
        self.backend = resolve_backend(self.env, backend, self.config["steps"], self.config["num_envs"])
        self.envs = make_envs(self.env, self.config["num_envs"], self.backend)
        self.custom = body is not None or critic_body is not None
        self.fisher_eigenvalues = int(check("fisher_eigenvalues", int, fisher_eigenvalues))
        self.gradient_meter = bool(check("gradient_meter", bool, gradient_meter))
        self.plan = self._first_plan(body, critic_body)
        self.learner = self.plan.learner
        self.policy = self.learner.policy
        self.dataset = None if dataset is None else str(dataset)
        self.collector: Any = self._collector() if dataset is None else self._replay(dataset)
        self.rng = np.random.default_rng(stream(self.seed, "prediction"))
        self._begin()
        advise(self.policy, self.envs, self.config.get("log_std", 0.0), own_body=body is not None)

    def _collector(self) -> Any:
        if self.plan.source is not None:
            return self.plan.source(self.env, self.config["num_envs"], self.backend, self.seed)
        if isinstance(self.envs, TorchVectorEnv):
            return DeviceCollector(self.envs, _actor(self.learner), self.plan.wants, self.seed)
        # `lambda: env` may hand out one that is held
        held = self.lent or (callable(self.env) and self.envs.num_envs == 1)
        return Collector(self.envs, self.seed, lent=held)

    def _begin(self) -> None:
        """What no copy shares with the agent that it is of."""
        self.trainer = Trainer(self.collector, _actor(self.learner), lambda: self.plan.wants, self._step)
        self.closed, self._turns = False, Turns()

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the environments, which a copy makes anew, and whoever looks on."""
        own = ("envs", "recipe", "trainer", "_turns", "closed")
        state = {k: v for k, v in self.__dict__.items() if k not in own}
        learner = unobserved(self.learner)
        collector = unobserved(self.collector) if isinstance(self.collector, Replay) else self.collector.state_dict()
        state |= {"learner": learner, "plan": replace(self.plan, learner=learner), "collector": collector}
        return state | {"counters": self.trainer.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        counters, collector = state.pop("counters"), state["collector"]
        self.__dict__.update(state)
        self.recipe = find_recipe(self.asked)
        self.envs = make_envs(self.env, self.config["num_envs"], self.backend)
        if not isinstance(collector, Replay):
            self.collector = self._collector()
            self.collector.load_state_dict(collector)
        self._begin()
        self.trainer.load_state_dict(counters)

    def __getattr__(self, name: str) -> Any:
        instead = foreign.ATTRIBUTES.get(name)
        text = f"an Agent has no {name!r}" + (f": {instead}" if instead else "")
        raise AttributeError(text, name=name, obj=self)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the environments that the agent made; your own stays open. The agent predicts, evaluates and can be
        saved as before, but cannot learn any more.
        """
        before, self.closed = self.closed, True
        collector: Any = getattr(self, "collector", None)  # there is none where the agent could not be made
        if hasattr(collector, "close"):  # worker processes
            collector.close()
        if before or self.lent:
            return
        if isinstance(collector, Collector):
            with suppress(EnvError):  # they are closed already
                collector.pending = to_arrays(collector.state_dict()["envs"])  # how to bring others to where these are
        self.envs.close()

    def _first_plan(self, body: Body | None, critic_body: Body | None) -> Plan:
        """The plan of a new agent; where there can be none, nobody will have the agent, to close its environments."""
        self.closed = False
        try:
            check_sizes(self.config, self.envs, self.custom)
            asked = {"fisher_eigenvalues": self.fisher_eigenvalues, "gradient_meter": self.gradient_meter}
            check_measurements(self.recipe, **asked)
            return self._plan(self.config, body, critic_body)
        except BaseException:
            self.close()
            raise

    def _plan(self, config: Mapping[str, Any], body: Body | None = None, critic_body: Body | None = None) -> Plan:
        """The plan that the recipe makes of the task and a configuration."""
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        critic_body = critic_body if critic_body is not None or isinstance(body, nn.Module) else body
        task = Task(*spaces, self.seed, body, critic_body, self.kernel, self.device)
        with single_thread():  # the initial weights' last bits would depend on their number
            plan = self.recipe(task, **{k: v for k, v in config.items() if k != "steps"})
        if not isinstance(plan, Plan):
            raise TypeError(f"{self.algo} must return a Plan, got {type(plan).__name__}")
        check_device(self.algo, self.device, self.kernel, plan.learner)
        return plan

    def _replay(self, dataset: Trajectories | str | Path) -> Replay:
        """Who draws stored trajectories, if the recipe weighs them and the policy is one for them."""
        check_dataset(self.recipe, self.config)
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
        log_every: int | None = None,
        *,
        horizon: int | None = None,
        total_timesteps: int | None = None,
        **others: Any,
    ) -> Agent:
        """Train for `steps` environment steps (default: the configuration's): whole iterations, as many as fit, at least one.

        Of iterations of whole episodes it is the last one's length that says whether another fits.
        horizon: how many steps the schedules run for, where `learn` is called several times for one training: two calls of
        n steps with horizon = 2n are one of 2n, where n steps are whole iterations.
        callback(agent, row) is called once an iteration, with a row of metrics every `log_every` steps (None: 2,000, or a
        hundred rows) and None between; returning False stops; of several all are called, in order (see
        `policygrad.training.callbacks`). Calling `learn` again goes on, with schedules starting anew. An exception, Ctrl-C
        too, leaves the agent at its last whole iteration if it came while episodes were played: `learn` then goes on from
        there. An environment object of yours is reset first, because you may have moved it meanwhile; the episode that was
        open is then not counted. Raises BusyError for an agent that is closed, or that learns in another thread.
        """
        if others:
            foreign.refuse_keyword("learn", others)
        steps = total_timesteps if steps is None else steps  # the name that Stable-Baselines3 has for it
        total = self.config["steps"] if steps is None else check("steps", int, steps)
        if horizon is not None:
            horizon = check("steps", int, horizon)
            if horizon < total:
                raise ConfigError(f"horizon = {horizon}, but this call alone takes {total} steps")
        with self._alone():
            if self.lent:
                self._forget()
            self.trainer.begin(total, horizon)
            rows = (self.plan.wants.num_steps or 0) * self.envs.num_envs
            advise_steps(self.learner, self.trainer.total - self.trainer.done, rows)
            self._run(callback, log_every)
        return self

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """In this context, other threads may not use the agent."""
        if self.closed:
            raise BusyError("this agent is closed and its environments are gone: make or load another one to learn on")
        with self._turns.learning(), single_thread():
            yield

    def _run(self, callback: Callback | Sequence[Callback] | None, log_every: int | None) -> None:
        """The rest of the training. Whether it runs compiled functions its configuration says, and nothing else."""
        if isinstance(self.policy, Policy):
            self.policy.trains_long = self.plan.is_long(self.trainer.total)
        call = combine(callback, self)
        self.trainer.run(log_every, None if call is None else lambda row: call(self, row))

    def go_on(self, callback: Callback | Sequence[Callback] | None = None, log_every: int | None = None) -> Agent:
        """Take the rest of the steps of the last `learn`, where that was interrupted, in this process or before `load`: to the
        last bit as if it had not been. Nothing is left to do where it was not.
        """
        with self._alone():
            self._run(callback, log_every)
        return self

    def _step(self, record: Record, progress: float, diagnose: bool, meter: bool) -> Stats:
        """The learner's step, with numbers about it if they are due."""
        if not diagnose:
            return self.learner.step(record, progress)
        measured = {"meter": meter and self.gradient_meter, "eigenvalues": self.fisher_eigenvalues}
        return measured_step(self.learner, record, progress, **measured)

    def change(self, **overrides: Any) -> Agent:
        """Change hyperparameters from the next iteration on, as in `agent.change(lr=1e-4)`.

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
            plan.learner.policy.trains_long = getattr(self.policy, "trains_long", False)
            self.policy, self.trainer.actor = plan.learner.policy, _actor(plan.learner)
        return self

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:
        """Actions for one observation or a batch, ready for `env.step`, and the state for the next call: see `predicting`."""
        given = self.envs.single_observation_space, self.envs.single_action_space, obs
        with self._turns:
            return predict(self.policy, *given, self.rng, deterministic, action_masks, state, episode_start)

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
            foreign.refuse_keyword("evaluate", others)
        episodes, seed = check("episodes", int, episodes, EPISODES), check("seed", int, seed)
        env = self.evaluation_env() if env is None else env
        with self._turns, self._playing(env):
            same = self.backend if env is self.env and self.backend == "compiled" else "gymnasium"
            return evaluate(self.policy, env, episodes, greedy, seed, progress=progress, backend=same)

    def collect(self, episodes: int = 100, seed: int = COLLECT_SEED, env: EnvLike | None = None) -> Trajectories:
        """Play whole episodes with sampled actions, for other policies to learn from; `.save(path)` then saves them."""
        episodes, seed = check("episodes", int, episodes, EPISODES), check("seed", int, seed)
        env = self.evaluation_env() if env is None else env
        with self._turns, self._playing(env):
            return collect(self.policy, env, episodes, seed, 1 if isinstance(env, gym.Env) else 8, self.env_name)

    def _forget(self) -> None:
        if isinstance(self.collector, Collector):
            self.collector.forget()

    @contextmanager
    def _playing(self, env: EnvLike) -> Iterator[None]:
        """Others are played in this environment; if it is the training's own, that begins anew."""
        try:
            with single_thread():
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

        keyword: the caller's, by which another one is passed. Raises ValueError for a vector environment, which asks for it.
        """
        if isinstance(self.env, VectorEnv):
            raise ValueError(
                f"this agent was made from a vector environment: pass {keyword}=, an id or a callable, to evaluate in"
            )
        return twin(self.env) if isinstance(self.env, gym.Env) else self.env


def _actor(learner: Any) -> Any:
    """Who plays: the learner's own actor, where that is another than its policy."""
    return getattr(learner, "actor", learner.policy)
