"""Databases of trajectories, from which other policies can learn.

    DIR/000000020000.safetensors, …    shards: whole episodes, finished by that many steps of training

A shard holds tensors and JSON, nothing that could be run, and is there whole or not at all. Observations are kept as the policy
saw them, encoded, with their context and the legal actions, before the normaliser; actions as sampled, before clipping to the
action space; 32-bit log-probabilities those of the policy that acted, with the steps that it had learned from. Training writes
a shard at every tenth of its steps and whenever 32 MB are full; resuming stores no episode twice. Data sets of Minari are
read, too; they have no log-probabilities.
What is *not* here: how trajectories are drawn for learning, and how a policy that left no log-probabilities is estimated
(replay.py).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.data import Record, Rollout
from policygrad.envs.adapters import encoding_of
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.single import EnvLike
from policygrad.errors import FileError
from policygrad.files import make_folder
from policygrad.forms import FormError
from policygrad.models.heads import Head
from policygrad.models.policy import Policy
from policygrad.stored.expected import ABOUT, form_of_columns
from policygrad.stored.storage import ModelFileError, open_state, save_state, space_to_json, with_suffix
from policygrad.tree import Tree, concatenate, take, to_device, tree_leaves, tree_map

FOLDER = "trajectories"  # in a run directory
SHARD_BYTES = 32 * 2**20  # bytes of a shard, about
WARN_BYTES = 2**30  # bytes of a database that deserve a warning
COLUMNS = ("obs", "act", "rew", "logp", "policy", "length", "terminated")


class TrajectoryError(FileError, ValueError):
    """Trajectories do not exist, are damaged, or belong to another task."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """E whole episodes with R steps in all, one after another. Raises TrajectoryError if the parts do not fit together.

    about: env, observation_space, action_space, legal and head of the policies that acted, as plain values.
    """

    obs: Tree  # (R + E, *)        encoded; an episode's are followed by its last one
    act: Tensor  # (R, *)
    rew: Tensor  # (R,)
    logp: Tensor | None  # (R,)    under the policy that acted; None: not known
    policy: Tensor  # (R,) int     which one acted: the steps it had learned from
    length: Tensor  # (E,) int
    terminated: Tensor  # (E,) bool  otherwise truncated
    about: dict[str, Any]

    def __post_init__(self) -> None:
        R, E = len(self.rew), len(self.length)
        known = {} if self.logp is None else {"logp": R}
        sizes = {"obs": R + E, "act": R, "policy": R, "terminated": E} | known
        wrong = [name for name, size in sizes.items() if any(len(x) != size for x in tree_leaves(getattr(self, name)))]
        if wrong or E == 0 or int(self.length.min()) < 1 or int(self.length.max()) > R or int(self.length.sum()) != R:
            raise TrajectoryError(f"{E} episodes of {R} steps do not fit together: {', '.join(wrong) or 'length'}")
        for name in ("obs", "act", "rew", *known):
            if not all(torch.isfinite(x).all() for x in tree_leaves(getattr(self, name))):
                raise TrajectoryError(f"{name} is not finite everywhere")

    @staticmethod
    def read(path: str | Path) -> Trajectories:
        """Of a file, a directory or a run: see `read`."""
        return read_trajectories(path)

    def __len__(self) -> int:
        return len(self.length)

    def __repr__(self) -> str:
        mean = float(self.returns.mean())
        env = self.about["env"]
        return f"Trajectories({len(self)} episodes of {env}, {self.steps:,} steps, mean return {mean:.1f})"

    @property
    def steps(self) -> int:
        """R."""
        return len(self.rew)

    @cached_property
    def episode(self) -> Tensor:
        """(R,) the episode that a step belongs to."""
        return torch.repeat_interleave(torch.arange(len(self)), self.length)

    @cached_property
    def returns(self) -> Tensor:
        """(E,) undiscounted returns, float64."""
        return torch.zeros(len(self), dtype=torch.float64).index_add_(0, self.episode, self.rew.double())

    @property
    def states(self) -> Tree:
        """(R, *) the observations that were acted on."""
        return take(self.obs, torch.arange(self.steps) + self.episode)

    def record(self, index: Sequence[int] | Tensor | None = None) -> Record:
        """A record of these episodes [all], one per column; `extra["logp"]` is the log-probability under the policy that acted.

        Raises TrajectoryError where it left no log-probabilities.
        """
        if self.logp is None:
            raise TrajectoryError("these trajectories have no log-probabilities: give them with .under(policy)")
        chosen = torch.arange(len(self)) if index is None else torch.as_tensor(index, dtype=torch.int64)
        length = self.length[chosen]
        first = (self.length.cumsum(0) - self.length)[chosen]
        T = int(length.max())
        time = torch.arange(T).unsqueeze(1).expand(T, len(chosen))
        row = first + torch.minimum(time, length - 1)  # padding repeats the last step
        at = first + chosen + torch.minimum(torch.arange(T + 1).unsqueeze(1), length)
        obs = tree_map(lambda x: x[at].numpy(), self.obs)
        mask, end, over = time < length, time == length - 1, self.terminated[chosen]
        return Record(
            obs=obs,
            next_obs=take(obs, slice(1, None)),
            act=self.act[row].numpy(),
            rew=self.rew[row].numpy(),
            terminated=(end & over).numpy(),
            truncated=(end & ~over).numpy(),
            cut=np.zeros(time.shape, bool),
            mask=mask.numpy(),
            time=torch.where(mask, time, 0).numpy(),
            extra={"logp": self.logp[row].numpy()},
        )

    def rollout(self, policy: Policy, index: Sequence[int] | Tensor | None = None) -> Rollout:
        """A rollout of these episodes for a policy: `logp` is its own, `behavior` is that of the policy that acted."""
        return Rollout.of(self.record(index), policy)

    def under(self, policy: Policy) -> Trajectories:
        """The same, with the log-probabilities of a policy: of the one that acted, or of an estimate of it."""
        rows = tree_map(lambda x: x.unsqueeze(1), {"obs": self.states, "act": self.act})
        return replace(self, logp=policy.log_probs(**to_device(rows, policy.device)).squeeze(1).cpu())

    def check(self, policy: Policy, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        """Raises TrajectoryError if a policy for these spaces cannot compute the probability of the stored actions."""
        refuse_state(policy)
        for name, own in describe(policy, observation_space, action_space, "").items():
            if name != "env" and self.about[name] != own:
                given = f": {self.about[name]}, but here it is {own}" if name in ("legal", "head") else ""
                raise TrajectoryError(f"the trajectories are of {self.about['env']}, with another {name}{given}")
        room = encoding_of(policy, observation_space).empty(0)
        choices = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(action_space))
        most = torch.as_tensor(getattr(action_space, choices)) if choices else torch.tensor(2)
        discrete = not isinstance(action_space, spaces.Box)
        if _shapes(self.obs) != _shapes(room) or self.act.shape[1:] != action_space.shape:
            raise TrajectoryError(
                "observations or actions have another shape or type than their space says: the trajectories are damaged, or "
                "they are of policygrad 0.4, which stored all parts of an observation in one row of floats; collect them again"
            )
        if discrete and (self.act.dtype != torch.int64 or ((self.act < 0) | (self.act >= most)).any()):
            raise TrajectoryError("the trajectories are damaged: an action is not in the action space")

    def save(self, path: str | Path) -> Path:
        """Write one file; the suffix is added if missing."""
        path = with_suffix(path)
        save_state(path, {name: getattr(self, name) for name in COLUMNS}, {"trajectories": self.about})
        return path


def refuse_state(policy: Policy) -> None:
    """Raises TrajectoryError for a policy whose actions depend on more than what is stored."""
    if policy.stateful:
        raise TrajectoryError(
            "correlated noise and a memory depend on the policy that had them, so stored episodes have no weight: set "
            "noise_autocorrelation = 0 and memory = none"
        )


def describe(policy: Policy, observation_space: spaces.Space, action_space: spaces.Space, env: str) -> dict[str, Any]:
    """What must agree between those who act and those who learn. Raises TrajectoryError for an actor without a head."""
    if not hasattr(policy, "head"):
        raise TrajectoryError(
            f"trajectories keep log-probabilities, and {type(policy).__name__} has no head to say them: use a Policy"
        )
    if type(policy.head).logp is Head.logp:
        raise TrajectoryError(
            f"trajectories keep log-probabilities, and {policy.head} has none: its actions are deterministic, with noise of "
            "exploration. sac and dqn have them"
        )
    return {
        "env": env,
        "observation_space": space_to_json(observation_space),
        "action_space": space_to_json(action_space),
        "legal": encoding_of(policy, observation_space).mask_source,
        "head": policy.head.family,
    }


def one_episode(
    obs: Tree, act: Tensor, rew: Tensor, logp: Tensor | None, policy: Tensor, terminated: bool, about: dict[str, Any]
) -> Trajectories:
    """An episode of T steps: obs (T + 1, *), act (T, *), rew, logp and policy (T,), as in `Trajectories`."""
    return Trajectories(obs, act, rew, logp, policy, torch.tensor([len(rew)]), torch.tensor([terminated]), about)


def join(parts: Sequence[Trajectories]) -> Trajectories:
    """Several databases as one. Raises TrajectoryError if they are of different tasks."""
    if len(parts) == 1:
        return parts[0]
    tasks = [(part.about, _shapes(part.obs), part.act.shape[1:]) for part in parts]
    other = next((task for task in tasks if task != tasks[0]), None)
    if other is not None:
        raise TrajectoryError(f"trajectories of different tasks: {tasks[0][0]} and {other[0]}")
    columns = {name: concatenate([getattr(part, name) for part in parts]) for name in COLUMNS if name != "logp"}
    logps = [part.logp for part in parts if part.logp is not None]
    return Trajectories(**columns, logp=torch.cat(logps) if len(logps) == len(parts) else None, about=parts[0].about)


def read_trajectories(path: str | Path) -> Trajectories:
    """The trajectories of a file, a directory of shards, or a run that was trained with `save_trajectories`.

    Everything is held in memory. Raises TrajectoryError, naming the file, for what is damaged, missing or of different tasks.
    """
    path = Path(os.path.expanduser(path))
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    files = [path] if path.is_file() else shards(folder)
    if not files:
        raise TrajectoryError(
            f"there are no trajectories in {path}: train with --save-trajectories, or play a policy with `policygrad collect`"
        )
    return join([_read_file(file) for file in files])


def _read_file(path: Path) -> Trajectories:
    try:
        with open_state(path) as file:
            try:
                ABOUT("description", file.meta)
            except FormError as error:
                raise TrajectoryError(f"{path} holds no trajectories: {error}") from error
            about = file.meta["trajectories"]
            state = file.state(form_of_columns(about, sum(math.prod(x.shape) for x in file.tensors.values())))
    except ModelFileError as error:
        raise TrajectoryError(str(error).replace("policygrad model", "file of trajectories")) from error
    about |= {"head": about["head"].replace("legal=", "masked=")}  # as version 0.4 wrote it
    try:
        return Trajectories(**state, about=about)
    except TrajectoryError as error:
        raise TrajectoryError(f"{path} is damaged: {error}") from error


def _shapes(tree: Tree) -> Any:
    """The shape of a row in every array, and its type."""
    return tree_map(lambda x: (tuple(x.shape[1:]), str(x.dtype).rpartition(".")[2]), tree)


def shards(folder: Path) -> list[Path]:
    """The shards in a directory, in the order of training."""
    return sorted((p for p in folder.glob("*.safetensors") if p.stem.isdecimal()), key=lambda p: int(p.stem))


class Cutter:
    """Cuts rollouts into episodes, also those that go on over several rollouts; columns are then the same environments.

    An episode that was not seen from its first step on, or that a reset breaks off, is left out.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.open: dict[int, list[dict[str, Tree]]] = {}  # column → parts of its unfinished episode
        self.done: list[Trajectories] = []
        self.bytes = 0

    def add(self, rollout: Rollout, policy: int = 0) -> None:
        """Take what a rollout has; policy: which one acted, see `Trajectories`."""
        ends = rollout.terminated | rollout.truncated
        for n in range(rollout.mask.shape[1]):
            rows = rollout.mask[:, n].nonzero().squeeze(1)
            stops = (ends[rows, n].nonzero().squeeze(1) + 1).tolist()
            for start, stop in zip([0, *stops], [*stops, len(rows)], strict=True):
                if start < stop:
                    self._part(rollout, n, rows[start:stop], policy)

    def _part(self, rollout: Rollout, n: int, rows: Tensor, policy: int) -> None:
        """A stretch of one episode: rows of one column."""
        if int(rollout.time[rows[0], n]) == 0:
            self.open[n] = []
        elif n not in self.open:
            return  # it began before anybody looked
        columns = {name: take(getattr(rollout, name), (rows, n)) for name in ("obs", "act", "rew", "behavior")}
        columns = to_device(columns, "cpu")
        self.open[n].append(columns | {"policy": torch.full((len(rows),), policy)})
        last = int(rows[-1])
        if bool(rollout.terminated[last, n] | rollout.truncated[last, n]):
            last_obs = to_device(take(rollout.next_obs, (slice(last, last + 1), n)), "cpu")
            self._close(self.open.pop(n), last_obs, bool(rollout.terminated[last, n]))

    def _close(self, parts: list[dict[str, Tree]], last_obs: Tree, terminated: bool) -> None:
        whole = concatenate(parts)
        obs, rew, logp = concatenate([whole["obs"], last_obs]), whole["rew"], whole["behavior"]
        episode = one_episode(obs, whole["act"], rew, logp, whole["policy"], terminated, self.about)
        self.done.append(episode)
        self.bytes += sum(x.nbytes for name in COLUMNS for x in tree_leaves(getattr(episode, name)))

    def take(self) -> Trajectories | None:
        """The episodes that have ended since the last call."""
        done, self.done, self.bytes = self.done, [], 0
        return join(done) if done else None


class TrajectoryWriter:
    """Writes every episode of training into shards, as many of them as there are once a checkpoint is due.

    Going on from a checkpoint at `steps` removes what was written after it, so that nothing is there twice: what is played
    again is written again.
    """

    def __init__(self, folder: Path, about: dict[str, Any], steps: int = 0, total: int = 0) -> None:
        """steps: done so far; total: how many it is going to be, for a warning of how large that is."""
        self.folder, self.cutter, self.total = folder, Cutter(about), total
        make_folder(self.folder)
        self._forget(steps)

    def _forget(self, steps: int) -> None:
        """Remove the shards of later steps."""
        self.flushed = steps
        for path in [*(p for p in shards(self.folder) if int(p.stem) > steps), *self.folder.glob(".*.tmp")]:
            path.unlink()

    def add(self, rollout: Rollout, steps: int) -> None:
        """Take a rollout of the policy that has learned from `steps` steps."""
        if self.total:
            self._warn(rollout)
        self.cutter.add(rollout, steps)
        if self.cutter.bytes >= SHARD_BYTES:
            self.flush(steps + rollout.steps)

    def _warn(self, rollout: Rollout) -> None:
        names = ("obs", "act", "rew", "logp", "time")
        row = sum(x[0, 0].nbytes for name in names for x in tree_leaves(getattr(rollout, name)))
        size, self.total = row * self.total, 0
        if size > WARN_BYTES:
            warnings.warn(f"the trajectories will take about {size / 1e9:.1f} GB in {self.folder}", stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """The episodes that are not in a shard, and the steps of the last shard: later ones are to be written again."""
        done = {name: getattr(join(self.cutter.done), name) for name in COLUMNS} if self.cutter.done else None
        opened = {str(n): concatenate(parts) for n, parts in self.cutter.open.items() if parts}
        return {"open": opened, "done": done, "flushed": self.flushed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.cutter.open = {int(n): [columns] for n, columns in state["open"].items()}
        done = state["done"]
        self.cutter.done = [] if done is None else [Trajectories(**done, about=self.cutter.about)]
        self.cutter.bytes = 0 if done is None else sum(x.nbytes for x in tree_leaves(done))
        self._forget(state["flushed"])

    def flush(self, steps: int) -> None:
        """Write the episodes that have ended by now."""
        done, self.flushed = self.cutter.take(), steps
        if done is not None:
            done.save(self.folder / f"{steps:012d}.safetensors")


def collect(
    policy: Policy, env: EnvLike, episodes: int, seed: int = 0, num_envs: int = 8, name: str = "", every: int = 64
) -> Trajectories:
    """Play whole episodes with sampled actions of one policy and return them, for importance sampling.

    name: of the environment; every: episodes a rollout, which are held padded. Raises ValueError for less than one episode.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    envs = make_envs(env, min(num_envs, episodes))
    cutter = Cutter(describe(policy, envs.single_observation_space, envs.single_action_space, name))
    collector = Collector(envs, seed)
    for first in range(0, episodes, every):
        cutter.add(Rollout.of(collector.episodes(policy, min(every, episodes - first)), policy))
    done = cutter.take()
    assert done is not None
    return done
