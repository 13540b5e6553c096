"""Baselines of least variance are of least variance; the order of estimators by variance, and where it breaks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from policygrad.gradient.baselines import Constant
from policygrad.lab.auditing.audit import audit, fitted
from policygrad.lab.auditing.bench import Bench
from policygrad.lab.auditing.cells import BEST, Cell, make_cells
from policygrad.lab.auditing.optimal_baselines import Table, baseline_curve, optimal_baseline
from policygrad.lab.exact.mdp import MDP, gridworld
from policygrad.lab.exact.tabular import tabular_policy
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy


def network() -> Policy:
    torch.manual_seed(0)
    return Policy(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), Categorical(2)).double()


def worlds() -> dict[str, tuple[MDP, Policy]]:
    small, aliased = make_mdp("small"), gridworld(("SS", "XG"), 4, gamma=0.8, slip=0.1, aliased=True)
    return {
        "small": (small, starting_policy("small", small)),
        "a network": (small, network()),
        "aliased": (aliased, tabular_policy(aliased, torch.Generator().manual_seed(1))),
    }


WORLDS = worlds()


def bench(world: str) -> Bench:
    return Bench(*WORLDS[world], "exact", 1)


def cell(on: Bench, estimator: str, baseline: str, wrapper: str) -> Cell:
    cells, _ = make_cells([estimator], [baseline], [wrapper], on.mdp.gamma)
    return fitted(on, cells[0], torch.Generator().manual_seed(0))


def variance(on: Bench, of: Cell) -> float:
    exact = on.exact(of, False)
    assert exact is not None
    return float(exact.variances.sum())


@pytest.mark.parametrize(("estimator", "wrapper"), [("total", "plain"), ("gae:0.5", "discount")])
@pytest.mark.parametrize("kind", BEST)
@pytest.mark.parametrize("world", WORLDS)
def test_any_other_baseline_of_its_kind_has_more_variance(world, kind, estimator, wrapper):
    on = bench(world)
    best = cell(on, estimator, kind, wrapper)
    least, generator = variance(on, best), torch.Generator().manual_seed(2)
    for _ in range(2):
        if best.per_parameter is not None:
            step = torch.randn(best.per_parameter.shape, generator=generator, dtype=torch.float64)
            others = [replace(best, per_parameter=best.per_parameter + size * step) for size in (0.1, -0.1)]
        else:
            step = torch.randn(best.baseline.table.shape, generator=generator, dtype=torch.float64)
            others = [replace(best, baseline=Table(best.baseline.table + size * step)) for size in (0.1, -0.1)]
        rises = [variance(on, other) - least for other in others]
        assert min(rises) > 0.0
        assert rises[0] == pytest.approx(rises[1], rel=1e-6)  # at the bottom of a parabola both sides are alike


def test_the_constant_for_the_total_return_is_the_formula_of_the_books():
    """b* = E[‖s‖² R] / E[‖s‖²], s = Σ_t ∇log π, trajectory by trajectory."""
    on = bench("small")
    assert on.listed is not None
    chunk, p = on.listed
    top = bottom = 0.0
    for n in range(len(p)):
        steps = int(chunk.rollout.mask[:, n].sum())
        states, actions = chunk.rollout.obs[:steps, n].argmax(-1), chunk.rollout.act[:steps, n]
        s = on.scores[states * on.mdp.actions + actions].sum(0)
        R = sum(on.mdp.gamma**t * float(chunk.rollout.rew[t, n]) for t in range(steps))
        top += float(p[n] * (s @ s)) * R
        bottom += float(p[n] * (s @ s))
    assert float(cell(on, "total", "best", "plain").baseline.table) == pytest.approx(top / bottom, rel=1e-12)


@pytest.mark.parametrize("kind", BEST)
def test_from_a_sample_it_is_nearly_as_good(kind, monkeypatch):
    least = variance(bench("small"), cell(bench("small"), "to-go", kind, "discount"))
    monkeypatch.setattr("policygrad.lab.auditing.bench.MAX_LISTED", 10)
    sampled = cell(bench("small"), "to-go", kind, "discount")
    monkeypatch.undo()
    assert least < variance(bench("small"), sampled) < 1.05 * least


def test_what_is_not_of_least_variance_by_a_formula_is_left_out_with_the_reason():
    wrappers = ["standardize", "step", "is", "is-normalized", "plain"]
    cells, left_out = make_cells(["to-go"], ["best", "best-state"], wrappers, 1.0)
    assert {c.names[1:] for c in cells} == {("best", "is"), ("best", "plain"), ("best-state", "plain")}
    assert all("formula" in why for _, why in left_out)
    on = bench("small")
    with pytest.raises(ValueError, match="best-time-state"):
        optimal_baseline("nearly-best", cells[0], [], on.scores, on.steps)


# --- the U-curve -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "wrapper"), [("total", "plain"), ("to-go", "discount")])
def test_the_curve_is_the_exact_variance_with_that_constant(estimator, wrapper):
    mdp, policy = WORLDS["small"]
    curve, on = baseline_curve(mdp, policy, estimator, wrapper=wrapper, points=5), bench("small")
    plain = cell(on, estimator, "none", wrapper)
    for b, v in zip(curve.constants, curve.variances, strict=True):
        assert v == pytest.approx(variance(on, replace(plain, baseline=Constant(b))), rel=1e-9)
    best = cell(on, estimator, "best", wrapper)
    assert curve.best == pytest.approx(float(best.baseline.table), rel=1e-9)
    assert curve.least == pytest.approx(variance(on, best), rel=1e-9)
    assert curve.without == pytest.approx(variance(on, plain), rel=1e-9)
    assert curve.at_mean == pytest.approx(variance(on, replace(plain, baseline=Constant(curve.mean))), rel=1e-9)
    assert curve.exact
    assert curve.least < min(curve.variances[0], curve.variances[-1], curve.without)
    assert "b*" in str(curve)


def test_a_sampled_curve_is_near_the_exact_one(monkeypatch):
    mdp, policy = WORLDS["small"]
    exact = baseline_curve(mdp, policy)
    monkeypatch.setattr("policygrad.lab.auditing.bench.MAX_LISTED", 10)
    sampled = baseline_curve(mdp, policy, episodes=20_000)
    assert not sampled.exact
    assert sampled.best == pytest.approx(exact.best, rel=0.05)
    assert sampled.least == pytest.approx(exact.least, rel=0.1)
    assert sampled.mean == pytest.approx(exact.mean, rel=0.05)


def test_a_curve_is_refused_for_what_an_audit_refuses():
    mdp, policy = WORLDS["small"]
    with pytest.raises(ValueError, match="needs a critic"):
        baseline_curve(mdp, policy, "td", critic="none")
    with pytest.raises(ValueError, match="discounted"):
        baseline_curve(mdp, policy, "total", wrapper="discount")


# --- the order of variances ------------------------------------------------------------------------------------------

LADDER = [("total", "none"), ("to-go", "none"), ("to-go", "value"), ("to-go", "best-time-state")]


def test_total_return_then_reward_to_go_then_v_then_the_best_baseline_on_the_reference_mdp():
    mdp = make_mdp("small", 2, gamma=1.0)
    made = audit(mdp, None, ["total", "to-go"], ["none", "value", "best-time-state"], ["plain"], repeats=2500, seed=2)
    rows = [made[estimator, baseline, "plain"] for estimator, baseline in LADDER]
    for above, below in itertools.pairwise(rows):
        assert above.variance_interval[0] > below.variance_interval[1]
        assert above.variance_exact is not None
        assert below.variance_exact is not None
        assert above.variance_exact > below.variance_exact
    for row in rows:
        assert row.variance_exact is not None
        assert row.variance_interval[0] < row.variance_exact < row.variance_interval[1]


def cancelling() -> MDP:
    """Two steps; the first pays −1 whatever is done, the second 1 or 1.5: the past is a baseline for what follows."""
    transition = torch.zeros(3, 2, 3)
    transition[0, :, 1] = transition[1, :, 2] = transition[2, :, 2] = 1.0
    return MDP(transition, [[-1.0, -1.0], [1.0, 1.5], [0.0, 0.0]], [1.0, 0.0, 0.0], 2, 1.0, (2,))


@pytest.mark.parametrize(
    ("mdp", "name", "usually_more", "usually_less"),
    [
        (cancelling(), "", ("total", "none"), ("to-go", "none")),
        (make_mdp("deceptive"), "deceptive", ("to-go", "none"), ("to-go", "value")),
    ],
    ids=["reward-to-go has more variance than total return", "V has more variance than no baseline"],
)
def test_each_step_of_the_order_has_a_counterexample_but_the_last(mdp, name, usually_more, usually_less):
    on = Bench(mdp, starting_policy(name, mdp), "exact", 1)
    assert variance(on, cell(on, *usually_less, "plain")) > 2.0 * variance(on, cell(on, *usually_more, "plain"))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_baseline_of_time_and_state_is_below_all_others(seed):
    mdp = make_mdp("small", seed)
    on = Bench(mdp, starting_policy("small", mdp, seed), "exact", 1)
    least = variance(on, cell(on, "to-go", "best-time-state", "discount"))
    for other in ("none", "value", "const:0.5", "best", "best-state", "time"):
        assert variance(on, cell(on, "to-go", other, "discount")) >= least - 1e-12
    state, number = (variance(on, cell(on, "to-go", kind, "discount")) for kind in ("best-state", "best"))
    assert least <= state <= number
