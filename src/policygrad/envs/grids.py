"""MiniGrid: the cells that the agent sees, as one-hot numbers.

A cell is three names: an object, its colour and its state, numbered in no order that means anything. As numbers they would tell
a network that a key (5) is more like a ball (6) than like a door (4).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def make_minigrid(env_id: str, *, one_hot: bool = True, **kwargs: Any) -> gym.Env:
    """A MiniGrid environment whose observations are `OneHotCells`; with one_hot=False as MiniGrid registers it."""
    env = gym.make(env_id, disable_env_checker=True, **kwargs)
    return OneHotCells(env) if one_hot else env


class OneHotCells(gym.ObservationWrapper):
    """The view as 0 and 1: (width, height, 20), 11 objects, 6 colours and 3 states of every cell.

    The mission's words beside it, under `mission`, each 1 if it occurs, where the missions of an environment differ; otherwise
    the view is the whole observation. The direction of the agent is left out: it sees in front of itself.
    """

    def __init__(self, env: gym.Env) -> None:
        from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX  # pyright: ignore[reportMissingImports]
        from minigrid.wrappers import DictObservationSpaceWrapper  # pyright: ignore[reportMissingImports]

        super().__init__(env)
        seen: Any = env.observation_space
        sizes = [len(table) for table in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)]
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.columns = np.eye(sum(sizes), dtype=np.uint8)
        view = spaces.Box(0, 1, (*seen["image"].shape[:2], sum(sizes)), np.uint8)
        self.words: dict[str, int] = {}
        if getattr(seen["mission"], "ordered_placeholders", None):
            self.words = {word: i for i, word in enumerate(sorted(DictObservationSpaceWrapper.get_minigrid_words()))}
        self.observation_space = view
        if self.words:
            self.observation_space = spaces.Dict({"image": view, "mission": spaces.MultiBinary(len(self.words))})

    def observation(self, observation: Any) -> Any:
        """The view, and the words of the mission."""
        view = self.columns[observation["image"] + self.starts].sum(-2, dtype=np.uint8)
        if not self.words:
            return view
        said = np.zeros(len(self.words), np.int8)
        for word in observation["mission"].replace(",", " ").split():
            if word in self.words:
                said[self.words[word]] = 1
        return {"image": view, "mission": said}
