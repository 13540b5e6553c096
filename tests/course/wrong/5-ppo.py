"""Answers to 5 · PPO that its checks must refuse."""


# Exercise 1: the clip on both sides, without the minimum
def clipped(ratio, adv, clip):
    return ratio.clamp(1 - clip, 1 + clip) * adv


# Exercise 1: the maximum
def clipped(ratio, adv, clip):
    return torch.maximum(ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv)


# Exercise 2: the unclipped objective
def score_weights(ratio, adv, clip):
    return ratio * adv


# Exercise 2: 0 on both sides
def score_weights(ratio, adv, clip):
    return torch.where((ratio - 1).abs() > clip, 0.0, ratio * adv)


# Exercise 2: without the ratio
def score_weights(ratio, adv, clip):
    return torch.where(torch.where(adv > 0, ratio > 1 + clip, ratio < 1 - clip), 0.0, adv)


# Exercise 3
unbiased = {"k1"}

# Exercise 3
unbiased = {"k1", "k2", "k3"}


# Exercise 4: the ratio is to the policy of the step before, and so always 1
def ppo_update(policy, batch, lr, epochs, clip):
    for _ in range(epochs):
        policy.flat.add_(policy.evaluate(batch).gradient(batch.weight * batch.adv), alpha=lr)


# Exercise 4: without the weights of the rows
def ppo_update(policy, batch, lr, epochs, clip):
    for _ in range(epochs):
        evaluation = policy.evaluate(batch)
        ratio = (evaluation.logp - batch.logp).exp()
        policy.flat.add_(evaluation.gradient(score_weights(ratio, batch.adv, clip)), alpha=lr)


# Exercise 4: nothing moves
def ppo_update(policy, batch, lr, epochs, clip):
    return None
