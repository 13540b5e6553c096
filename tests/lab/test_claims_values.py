"""Claims about values and policies: their verdicts, and that these change where what they rest on is broken."""

from __future__ import annotations

import math

import pytest
import torch

from policygrad.lab.claims import instability, load_claims, ordering, stationary, values
from policygrad.lab.exact.policies import greedy
from policygrad.lab.exact.tabular import ExactQCritic, objective
from policygrad.lab.theory.ascent import fixed
from policygrad.lab.values import contests, triad
from policygrad.lab.values.tables import epsilon_greedy, softmax

CLAIMS = load_claims()
VERDICTS = {
    "what-is-learned": "holds",
    "greedy-policies-jump": "holds with caveat",
    "values-need-a-maximum": "holds with caveat",
    "values-and-random-policies": "holds with caveat",
    "local-optima-of-policies": "holds with caveat",
    "values-can-be-unstable": "holds with caveat",
    "deadly-triad": "holds with caveat",
    "stationary-points-cannot-be-left": "fails as stated",
    "advantage-ends-the-chain": "holds with caveat",
}


def verdict(slug: str) -> str:
    return CLAIMS[slug].experiment().verdict


@pytest.mark.parametrize(("slug", "expected"), VERDICTS.items())
def test_the_verdict_is_what_theory_says_and_every_number_is_one(slug, expected):
    found = CLAIMS[slug].experiment()
    assert found.verdict == expected, found
    assert all(map(math.isfinite, found.numbers.values())), found.numbers
    assert "nan" not in found.because
    assert (found.counterexample is not None) == (slug in ("local-optima-of-policies", "advantage-ends-the-chain"))


def test_all_claims_of_the_topic_are_here():
    assert {slug for slug, claim in CLAIMS.items() if claim.topic == "Values or policies"} <= set(VERDICTS)


def test_the_counterexample_of_the_local_optima_is_one_when_its_tables_are_typed_in():
    """J = 1 − p + 10 pⁿ with n = 8 falls from p = ½, where ascent starts."""
    found = CLAIMS["local-optima-of-policies"].experiment().counterexample
    assert found is not None
    assert found.pi[0] == (0.5, 0.5)
    J = [float(objective(found.mdp, torch.tensor([[1 - p, p]]).double().expand(9, 2))) for p in (0.5, 0.45, 1.0)]
    assert pytest.approx([1 - p + 10 * p**8 for p in (0.5, 0.45, 1.0)]) == J
    assert J[0] < J[1] < J[2]


# --- a broken ingredient changes the verdict -----------------------------------------------------------------------


def test_what_is_learned_fails_where_the_targets_are_those_of_another_policy(monkeypatch):
    expected = values.expected_values
    monkeypatch.setattr(values, "WORLDS", ("small",))
    monkeypatch.setattr(values, "expected_values", lambda mdp, choose=greedy: expected(mdp, softmax(1.0)))
    assert verdict("what-is-learned") == "fails as stated"


def test_what_is_learned_fails_where_values_are_in_the_logits(monkeypatch):
    """As in a policy that is a softmax of what it knows of the rewards."""
    climb = values.climb

    def with_values(mdp, policy, steps):
        path = climb(mdp, policy, steps)
        return type(path)(path.theta + mdp.reward.sum(), path.value, path.grad_norm, path.stopped)

    monkeypatch.setattr(values, "WORLDS", ("small",))
    monkeypatch.setattr(values, "climb", with_values)
    assert verdict("what-is-learned") == "fails as stated"


def test_greedy_policies_do_not_jump_where_they_are_soft(monkeypatch):
    monkeypatch.setattr(contests, "greedy", softmax(0.1))
    assert verdict("greedy-policies-jump") == "fails as stated"


def test_jumps_have_no_caveat_where_values_near_q_star_lose_more(monkeypatch):
    monkeypatch.setattr(values, "WORLDS", ("small",))
    monkeypatch.setattr(values, "loss_of_greedy", lambda mdp, q, delta, *rest: 100.0 * delta)
    assert verdict("greedy-policies-jump") == "holds"


def test_a_maximum_is_no_obstacle_where_there_is_one_dimension(monkeypatch):
    reach = values.reach
    monkeypatch.setattr(values, "reach", lambda D, tolerance, seed: reach(1, tolerance, seed))
    assert verdict("values-need-a-maximum") == "fails as stated"


def test_continuous_actions_are_no_strength_of_a_gradient_that_points_down(monkeypatch):
    monkeypatch.setattr(values, "DIMENSIONS", (1, 6))
    gradient = contests.Gaussian.gradient
    monkeypatch.setattr(contests.Gaussian, "gradient", lambda self, *args: -gradient(self, *args))
    assert verdict("values-need-a-maximum") == "fails as stated"


def test_random_policies_are_not_needed_where_states_can_be_told_apart(monkeypatch):
    monkeypatch.setattr(values, "RANDOM_IS_BEST", ("two-states",))
    assert verdict("values-and-random-policies") == "fails as stated"


def test_random_policies_have_no_caveat_where_no_softmax_of_values_comes_near(monkeypatch):
    monkeypatch.setattr(values, "RANDOM_IS_BEST", ("rock-paper-scissors",))
    monkeypatch.setattr(contests, "TEMPERATURES", (0.001,))
    assert verdict("values-and-random-policies") == "holds"


def test_local_optima_fail_where_the_detour_pays_less(monkeypatch):
    detour = values.detour
    monkeypatch.setattr(values, "detour", lambda n: detour(n, far=0.5))
    assert verdict("local-optima-of-policies") == "fails as stated"


def test_local_optima_have_no_caveat_where_q_learning_sees_all_actions(monkeypatch):
    learn, detour = values.learn, values.detour
    monkeypatch.setattr(values, "detour", lambda n: detour(3))
    monkeypatch.setattr(
        values, "learn", lambda mdp, generator, steps: learn(mdp, generator, steps=steps, acting=epsilon_greedy(1.0))
    )
    assert verdict("local-optima-of-policies") == "holds"


def test_values_are_stable_with_a_table(monkeypatch):
    q_learning = instability.q_learning
    table = torch.eye(14, dtype=torch.float64).view(7, 2, 14)
    monkeypatch.setattr(
        instability, "q_learning", lambda mdp, x, w, steps, lr: q_learning(mdp, table, 0.0 * table[0, 0], steps, lr)
    )
    assert verdict("values-can-be-unstable") == "fails as stated"


def test_policy_gradients_do_not_converge_with_steps_that_are_too_long(monkeypatch):
    ascend = instability.ascend
    monkeypatch.setattr(instability, "ascend", lambda f, theta, steps, rule=None: ascend(f, theta, steps, fixed(5.0)))
    assert verdict("values-can-be-unstable") == "fails as stated"


@pytest.mark.parametrize("broken", ["table", "on-policy", "returns"])
def test_the_triad_is_not_deadly_without_one_of_the_three(monkeypatch, broken):
    made = triad.semigradient

    def without(mdp, pi, features, data, bootstrap=True):
        features = torch.eye(mdp.states, dtype=features.dtype) if broken == "table" else features
        return made(mdp, pi, features, pi if broken == "on-policy" else data, bootstrap and broken != "returns")

    if broken == "table":
        monkeypatch.setattr(triad, "START", (1.0,) * 7)
        monkeypatch.setattr(triad, "baird_features", lambda: torch.eye(7, dtype=torch.float64))
    for module in (triad, instability):
        monkeypatch.setattr(module, "semigradient", without)
    assert verdict("deadly-triad") == "fails as stated"


def test_the_triad_has_no_caveat_where_the_spiral_closes(monkeypatch):
    spiral = triad.spiral
    monkeypatch.setattr(triad, "spiral", lambda table=False: spiral(outward=-0.1, table=table))
    assert verdict("deadly-triad") == "holds"


def test_stationary_points_cannot_be_left_if_all_of_them_are_maxima(monkeypatch):
    points = stationary.stationary_points
    monkeypatch.setattr(
        stationary,
        "stationary_points",
        lambda: {name: points()["maximum" if "m" in name[:1] else "local maximum"] for name in points()},
    )
    assert verdict("stationary-points-cannot-be-left") == "holds"


def test_the_minimum_of_J_is_where_it_is_said_to_be():
    f, theta = stationary.valley()
    p = 30.0**-0.5
    assert float(f(theta)) == pytest.approx(1.0 - p + 10.0 * p**3)
    assert min(float(f(theta + torch.tensor([0.0, h]))) for h in (-0.2, 0.2)) > float(f(theta))


def test_the_chain_has_no_end_where_the_advantage_is_of_other_values(monkeypatch):
    def wrong(mdp):
        noise = torch.randn(mdp.horizon + 1, mdp.states, mdp.actions, generator=torch.Generator().manual_seed(0))
        return ExactQCritic(mdp, noise.double())

    monkeypatch.setattr(ordering, "SEARCHED", 5)
    monkeypatch.setattr(ordering, "ExactQCritic", wrong)
    assert verdict("advantage-ends-the-chain") == "fails as stated"


def test_the_chain_has_no_caveat_where_every_link_is_below_the_one_before(monkeypatch):
    def falls(c):
        found = [c.variance(x) for x in ordering.estimates(c)]
        return found == sorted(found, reverse=True)

    cases = tuple(c for c in ordering.small()[:10] if falls(c))
    monkeypatch.setattr(ordering, "small", lambda: cases)
    monkeypatch.setattr(ordering, "simple", lambda count: ())
    assert verdict("advantage-ends-the-chain") == "holds"
