"""PPO whose clip leaves more room upwards ("clip-higher", Yu et al. 2025, arXiv 2503.14476): a rule and a recipe of your own.
policygrad train examples/custom_update_rule.py:clip_higher CartPole-v1 --high 0.3 --seed 0 1
"""

import sys
from typing import Annotated, Any

from torch import Tensor

import policygrad as pg


class ClipHigher(pg.FirstOrder):
    def __init__(self, lr: float = 1e-3, low: float = 0.2, high: float = 0.28, **kwargs: Any) -> None:
        super().__init__(lr, epochs=10, minibatches=4, **kwargs)
        self.low, self.high = low, high

    def score_weights(self, logp: Tensor, batch: pg.Batch) -> Tensor:
        """The weights w (B,) of the ascent direction Σ w ∇log π, at the current policy: that is all a rule has to say."""
        return (batch.weight * (logp - batch.logp).exp() * batch.adv).where(self.inside(logp, batch), 0.0)

    def inside(self, logp: Tensor, batch: pg.Batch) -> Tensor:
        ratio, up = (logp - batch.logp).exp(), batch.adv > 0
        return (up & (ratio < 1.0 + self.high)) | (~up & (ratio > 1.0 - self.low))


Upwards = Annotated[float, pg.Option("ε of the clip upwards", low=0.0)]


@pg.recipe(pg.Record(estimator="GAE − V", update="ClipHigher", shorter="lr or high"))
def clip_higher(task: pg.Task, *, num_steps: int = 256, lr: float = 1e-3, high: Upwards = 0.28) -> pg.Plan:
    """PPO with a wider clip upwards: rare actions may grow faster, which keeps the entropy up."""
    rule, gae = ClipHigher(lr, high=high, seed=task.seed), pg.Standardized(pg.GAE(0.98, 0.8))
    learner = pg.Learner(task.policy(), gae, rule, critic=task.critic(lr, "constant", 10, 4, 0.5))
    return pg.Plan(learner, num_steps=num_steps)


if __name__ == "__main__":
    agent = pg.Agent(clip_higher, "CartPole-v1", high=0.3).learn(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
    print(f"mean return {agent.evaluate(episodes=20)}")
