"""Solutions of 1 · REINFORCE: one part for each exercise, which takes the place of its cell."""


# Exercise 1
def softmax_score(logits: torch.Tensor, action: int) -> torch.Tensor:
    """∂ log π(action) / ∂ logits, (A,), for logits (A,)."""
    chosen = torch.zeros_like(logits)
    chosen[action] = 1.0
    return chosen - torch.softmax(logits, 0)


# Exercise 2
def reinforce(returns: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """ĝ (P,) from the returns (N,) of N episodes and the sums of their scores (N, P)."""
    return (returns[:, None] * sums).mean(0)


# Exercise 3
def reward_to_go(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """G_t for every step, (T, N), from rewards (T, N)."""
    to_go = rewards.clone()
    for t in reversed(range(len(rewards) - 1)):
        to_go[t] += gamma * to_go[t + 1]
    return to_go


# Exercise 4
estimates = R[:, None] * S
episodes = probability @ (estimates - exact).square().sum(1) / exact.square().sum()
