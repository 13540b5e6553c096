"""Atari games as agents are usually trained on them: Mnih et al. 2015, with the sticky actions of Machado et al. 2018.

    innermost   ale-py's environment, one frame a step, its random numbers from the seed of every game
                AtariPreprocessing of Gymnasium: no-ops at the start, every fourth frame, 84 × 84, grey
                Lives: in training an episode ends with a life, and the game goes on with the next; FIRE begins both
                SignReward: in training the sign of the reward
    outermost   FrameStackObservation of Gymnasium: the last four pictures

Evaluations and videos play whole games for their score: `unshaped` switches off what is for training only. `ALE/…-v5` repeats
the last action with probability 0.25 in every frame, `…NoFrameskip-v4` never.
"""

from __future__ import annotations

from typing import Any

import ale_py  # pyright: ignore[reportMissingImports]
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from policygrad.envs.scores import GameInParts
from policygrad.envs.shaping import TrainingOnly, Transition

FIRE = "FIRE"


def make_atari(
    env_id: str,
    *,
    preprocess: bool = True,
    noop_max: int = 30,
    frame_skip: int = 4,
    screen_size: int = 84,
    grayscale: bool = True,
    frame_stack: int = 4,
    fire: bool = True,
    life_loss: bool = True,
    clip_rewards: bool = True,
    **kwargs: Any,
) -> gym.Env:
    """An Atari game, prepared; with preprocess=False as ale-py registers it.

    noop_max: no-ops at the start of a game, from 1 to so many. frame_skip: frames per step, of which the brighter of the last
    two is shown. screen_size, grayscale: side of the picture, and whether it is grey. frame_stack: pictures per
    observation, the last ones. fire: FIRE is pressed where a life begins, in games that have this button. life_loss: a lost
    life ends an episode in training; the game goes on. clip_rewards: rewards are their sign in training.
    repeat_action_probability: sticky actions, 0.25 per frame in `-v5`, none in `-v4`. kwargs: ale-py's own, as this one,
    `mode` and `difficulty`.

    Raises ValueError for numbers out of range.
    """
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    if not preprocess:
        return gym.make(env_id, disable_env_checker=True, **kwargs)
    for name, value, least in (
        ("noop_max", noop_max, 0),
        ("frame_skip", frame_skip, 1),
        ("frame_stack", frame_stack, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if "frameskip" in kwargs:
        raise ValueError("frameskip is ale-py's own: give frame_skip, or preprocess=false")
    env: gym.Env = NewGame(gym.make(env_id, disable_env_checker=True, frameskip=1, **kwargs))
    env = AtariPreprocessing(env, noop_max, frame_skip, screen_size, False, grayscale)
    env = Lives(env, fire, life_loss)
    env = SignReward(env) if clip_rewards else env
    return FrameStackObservation(env, frame_stack) if frame_stack > 1 else env


class NewGame(gym.Wrapper):
    """Seeds the emulator at every reset, from the environment's own generator: sticky actions come from the emulator's, which
    nobody can read, so that otherwise a game would depend on the ones before it and could not be played again.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game."""
        if seed is None:
            seed = int(self.unwrapped.np_random.integers(2**31 - 1))
        return self.env.reset(seed=seed, options=options)


class Lives(GameInParts, TrainingOnly):
    """An episode ends where a life is lost, and `reset` goes on with the next life; a step without an action, then FIRE.

    As `EpisodicLifeEnv` and `FireResetEnv` of Stable-Baselines3. While it is not active, in evaluations, a lost life ends
    nothing, and the next one is begun in the same step.
    """

    def __init__(self, env: gym.Env, fire: bool = True, ends: bool = True) -> None:
        super().__init__(env)
        self.active = ends
        inner: Any = env.unwrapped
        meanings = inner.get_action_meanings()
        self.fires = fire and len(meanings) >= 3 and meanings[1] == FIRE
        self.lives, self.score, self.length = 0, 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next life, or a game where none is being played."""
        if self.goes_on and seed is None and not options:
            obs, _, terminated, truncated, info = self._play(0)
            if not (terminated or truncated):
                return self._begin(obs, info)
        self.score, self.length = 0.0, 0
        return self._begin(*self.env.reset(seed=seed, options=options))

    def _begin(self, obs: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Press FIRE, and then what is beside it, as Stable-Baselines3 does."""
        for button in (1, 2) if self.fires else ():
            obs, _, terminated, truncated, info = self._play(button)
            if terminated or truncated:
                self.score, self.length = 0.0, 0
                obs, info = self.env.reset()
        self.goes_on, self.lives = False, self._left()
        return obs, info

    def step(self, action: Any) -> Transition:
        """One step; `terminated` where a life is lost, in training."""
        obs, rew, terminated, truncated, info = self._play(action)
        self.goes_on = False
        left = self._left()
        lost, self.lives = 0 < left < self.lives, left
        if not lost or terminated or truncated:
            return obs, rew, terminated, truncated, info
        if self.active:
            self.goes_on = True
            return obs, rew, True, truncated, info
        if self.fires:
            more = 0.0
            for button in (1, 2):
                obs, gained, terminated, truncated, info = self._play(button)
                more += gained
                if terminated or truncated:
                    break
            self.lives = self._left()
            rew += more
        return obs, rew, terminated, truncated, info

    def _play(self, action: Any) -> Transition:
        """A step of the game, which counts for its score."""
        obs, rew, terminated, truncated, info = self.env.step(action)
        self.score, self.length = self.score + float(rew), self.length + 1
        if terminated or truncated:
            self.scores.append((self.score, self.length))
        return obs, float(rew), terminated, truncated, info

    def _left(self) -> int:
        inner: Any = self.env.unwrapped
        return int(inner.ale.lives())


class SignReward(TrainingOnly):
    """The sign of the reward, −1, 0 or 1, in training: games differ in the size of their rewards (Mnih et al. 2015)."""

    def step(self, action: Any) -> Transition:
        """One step."""
        obs, rew, terminated, truncated, info = self.env.step(action)
        rew = float(rew)
        return obs, float(np.sign(rew)) if self.active else rew, terminated, truncated, info
