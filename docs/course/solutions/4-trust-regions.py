"""Solutions of 4 · Trust regions: one part for each exercise, which takes the place of its cell."""


# Exercise 1
def surrogate(pi_new: torch.Tensor) -> torch.Tensor:
    """L, a scalar, of a policy (S, A)."""
    return (d[:, :, None] * pi_new * A).sum()


# Exercise 2
F = torch.einsum("s,sa,sap,saq->pq", share, pi, score, score)


# Exercise 3
def natural_step(F: torch.Tensor, g: torch.Tensor, budget: float) -> torch.Tensor:
    """Δ (P,) with the largest gᵀΔ within ½ΔᵀFΔ ≤ budget."""
    direction = torch.linalg.pinv(F, hermitian=True, rtol=1e-10) @ g
    return (2 * budget / (g @ direction)) ** 0.5 * direction


# Exercise 4
def line_search(step, kl_of, gain_of, budget, factor=0.8, tries=10):
    """The step (P,) to take: the first of step, factor · step, factor² · step, … with kl_of(Δ) ≤ budget and gain_of(Δ) ≥ 0.

    kl_of and gain_of are functions of a step. Without success after so many tries: a step of zeros.
    """
    for n in range(tries):
        shorter = factor**n * step
        if kl_of(shorter) <= budget and gain_of(shorter) >= 0.0:
            return shorter
    return torch.zeros_like(step)
