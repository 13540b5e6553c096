"""What was asked of an EnvPool since it was made.

Its generators are in C++, where nobody can set them, so no episode can be played again alone: the pool is made again from its
seeds, and asked all of it once more. For that to take seconds, a run makes a new pool after 524,288 steps, with seeds that
follow from the run's seed and its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.envs.journal import digest

MOST = 2**19  # steps of its environments, after which a pool is made anew: to be asked again takes seconds
STEP, RESET, NOTHING = 0, 1, 2


class Calls:
    """A row per call of a pool that was made with `seeds`, one per environment.

    actions (rows, N, *): what they were given; asked (rows, N): what each one was to do, STEP, RESET or NOTHING.
    """

    def __init__(self, seeds: Sequence[int], space: spaces.Space) -> None:
        self.seeds, self.rows, n = list(seeds), 0, len(seeds)
        kind = np.min_scalar_type(space.n - 1) if isinstance(space, spaces.Discrete) else np.float32
        self.actions = np.zeros((1024, n, *(space.shape or ())), kind)
        self.asked = np.zeros((1024, n), np.uint8)

    @property
    def many(self) -> bool:
        """Whether the pool is to be made anew."""
        return self.rows * len(self.seeds) >= MOST

    def note(self, actions: Any, asked: Any = STEP) -> None:
        """The pool is about to be called."""
        if self.rows == len(self.actions):
            self.actions, self.asked = (np.concatenate([x, np.zeros_like(x)]) for x in (self.actions, self.asked))
        self.actions[self.rows] = actions
        self.asked[self.rows] = asked
        self.rows += 1

    def snapshot(self, rows: int, obs: np.ndarray, late: np.ndarray) -> list[dict[str, Any]]:
        """How to bring every environment to where it was after so many calls, and the evidence that it is there."""
        return [
            {
                "seed": seed,
                "state": None,
                "actions": self.actions[:rows, i],
                "asked": self.asked[:rows, i],
                "over": bool(late[i]),
                "shown": digest(obs[i]),
                "generator": None,
            }
            for i, seed in enumerate(self.seeds)
        ]


def together(
    snapshots: Sequence[dict[str, Any] | None], space: spaces.Space
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Seeds, actions and what was asked, of all environments; a file may have held them. Raises ValueError for what was never
    asked of one pool.
    """
    known = [each for each in snapshots if each is not None and "asked" in each]
    if len(known) < len(snapshots):
        raise ValueError("what EnvPool was asked is not known")
    actions, asked = (np.stack([each[name] for each in known], 1) for name in ("actions", "asked"))
    low, high = (0, space.n - 1) if isinstance(space, spaces.Discrete) else (space.low, space.high)  # pyright: ignore
    if actions.shape != (*asked.shape, *(space.shape or ())) or not ((actions >= low) & (actions <= high)).all():
        raise ValueError(f"the actions are not those of {space}")
    return [each["seed"] for each in known], actions, asked
