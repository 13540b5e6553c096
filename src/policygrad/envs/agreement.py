"""Whether a compiled environment is what it is compiled from: the last bit may depend on Gymnasium's version, on NumPy's, and
on the processor. So both are played from the same seeds, once in a process, before the compiled one is used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces

from policygrad.compiled.cache import patience
from policygrad.envs.batched import CompiledVectorEnv
from policygrad.envs.games import identity
from policygrad.envs.journal import generator_state
from policygrad.envs.serial import SerialVectorEnv
from policygrad.envs.single import make_one
from policygrad.models.observations import ACTION_MASK

STEPS, HELD, RESETS = 120, 10, 40  # steps that are compared, those of one action, and resets
SEEDS = (1, 2, 3)


def why_not(env_id: str) -> str | None:
    """The reason why a known id cannot be stepped by compiled code, or None where it can."""
    if _agrees(env_id, *identity(env_id)):
        return None
    return "it does something else here than Gymnasium's, which may be of another version, or have other settings"


@cache
def _agrees(env_id: str, *_: Any) -> bool:
    with patience("the environments"):
        return agrees(env_id)


def agrees(env_id: str) -> bool:
    """Whether the compiled environments do the same as Gymnasium's, to the last bit."""
    try:
        ours, theirs = CompiledVectorEnv(env_id, len(SEEDS)), SerialVectorEnv([lambda: make_one(env_id)] * len(SEEDS))
        return _same_settings(ours, theirs) and _same_play(ours, theirs)
    except Exception:  # another version of Gymnasium: whatever it was, Gymnasium's environments are there
        return False


def _same_settings(ours: CompiledVectorEnv, theirs: SerialVectorEnv) -> bool:
    bare: Any = theirs.envs[0].unwrapped
    return all(getattr(bare, name) == value for name, value in ours.game.settings.items())


def _same_play(ours: CompiledVectorEnv, theirs: SerialVectorEnv) -> bool:
    rng, everyone = np.random.default_rng(0), np.ones(len(SEEDS), bool)
    ours.report_masks = theirs.report_masks = True
    act, same = None, _same(ours.reset(seed=SEEDS), theirs.reset(seed=SEEDS))
    for t in range(STEPS):
        if t % HELD == 0:
            act = _actions(ours.single_action_space, len(SEEDS), rng)
        same &= _same(ours.step(act), theirs.step(act)) and _same_inside(ours, theirs)
    for _ in range(RESETS):
        nothing = [None] * len(SEEDS)
        same &= _same(ours.restart(everyone, nothing), theirs.restart(everyone, nothing))
    return same and _same_inside(ours, theirs)


def _actions(space: spaces.Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """Random actions (n, *), some of them beyond the bounds of a Box."""
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=n)
    assert isinstance(space, spaces.Box)
    return (1.2 * rng.uniform(space.low, space.high, (n, *space.shape))).astype(space.dtype)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two answers are equal to the last bit, and of one type; of infos, the action masks."""
    pairs = [*zip(one[:-1], other[:-1], strict=True), *zip(_masks(one[-1]), _masks(other[-1]), strict=True)]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _masks(info: dict[str, Any]) -> list[np.ndarray]:
    return [np.asarray(mask) for mask in info[ACTION_MASK] if mask is not None]


def _same_inside(ours: CompiledVectorEnv, theirs: SerialVectorEnv) -> bool:
    """Whether states and random generators are equal to the last bit."""
    states = np.array([ours.game.state_in(env) for env in theirs.envs], ours.game.dtype).reshape(ours.state.shape)
    generators = [ours.generator(i) == generator_state(env) for i, env in enumerate(theirs.envs)]
    return states.tobytes() == ours.state.tobytes() and all(generators)
