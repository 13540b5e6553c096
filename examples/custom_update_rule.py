"""An update rule of your own, an asymmetric PPO clip, as a recipe for the command line.

Its clip leaves more room upwards: with ε the same on both sides, an action of probability 0.01 may rise to 0.012 only. A wider
upper bound lets rare actions grow, and keeps the entropy up ("clip-higher", Yu et al. 2025, arXiv 2503.14476):
policygrad train examples/custom_update_rule.py:clip_higher CartPole-v1 --high 0.3 --seed 0 1
"""

import sys

from torch import Tensor

import policygrad as pg


class ClipHigher(pg.FirstOrder):
    def __init__(self, lr: float = 1e-3, low: float = 0.2, high: float = 0.28, **kwargs) -> None:
        super().__init__(lr, epochs=10, minibatches=4, **kwargs)
        self.low, self.high = low, high

    def score_weights(self, logp: Tensor, batch: pg.Batch) -> Tensor:  # w (B,) of the ascent direction Σ w ∇log π
        return (batch.weight * (logp - batch.logp).exp() * batch.adv).where(self.inside(logp, batch), 0.0)

    def inside(self, logp: Tensor, batch: pg.Batch) -> Tensor:
        ratio, up = (logp - batch.logp).exp(), batch.adv > 0
        return (up & (ratio < 1.0 + self.high)) | (~up & (ratio > 1.0 - self.low))

    def report(self, logp: Tensor, batch: pg.Batch) -> dict[str, float]:
        return {"clip_fraction": float((~self.inside(logp, batch)).double().mean())}


def clip_higher(task: pg.Task, *, num_steps: int = 256, lr: float = 1e-3, high: float = 0.28) -> pg.Plan:
    """PPO with a wider clip upwards."""
    critic = task.critic(lr, epochs=10, minibatches=4, max_grad_norm=0.5)
    rule, gae = ClipHigher(lr, high=high, seed=task.seed), pg.Standardized(pg.GAE(gamma=0.98, lam=0.8))
    return pg.Plan(pg.Learner(task.policy(), gae, rule, critic=critic), num_steps=num_steps)


if __name__ == "__main__":
    agent = pg.Agent(clip_higher, "CartPole-v1").learn(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
    print(f"mean return {agent.evaluate(episodes=20)}")
