"""The parts of an agent that files keep: its description, its state, and the form of a state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from policygrad.algorithms.config import ConfigError
from policygrad.envs.collector import Collector
from policygrad.envs.on_device import DeviceCollector
from policygrad.envs.single import EnvLike, EnvMaker
from policygrad.forms import PCG64, Form, anything, collector_form, form_of, table
from policygrad.models.flat import FlatModule
from policygrad.stored.storage import ModelFileError, save_state, space_to_json, with_suffix
from policygrad.training.trainer import Trainer

PARTS = ("update", "estimator", "baseline", "critic")  # of a learner, which users put others in place of


def parts_of(learner: Any) -> dict[str, Any]:
    """The learner's parts by name."""
    return {name: getattr(learner, name) for name in PARTS if hasattr(learner, name)}


def told(part: Any) -> dict[str, Any]:
    """The numbers and words that a part was made with, by the names of its maker, without those that training changes."""
    changing = {*(part.state_dict() if hasattr(part, "state_dict") else ()), *getattr(part, "scheduled", ())}
    named = {
        name: getattr(part, name, None) for name in inspect.signature(type(part)).parameters if name not in changing
    }
    return {name: value for name, value in named.items() if isinstance(value, int | float | str | None)}


def renew(learner: Any) -> None:
    """Take weights that were assigned from outside, see `FlatModule.renew`."""
    for part in (
        learner.policy,
        getattr(learner, "critic", None),
        getattr(getattr(learner, "rule", None), "critic", None),
    ):
        for each in (part, getattr(part, "network", None)):  # a critic may have its network inside
            if isinstance(each, FlatModule):
                each.renew()


def unobserved(part: Any) -> Any:
    """The same part with nobody looking on."""
    part = copy(part)
    if hasattr(part, "observers"):
        part.observers = []
    return part


class Kept:
    """The part of an `Agent` that writes and reads files."""

    algo: str
    env: EnvLike
    env_name: str
    seed: int
    config: Any
    custom: bool
    auxiliary: Any
    kernel: str
    device: str
    backend: str
    envs: VectorEnv
    policy: Any
    learner: Any
    built: dict[str, Any]  # the learner's parts as the recipe made them, and what it told them
    told: dict[str, dict[str, Any]]
    collector: Any
    trainer: Trainer
    rng: np.random.Generator
    ranks: Any  # where it is one of several processes that learn together
    return_range: tuple[float, float] | None = None  # lowest and highest return of the episodes of training so far
    policy_only = False  # whether all that was learned here so far is the policy, which a file held alone

    def metadata(self) -> dict[str, Any]:
        """The description in a model file: enough to make the agent again, without times and paths."""
        seen = {} if self.return_range is None else {"return_range": list(self.return_range)}
        return {
            "algo": self.algo,
            "env": self.env_name,
            "seed": self.seed,
            "config": self.config,
            "custom": self.custom,
            "kernel": self.kernel,
            "device": self.device,
            "backend": self.backend,
            "observation_space": space_to_json(self.envs.single_observation_space),
            "action_space": space_to_json(self.envs.single_action_space),
        } | (self.more_words() | seen)

    def widen(self, returns: Iterable[float]) -> None:
        """The range of returns, with these episodes of training."""
        ends = [float(x) for x in (*(self.return_range or ()), *returns) if math.isfinite(x)]
        self.return_range = (min(ends), max(ends)) if ends else None

    def more_words(self) -> dict[str, Any]:
        """For files: the environment's words, that there is an auxiliary gain, and the parts that are not the recipe's."""
        parts = self.replaced()
        said = ({} if self.auxiliary is None else {"auxiliary": True}) | ({"parts": parts} if parts else {})
        return self.env_words() | said

    def replaced(self) -> dict[str, str]:
        """The parts of the learner that are not those of the recipe, or have other numbers than it told them: their classes."""
        kinds = {}
        for name, part in parts_of(self.learner).items():
            if part is not self.built.get(name) or told(part) != self.told[name]:
                kinds[name] = type(part).__name__
        return kinds

    def built_now(self) -> None:
        """The recipe has just made the learner."""
        self.built = parts_of(self.learner)
        self.told = {name: told(part) for name, part in self.built.items()}

    def put(self, parts: Mapping[str, Any]) -> None:
        """Put parts in place of the recipe's, as `agent.learner.update = …` does. Raises ConfigError for other names."""
        for name, part in parts.items():
            if name not in parts_of(self.learner):
                known = ", ".join(parts_of(self.learner))
                raise ConfigError(
                    f"a learner of {self.algo} has no part {name!r}; it has: {known or 'none that could change'}"
                )
            setattr(self.learner, name, part)

    def env_words(self) -> dict[str, Any]:
        """The keywords and wrappers of the environment, for files; empty if there are none."""
        return self.env.words() if isinstance(self.env, EnvMaker) else {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, except the state inside the environments."""
        renew(self.learner)
        parts = {"learner": self.learner, "collector": self.collector, "trainer": self.trainer}
        return {name: part.state_dict() for name, part in parts.items()} | {"rng": self.rng.bit_generator.state}

    def state_form(self, policy_only: bool = False, num_envs: int | None = None) -> Form:
        """Of `state_dict`, or of what `save_policy` keeps of it. num_envs: of the state, where it is of other environments."""
        if policy_only:
            return table({"learner": table({"policy": form_of(self.policy)})})
        parts = {"learner": self.learner, "collector": self.collector}
        more = {
            "trainer": form_of(self.trainer),
            "run": anything,
        }  # of files of 0.4 there are neither; for `run` see `resume`
        forms = {name: form_of(part) for name, part in parts.items()}
        if num_envs not in (None, self.envs.num_envs) and isinstance(self.collector, Collector | DeviceCollector):
            forms["collector"] = collector_form(num_envs)
        return table(forms | {"rng": PCG64}, optional=more)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. A policy alone is enough to act. Raises FormError for the state of another agent."""
        policy_only = "collector" not in state
        self.state_form(policy_only)("state", state)
        if policy_only:
            self.policy.load_state_dict(state["learner"]["policy"])
            self.collector.begun = self.policy_only = True
            return
        self.policy_only = False
        self.learner.load_state_dict(state["learner"])
        self.collector.load_state_dict(state["collector"])
        if "trainer" in state:  # files of 0.4 have none
            self.trainer.load_state_dict(state["trainer"])
        self.rng.bit_generator.state = state["rng"]

    def save(self, path: str | Path) -> Path:
        """Write the agent, training state included, to one safetensors file; the suffix is added if missing.

        Raises ModelFileError for the suffix .zip, which a safetensors file is not.
        """
        path = _to_write(path)
        if self.ranks is not None:
            raise ConfigError(
                "this agent is one of several processes and has a part of the environments: pg.train writes checkpoints of all "
                "of them, and save_policy(path) the policy"
            )
        save_state(path, self.state_dict(), self.metadata())
        return path

    def save_policy(self, path: str | Path) -> Path:
        """Write only what acting needs: weights and normaliser. Equal policies give equal bytes. path: as for `save`.

        `load` gives an agent whose critic and optimisers begin anew, see there.
        """
        path = _to_write(path)
        renew(self.learner)
        save_state(path, {"learner": {"policy": dict(self.policy.state_dict())}}, self.metadata())
        return path


def _to_write(path: str | Path) -> Path:
    """The path of a model file to write."""
    if Path(path).suffix == ".zip":
        name = Path(path).with_suffix("").name
        raise ModelFileError(f"a model file is a .safetensors file, no .zip: save({name!r}) writes {name}.safetensors")
    return with_suffix(path)
