"""How environments are brought back to where they were: reset as they were last reset, and given the same actions again.

Copying an environment is wrong for some of them without a sign of it, MuJoCo's for one. Playing it again is right wherever
its generator and its actions determine it, and two digests show whether they did: of what it shows last, and of its generator.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

LONGEST = 200_000  # steps of an episode that are kept; a longer one is not played again


@dataclass
class Life:
    """An environment since its last reset: `state` is its generator's before that reset, `seed` what it was reset with.

    earlier: actions from before the journal's first entry; first: the entry of its first action; last: the entry after its
    last one, or None while it is stepped.
    """

    seed: int | None = None
    state: dict[str, Any] | None = None
    earlier: list[Any] = field(default_factory=list)
    first: int = 0
    last: int | None = None


class Journal:
    """What `SerialVectorEnv` has done since the last reset of each of its environments."""

    def __init__(self, envs: list[gym.Env]) -> None:
        self.envs = [env.unwrapped for env in envs]
        self.actions: list[Any] = []  # an entry per vector step
        self.lives = [Life() for _ in envs]
        self.kept: list[Life] = []  # of the last `mark`
        self.length = 0  # of `actions` at the last `mark`
        self.full = 4096  # actions, when it is time to look for those that nobody can ask for any more

    def reset(self, i: int, seed: int | None = None, known: bool = True) -> None:
        """Environment i is about to be reset. known: by nothing but the seed, so that it can be reset like that again."""
        state = generator_state(self.envs[i]) if known and seed is None else None
        self.lives[i] = Life(seed if known else None, state, first=len(self.actions))

    def note(self, actions: Any) -> None:
        """A step of all environments is about to be taken."""
        self.actions.append(actions)
        if len(self.actions) > self.full:
            self._forget()

    def pause(self, i: int) -> None:
        """Environment i does not take part in the step that was noted last, nor in later ones."""
        if self.lives[i].last is None:
            self.lives[i].last = len(self.actions) - 1

    def mark(self) -> None:
        """Remember this moment, for `since_reset`."""
        self.kept, self.length = list(self.lives), len(self.actions)

    def _forget(self) -> None:
        """Let go of actions that nobody can ask for any more, and of those of an episode that is too long."""
        lives = {id(life): life for life in (*self.lives, *self.kept)}.values()
        dead = min(life.first for life in lives)
        if len(self.actions) - dead > LONGEST:
            dead = len(self.actions) - 1
        del self.actions[:dead]
        self.length = max(self.length - dead, 0)
        for life in lives:
            if life.first < dead:  # its beginning is lost: it cannot be played again
                life.seed = life.state = None
            life.first = max(life.first - dead, 0)
            life.last = None if life.last is None else max(life.last - dead, 0)
        self.full = min(2 * len(self.actions) + 4096, LONGEST + 4096)

    def since_reset(self, i: int, marked: bool = False) -> dict[str, Any] | None:
        """How to play environment i again, up to now or to the last `mark`; None where that is not known."""
        life, now = (self.kept[i], self.length) if marked else (self.lives[i], len(self.actions))
        if life.seed is None and life.state is None:
            return None
        stop = now if life.last is None else min(life.last, now)
        taken = [*life.earlier, *(entry[i] for entry in self.actions[life.first : stop])]
        return {"seed": life.seed, "state": life.state, "actions": np.array(taken)}

    def replayed(self, i: int, played: dict[str, Any], actions: list[Any]) -> None:
        """Environment i has been played again from a reset on."""
        self.lives[i] = Life(played["seed"], played["state"], actions, len(self.actions))


def generator_state(env: gym.Env) -> dict[str, Any] | None:
    """The state of an environment's own generator, in plain values; None where it has none, or one of another kind."""
    generator = getattr(env.unwrapped, "_np_random", None)
    bits = generator.bit_generator if isinstance(generator, np.random.Generator) else None
    return bits.state if isinstance(bits, np.random.PCG64) else None  # pyright: ignore[reportReturnType]


def set_generator_state(env: gym.Env, state: dict[str, Any]) -> None:
    """The inverse of `generator_state`."""
    generator = np.random.Generator(np.random.PCG64())
    generator.bit_generator.state = state
    env.unwrapped.np_random = generator


def digest(*things: Any) -> str:
    """A short digest of observations and plain values: equal for what is equal to the last bit."""
    sha = hashlib.sha256()
    for thing in things:
        _update(sha, thing)
    return sha.hexdigest()[:32]


def _update(sha: Any, thing: Any) -> None:
    if isinstance(thing, dict):
        for key in sorted(thing, key=str):
            sha.update(str(key).encode())
            _update(sha, thing[key])
    elif isinstance(thing, tuple | list):
        for part in thing:
            _update(sha, part)
    elif isinstance(thing, np.ndarray | np.generic):
        sha.update(np.ascontiguousarray(thing).tobytes())
    else:
        sha.update(repr(thing).encode())
