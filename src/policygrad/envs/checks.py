"""What an environment must give, in one place. Environments are foreign code: nothing is believed before it was looked at.

`SerialVectorEnv` writes every observation with `write`, or on a faster way that accepts less, and hands what is no float and
no bool to `number` and `flag`. A user's vector environment is stepped through `Watched`. What one step cannot show, or could
only at a price, `check_record` looks for once a record. Each raises ContractError in one sentence, and NotFiniteError for
numbers; `blame.py` adds who gave it, and when. Infos are touched only where something in them is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from numbers import Number
from typing import TYPE_CHECKING, Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from policygrad.envs.blame import PENDING, blame, brief
from policygrad.envs.single import check_space, env_name
from policygrad.errors import ContractError, NotFiniteError, check_part
from policygrad.models.observations import LARGEST, ActionMaskError, Encoding, expand
from policygrad.tree import Tree, tree_leaves, tree_map

if TYPE_CHECKING:
    from policygrad.data import Record

REAL = [np.dtype(letter) for letter in "?bBhHiIlLqQefdg"]
WHOLE = frozenset({int, np.int64})  # the classes of most Discrete observations
NUMBERS = frozenset({float, int, np.float64, np.float32, np.int64})  # and of most rewards
EVERYTHING = slice(None)
BOOLS, REALS = (bool, np.bool_), (float, int, np.floating, np.integer, np.bool_)


@cache
def surviving(dtype: np.dtype) -> frozenset[np.dtype]:
    """The types of which every number survives the cast to `dtype`. Floats take every real number, rounded."""
    return frozenset(x for x in REAL if dtype.kind == "f" or np.can_cast(x, dtype, "safe"))


def rows(space: spaces.Space, batch: Any, i: int) -> Any:
    """batch[i] as views, part by part: where environment i's observation goes."""
    if isinstance(space, spaces.Dict):
        return {key: rows(part, batch[key], i) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(rows(part, batch[k], i) for k, part in enumerate(space.spaces))
    return batch[i, ...] if isinstance(batch, np.ndarray) else None  # None: a space that no policy is for


def copied(batch: Any) -> Any:
    """A copy of a batch of observations, part by part."""
    if isinstance(batch, dict):
        return {key: copied(part) for key, part in batch.items()}
    return batch.copy() if isinstance(batch, np.ndarray) else tuple(copied(part) for part in batch)


class Place:
    """Where one environment's observations go: `place[EVERYTHING] = obs`, for what the space allows."""

    def __init__(self, space: spaces.Space, row: Any) -> None:
        self.space, self.row = space, row
        self.shape, self.fits, self.low, self.high = None, frozenset(), 0, 0
        if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
            self.shape, self.fits = space.shape, surviving(np.dtype(space.dtype))
        elif isinstance(space, spaces.Discrete):
            self.low, self.high = int(space.start), int(space.start + space.n)

    def __setitem__(self, everything: slice, obs: Any) -> None:
        if (obs.__class__ is np.ndarray and obs.shape == self.shape and obs.dtype in self.fits) or (
            obs.__class__ in WHOLE and self.low <= obs < self.high
        ):
            self.row[...] = obs
        else:
            write(self.space, self.row, obs)


def place_of(space: spaces.Space, row: Any) -> Any:
    """A place for observations. Of arrays of one axis, the memory itself: it takes arrays of its own type and length, and no
    others, faster than NumPy takes any.
    """
    if isinstance(row, np.ndarray) and row.ndim == 1:
        return memoryview(row)  # pyright: ignore[reportArgumentType]  any array lends its memory
    return Place(space, row)


def write(space: spaces.Space, row: Any, obs: Any, part: str = "") -> None:
    """row[...] = obs, part by part, if structure, shapes and types are those of the space and every number survives."""
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            if not isinstance(obs, Mapping) or key not in obs:
                raise ContractError(f"{brief(obs)} as observation{part}, where its space is a Dict with a part {key!r}")
            write(inner, row[key], obs[key], f"{part}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            raise ContractError(
                f"{brief(obs)} as observation{part}, where its space is a Tuple of {len(space.spaces)} parts"
            )
        for k, inner in enumerate(space.spaces):
            write(inner, row[k], obs[k], f"{part}[{k}]")
    elif isinstance(space, spaces.Discrete) and obs.__class__ in WHOLE and space.start <= obs < space.start + space.n:
        row[...] = obs
    else:
        row[...] = numeric(space, row.shape, obs, part)
        if isinstance(space, spaces.Discrete) and not space.start <= int(row) < space.start + space.n:
            raise ContractError(
                f"the observation{part} {row}, where its space is {space}: {space.start} to {space.start + space.n - 1}"
            )


def numeric(space: spaces.Space, shape: tuple[int, ...], obs: Any, part: str = "") -> np.ndarray:
    """An observation, or a batch of them, as an array of this shape, of real numbers that survive in the space's type."""
    try:
        x = np.asarray(obs)
    except Exception:  # lists of unequal length, tensors of a GPU or with a gradient
        x = np.asarray(None)
    if x.dtype.kind not in "biuf":
        what = f"values of type {x.dtype}" if x.shape and x.dtype.kind != "O" else brief(obs)
        raise ContractError(f"{what} as observation{part}, where its space is {space}: expected real numbers")
    if x.shape != shape:
        raise ContractError(f"an observation{part} of shape {x.shape}, where its space, {space}, has {shape}")
    dtype = np.dtype(space.dtype)
    if dtype.kind == "f" or x.dtype in surviving(dtype):
        return x
    with np.errstate(invalid="ignore", over="ignore"):
        cast = x.astype(dtype)
    if not np.array_equal(cast, x):
        lost = x[cast != x].flat[0] if x.shape else x
        raise ContractError(f"{lost!s} in observation{part}, which is no {dtype} of its space, {space}")
    return cast


def number(reward: Any) -> float:
    """A reward as a float; refused is what is not one real number."""
    if isinstance(reward, REALS):
        return float(reward)
    x = plain(reward)
    if isinstance(reward, complex | np.complexfloating) or not (
        isinstance(reward, Number) or (x.shape == () and x.dtype.kind in "biuf")
    ):
        raise ContractError(f"the reward {brief(reward)}, where one number is expected: return float(reward)")
    return float(reward)  # pyright: ignore[reportArgumentType]


def flag(name: str, value: Any) -> bool:
    """An end as a bool; refused is what is neither true nor false."""
    if isinstance(value, BOOLS):
        return bool(value)
    x = plain(value)
    if x.shape != () or x.dtype.kind not in "biu" or x not in (0, 1):
        raise ContractError(f"{name} = {brief(value)}, where True or False is expected: return bool({name})")
    return bool(x)


def plain(x: Any) -> np.ndarray:
    """An array of it, or of None where there is none."""
    try:
        return np.asarray(x)
    except Exception:
        return np.asarray(None)


def told(info: Any, key: str) -> Any:
    """What an info, which must be a dict then, has under a key; None where it has nothing."""
    if not isinstance(info, Mapping):
        raise ContractError(f"{brief(info)} as info, where a dict with {key!r} is expected")
    return info.get(key)


def check_distinct(envs: Iterable[gym.Env]) -> None:
    """Refuse one object in the place of several environments: it would be stepped several times a step."""
    owner: dict[int, int] = {}
    for i, env in enumerate(envs):
        k = owner.setdefault(id(env.unwrapped), i)
        if k != i:
            raise ContractError(
                f"environments {k} and {i} are one object of class {type(env.unwrapped).__name__}: the callable must make "
                "a new environment at every call, e.g. lambda: MyEnv()"
            )


def check_vector(envs: VectorEnv) -> VectorEnv:
    """The vector environment, if it says what it shows and takes, how many it is, and how it resets."""
    for name in ("single_observation_space", "single_action_space"):
        check_space(envs, name)
    count = getattr(envs, "num_envs", None)
    if not isinstance(count, int | np.integer) or count < 1:
        raise ContractError(f"{type(envs).__name__} must have num_envs, a number of at least 1, got {count!r}")
    autoreset_mode(envs)
    check_distinct(singles(envs))
    return envs


def singles(envs: VectorEnv) -> list[gym.Env]:
    """The single environments that a vector environment steps in this process, if that is what it does."""
    inside = getattr(envs.unwrapped, "envs", None)
    return [env for env in inside if isinstance(env, gym.Env)] if isinstance(inside, list | tuple) else []


def check_same(encoding: Encoding, space: spaces.Space) -> None:
    """Refuse to play where observations have other parts, shapes or choices than those that were learned from."""
    own, other = ([(leaf.path, leaf.shape, leaf.one_hot) for leaf in e.leaves] for e in (encoding, Encoding(space)))
    if own != other:
        raise ContractError(
            f"the policy has learned from observations of {encoding.space}, the environment's are of {space}"
        )


def autoreset_mode(envs: VectorEnv) -> AutoresetMode:
    """How a vector environment resets. One that does not say it is refused: a guess would misread one step an episode."""
    check_part("envs", envs, ("num_envs", "metadata"), "a vector environment: call policygrad.make_envs(…) first")
    given = (envs.metadata or {}).get("autoreset_mode")
    try:
        return AutoresetMode(given)
    except ValueError:
        raise ContractError(
            f"{type(envs.unwrapped).__name__} does not say how it resets: set its metadata['autoreset_mode'] to "
            f"gymnasium.vector.AutoresetMode.NEXT_STEP, SAME_STEP or DISABLED, got {given!r}"
        ) from None


class Watched:
    """A user's vector environment, each of whose answers is looked at before it is believed. It gets copies of actions."""

    def __init__(self, envs: VectorEnv) -> None:
        self.envs, self.space = envs, envs.single_observation_space
        self.who, self.count, self.steps = f"the vector environment {env_name(envs)}", envs.num_envs, 0
        self.reads_info = False  # whether anything in infos is asked for

    def reset(self, **keywords: Any) -> tuple[Any, Any]:
        """Its observations (N, *), and what it says besides."""
        answer = PENDING
        try:
            answer = self.envs.reset(**keywords)
            obs, info = answer
            return self.batch(obs), self.info(info)
        except (Exception, SystemExit) as error:
            blame(error, self.who, "reset", answer, f"after {self.steps:,} steps")

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Any]:
        """Its answer, in arrays."""
        self.steps += 1
        answer = PENDING
        try:
            answer = self.envs.step(actions.copy())
            obs, rew, terminated, truncated, info = answer
            rew = self.column("rewards", rew, "biuf")
            terminated = self.column("terminated", terminated, "b")
            return self.batch(obs), rew, terminated, self.column("truncated", truncated, "b"), self.info(info)
        except (Exception, SystemExit) as error:
            blame(error, self.who, "step", answer, f"in step {self.steps:,}")

    def column(self, name: str, x: Any, kinds: str) -> np.ndarray:
        """One value of every environment."""
        if x.__class__ is np.ndarray and x.shape == (self.count,) and x.dtype.kind in kinds:
            return x
        given, x = x, plain(x)
        if x.shape == (self.count,) and kinds == "b" and x.dtype.kind in "iu" and ((x == 0) | (x == 1)).all():
            return x.astype(bool)
        if x.shape != (self.count,) or x.dtype.kind not in kinds:
            what = (
                f"{name} of type {x.dtype} and shape {x.shape}" if x.dtype.kind != "O" else f"{name} = {brief(given)}"
            )
            expected = "booleans" if kinds == "b" else "numbers"
            raise ContractError(f"{what}, where {expected} of shape {(self.count,)} are expected")
        return x

    def batch(self, obs: Any) -> Any:
        """The observations, in arrays, if they are `count` of the space."""
        return as_batch(self.space, self.count, obs)

    def info(self, info: Any) -> Any:
        """What it says besides: a dict, where it is read."""
        if self.reads_info and not isinstance(info, Mapping):
            raise ContractError(f"{brief(info)} as info, where a dict is expected")
        return info


def as_batch(space: spaces.Space, count: int, obs: Any, part: str = "") -> Any:
    """A batch of `count` observations of the space, in arrays, if structure, shapes and types are those of the space."""
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping) or not obs.keys() >= space.spaces.keys():
            raise ContractError(
                f"{brief(obs)} as observations{part}, where the space is a Dict with parts {', '.join(space)}"
            )
        return {key: as_batch(inner, count, obs[key], f"{part}[{key!r}]") for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            raise ContractError(
                f"{brief(obs)} as observations{part}, where the space is a Tuple of {len(space.spaces)} parts"
            )
        return tuple(as_batch(inner, count, obs[k], f"{part}[{k}]") for k, inner in enumerate(space.spaces))
    shape = (count, *(space.shape or ()))
    if obs.__class__ is np.ndarray and obs.shape == shape and obs.dtype == space.dtype:
        return obs
    return numeric(space, shape, obs, part)


def check_record(record: Record, encoding: Encoding, episodes_done: int, parts: Iterable[str]) -> None:
    """Stop the run before numbers that are none, or no observations of the space, reach the parameters.

    parts: the names of the record's observations to look at, "obs" and, where it is no view of them, "next_obs".
    """
    sound = record.act.dtype.kind != "f" or bool(np.isfinite(record.act).all())
    # an observation that came after an action that is not finite is not to blame for it
    acted = len(record.act) if sound else int(np.argwhere(~np.isfinite(record.act))[0, 0])
    for name in parts:
        for leaf, x in encoding.arrays(getattr(record, name)):
            wrong = leaf.strangers(x)
            where = None if wrong is None else tuple(int(i) for i in np.argwhere(wrong)[0])
            if where is None or where[0] + (name == "next_obs") > acted:
                continue
            place = f"environment {where[1]}, {_around(record, where[0], where[1], episodes_done)}"
            if leaf.limited:
                raise ContractError(
                    f"the observation{leaf.where} is not in its space, {leaf.space}, in {place}. Nothing was updated."
                )
            _refuse(record, f"observation{leaf.where}", x[where], ~(np.abs(x[where]) < LARGEST), where, place)
    for name, x in (("action", record.act), ("reward", record.rew)):
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            t, n, *_ = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
            place = f"environment {n}, {_around(record, t, n, episodes_done)}"
            _refuse(record, name, x[t, n], ~np.isfinite(x[t, n]), (t, n), place)


def check_masks(record: Record, actor: Any) -> None:
    """An environment without a legal action stops the run: whatever is sampled then is none."""
    acted_on = tree_map(lambda x: x[:-1].reshape(-1, *x.shape[2:]), record.obs)
    wrong = record.mask & ~actor.has_legal_action(acted_on).reshape(record.mask.shape)
    if wrong.any():
        t, n = (int(i) for i in np.argwhere(wrong)[0])
        raise ActionMaskError(f"environment {n} leaves no legal action at step {int(record.time[t, n])} of its episode")


def check_begun(end: np.ndarray, mask: np.ndarray) -> None:
    """NEXT_STEP: refuse an end in a reset row, which is no step, (T, N) each."""
    early = end & ~mask
    if np.count_nonzero(early):
        t, n = (int(i) for i in np.argwhere(early)[0])
        raise ContractError(
            f"environment {n} ended an episode in the step that began it, in row {t} of a rollout, which its autoreset_mode, "
            "NEXT_STEP, does not allow"
        )


def _refuse(record: Record, what: str, x: Any, wrong: Any, where: tuple[int, ...], place: str) -> NoReturn:
    """Name a number that is not finite, or an observation so large that its square is not. wrong: which of x are."""
    index = tuple(int(i) for i in np.argwhere(wrong)[0]) if np.ndim(x) else ()
    value, hint = x[index] if index else x, "Nothing was updated"
    if what == "action":
        hint = "The policy's parameters are not finite any more: lower lr"
    elif np.isfinite(value):
        hint += f": numbers from {LARGEST:g} on overflow inside a network, so scale or clip them"
    row = min(where[0], len(record.rew) - 1)
    raise NotFiniteError(
        f"{what}{list(index) if index else ''} is {value!s} in {place}; the action was "
        f"{record.act[row, where[1]].tolist()}. {hint}."
    )


def _around(record: Record, t: int, n: int, episodes_done: int) -> str:
    row = min(t, len(record.rew) - 1)
    episode = episodes_done + int(record.end[:row].sum()) + 1
    return f"around step {int(record.time[row, n])} of its episode (about number {episode} of the run)"


def final_observation(space: spaces.Space, info: Mapping[str, Any], n: int) -> Any:
    """SAME_STEP: what environment n showed last, before it was reset in the same step, as a batch of one."""
    key = "final_obs" if "final_obs" in info else "final_observation"  # its name before Gymnasium 1.1
    said = info.get(f"_{key}")
    try:
        if key not in info or (said is not None and not said[n]):
            raise ContractError("nothing")
        return as_batch(space, 1, expand(of_one(info[key], n), space))
    except Exception as error:
        came = str(error) if isinstance(error, ContractError) else brief(info[key])
        raise ContractError(
            f"a vector environment in SAME_STEP mode must give the last observation of an episode in info['final_obs'], and "
            f"environment {n} gave {came}"
        ) from None


def of_one(final: Any, n: int) -> Any:
    """The part of one environment; Gymnasium turns a Dict's into a dict of arrays."""
    return {key: of_one(part, n) for key, part in final.items()} if isinstance(final, dict) else final[n]


def check_others(before: Tree, after: Tree, end: np.ndarray) -> None:
    """DISABLED: a reset of some environments must leave the others where they are."""
    for x, y in zip(tree_leaves(before), tree_leaves(after), strict=True):
        if not np.array_equal(x[~end], y[~end], equal_nan=x.dtype.kind == "f"):
            raise ContractError(
                "a vector environment in DISABLED mode was reset by options['reset_mask'], and environments whose episodes "
                "had not ended show something else now"
            )
