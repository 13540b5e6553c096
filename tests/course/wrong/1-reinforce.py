"""Answers to 1 · REINFORCE that its checks must refuse."""


# Exercise 1: the derivative of π(action), and not of its logarithm
def softmax_score(logits, action):
    chosen = torch.eye(len(logits))[action]
    p = torch.softmax(logits, 0)
    return p[action] * (chosen - p)


# Exercise 1: the logit of the action alone
def softmax_score(logits, action):
    chosen = torch.eye(len(logits))[action]
    return chosen * (1.0 - torch.softmax(logits, 0))


# Exercise 2: the sum
def reinforce(returns, sums):
    return (returns[:, None] * sums).sum(0)


# Exercise 2: the product of the means, and not the mean of the products
def reinforce(returns, sums):
    return returns.mean() * sums.mean(0)


# Exercise 3: without γ
def reward_to_go(rewards, gamma):
    return rewards.flip(0).cumsum(0).flip(0)


# Exercise 3: the return of the whole episode, which is unbiased, too
def reward_to_go(rewards, gamma):
    discount = gamma ** torch.arange(len(rewards)).double()[:, None]
    return (discount * rewards).sum(0) / discount


# Exercise 3: without the reward of the action itself
def reward_to_go(rewards, gamma):
    to_go = torch.zeros_like(rewards)
    for t in reversed(range(len(rewards) - 1)):
        to_go[t] = gamma * (rewards[t + 1] + to_go[t + 1])
    return to_go


# Exercise 4: not divided by ‖∇J‖²
episodes = probability @ (R[:, None] * S - exact).square().sum(1)

# Exercise 4: divided by ‖∇J‖
episodes = probability @ (R[:, None] * S - exact).square().sum(1) / exact.norm()
