"""Action masks are of 0 and 1: anything else is refused, by agents, by what is served and exported, and in training."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from kinds import VECTOR, Kind

import policygrad as pg
from policygrad.errors import ObservationError
from policygrad.models.observations import ActionMaskError
from policygrad.serving.standalone import NumpyPolicy

MASK = spaces.Box(-np.inf, np.inf, (4,), np.float32)
PLACES = {
    "info": Kind("ppo", VECTOR, spaces.Discrete(4), {"mask_source": "info"}, masks=4),
    "observation": Kind("ppo", spaces.Dict(action_mask=MASK, x=VECTOR), spaces.Discrete(4)),
}
WRONG: dict[str, tuple[list[Any], str]] = {
    "texts": (["0", "1", "0", "0"], "got '0'"),
    "words": (["False", "True", "False", "False"], "got 'False'"),
    "a text among numbers": ([0, "1", 0, 0], "got '0'"),
    "NaN": ([0.0, 1.0, float("nan"), 0.0], "got nan"),
    "two": ([0, 1, 2, 0], "got 2"),
    "below zero": ([0, 1, -1, 0], "got -1"),
    "almost zero": ([0.0, 1.0, 1e-9, 0.0], "got 1e-09"),
    "none": ([None, 1, 0, 0], "got None"),
    "infinity": ([0.0, 1.0, 0.0, float("inf")], "got inf"),
}
RIGHT = ([0, 1, 0, 0], [False, True, False, False], [0.0, 1.0, 0.0, 0.0], np.array([0, 1, 0, 0], np.uint8))


def policies(where: str, folder: Any) -> list[Any]:
    """The agent, the policy served, the one in torch, and the file for NumPy alone."""
    kind = PLACES[where]
    agent, path = kind.saved(folder)
    body = lambda space: pg.FourierFeatures(space, 1, low=[-2, -2, -2], high=[2, 2, 2])  # noqa: E731
    own = (
        Kind(kind.algo, kind.observed, kind.acted, kind.keywords | {"body": body}, kind.masks)
        if where == "info"
        else None
    )
    torch_served = [] if own is None else [pg.load_policy(own.agent().save_policy(folder / "own"), body=body)]
    exported = pg.export(path, "numpy", folder / "policy.npz").files[0]
    return [agent, pg.load_policy(path), NumpyPolicy.load(exported), *torch_served]


def asked(policy: Any, where: str, mask: Any, batch: bool) -> Any:
    x: Any = [1.0, 1.0, 0.0]
    x, mask = ([x, x], [[1, 1, 1, 1], mask]) if batch else (x, mask)
    if where == "info":
        return policy.predict(x, action_masks=mask, deterministic=True)[0]
    return policy.predict({"action_mask": mask, "x": x}, deterministic=True)[0]


@pytest.mark.parametrize("where", PLACES)
def test_what_is_neither_0_nor_1_is_refused_wherever_it_is_asked(where, tmp_path):
    for policy in policies(where, tmp_path):
        kind = ObservationError if type(policy) is not NumpyPolicy else ValueError
        for mask, words in WRONG.values():
            for batch in (False, True):
                with pytest.raises(kind, match=f"expected 0 or 1 in an action mask, {'' if batch else words}"):
                    asked(policy, where, mask, batch)
        for mask in RIGHT:
            assert asked(policy, where, mask, batch=False) == 1
            assert asked(policy, where, mask, batch=True)[1] == 1


class Wrong(gym.Env):
    """Gives a mask that is none, in its third step."""

    action_space = spaces.Discrete(4)

    def __init__(self, where: str, mask: list[Any]) -> None:
        self.where, self.mask, self.time = where, mask, 0
        self.observation_space: spaces.Space = VECTOR if where == "info" else PLACES[where].observed

    def _shown(self) -> tuple[Any, dict[str, Any]]:
        mask: Any = self.mask if self.time == 3 else [1, 1, 1, 1]
        x = np.zeros(3, np.float32)
        if self.where == "info":
            return x, {"action_mask": mask}
        return {"action_mask": np.array(mask, np.float32), "x": x}, {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._shown()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        obs, info = self._shown()
        return obs, 0.0, self.time == 6, False, info


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("vector", [False, True])
def test_training_and_evaluations_stop_at_a_mask_that_is_none(where, vector):
    names = ("NaN", "two", "almost zero", *(("a text among numbers",) if where == "info" else ()))
    for mask, _ in (WRONG[name] for name in names):
        make = partial(Wrong, where, mask)
        env: Any = SyncVectorEnv([make, make]) if vector else make
        agent = pg.ppo(env, hidden=(4,), num_steps=8, mask_source=where, **({} if vector else {"num_envs": 2}))
        with pytest.raises(ActionMaskError, match="expected 0 or 1 in an action mask, got"):
            agent.learn(16)
        with pytest.raises(ActionMaskError, match="expected 0 or 1 in an action mask, got"):
            pg.evaluate(agent.policy, make, 1)
    fine = pg.ppo(partial(Wrong, where, [0, 1, 0, 1]), hidden=(4,), num_steps=8, mask_source=where, num_envs=2)
    assert fine.learn(16).num_timesteps == 14  # and two resets
