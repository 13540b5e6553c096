"""An update rule of your own: PPO whose clip leaves more room upwards than downwards. `python examples/custom_update_rule.py`

With ε the same on both sides, an action of probability 0.01 may rise to 0.012 only. A wider upper bound lets rare actions
grow, and keeps entropy up ("clip-higher", Yu et al. 2025, arXiv 2503.14476).
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

import policygrad as pg
from policygrad.updates.first_order import FirstOrder


class ClipHigher(FirstOrder):
    def __init__(self, lr: float = 1e-3, low: float = 0.2, high: float = 0.28, **kwargs: Any) -> None:
        super().__init__(lr, epochs=10, minibatches=4, **kwargs)
        self.low, self.high = low, high

    def weigh(self, logp: Tensor, batch: pg.Batch) -> Tensor:
        """The weights w (B,) of the ascent direction Σ w ∇log π, at the current policy: that is all a rule has to say."""
        return (batch.weight * (logp - batch.logp).exp() * batch.adv).where(self.inside(logp, batch), 0.0)

    def inside(self, logp: Tensor, batch: pg.Batch) -> Tensor:
        ratio = (logp - batch.logp).exp()
        return ((batch.adv > 0) & (ratio < 1.0 + self.high)) | ((batch.adv <= 0) & (ratio > 1.0 - self.low))

    def report(self, logp: Tensor, batch: pg.Batch) -> dict[str, float]:
        return {"clip_fraction": float((~self.inside(logp, batch)).double().mean())}


if __name__ == "__main__":
    agent = pg.ppo("CartPole-v1")  # estimator, critic and collector as PPO's preset has them
    agent.learner.update = ClipHigher()
    agent.learn(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000, lambda _, row: print(row) if row else None, 10_000)
    print(f"mean return {agent.evaluate(episodes=20)}")
