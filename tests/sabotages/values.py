"""Sabotages of claims about methods that learn values and methods that learn policies."""

from __future__ import annotations

from dataclasses import replace

from policygrad.lab.claims import values as claims
from policygrad.lab.exact.policies import greedy
from policygrad.lab.values import contests
from policygrad.lab.values.tables import epsilon_greedy, softmax
from sabotages import Sabotage, replaced, times, together, wrapped

ONE_WORLD = replaced(claims, "WORLDS", ("small",))


def values_in_the_logits(of):
    """Ascent of a policy that is a softmax of what it knows of the rewards."""

    def climb(mdp, policy, steps):
        path = of(mdp, policy, steps)
        return replace(path, theta=path.theta + mdp.reward.sum())

    return climb


def as_good(*ends: float):
    """A contest in which ε-greedy policies reach the J of ascent, less these, one per seed."""

    def contest(mdp):
        return contests.Contest(0.0, (-5.0,) * 3, tuple(-x for x in ends), (-5.0,), {1.0: -5.0})

    return contest


def late(*seeds: int):
    """REINFORCE with these seeds does not arrive."""

    def wrapping(of):
        return lambda D, tolerance, seed: replace(
            of(D, tolerance, 0), **({"sampled": float("inf")} if seed in seeds else {})
        )

    return wrapping


LEARNED, MAXIMUM, RANDOM = "what-is-learned", "values-need-a-maximum", "values-and-random-policies"
OF_ANOTHER_POLICY = wrapped(claims, "expected_values", lambda of: lambda mdp, choose=greedy: of(mdp, softmax(1.0)))
ONE_DIMENSION = wrapped(claims, "reach", lambda of: lambda D, tolerance, seed: of(1, tolerance, seed))
ALL_ACTIONS = wrapped(
    claims,
    "learn",
    lambda of: lambda mdp, generator, steps: of(mdp, generator, steps=steps, acting=epsilon_greedy(1.0)),
)

SABOTAGES = [
    Sabotage(LEARNED, together(ONE_WORLD, OF_ANOTHER_POLICY), slow=True),
    Sabotage(LEARNED, together(ONE_WORLD, wrapped(claims, "climb", values_in_the_logits)), slow=True),
    Sabotage("greedy-policies-jump", together(ONE_WORLD, replaced(contests, "greedy", softmax(0.1)))),
    Sabotage(
        "greedy-policies-jump",
        together(ONE_WORLD, replaced(claims, "loss_of_greedy", lambda mdp, q, delta, *rest: 100.0 * delta)),
        "holds",
    ),
    Sabotage(MAXIMUM, ONE_DIMENSION, slow=True),
    Sabotage(MAXIMUM, wrapped(contests.Gaussian, "gradient", times(-1.0)), slow=True),
    Sabotage(MAXIMUM, wrapped(claims, "reach", late(0, 1))),
    Sabotage(MAXIMUM, wrapped(claims, "reach", late(1)), "undecided"),
    Sabotage(RANDOM, replaced(claims, "RANDOM_IS_BEST", ("two-states",)), slow=True),  # they can be told apart
    Sabotage(RANDOM, replaced(claims, "contest", as_good(0.0, 0.0, 0.0))),
    Sabotage(RANDOM, replaced(claims, "contest", as_good(0.0, 5.0, 5.0)), "undecided"),
    Sabotage(RANDOM, replaced(claims, "contest", as_good(5.0, 5.0, 5.0)), "holds"),
    Sabotage("local-optima-of-policies", wrapped(claims, "detour", lambda of: lambda n: of(n, far=0.5)), slow=True),
    Sabotage(
        "local-optima-of-policies",
        together(wrapped(claims, "detour", lambda of: lambda n: of(3)), ALL_ACTIONS),
        "holds",
        slow=True,
    ),
]
