"""Gymnasium's classic control and toy text, all environments in one compiled call a step: the same to the last bit.

What an environment is stands in games.py and below it, in the room `compiled`. Here is what `SerialVectorEnv` has around its
environments: NEXT_STEP resets, pauses, action masks, errors, and the way back to where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from policygrad.compiled.environments import EPISODES, FIRST, KNOWN, OVER, PAUSED, TERMINATED, TIME, TRUNCATED, stepper
from policygrad.compiled.generator import state_of, words_of
from policygrad.envs.blame import PENDING, blame, brief
from policygrad.envs.checks import rows
from policygrad.envs.games import game_of
from policygrad.envs.journal import LONGEST, digest
from policygrad.envs.serial import UNKNOWN, each_seed, mask_info
from policygrad.envs.single import make_one
from policygrad.errors import ContractError

ROOM = 1024  # rows of `history` at first
NO_LIMIT = 2**62


class CompiledVectorEnv(VectorEnv):
    """`num_envs` environments of an id that games.py knows, in NEXT_STEP mode. What it returns is the next step's, too.

    `paused` (N,) bool: who sits the steps out, until the next reset. report_masks: whether `info` shows the action masks.
    Actions are read in the type of the space. arrays: the arguments of the compiled step, but for the last: row, that of
    `history` which the next step writes. Whether all this is true on this machine is for agreement.py to say.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012, as in the base class

    def __init__(self, env_id: str, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        game, n = game_of(env_id), num_envs
        self.game, self.num_envs, self.spec = game, n, game.spec
        self.single_observation_space, self.single_action_space = game.observation_space, game.action_space
        self.observation_space = batch_space(game.observation_space, n)
        self.action_space = batch_space(game.action_space, n)
        self.first, self.report_masks = 0, False  # first: the number of the first one, where these are some of many
        self._limit = NO_LIMIT if game.spec.max_episode_steps is None else game.spec.max_episode_steps
        shape, dtype = game.observation_space.shape or (), game.observation_space.dtype
        self.state = np.zeros((n, game.width), game.dtype)
        self._generators, self._origins = np.zeros((2, n, 4), np.uint64)
        self._counts = np.zeros((n, 4), np.int64)
        self._counts[:, TIME] = -1
        self._flags = np.zeros((4, n), bool)
        self._obs, self._rew = np.zeros((n, *shape), dtype), np.zeros(n)
        self._given = np.zeros((n, *(game.action_space.shape or ())), game.action_space.dtype)
        self._dtype, self._shape = self._given.dtype, self._given.shape
        self._kept = np.uint8 if isinstance(game.action_space, spaces.Discrete) else np.float32
        self.history, self.row = np.zeros((ROOM, n), self._kept), 0
        self.mark()
        self._find_views()

    def _find_views(self) -> None:
        """What is part of something else, or cannot be copied."""
        self._action, self._over = self._given.reshape(-1), self._flags[OVER]
        self._terminated, self._truncated = self._flags[TERMINATED], self._flags[TRUNCATED]
        worlds = (
            self.state,
            self._generators,
            self._origins,
            self._counts,
            self._flags,
            self._obs,
            self._rew,
            self.history,
        )
        self.arrays = *worlds, self._action, self.game.choices, self.game.rules.numbers, self._limit
        self._advance = stepper(type(self.game.rules))

    def __getstate__(self) -> dict[str, Any]:
        views = ("_action", "_over", "_terminated", "_truncated", "arrays", "_advance")
        return {name: value for name, value in vars(self).items() if name not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._find_views()

    @property
    def paused(self) -> np.ndarray:
        """(N,) bool: who sits the steps out."""
        return self._flags[PAUSED]

    @paused.setter
    def paused(self, who: np.ndarray) -> None:
        self._flags[PAUSED] = who

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset every environment, paused ones included."""
        seeds = each_seed(seed, self.num_envs)
        self.paused = np.zeros(self.num_envs, bool)
        return self.restart(np.ones(self.num_envs, bool), seeds, options)

    def restart(
        self, which: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in these environments (N,) bool. seeds: one for each of all; None leaves its generator alone."""
        for i in which.nonzero()[0].tolist():
            if seeds[i] is not None or not self._generators[i].any():
                self._seed(i, seeds[i])
        paused, over = self.paused.copy(), self._over.copy()
        self.paused, self._over[:] = ~which, which
        self._advance(*self.arrays, self.row - 1)
        self.paused, self._over[:] = paused, over & ~which
        if options is not None:
            for i in which.nonzero()[0].tolist():
                self._reset_with(i, options)
        return self._obs, self._masks(~which) if self.report_masks else {}

    def _seed(self, i: int, seed: int | None) -> None:
        """Give environment i the generator that Gymnasium makes of a seed; of None it makes one from the system's entropy."""
        try:
            generator, _ = seeding.np_random(seed)
        except Exception as error:
            blame(error, self._name(i), "reset", PENDING, f"at the beginning of its episode {self._episode(i) + 1}")
        self._set_generator(i, generator.bit_generator.state)  # pyright: ignore[reportArgumentType]

    def generator(self, i: int) -> dict[str, Any]:
        """The state of environment i's random generator, as `generator_state` tells it of Gymnasium's."""
        return state_of(self._generators[i])

    def _set_generator(self, i: int, state: dict[str, Any]) -> None:
        self._generators[i] = words_of(state)

    def _reset_with(self, i: int, options: dict[str, Any]) -> None:
        """Have Gymnasium reset environment i once more, with options, from where its generator was."""
        env = make_one(self.game.spec.id)
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = state_of(self._origins[i])
        env.unwrapped.np_random = generator
        try:
            obs, _ = env.reset(options=options)
        except Exception as error:
            blame(error, self._name(i), "reset", PENDING, f"at the beginning of its episode {self._episode(i)}")
        self._set_generator(i, generator.bit_generator.state)  # pyright: ignore[reportArgumentType]
        self.state[i], self._obs[i], self._counts[i, KNOWN] = self.game.state_in(env), obs, 0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step."""
        row, paused = self.row, self.paused.copy() if self.report_masks else None
        if row == len(self.history):
            row = self.make_room()
        fits = actions.__class__ is np.ndarray and actions.dtype is self._dtype and actions.shape == self._shape
        self._given[...] = actions if fits else self._as_actions(actions)
        wrong = self._advance(*self.arrays, row)
        if wrong >= 0:
            self._refuse(wrong, actions)
        self.row = row + 1
        info = {} if paused is None else self._masks(paused)
        return self._obs, self._rew, self._terminated, self._truncated, info

    def _as_actions(self, actions: Any) -> np.ndarray:
        """The actions in the type of the space. Raises ContractError for another number of them, or another shape."""
        x = np.asarray(actions)
        if x.shape != self._shape:
            raise ContractError(
                f"actions of shape {x.shape}, where {self.num_envs} actions of {self.single_action_space} are expected"
            )
        if not np.can_cast(x.dtype, self._dtype, "same_kind") or x.dtype == bool:
            self._refuse(0, actions)
        return x.astype(self._dtype)

    def _masks(self, silent: np.ndarray) -> dict[str, Any]:
        """The legal actions, where the environment tells them, of all but the silent ones."""
        masks = self.game.masks
        who = enumerate(silent.tolist())
        return mask_info([None if quiet or masks is None else masks[self._obs[i]].copy() for i, quiet in who])

    def _refuse(self, i: int, actions: Any) -> NoReturn:
        """Raise what Gymnasium raises for the action of environment i, or ContractError where it accepts it."""
        when = f"at step {max(self._counts[i, TIME], 0)} of its episode {self._episode(i)}"
        env = make_one(self.game.spec.id)
        try:
            if self._counts[i, TIME] >= 0:
                env.reset()
            action = list(actions)[i]
            env.step(action)
        except Exception as error:
            blame(error, self._name(i), "step", PENDING, when)
        raise ContractError(f"{self._name(i)}: {brief(action)} is no action of {self.single_action_space}, {when}")

    def make_room(self, steps: int = 1) -> int:
        """See that `history` has room for so many steps: let go of actions that nobody can ask for any more, and of those of an
        episode that is too long, and make it longer where it is still rather full. Returns the row of the next step.
        """
        both = self._counts, self._marked[0]
        dead = min(int(x[x[:, KNOWN] == 1, FIRST].min(initial=self.row)) for x in both)
        if self.row - dead > LONGEST:
            dead = max(self.row - 1, 0)
        left, room = self.history[dead : self.row], len(self.history)
        while room < 2 * len(left) + steps:
            room *= 2
        self.history = np.concatenate([left, np.zeros((room - len(left), self.num_envs), self._kept)])
        for x in both:
            x[x[:, FIRST] < dead, KNOWN] = 0  # its beginning is lost: it cannot be played again
            x[:, FIRST] = np.maximum(x[:, FIRST] - dead, 0)
        self.row -= dead
        self._find_views()
        return self.row

    def mark(self) -> None:
        """As `SerialVectorEnv.mark`."""
        self._marked = self._counts.copy(), self._origins.copy(), self._flags[OVER].copy(), self._obs.copy()

    def snapshot(self, marked: bool = False) -> list[dict[str, Any] | None]:
        """As `SerialVectorEnv.snapshot`."""
        now = self._counts, self._origins, self._over, self._obs
        counts, origins, over, obs = self._marked if marked else now
        found: list[dict[str, Any] | None] = []
        for i, (time, first, known, _) in enumerate(counts.tolist()):
            if time < 0 or not known:
                found.append(None)
                continue
            actions = self.history[first : first + time, i].astype(self._given.dtype)
            generator = None if marked else digest(self.generator(i))
            found.append(
                {
                    "seed": None,
                    "state": state_of(origins[i]),
                    "actions": actions.reshape(time, *self._given.shape[1:]),
                    "over": bool(over[i]),
                    "shown": digest(rows(self.single_observation_space, obs, i)),
                    "generator": generator,
                }
            )
        return found

    def restore(self, snapshots: Sequence[dict[str, Any] | None]) -> list[str | None]:
        """As `SerialVectorEnv.restore`: all environments at once, and so that all arrive with the same step."""
        n, paused = self.num_envs, self.paused.copy()
        wrong: list[str | None] = [UNKNOWN if snapshot is None else None for snapshot in snapshots]
        played: list[np.ndarray] = [np.zeros(0)] * n
        for i, snapshot in enumerate(snapshots):
            if snapshot is not None:
                try:
                    played[i] = self._taken(snapshot)
                    if snapshot["seed"] is None:
                        self._set_generator(i, snapshot["state"])
                    self.restart(np.arange(n) == i, [snapshot["seed"] if k == i else None for k in range(n)])
                except Exception as error:
                    wrong[i] = f"playing it again raised {brief(error)}"
        lengths = np.array([len(actions) for actions in played])
        going = np.array([text is None for text in wrong])
        self._counts[:, FIRST] = self.row + lengths.max() - lengths
        for t in range(-int(lengths.max()), 0):
            self.paused = ~going | (t < -lengths)
            for i in (~self.paused).nonzero()[0]:
                self._given[i] = played[i][t]
            self.step(self._given)
            early = self._over & (t < -1)
            for i in early.nonzero()[0].tolist():
                wrong[i] = f"its episode ended after {lengths[i] + t + 1} steps instead of {lengths[i]}"
            going &= ~early
        self.paused = paused
        return [text or self._difference(i, snapshots[i]) for i, text in enumerate(wrong)]

    def _taken(self, snapshot: dict[str, Any]) -> np.ndarray:
        """The actions of a snapshot, which a file may have held. Raises ValueError for what are none."""
        actions, space = np.asarray(snapshot["actions"]), self.single_action_space
        if not len(actions):
            return actions
        known = not isinstance(space, spaces.Discrete) or ((actions >= 0) & (actions < space.n)).all()
        if actions.shape[1:] != space.shape or actions.dtype != space.dtype or not known:
            raise ValueError(f"the actions are not those of {space}")
        return actions

    def _difference(self, i: int, snapshot: Any) -> str | None:
        """What is not as the snapshot says, of an environment that has just been brought to where it was taken."""
        over, self._over[i] = self._over[i], snapshot["over"]  # of one that was paused afterwards it is False
        if snapshot["over"] and not over:
            return "its episode did not end where it had ended"
        if digest(rows(self.single_observation_space, self._obs, i)) != snapshot["shown"]:
            return "the same actions lead to another observation"
        if snapshot["generator"] not in (None, digest(self.generator(i))):
            return "its random numbers are not the same"
        return None

    def _episode(self, i: int) -> int:
        return int(self._counts[i, EPISODES])

    def _name(self, i: int) -> str:
        return f"environment {self.first + i} ({self.game.spec.id})"
