"""Solutions of 2 · Baselines: one part for each exercise, which takes the place of its cell."""

# Exercise 1
squared = S.square().sum(1)  # ‖S‖²
best = (probability @ (squared * R)) / (probability @ squared)


# Exercise 2
def from_the_others(ret: torch.Tensor) -> torch.Tensor:
    """The baseline (T, N): for each episode the mean of `ret` (T, N) over the other N − 1 episodes."""
    n = ret.shape[1]
    return (ret.sum(1, keepdim=True) - ret) / (n - 1)


# Exercise 3
multiple = 2 / 3  # R_i − mean = (1 − 1/N) (R_i − mean of the others)


# Exercise 4
V = torch.zeros(4, 3).double()  # (T, S)
for t in range(4):
    for s in range(3):
        there = probability * (state[t] == s)
        V[t, s] = there @ to_go[t] / there.sum()


# Exercise 5
def of_the_action(rollout: pg.Rollout, ret: torch.Tensor) -> torch.Tensor:
    """A baseline (T, N) that depends on rollout.act, (T, N)."""
    return bandit.reward[0, rollout.act]  # what the action pays: nothing is left of the return
