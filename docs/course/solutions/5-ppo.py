"""Solutions of 5 · PPO: one part for each exercise, which takes the place of its cell."""


# Exercise 1
def clipped(ratio: torch.Tensor, adv: torch.Tensor, clip: float) -> torch.Tensor:
    """The clipped objective of each row, (B,)."""
    return torch.minimum(ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv)


# Exercise 2
def score_weights(ratio: torch.Tensor, adv: torch.Tensor, clip: float) -> torch.Tensor:
    """What multiplies ∇log π in the gradient of the clipped objective, (B,)."""
    binds = torch.where(adv > 0, ratio > 1 + clip, ratio < 1 - clip)
    return torch.where(binds, 0.0, ratio * adv)


# Exercise 3
unbiased = {"k1", "k3"}


# Exercise 4
def ppo_update(policy: pg.Policy, batch: pg.Batch, lr: float, epochs: int, clip: float) -> None:
    """`epochs` steps of gradient ascent on the clipped objective, each of lr times the gradient."""
    for _ in range(epochs):
        evaluation = policy.evaluate(batch)
        ratio = (evaluation.logp - batch.logp).exp()
        weights = batch.weight * score_weights(ratio, batch.adv, clip)
        policy.flat.add_(evaluation.gradient(weights), alpha=lr)
