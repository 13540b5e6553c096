"""N environments stepped by one compiled function: what all of them share.

An environment is three functions on arrays: `begin` draws a first state, `play` moves it, and `show` writes the observation.
They are chosen by the class of its `rules`, a named tuple of one array, `numbers`; `environment` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from policygrad.compiled.cache import OPTIONS, compiled, part

TERMINATED, TRUNCATED, OVER, PAUSED = range(4)  # rows of `flags`
TIME, FIRST, KNOWN, EPISODES = range(4)  # columns of `counts`


class Worlds(NamedTuple):
    """Everything that stepping N environments changes.

    counts: steps since the reset, −1 before the first one; the row of `history` that holds the first action since; whether
    `origins` and `history` hold all that is needed to play it again; and how many resets there were.
    """

    state: np.ndarray  # (N, S)
    generators: np.ndarray  # (N, 4), see generator.py
    origins: np.ndarray  # (N, 4): the generators before the last reset
    counts: np.ndarray  # (N, 4) int64: TIME, FIRST, KNOWN, EPISODES
    flags: np.ndarray  # (4, N) bool: TERMINATED, TRUNCATED, OVER (the next step is a reset), PAUSED
    obs: np.ndarray  # (N, *)
    rew: np.ndarray  # (N,) float64
    history: np.ndarray  # (rows, N): the actions of every step


def begin(state: Any, i: Any, generators: Any, rules: Any) -> Any:
    """Draw the first state of environment i, with generator i."""


def play(state: Any, i: Any, action: Any, time: Any, generators: Any, rules: Any) -> Any:
    """Move environment i, `time` steps after its reset. Returns the reward, and whether the episode terminates."""


def show(state: Any, i: Any, time: Any, obs: Any, rules: Any) -> Any:
    """Write observation i."""


FUNCTIONS: dict[type, tuple[Any, Any, Any]] = {}  # of the class of the rules


def environment(rules: type, begins: Any, plays: Any, shows: Any) -> None:
    """An environment: its functions, each a `part` with the arguments of `begin`, `play` or `show`."""
    FUNCTIONS[rules] = begins.py_func, plays.py_func, shows.py_func


@overload(begin, jit_options=OPTIONS, strict=False)  # pyright: ignore
def _begin(state: Any, i: Any, generators: Any, rules: Any) -> Callable[..., Any]:
    return FUNCTIONS[rules.instance_class][0]


@overload(play, jit_options=OPTIONS, strict=False)  # pyright: ignore
def _play(state: Any, i: Any, action: Any, time: Any, generators: Any, rules: Any) -> Callable[..., Any]:
    return FUNCTIONS[rules.instance_class][1]


@overload(show, jit_options=OPTIONS, strict=False)  # pyright: ignore
def _show(state: Any, i: Any, time: Any, obs: Any, rules: Any) -> Callable[..., Any]:
    return FUNCTIONS[rules.instance_class][2]


@part
def advance(worlds: Worlds, action: np.ndarray, choices: int, row: int, limit: int, rules: Any) -> int:
    """One step of every environment, as Gymnasium's NEXT_STEP mode has it: those whose episode is over are reset instead, and
    the paused ones stay as they are.

    action: (N,). choices: actions from 0 on that there are; 0 for real numbers. row: of `history`. limit: steps of an episode.
    Returns −1, or the first environment whose action is none or that was never reset; then nothing was done.
    """
    flags, counts, rew = worlds.flags, worlds.counts, worlds.rew
    for i in range(len(action)):
        if not flags[PAUSED, i] and not flags[OVER, i]:
            known = choices == 0 or 0 <= action[i] < choices
            if counts[i, TIME] < 0 or not known:
                return i
    for i in range(len(action)):
        rew[i] = 0.0
        flags[TERMINATED, i] = flags[TRUNCATED, i] = False
        if flags[PAUSED, i]:
            flags[OVER, i] = False
            continue
        if flags[OVER, i]:
            for k in range(4):
                worlds.origins[i, k] = worlds.generators[i, k]
            begin(worlds.state, i, worlds.generators, rules)
            counts[i, TIME], counts[i, FIRST], counts[i, KNOWN] = 0, row + 1, 1
            counts[i, EPISODES] += 1
            flags[OVER, i] = False
        else:
            worlds.history[row, i] = action[i]
            reward, terminated = play(worlds.state, i, action[i], counts[i, TIME], worlds.generators, rules)
            counts[i, TIME] += 1
            truncated = counts[i, TIME] >= limit
            rew[i] = reward
            flags[TERMINATED, i], flags[TRUNCATED, i], flags[OVER, i] = terminated, truncated, terminated or truncated
        show(worlds.state, i, counts[i, TIME], worlds.obs, rules)
    return -1


@cache
def stepper(rules: type) -> Callable[..., int]:
    """`advance` for Python, of environments with rules of this class: `numbers` is its field."""

    @compiled
    def step(
        state: np.ndarray, generators: np.ndarray, origins: np.ndarray, counts: np.ndarray, flags: np.ndarray,
        obs: np.ndarray, rew: np.ndarray, history: np.ndarray, action: np.ndarray, choices: int, numbers: np.ndarray,
        limit: int, row: int,
    ) -> int:  # fmt: skip
        worlds = Worlds(state, generators, origins, counts, flags, obs, rew, history)
        return advance(worlds, action, choices, row, limit, rules(numbers))

    return step
