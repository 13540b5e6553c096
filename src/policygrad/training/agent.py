"""The Agent: a recipe with its environments, with methods as in Stable-Baselines3."""

from __future__ import annotations

import warnings
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
from policygrad.algorithms.auxiliary import with_auxiliary
from policygrad.algorithms.config import (
    Algo,
    ConfigError,
    Configuration,
    Preset,
    changed,
    check,
    check_dataset,
    check_measurements,
    find_recipe,
    resolve,
    with_schedules,
)
from policygrad.algorithms.devices import check_device, find_device
from policygrad.algorithms.diagnosed import measured_step
from policygrad.algorithms.meter import refuse_segments
from policygrad.algorithms.task import Plan, Task
from policygrad.data import Record, Row, Stats
from policygrad.envs.adapters import to_arrays
from policygrad.envs.advice import advise
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.envs.naming import HandedOut, identify
from policygrad.envs.on_device import DeviceCollector
from policygrad.envs.single import EnvLike, Wrapper, check_env_id, with_words
from policygrad.envs.torch_envs import TorchVectorEnv
from policygrad.errors import EnvError, brief
from policygrad.models.ascent import Gain
from policygrad.models.policy import Body, Policy
from policygrad.stored.minari import open_dataset
from policygrad.stored.replay import Replay
from policygrad.stored.trajectories import Trajectories
from policygrad.streams import stream
from policygrad.total import alone
from policygrad.training.callbacks import as_list, combine, tell
from policygrad.training.face import Face
from policygrad.training.kept import renew, unobserved
from policygrad.training.progress import shown
from policygrad.training.ranks import current
from policygrad.training.shares import check_divides, place, refuse_undivided, sharing
from policygrad.training.sizes import advise_preset, advise_steps, check_sizes, with_num_envs
from policygrad.training.threads import BusyError, Turns, single_thread, threads_for
from policygrad.training.trainer import Trainer, actor_of

Callback = Callable[["Agent", Row | None], bool | None]


class Agent(Face):
    """A recipe on an environment: `learn`, `predict`, `evaluate`, `save`, `load`.

    algo: a recipe's name, or any function `(task, *, keywords) → Plan`, or the text `module:function` or `file.py:function`.
    env: an id, a callable, an environment, or a Gymnasium vector environment (any autoreset mode). Keywords override the
    preset and the recipe's defaults. preset: the environment's tuned one, where it has one; or the name of another
    environment, a TOML file, or a mapping, see `policygrad.algorithms.config.find_preset`. Of a callable or a vector
    environment the preset is that of the registered environment inside, see `envs.naming`. name: what run directories and
    pictures call the environment. env_kwargs, wrappers: what an id or
    a callable is made with, and what is put around it, the innermost first; evaluations and videos use both. A wrapper is a
    function environment → environment, or the text `module:name` or `file.py:name`. body, critic_body: modules of your own, or
    functions observation space → module; a linear layer to actions, or to the value, is put after each. auxiliary: a function
    (policy, batch) → scalar gain that is ascended besides, see `updates.first_order.FirstOrder`. device: where the networks are
    and learn, "cpu", "cuda", "cuda:1", or "auto", see `algorithms.devices`. backend: who steps the environments, see
    `make_envs`. fisher_eigenvalues: how many of the largest Fisher eigenvalues every row of metrics has, as fisher_1, fisher_2,
    …; they cost some hundredths of a second a row and change nothing. gradient_meter: measure signal and noise of the gradient
    in every second row, see `policygrad.algorithms.meter`; it changes nothing. dataset: stored trajectories to learn from
    instead of playing, for off_policy_pg: `Trajectories`, a path, "minari:NAME".

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
        name: str | None = None,
        env_kwargs: Mapping[str, object] | None = None,
        wrappers: Sequence[Wrapper] | None = None,
        body: Body | None = None,
        critic_body: Body | None = None,
        auxiliary: Gain | None = None,
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
            instead = foreign.module_answer(env)
            raise TypeError(f"env must be an id, an environment or a callable, got {brief(env)}{instead}")
        self.env, self.ranks = with_words(env, env_kwargs, wrappers), current()
        self.lent = isinstance(env, gym.Env | VectorEnv)  # somebody else holds the environment, too
        self.kernel, self.device = kernel, find_device(device)
        self.name = None if name is None else str(check("name", str, name))
        self._environments(with_num_envs(env, overrides), preset, backend)
        self.custom, self.auxiliary = body is not None or critic_body is not None, auxiliary
        self.fisher_eigenvalues = int(check("fisher_eigenvalues", int, fisher_eigenvalues))
        self.gradient_meter = bool(check("gradient_meter", bool, gradient_meter))
        self.plan = self._first_plan(body, critic_body)
        self.learner = self.plan.learner
        self.built_now()
        self.policy = self.learner.policy
        self.dataset = None if dataset is None else str(dataset)
        self.collector: Any = self._collector() if dataset is None else self._replay(dataset)
        self.rng = np.random.default_rng(stream(self.seed, "prediction"))
        refuse_undivided(self)
        self._begin()
        advise(self.policy, self.envs, self.config.get("log_std", 0.0), own_body=body is not None)

    def _environments(self, given: dict[str, Any], preset: Preset | None, backend: str) -> None:
        """Find out which environment it is, and with it the preset; then make so many of them."""
        known = identify(self.env)
        self.env_name = known.name
        tuned_for = (known.preset or "") if preset is None else self.env_name
        config, self.tuned = resolve(self.recipe, tuned_for, given, preset)
        self._preset = tuned_for, preset
        advise_preset(self.recipe, config, given, known, preset)
        self.config = Configuration(config)
        self.backend = resolve_backend(self.env, backend, self.config["steps"], self.config["num_envs"])
        begun = known.first is not None and self.backend == "gymnasium" and callable(self.env)
        env = HandedOut(self.env, known.first) if begun else self.env
        self.envs = self._made(env)

    def _made(self, env: EnvLike) -> VectorEnv:
        """The environments: those of this rank."""
        check_divides(self.ranks, env, self.config)
        first, stop = place(self.ranks, self.config["num_envs"])
        return make_envs(env, stop - first, self.backend)

    def _collector(self) -> Any:
        if self.plan.source is not None:
            return self.plan.source(self.env, self.config["num_envs"], self.backend, self.seed)
        if isinstance(self.envs, TorchVectorEnv):
            return DeviceCollector(self.envs, actor_of(self.learner), self.plan.wants, self.seed)
        # `lambda: env` may hand out one that is held
        held = self.lent or (callable(self.env) and self.envs.num_envs == 1)
        whole = self.config["num_envs"]
        return Collector(self.envs, self.seed, lent=held, place=(place(self.ranks, whole)[0], whole))

    def _begin(self) -> None:
        """What no copy shares with the agent that it is of."""
        self.trainer = Trainer(self.collector, actor_of(self.learner), lambda: self.plan.wants, self._step)
        self.closed, self._turns = False, Turns()

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the environments, which a copy makes anew, and whoever looks on."""
        own = ("envs", "ranks", "recipe", "trainer", "_turns", "closed")
        state = {k: v for k, v in self.__dict__.items() if k not in own}
        learner = unobserved(self.learner)
        collector = unobserved(self.collector) if isinstance(self.collector, Replay) else self.collector.state_dict()
        state |= {"learner": learner, "plan": replace(self.plan, learner=learner), "collector": collector}
        return state | {"counters": self.trainer.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        counters, collector = state.pop("counters"), state["collector"]
        self.__dict__.update(state)
        self.recipe = find_recipe(self.asked)
        self.ranks = current()
        self.envs = self._made(self.env)
        if not isinstance(collector, Replay):
            self.collector = self._collector()
            self.collector.load_state_dict(collector)
        self._begin()
        self.trainer.load_state_dict(counters)

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
            plan = self._plan(self.config, body, critic_body)
            if self.gradient_meter:
                refuse_segments(getattr(getattr(plan.learner, "policy", None), "segment", 1))
            return plan
        except BaseException:
            self.close()
            raise

    def _plan(self, config: Mapping[str, Any], body: Body | None = None, critic_body: Body | None = None) -> Plan:
        """The plan that the recipe makes of the task and a configuration."""
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        critic_body = critic_body if critic_body is not None or isinstance(body, nn.Module) else body
        task = Task(*spaces, self.seed, body, critic_body, self.kernel, self.device)
        with single_thread(), sharing(self.ranks):  # the initial weights' last bits would depend on their number
            plan = self.recipe(task, **with_schedules(self.recipe, {k: v for k, v in config.items() if k != "steps"}))
        if not isinstance(plan, Plan):
            raise TypeError(f"{self.algo} must return a Plan, got {type(plan).__name__}")
        check_device(self.algo, self.device, self.kernel, plan.learner)
        return with_auxiliary(self.algo, plan, self.auxiliary)

    def _replay(self, dataset: Trajectories | str | Path) -> Replay:
        """Who draws stored trajectories, if the recipe weighs them and the policy is one for them."""
        check_dataset(self.recipe, self.config)
        trajectories = dataset if isinstance(dataset, Trajectories) else open_dataset(dataset, self.policy)
        trajectories.check(self.policy, self.envs.single_observation_space, self.envs.single_action_space)
        self.widen(trajectories.returns.tolist())
        with single_thread():
            return Replay(trajectories, self.policy, self.seed, self.plan.clone_epochs)

    def __repr__(self) -> str:
        return (
            f"{self.algo}({(self.name or self.env_name)!r}, seed={self.seed}, steps_done={self.collector.steps_done})"
        )

    def learn(
        self,
        steps: int | None = None,
        callback: Callback | Sequence[Callback] | None = None,
        log_every: int | None = None,
        *,
        horizon: int | None = None,
        total_timesteps: int | None = None,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
        **others: Any,
    ) -> Agent:
        """Train for `steps` environment steps (default: the configuration's): whole iterations, as many as fit, at least one.

        Of iterations of whole episodes it is the last one's length that says whether another fits.
        progress_bar: show a bar, or a line every ten seconds where there is no terminal. reset_num_timesteps: schedules start
        anew; False: they go on with those of the last call, over its steps and these together. Counters always go on.
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
        several = as_list(callback)
        if horizon is not None:
            horizon = check("steps", int, horizon)
            if horizon < total:
                raise ConfigError(f"horizon = {horizon}, but this call alone takes {total} steps")
        with self._alone():
            if self.lent:
                self._forget()
            self._begin_anew()
            self.trainer.begin(total, horizon, more=not reset_num_timesteps)
            rows = (self.plan.wants.num_steps or 0) * self.config["num_envs"]
            advise_steps(self.learner, self.trainer.total - self.trainer.done, rows)
            with shown(self.trainer, progress_bar and not (self.ranks and self.ranks.rank)) as bar:
                self._run([*several, *bar], log_every)
        return self

    def _begin_anew(self) -> None:
        """Say once of an agent of a policy alone what training has to make again."""
        if self.policy_only:
            self.policy_only = False
            warnings.warn(
                "this agent was loaded from a file of the policy alone, so critic, optimisers and counters begin anew: load a "
                "run directory, a checkpoint, or a file of agent.save to go on with those of the training before",
                stacklevel=3,
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """In this context, other threads may not use the agent."""
        if self.closed:
            raise BusyError("this agent is closed and its environments are gone: make or load another one to learn on")
        with self._turns.learning(), single_thread(threads_for(self.policy)):
            renew(self.learner)
            yield

    def _run(self, callback: Callback | Sequence[Callback] | None, log_every: int | None) -> None:
        """The rest of the training. Whether it runs compiled functions its configuration says, and nothing else."""
        if isinstance(self.policy, Policy):
            self.policy.trains_long = self.plan.is_long(self.trainer.total)
        several = as_list(callback)
        try:
            call = combine(several, self)
            with sharing(self.ranks):
                self.trainer.run(log_every, None if call is None else lambda row: _called(call, self, row))
        finally:
            tell(several, "finish")

    def go_on(self, callback: Callback | Sequence[Callback] | None = None, log_every: int | None = None) -> Agent:
        """Take the rest of the steps of the last `learn`, where that was interrupted, in this process or before `load`: to the
        last bit as if it had not been. Nothing is left to do where it was not.
        """
        with self._alone():
            self._run(callback, log_every)
        return self

    def _step(self, record: Record, progress: float, diagnose: bool, meter: bool) -> Stats:
        """The learner's step, with numbers about it if they are due."""
        if record.finished:
            self.widen(ret for ret, _ in record.finished)
        stats = self._learned(record, progress, diagnose, meter)
        if self.ranks is not None:
            self.ranks.compare(self.learner)
        return stats

    def _learned(self, record: Record, progress: float, diagnose: bool, meter: bool) -> Stats:
        if not diagnose:
            return self.learner.step(record, progress)
        measured = {"meter": meter and self.gradient_meter, "eigenvalues": self.fisher_eigenvalues}
        return measured_step(self.learner, record, progress, **measured, action_space=self.action_space)

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
        if self.replaced():
            own = ", ".join(f"agent.learner.{name}" for name in self.replaced())
            raise ConfigError(
                f"{', '.join(overrides)} cannot change: the recipe would make the learner anew and lose the parts that you "
                f"set, {own}. Change these"
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
            self.built_now()
            plan.learner.policy.trains_long = getattr(self.policy, "trains_long", False)
            self.policy, self.trainer.actor = plan.learner.policy, actor_of(plan.learner)
        return self


def _called(call: Callback, agent: Agent, row: Row | None) -> bool | None:
    """What callbacks answer; of several ranks it is this one's alone."""
    with alone():
        return call(agent, row)
