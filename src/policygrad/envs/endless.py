"""Episodes that do not end, where whole ones are needed."""

from __future__ import annotations

import numpy as np

from policygrad.errors import EnvError


class EndlessEpisodeError(EnvError, RuntimeError):
    """Whole episodes are needed, and one does not end."""


def check_endless(left: np.ndarray, time: np.ndarray, most: int) -> None:
    """Raises EndlessEpisodeError where an environment that has episodes left (N,) is in a step (N,) beyond the last one."""
    waiting = (left > 0) & (time >= most)
    if waiting.any():
        i = int(waiting.argmax())
        raise EndlessEpisodeError(
            f"environment {i} did not end its episode in {time[i]} steps: give it a time limit (gymnasium's "
            "TimeLimit wrapper), or use an estimator with a critic, which needs no whole episodes"
        )
