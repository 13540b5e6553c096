"""Games whose parts are episodes for the learner: the scores of whole games, which are what statistics of training show."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym

Score = tuple[float, int]  # of a whole game: the sum of its rewards, and its steps


class GameInParts(gym.Wrapper):
    """A wrapper that ends an episode where the game itself goes on with the next reset.

    goes_on: whether the next `reset()` without a seed goes on with the game that is being played. scores: of the games that
    have ended, until somebody takes them.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.goes_on = False
        self.scores: list[Score] = []

    def give_up(self) -> None:
        """The next reset begins another game."""
        self.goes_on = False
        self.scores = []


def game_of(env: gym.Env) -> GameInParts | None:
    """The layer of an environment that is a `GameInParts`, if there is one."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, GameInParts):
            return env
        env = env.env
    return None


class _Asked(Protocol):
    def scores(self) -> list[list[Score] | None]: ...


class Scores:
    """Asks environments of ours for the games that have ended since it asked last."""

    def __init__(self, envs: Any) -> None:
        self.envs: _Asked | None = envs if hasattr(type(envs), "scores") else None

    def instead_of(self, episodes: list[Score]) -> list[Score]:
        """The games, where there are some; the episodes as they are, where an episode is a game."""
        found = None if self.envs is None else self.envs.scores()
        if not found or None in found:
            self.envs = None  # is not asked again
            return episodes
        return [score for games in found for score in games or ()]
