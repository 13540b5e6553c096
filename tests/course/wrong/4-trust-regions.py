"""Answers to 4 · Trust regions that its checks must refuse."""


# Exercise 1: a mean over actions of the ratio, without the old probabilities
def surrogate(pi_new):
    return (d[:, :, None] * pi_new / pi * A).sum()


# Exercise 1: all states count the same
def surrogate(pi_new):
    return (pi_new * A).sum()


# Exercise 2: all actions count the same
F = torch.einsum("s,sap,saq->pq", share, score, score)

# Exercise 2: the shares do not sum to 1
F = torch.einsum("s,sa,sap,saq->pq", d.sum(0), pi, score, score)


# Exercise 3: along the gradient
def natural_step(F, g, budget):
    return g * (2 * budget / (g @ F @ g)) ** 0.5


# Exercise 3: without the length
def natural_step(F, g, budget):
    return budget * torch.linalg.pinv(F, hermitian=True, rtol=1e-10) @ g


# Exercise 4: the whole step, unchecked
def line_search(step, kl_of, gain_of, budget, factor=0.8, tries=10):
    return step


# Exercise 4: the KL alone
def line_search(step, kl_of, gain_of, budget, factor=0.8, tries=10):
    for n in range(tries):
        if kl_of(factor**n * step) <= budget:
            return factor**n * step
    return torch.zeros_like(step)


# Exercise 4: it gives the shortest step when none passes
def line_search(step, kl_of, gain_of, budget, factor=0.8, tries=10):
    for n in range(tries):
        shorter = factor**n * step
        if kl_of(shorter) <= budget and gain_of(shorter) >= 0.0:
            return shorter
    return shorter
