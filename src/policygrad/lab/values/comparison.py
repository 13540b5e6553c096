"""Value iteration, learned values and the policy gradient on one MDP, by the number of sweeps, steps or transitions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import greedy
from policygrad.lab.exact.tabular import optimum, solve
from policygrad.lab.results import Result, align
from policygrad.lab.values.contests import EPSILON, climb
from policygrad.lab.values.tables import Choose, Sight, epsilon_greedy, expected_update, learn, performance_of
from policygrad.models.policy import Policy

SWEEPS = (1, 2, 5, 10, 20, 50, 100)
STEPS = (4, 16, 64, 256)  # of each of so many actors:
ACTORS = 32


@dataclass(frozen=True, eq=False)
class MethodComparison(Result):
    """J of the policies of each method. Methods that learn values are judged by their greedy policy, or by the ε-greedy one."""

    about: str
    best: float  # J*, among all policies that tell the states apart
    sweeps: tuple[int, ...]
    exact: dict[
        str, tuple[float, ...]
    ]  # expected updates: J after so many sweeps of the table, or steps of exact ascent
    error: dict[str, float]  # max |q − q^π| for the q of the last sweep and the policy whose values it should be
    transitions: tuple[int, ...]
    sampled: dict[str, tuple[float, ...]]  # J after so many transitions

    def table(self) -> str:
        """J after sweeps of expected updates, and after sampled transitions."""

        def rows(found: dict[str, tuple[float, ...]]) -> list[list[str]]:
            return [[name, *(f"{x:.3f}".replace("-inf", "−∞") for x in J)] for name, J in found.items()]

        exact = align((f"J ({self.best:.3f} is best) after sweeps", *map(str, self.sweeps)), rows(self.exact))
        sampled = align(("J after transitions", *(f"{n:,}" for n in self.transitions)), rows(self.sampled))
        wrong = ", ".join(f"{name} {error:.1e}" for name, error in self.error.items())
        return f"{self.about}\n\n{exact}\nerror of q after the last sweep: {wrong}\n\n{sampled}"


def compare(mdp: MDP, policy: Policy, *, sweeps: int = SWEEPS[-1], seed: int = 0) -> MethodComparison:
    """The comparison. policy: where the ascent starts; values start at 0. sweeps: the largest number of them.

    Where states look alike in the MDP, the learners of values do not tell them apart either and see no time, and are trained on
    the states that the ε-greedy policy visits.
    """
    marks = tuple(k for k in SWEEPS if k <= sweeps)
    alike = mdp.groups is not None
    sight, acting = Sight.of_policies(mdp) if alike else Sight.full(mdp), epsilon_greedy(EPSILON)
    path = climb(mdp, policy, marks[-1])
    exact, error = {}, {}
    rules: dict[str, tuple[Choose, Choose]] = {
        "Q-learning": (greedy, greedy),
        f"expected SARSA, ε = {EPSILON:g}": (acting, acting),
    }
    for name, (learned, judged) in rules.items():
        q, found = sight.zeros(mdp), []
        for k in range(1, marks[-1] + 1):
            data = acting(q)[sight.rows] if alike else None
            q = expected_update(mdp, q, learned, sight, acting=data)
            if k in marks:
                found.append(performance_of(mdp, judged(q)[sight.rows]))
        exact[name], error[name] = tuple(found), _error(mdp, q[sight.rows], learned)
    exact["policy gradient"] = tuple(path.value[min(k, path.steps)] for k in marks)
    names: dict[str, tuple[Choose, bool]] = {
        "Q-learning": (greedy, False),
        "expected SARSA": (acting, False),
        "SARSA": (acting, True),
    }
    restart = 0.0 if mdp.horizon is not None or mdp.gamma == 1.0 else 1.0 - mdp.gamma

    def sampled(learned: Choose, sample_next: bool, steps: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        keywords = {"acting": acting, "sight": sight, "steps": steps, "actors": ACTORS, "restart": restart}
        found = learn(mdp, generator, learned=learned, sample_next=sample_next, **keywords)
        return performance_of(mdp, found.policy())

    by_data = {name: tuple(sampled(*rule, steps) for steps in STEPS) for name, rule in names.items()}
    about = f"{mdp.size}; learners of values see " + ("what policies see" if alike else "state and step")
    return MethodComparison(about, optimum(mdp), marks, exact, error, tuple(ACTORS * n for n in STEPS), by_data)


def _error(mdp: MDP, q: torch.Tensor, learned: Choose) -> float:
    """Max |q − q^π| with π = learned(q), over states that are not terminal; ∞ where π never ends."""
    try:
        return float((q - solve(mdp, learned(q))[1])[:, ~mdp.over].abs().max())
    except ValueError:
        return torch.inf
