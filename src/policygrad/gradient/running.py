"""Running moments: the mean and the standard deviation of earlier batches, which a learner keeps."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from policygrad.forms import LARGEST, maybe, number, table
from policygrad.total import moments

FORM = table({}, optional={"mean": maybe(number(-LARGEST, LARGEST)), "variance": maybe(number(0.0, LARGEST**2))})


class RunningMoments:
    """Exponentially weighted mean and variance of the rows of earlier batches; None before the first.

    The weights of batches fall by the factor `decay`; mean and variance are those of the mixture of all batches with these
    weights, exactly, so a batch with another mean adds to the variance.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self.mean: float | None = None
        self.variance: float | None = None

    @property
    def std(self) -> float:
        """The standard deviation plus 1e-8, so that it can be divided by; 1 before the first batch."""
        return 1.0 if self.variance is None else math.sqrt(self.variance) + 1e-8

    def add(self, x: Tensor) -> None:
        """Take in the rows of a batch, (B,)."""
        _, mean, variance = (float(value) for value in moments(x.double()))
        if self.mean is not None and self.variance is not None:
            old, new = self.decay, 1.0 - self.decay
            gap = mean - self.mean
            mean, variance = self.mean + new * gap, old * self.variance + new * variance + old * new * gap**2
        self.mean, self.variance = mean, variance

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        FORM("running moments", state)
        self.mean, self.variance = state.get("mean"), state.get("variance")
