"""The Agent: a recipe with its environments, in the shape that Stable-Baselines3 users' hands know."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from torch import nn

from policygrad.algorithms.config import Algo, ConfigError, Preset, check, find_recipe, resolve
from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.algorithms.task import Plan, Task
from policygrad.data import Record, Row, Stats
from policygrad.envs.adapters import action_adapter, encoding_of
from policygrad.envs.advice import far_bounds, unscaled_pictures
from policygrad.envs.checks import check_vector, singles
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.envs.serial import mask_info
from policygrad.envs.single import EnvLike, check_env_id, env_name
from policygrad.envs.twin import twin
from policygrad.forms import PCG64, Form, anything, form_of, table
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
from policygrad.training.threads import single_thread
from policygrad.training.trainer import Trainer

Callback = Callable[["Agent", Row | None], bool | None]

COLLECT_SEED = 20_000  # of the episodes that `collect` plays, neither training's nor an evaluation's
LOG_EVERY = 2_000  # steps between rows of metrics: the diagnostics then cost a few per cent at most


class Agent:
    """A recipe on an environment: `learn`, `predict`, `evaluate`, `save`, `load`.

    algo: a recipe's name, or any function `(task, *, keywords) → Plan`, or the text `module:function` or `file.py:function`.
    env: an id, a callable, an environment, or a Gymnasium vector environment (any autoreset mode). Keywords override the
    preset and the recipe's defaults. preset: the environment's tuned one, where it has one; or the name of another
    environment, a TOML file, or a mapping, see `policygrad.algorithms.config.find_preset`. body, critic_body: modules of your
    own, or functions observation space → module; a linear layer to actions, or to the value, is put after each. backend: who
    steps the environments, see `make_envs`. fisher_eigenvalues: how many of the largest Fisher eigenvalues every row of
    metrics has, as fisher_1, fisher_2, …; they cost some hundredths of a second a row and change nothing. gradient_meter:
    measure signal and noise of the gradient in every second row, see `policygrad.algorithms.meter`; it changes nothing.
    dataset: stored trajectories to learn from instead of playing, for off_policy_pg: `Trajectories`, a path, "minari:NAME".
    Raises ConfigError or ValueError for what cannot be, TypeError for unsupported spaces.
    """

    def __init__(
        self,
        algo: Algo,
        env: EnvLike,
        *,
        seed: int = 0,
        preset: Preset | None = None,
        body: Body | None = None,
        critic_body: Body | None = None,
        kernel: str = "auto",
        backend: str = "auto",
        fisher_eigenvalues: int = 0,
        gradient_meter: bool = False,
        dataset: Trajectories | str | Path | None = None,
        **overrides: Any,
    ) -> None:
        self.recipe, self.env, self.seed = find_recipe(algo), env, int(check("seed", int, seed))
        self.algo = self.recipe.name
        if isinstance(env, str):
            check_env_id(env)
        elif not isinstance(env, gym.Env | VectorEnv) and not callable(env):
            raise TypeError(f"env must be an id, an environment or a callable, got {env!r}")
        overrides = _with_num_envs(env, overrides)
        self.env_name = env_name(env)
        self.config, self.tuned = resolve(self.recipe, self.env_name, overrides, preset)
        self.backend = resolve_backend(env, backend)
        self.envs = make_envs(env, self.config["num_envs"], self.backend)
        self.kernel = kernel
        self.custom = body is not None or critic_body is not None
        self.plan = self._plan(body, critic_body)
        self.learner = self.plan.learner
        self.fisher_eigenvalues = int(check("fisher_eigenvalues", int, fisher_eigenvalues))
        self.gradient_meter = bool(check("gradient_meter", bool, gradient_meter))
        self.policy = self.learner.policy
        self.dataset = None if dataset is None else str(dataset)
        self.lent = isinstance(env, gym.Env | VectorEnv)  # somebody else holds the environment, too
        held = self.lent or (callable(env) and self.envs.num_envs == 1)  # `lambda: env` may hand out one that is held
        self.collector: Collector | Replay = (
            Collector(self.envs, seed, lent=held) if dataset is None else self._replay(dataset)
        )
        self.trainer = Trainer(self.collector, self.policy, lambda: self.plan.wants, self._step)
        self.rng = np.random.default_rng(stream(seed, "prediction"))
        for advice in self._advice(body is not None):
            warnings.warn(advice, stacklevel=2)

    def _advice(self, own_body: bool) -> list[str]:
        """What is likely to go wrong with these spaces and this policy."""
        head, found = getattr(self.policy, "head", None), []
        if type(head) is Gaussian:
            found.append(far_bounds(self.envs.single_action_space, math.exp(self.config.get("log_std", 0.0))))
        if not own_body and getattr(self.policy, "normalizer", self) is None:
            found.append(unscaled_pictures(self.envs.single_observation_space))
        return [text for text in found if text is not None]

    def _plan(self, body: Body | None, critic_body: Body | None) -> Plan:
        """What the recipe makes of the task and the configuration."""
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        critic_body = critic_body if critic_body is not None or isinstance(body, nn.Module) else body
        task = Task(*spaces, self.seed, body, critic_body, self.kernel)
        with single_thread():  # the initial weights' last bits would depend on their number
            plan = self.recipe(task, **{k: v for k, v in self.config.items() if k != "steps"})
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
    ) -> Agent:
        """Train for `steps` environment steps (default: the configuration's): whole iterations, as many as fit, at least one.

        Of iterations of whole episodes it is the last one's length that says whether another fits.
        horizon: how many steps the schedules run for, where `learn` is called several times for one training: two calls of
        n steps with horizon = 2n are one of 2n, where n steps are whole iterations.
        callback(agent, row) is called once an iteration, with a row of metrics every `log_every` steps and None between;
        returning False stops; of several all are called, in order (see `policygrad.training.callbacks`). Calling `learn` again
        goes on where it stopped, with schedules starting anew. An exception, Ctrl-C too, leaves the agent at its last whole
        iteration if it came while episodes were played: `learn` then goes on from there. An environment object of yours is
        reset first, because you may have moved it meanwhile; the episode that was open is then not counted.
        """
        steps = total_timesteps if steps is None else steps  # the name that Stable-Baselines3 has for it
        total = self.config["steps"] if steps is None else check("steps", int, steps)
        if horizon is not None:
            horizon = check("steps", int, horizon)
            if horizon < total:
                raise ConfigError(f"horizon = {horizon}, but this call alone takes {total} steps")
        if self.lent:
            self._forget()
        self.trainer.begin(total, horizon)
        call = combine(callback, self)
        with single_thread():
            self.trainer.run(log_every, None if call is None else lambda row: call(self, row))
        return self

    def go_on(self, callback: Callback | Sequence[Callback] | None = None, log_every: int = LOG_EVERY) -> Agent:
        """Take the rest of the steps of the last `learn`, where that was interrupted, in this process or before `load`: to the
        last bit as if it had not been. Nothing is left to do where it was not.
        """
        call = combine(callback, self)
        with single_thread():
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

    def predict(self, obs: Any, deterministic: bool = False, action_masks: Any = None) -> tuple[np.ndarray, None]:
        """Actions for one observation or a batch, ready for `env.step`; the second value is None, as there is no state.

        action_masks: for an agent that learned with mask_source = info. An actor's state starts anew at each call.
        """
        actor, encoding = self.policy, encoding_of(self.policy, self.envs.single_observation_space)
        obs, single = encoding.batch(obs)
        count = len(encoding.leaves[0].of(obs))
        x = encoding.empty(count)
        info = {}
        if encoding.mask_source == "info":
            if action_masks is None:
                raise ValueError("this agent gets its action masks from info: pass action_masks=info['action_mask']")
            masks = [action_masks] if single else list(action_masks)
            if len(masks) != count:
                raise ValueError(f"expected action_masks of {count} observations, got {len(masks)}")
            info = mask_info(masks)
        elif action_masks is not None:
            raise ValueError(
                f"action_masks are for agents with mask_source = info, this one has mask_source = {encoding.mask_source}"
            )
        encoding.encode(obs, info, x)
        encoding.check(x, obs)
        if encoding.mask_source != "none" and not actor.has_legal_action(x).all():
            raise ValueError("there is no legal action to predict")
        rng = np.random.default_rng(0) if deterministic else self.rng  # greedy actions leave what is drawn next alone
        begun = actor.begin(actor.noise(rng, (count,))) if actor.stateful else None
        act = actor.mode(x, begun)[0] if deterministic else actor.act(x, begun, actor.noise(self.rng, (count,)))[0]
        act = action_adapter(self.envs.single_action_space, actor)(act)
        return (act[0] if single else np.asarray(act)), None

    def evaluate(
        self,
        episodes: int = 100,
        greedy: bool = True,
        seed: int = EVALUATION_SEED,
        env: EnvLike | None = None,
        progress: Told | None = None,
    ) -> Evaluation:
        """Returns of whole episodes on fixed seeds. env: another environment to play in; a vector environment plays its own.

        progress(done, episodes) is called whenever an episode has ended. Where env is the one that is trained in, training
        begins new episodes afterwards.
        """
        env = self.evaluation_env() if env is None else env
        try:
            with single_thread():
                return evaluate(self.policy, env, episodes, greedy, seed, progress=progress)
        finally:
            self._played(env)

    def collect(self, episodes: int = 100, seed: int = COLLECT_SEED, env: EnvLike | None = None) -> Trajectories:
        """Whole episodes of the policy as it is, its actions sampled, for others to learn from; `.save(path)` keeps them."""
        env = self.evaluation_env() if env is None else env
        try:
            with single_thread():
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
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, but for the insides of the environments."""
        parts = {"learner": self.learner, "collector": self.collector, "trainer": self.trainer}
        return {name: part.state_dict() for name, part in parts.items()} | {"rng": self.rng.bit_generator.state}

    def state_form(self, policy_only: bool = False) -> Form:
        """Of `state_dict`, or of what `save_policy` keeps of it."""
        if policy_only:
            return table({"learner": table({"policy": form_of(self.policy)})})
        parts = {"learner": self.learner, "collector": self.collector}
        more = {
            "trainer": form_of(self.trainer),
            "run": anything,
        }  # files of 0.4 have none; `resume` looks at a run's state
        return table({name: form_of(part) for name, part in parts.items()} | {"rng": PCG64}, optional=more)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. A policy alone is enough to act. Raises FormError for the state of another agent."""
        policy_only = "collector" not in state
        self.state_form(policy_only)("state", state)
        if policy_only:
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
