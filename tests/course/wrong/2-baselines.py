"""Answers to 2 · Baselines that its checks must refuse."""

# Exercise 1: the mean return
best = probability @ R

# Exercise 1: every episode counts the same
best = (S.square().sum(1) * R).mean() / S.square().sum(1).mean()


# Exercise 2: the mean of all episodes
def from_the_others(ret):
    return ret.mean(1, keepdim=True).expand_as(ret)


# Exercise 2: divided by N
def from_the_others(ret):
    return (ret.sum(1, keepdim=True) - ret) / ret.shape[1]


# Exercise 3
multiple = 1.0

# Exercise 3
multiple = 1 / 3

# Exercise 4: all episodes of the list count the same
V = torch.stack([torch.stack([to_go[t][state[t] == s].mean() for s in range(3)]) for t in range(4)])

# Exercise 4: the mean over all states
V = (to_go @ probability)[:, None].expand(4, 3)


# Exercise 5: a constant
def of_the_action(rollout, ret):
    return torch.full_like(ret, 3.0)


# Exercise 5: it depends on the action, but hardly
def of_the_action(rollout, ret):
    return 0.01 * rollout.act.double()
