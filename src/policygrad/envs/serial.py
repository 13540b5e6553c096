"""A vector environment of our own: environments stepped one after another in this process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from policygrad.envs.blame import brief
from policygrad.envs.checks import (
    EVERYTHING,
    NUMBERS,
    PENDING,
    Place,
    blame,
    check_distinct,
    copied,
    flag,
    number,
    place_of,
    rows,
    told,
    write,
)
from policygrad.envs.journal import Journal, digest, generator_state, set_generator_state
from policygrad.envs.scores import Score, game_of
from policygrad.envs.single import env_name
from policygrad.errors import ContractError, EnvError
from policygrad.models.observations import ACTION_MASK

UNKNOWN = "how it was reset is not known: it was too long ago, or its process had ended or was closed"


class SerialVectorEnv(SyncVectorEnv):
    """Gymnasium's SyncVectorEnv in NEXT_STEP mode, without what training does not read: infos, and copies of observations.

    Whatever an environment gives is looked at before it is written (envs/checks.py), and whatever it raises names it.
    report_masks: whether `info` shows the action masks, all that is kept of the environments' own infos. no_masks: whether the
    policy knows of none, so that one in `info` is worth a warning.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]) -> None:
        try:
            super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        except RuntimeError as error:
            if isinstance(error, EnvError):
                raise
            raise ContractError("environments side by side must have the same observation and action space") from error
        check_distinct(self.envs)
        self.paused = np.zeros(self.num_envs, bool)  # who sits the steps out, until the next reset
        self.report_masks = self.no_masks = self.advised = False
        self.first = 0  # the number of the first one, where these are some of many
        self.journal = Journal(list(self.envs))
        self.games = [game_of(env) for env in self.envs]
        self._views = self.single_action_space.shape != ()  # whose entries an environment could write into
        n = self.num_envs
        self._find_places()
        self._count = 0  # steps of the vector environment
        self._begun, self._episodes = [0] * n, [0] * n  # of each one: that count at its last reset, and its resets

    def _find_places(self) -> None:
        """Where each environment's observation goes, and how it is written there."""
        space = self.single_observation_space
        self._rows = [rows(space, self._observations, i) for i in range(self.num_envs)]
        self._places = [place_of(space, row) for row in self._rows]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_rows", "_places")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._find_places()  # copies of views would be views of nothing

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset every environment, paused ones included."""
        seeds = each_seed(seed, self.num_envs)
        self.paused[:] = False
        return self.restart(np.ones(self.num_envs, bool), seeds, options)

    def restart(
        self, which: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in these environments (N,) bool. seeds: one for each of all; None leaves its generator alone."""
        masks: list[Any] = [None] * self.num_envs
        for i in which.nonzero()[0].tolist():
            given: dict[str, Any] = {} if seeds[i] is None else {"seed": seeds[i]}
            given |= {} if options is None else {"options": options}
            info = self._reset_one(i, **given)
            if self.report_masks:
                masks[i] = info
            self._autoreset_envs[i] = self._terminations[i] = self._truncations[i] = False
        return self._observations, mask_info(masks) if self.report_masks else {}

    def _advise(self) -> None:
        """Warn once of masks that nobody looks at."""
        from policygrad.envs.advice import AdviceWarning  # with torch, which worker processes do without

        self.advised = True
        text = f"{env_name(self.envs[0])}: info has an {ACTION_MASK!r}, which this policy does not look at"
        warnings.warn(f"{text}: mask_source='info' makes the policy keep to it", AdviceWarning, stacklevel=2)

    def _reset_one(self, i: int, stepping: bool = False, **given: Any) -> Any:
        """Reset environment i and write what it shows; its action mask, where masks are reported. stepping: in a step."""
        answer, game = PENDING, self.games[i]
        self._begun[i], self._episodes[i] = self._count, self._episodes[i] + 1
        goes_on = game is not None and game.goes_on and not given
        if not (goes_on and stepping):  # otherwise the journal goes on with the game
            self.journal.reset(i, given.get("seed"), known="options" not in given and not goes_on)
        try:
            answer = self.envs[i].reset(**given)
            obs, info = answer if isinstance(answer, tuple | list) else ()  # pyright: ignore  `blame` says what it is
            self._write(i, obs)
            mask = told(info, ACTION_MASK) if self.report_masks else None
        except (Exception, SystemExit) as error:
            blame(error, self._name(i), "reset", answer, f"at the beginning of its episode {self._episodes[i]}")
        if self.no_masks and not self.advised and type(info) is dict and ACTION_MASK in info:
            self._advise()
        return mask

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended in the last step. The arrays are the next step's too."""
        rew, terminated, truncated = self._rewards, self._terminations, self._truncations
        resetting, paused = self._autoreset_envs.tolist(), self.paused.tolist()
        masks_told, pending, numbers, everything, no = self.report_masks, PENDING, NUMBERS, EVERYTHING, np.False_
        terminated.fill(False)
        truncated.fill(False)
        masks: list[Any] = []
        mask, answer, i = None, PENDING, 0
        self._count += 1
        self.journal.note(np.array(actions) if self._views else actions)
        try:
            for i, (env, act, place) in enumerate(zip(self.envs, actions, self._places, strict=True)):
                if paused[i]:
                    rew[i] = 0.0
                    self.journal.pause(i)
                elif resetting[i]:
                    rew[i], mask = 0.0, self._reset_one(i, stepping=True)
                else:
                    answer = pending
                    answer = env.step(act)
                    obs, reward, ended, stopped, info = answer
                    try:
                        place[everything] = obs
                    except Exception:
                        self._write(i, obs)
                    rew[i] = reward if reward.__class__ in numbers else number(reward)
                    if ended is not False and ended is not no:
                        terminated[i] = flag("terminated", ended)
                    if stopped is not False and stopped is not no:
                        truncated[i] = flag("truncated", stopped)
                    if masks_told:
                        mask = told(info, ACTION_MASK)
                if masks_told:
                    masks.append(mask)
                    mask = None
        except (Exception, SystemExit) as error:
            if resetting[i]:
                raise  # `_reset_one` has said all of it
            when = f"at step {self._count - self._begun[i] - 1} of its episode {self._episodes[i]}"
            blame(error, self._name(i), "step", answer, when)
        self._autoreset_envs = terminated | truncated
        return self._observations, rew, terminated, truncated, mask_info(masks) if masks else {}

    def mark(self) -> None:
        """Remember this moment, for `snapshot(marked=True)`, until the next call."""
        self.journal.mark()
        self._marked = copied(self._observations), self._autoreset_envs.copy()

    def snapshot(self, marked: bool = False) -> list[dict[str, Any] | None]:
        """What `restore` needs to bring every environment to where it is, or was at the last `mark`: plain values and arrays.
        None for one of which that is not known.
        """
        batch, over = self._marked if marked else (self._observations, self._autoreset_envs)
        shown = [rows(self.single_observation_space, batch, i) for i in range(self.num_envs)]
        found: list[dict[str, Any] | None] = []
        for i, env in enumerate(self.envs):
            played = self.journal.since_reset(i, marked)
            generator = None if marked else digest(generator_state(env))  # of the past it is not known
            evidence = {"over": bool(over[i]), "shown": digest(shown[i]), "generator": generator}
            found.append(None if played is None else played | evidence)
        return found

    def restore(self, snapshots: Sequence[dict[str, Any] | None]) -> list[str | None]:
        """Play every environment to where its snapshot was taken. What went wrong, of every environment, or None: then it shows
        the same observation, and its generator is in the same state, to the last bit.
        """
        wrong: list[str | None] = []
        for i, snapshot in enumerate(snapshots):
            try:
                known = snapshot is not None
                wrong.append(self._replay(i, snapshot) if known else UNKNOWN)
            except Exception as error:
                wrong.append(f"playing it again raised {brief(error)}")
        self.scores()  # of what was played again, nobody asks
        return wrong

    def scores(self) -> list[list[Score] | None]:
        """Of every environment, the scores of the games that ended since the last call; None where an episode is a game."""
        found: list[list[Score] | None] = []
        for game in self.games:
            found.append(None if game is None else game.scores)
            if game is not None:
                game.scores = []
        return found

    def _replay(self, i: int, snapshot: dict[str, Any]) -> str | None:
        env, over, game = self.envs[i], False, self.games[i]
        if game is not None:
            game.give_up()
        if snapshot["state"] is not None:
            set_generator_state(env, snapshot["state"])
        obs, _ = env.reset(seed=snapshot["seed"])
        actions = list(snapshot["actions"])
        if isinstance(self.single_action_space, spaces.Box):  # of which a number alone is no member
            actions = [np.asarray(action) for action in actions]
        for t, action in enumerate(actions):
            if over and game is not None and game.goes_on:
                (obs, _), over = env.reset(), False  # the row of a reset, whose action nobody took
                continue
            if over:
                return f"its episode ended after {t} steps instead of {len(actions)}"
            obs, _, terminated, truncated, _ = env.step(action)
            over = bool(terminated or truncated)
        write(self.single_observation_space, self._rows[i], obs)
        self._autoreset_envs[i] = snapshot["over"]  # of one that was paused afterwards it is False
        self._begun[i] = self._count - len(actions)
        self.journal.replayed(i, snapshot, actions)
        if snapshot["over"] and not over:
            return "its episode did not end where it had ended"
        if digest(self._rows[i]) != snapshot["shown"]:
            return "the same actions lead to another observation"
        if snapshot["generator"] not in (None, digest(generator_state(env))):
            return "its random numbers are not the same"
        return None

    def _write(self, i: int, obs: Any) -> None:
        """Write an observation of environment i; the first that its memory does not take is looked at, and so are all later."""
        try:
            self._places[i][EVERYTHING] = obs
        except Exception:
            if isinstance(self._places[i], Place):
                raise
            self._places[i] = Place(self.single_observation_space, self._rows[i])
            self._places[i][EVERYTHING] = obs

    def _name(self, i: int) -> str:
        return f"environment {self.first + i} ({env_name(self.envs[i].unwrapped)})"


def each_seed(seed: Any, count: int) -> list[int | None]:
    """One seed for each of so many environments: seed + i for the i-th, or its own of a sequence; None for no seeds.

    Raises ValueError for a sequence of another length.
    """
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(count)]
    seeds: list[int | None] = [None] * count if seed is None else list(seed)
    if len(seeds) != count:
        raise ValueError(f"expected {count} seeds, one per environment, got {len(seeds)}")
    return seeds


def mask_info(masks: list[Any]) -> dict[str, Any]:
    """Legal actions of every environment, as a vector environment's info has them; None for those that did not say."""
    return {ACTION_MASK: masks, f"_{ACTION_MASK}": np.array([mask is not None for mask in masks])}
