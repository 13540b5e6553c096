"""The audit says what theory says: exact where it is exact, at its level where it tests, and of the production estimates."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import policygrad as pg
from policygrad.gradient.estimators import RewardToGo, Standardized, StateDiscounted
from policygrad.lab.auditing.audit import Audit, audit, fitted, row
from policygrad.lab.auditing.bench import Bench
from policygrad.lab.auditing.cells import BASELINES, ESTIMATORS, WRAPPERS, Cell, make_cells
from policygrad.lab.auditing.optimal_baselines import BaselineCurve
from policygrad.lab.auditing.page import curve_section
from policygrad.lab.auditing.plots import draw_curve
from policygrad.lab.auditing.verdicts import judge
from policygrad.lab.exact.mdp import MDP, bandit, chain, random_mdp
from policygrad.lab.exact.tabular import exact_gradient, tabular_policy
from policygrad.lab.exact.worlds import make_mdp, starting_policy
from policygrad.models.heads import Categorical
from policygrad.models.policy import Policy
from policygrad.reports.plots import Chart

SMALL = make_mdp("small")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> Policy:
    torch.manual_seed(0)
    return Policy(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), Categorical(2)).double()


def one_cell(on: Bench, estimator: object, baseline: object = "none", wrapper: object = "plain") -> Cell:
    cells, left_out = make_cells([estimator], [baseline], [wrapper], on.mdp.gamma)
    assert cells, left_out
    return fitted(on, cells[0], seeded(5))


# --- the estimates are the production ones ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [tabular_policy(SMALL, seeded(0)), network()], ids=["table", "network"])
@pytest.mark.parametrize("wrapper", ["plain", "discount+standardize", "step", "standardize-episode"])
@pytest.mark.parametrize("baseline", ["value", "loo", "same-time", "linear"])
def test_estimates_are_what_a_batch_of_training_gives(policy, wrapper, baseline):
    on = Bench(SMALL, policy, "wrong", 3)
    cell, (chunk,) = one_cell(on, "gae:0.7", baseline, wrapper), on.sample(4, seeded(1))
    found = on.estimates(cell, chunk, on.couples(cell, chunk))
    for (rollout, values), ours in zip(chunk.parts, found, strict=True):
        adv, _ = pg.advantages(rollout, values, cell.estimator, cell.baseline)
        batch = rollout.flatten(adv, cell.reduction)
        theirs = policy.evaluate(batch).gradient(batch.weight * batch.adv)
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_per_parameter_baselines_are_subtracted_parameter_by_parameter():
    on = Bench(SMALL, network(), "exact", 3)
    cell, (chunk,) = one_cell(on, "to-go", "best-parameter", "discount"), on.sample(4, seeded(1))
    assert cell.per_parameter is not None
    found = on.estimates(cell, chunk, False)
    for p, b in enumerate(cell.per_parameter.tolist()):
        constant = replace(cell, baseline=pg.Constant(b), per_parameter=None)
        torch.testing.assert_close(found[:, p], on.estimates(constant, chunk, False)[:, p])


def test_a_large_table_keeps_its_scores_sparse_and_gets_the_same_numbers(monkeypatch):
    mdp = make_mdp("FrozenLake-v1")
    on = Bench(mdp, tabular_policy(mdp, seeded(0)), "none", 2)
    sums = torch.randn(3, mdp.states * mdp.actions, dtype=torch.float64, generator=seeded(0))
    monkeypatch.setattr("policygrad.lab.auditing.bench.MAX_SPARSE_SHARE", 0.1)  # 4 of 64 in a row are not 0
    assert on.sparse is not None
    torch.testing.assert_close(on.gradient(sums), sums @ on.scores)


@pytest.mark.parametrize(
    ("baseline", "wrapper", "coupled"),
    [
        ("none", "plain", False),
        ("value", "discount", False),
        ("mean", "plain", False),
        ("linear", "standardize-episode", False),
        ("best-time-state", "plain", False),
        ("loo", "plain", True),
        ("crossfit", "plain", True),
        ("same-mean", "plain", True),
        ("none", "standardize", True),
        ("none", "is-normalized", True),
    ],
)
def test_what_couples_the_episodes_of_a_batch_is_noticed(baseline, wrapper, coupled):
    behavior = starting_policy("small", SMALL, 3) if wrapper.startswith("is") else None
    on = Bench(SMALL, tabular_policy(SMALL, seeded(0)), "exact", 5, behavior=behavior)
    (chunk,) = on.sample(2, seeded(1))
    assert on.couples(one_cell(on, "to-go", baseline, wrapper), chunk) is coupled


# --- what is exact ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["small", "bandit", "limit", "without a horizon"])
def test_the_number_of_trajectories_is_that_of_the_list(world):
    gamma = 0.9 if world == "without a horizon" else 1.0
    mdp = bandit([1.0, 2.0]) if world == "bandit" else random_mdp(3, 2, 3, np.random.default_rng(0), gamma, (2,))
    mdp = replace(mdp, horizon=None) if world == "without a horizon" else mdp
    on = Bench(mdp, tabular_policy(mdp, seeded(0)), "none", 1, None if world in ("small", "bandit") else 2)
    assert on.listed is not None
    assert on.trajectories == len(on.listed[1])
    assert float(on.listed[1].sum()) == pytest.approx(1.0)


def test_exact_moments_of_independent_episodes_are_those_of_all_batches():
    """Variance / N by one list against the sum over all N-tuples, which knows nothing of independence."""
    mdp = random_mdp(2, 2, 2, np.random.default_rng(0), 0.8)
    on = Bench(mdp, tabular_policy(mdp, seeded(0)), "wrong", 2)
    assert on.listed is not None
    assert on.listed_batches is not None
    for names in [("to-go", "value", "plain"), ("total", "none", "plain"), ("gae:0.5", "best", "discount")]:
        cell = one_cell(on, *names)
        short, long = on.exact(cell, False), on.exact(cell, True)
        assert short is not None
        assert long is not None
        torch.testing.assert_close(short.mean, long.mean, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(short.variances, long.variances, rtol=1e-11, atol=1e-13)


GRID = {
    "estimators": ["total", "to-go", "td", "n-step:2", "gae:0.6", "q"],
    "baselines": ["none", "value", "time", "best-state"],
    "wrappers": ["plain", "discount", "standardize-episode"],
}


@pytest.fixture(scope="module", params=["exact", "wrong"])
def grid(request) -> Audit:
    return audit(SMALL, None, **GRID, critic=request.param, batch=8, repeats=1000)


def test_rows_are_unbiased_just_where_theory_says_so(grid):
    bootstraps = {"td", "n-step:2", "gae:0.6", "q"}
    for found in grid.rows:
        discounted = found.wrapper == "discount" or (found.estimator == "total" and found.wrapper == "plain")
        trusted = found.estimator not in bootstraps or grid.critic == "exact"
        assert found.proof == "exact"
        assert (found.verdict == "unbiased") == (discounted and trusted), found


def test_what_was_measured_is_what_is_exact_to_its_errors(grid):
    for found in grid.rows:
        off = (found.bias_vector - found.bias_vector_exact).abs()
        assert (off <= 4.7 * found.bias_error + 1e-9).all(), found  # 68 rows of 6 numbers: a false alarm in 1,000
        low, high = found.bias_interval
        assert low <= found.bias_exact <= high, found
        assert found.variance == pytest.approx(found.variance_exact, rel=0.2), found
        assert found.mse == pytest.approx(found.mse_exact, rel=0.2), found
        torch.testing.assert_close(found.variances, found.variances_exact, rtol=0.35, atol=1e-4)


def test_mean_squared_error_is_bias_squared_plus_variance(grid):
    for found in grid.rows:
        assert found.mse == pytest.approx(found.bias**2 + found.variance * (1 - 1 / grid.repeats), rel=1e-9)
        assert found.mse_exact == pytest.approx(found.bias_exact**2 + found.variance_exact, rel=1e-12)


def test_snr_episodes_and_cosine_follow_from_the_exact_moments(grid):
    found = grid["to-go", "none", "discount"]
    assert found.snr == pytest.approx(1.0 / found.variance_exact)  # unbiased: ‖E ĝ‖ = ‖g‖
    assert found.episodes == pytest.approx(8 * found.variance_exact)
    assert 0.0 < found.cosine < 1.0
    assert found.angle < 1e-3
    assert found.microseconds > 0.0


def test_estimates_of_zero_point_nowhere_and_those_that_never_vary_have_no_noise():
    """Leave-one-out of episodes that are all alike is 0; the best baseline of a bandit with two arms leaves no variance."""
    found = audit(bandit([1.0, 0.0, 2.0, 0.5]), None, ["to-go"], ["loo", "none"], ["plain"], batch=2, repeats=300)
    assert 0.0 < found["to-go", "loo", "plain"].cosine < 1.0
    still = audit(make_mdp("deceptive"), None, ["to-go"], ["best"], repeats=50).rows[0]
    assert still.snr == math.inf
    assert still.cosine == pytest.approx(1.0)


def test_an_snr_of_one_is_what_so_many_episodes_have():
    found = audit(SMALL, None, ["to-go"], ["value"], ["discount"], batch=1, repeats=2)
    episodes = math.ceil(found.rows[0].episodes)
    more = audit(SMALL, None, ["to-go"], ["value"], ["discount"], batch=episodes, repeats=2)
    assert more.rows[0].snr == pytest.approx(episodes / found.rows[0].episodes)
    assert more.rows[0].snr >= 1.0


# --- defects are found, with their size ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_the_mean_of_the_same_batch_shrinks_the_gradient_by_one_nth(batch):
    found = audit(
        bandit([1.0, 0.0, 2.0, 0.5]), None, ["to-go"], ["same-mean", "loo"], ["plain"], batch=batch, repeats=1500
    )
    shrunk, right = found["to-go", "same-mean", "plain"], found["to-go", "loo", "plain"]
    assert shrunk.along_exact == pytest.approx(-1.0 / batch, rel=1e-12)
    assert shrunk.bias_exact == pytest.approx(1.0 / batch, rel=1e-12)
    assert shrunk.verdict == "biased"
    assert shrunk.p < 0.01
    error = (shrunk.along_interval[1] - shrunk.along_interval[0]) / 2 / 2.58
    assert abs(shrunk.along - shrunk.along_exact) < 3 * error
    assert (right.verdict, right.proof) == ("unbiased", "exact")
    assert right.p > 0.001


def test_a_truncation_taken_for_a_termination_is_found():
    mdp = chain(3, horizon=6, gamma=0.9, slip=0.2)

    def ended(rollout, values):
        over = replace(rollout, terminated=rollout.end, truncated=torch.zeros_like(rollout.end))
        return RewardToGo(mdp.gamma)(over, values)

    found = audit(mdp, None, ["to-go", ended], ["value"], ["discount"], limit=2, repeats=2000)
    assert found.rows[0].verdict == "unbiased"
    assert found.truncated > 0.05
    wrong = found["ended", "value", "discount"]
    assert wrong.verdict == "biased"
    assert wrong.p < 1e-6
    assert within_errors(wrong)


def within_errors(found, sigmas: float = 3.0) -> bool:
    """The measured bias along g from the exact one."""
    error = (found.along_interval[1] - found.along_interval[0]) / 2 / 2.58
    return abs(found.along - found.along_exact) < sigmas * error


@pytest.mark.parametrize(
    ("estimator", "baseline", "wrapper", "critic"),
    [
        ("to-go", "value", "plain", "exact"),
        ("gae:0.5", "value", "discount", "wrong"),
        ("to-go", "none", "discount+standardize-episode", "exact"),
        ("to-go", "none", "discount+is:1.2", "exact"),
    ],
    ids=["γᵗ dropped", "GAE with a wrong V", "standardised within episodes", "clipped weights"],
)
def test_known_biases_are_found_by_the_test_too_and_measured_right(estimator, baseline, wrapper, critic):
    behavior = starting_policy("small", SMALL, 3, 0.7) if "is" in wrapper.split("+")[-1].split(":") else None
    found = audit(SMALL, None, [estimator], [baseline], [wrapper], critic=critic, repeats=2000, behavior=behavior)
    only = found.rows[0]
    assert only.p < 0.001
    assert only.verdict == "biased"
    assert only.bias_exact > 0.02
    assert within_errors(only)


def test_importance_weights_and_per_decision_are_unbiased_without_clipping():
    behavior = starting_policy("small", SMALL, 3, 0.7)
    wrappers = ["discount+is", "discount+per-decision", "discount"]
    found = audit(SMALL, None, ["to-go"], ["none", "value"], wrappers, batch=8, repeats=500, behavior=behavior)
    verdicts = {(r.baseline, r.wrapper): r.verdict for r in found.rows}
    assert all((v == "biased") == (wrapper == "discount") for (_, wrapper), v in verdicts.items())
    assert all(r.proof == "exact" for r in found.rows)


def test_the_reference_is_the_gradient_and_with_a_limit_its_first_terms():
    found = audit(SMALL, None, ["to-go"], ["none"], repeats=2)
    policy = tabular_policy(SMALL, seeded(0))
    torch.testing.assert_close(found.reference, exact_gradient(SMALL, policy), rtol=1e-11, atol=1e-13)
    assert found.truncated < 1e-12
    far, near = (audit(SMALL, None, ["to-go"], ["none"], repeats=2, limit=limit).truncated for limit in (1, 3))
    assert far > near > 0.0


def test_without_a_horizon_truncated_episodes_audit_against_their_terms():
    mdp = replace(SMALL, horizon=None)
    found = audit(mdp, None, ["to-go", "gae:0.5", "q"], ["value"], ["discount"], limit=4, repeats=300)
    assert {r.verdict for r in found.rows} == {"unbiased"}
    with pytest.raises(ValueError, match="limit"):
        audit(mdp)


def test_a_gradient_of_zero_is_audited_in_absolute_numbers():
    mdp = bandit([1.0, 1.0])
    found = audit(mdp, None, ["to-go"], ["none", "value"], ["plain"], repeats=200)
    assert found.norm == 0.0
    assert "as g is 0" in str(found)
    assert found.rows[0].episodes == math.inf
    assert math.isnan(found.rows[0].angle)
    assert found.to_json()["rows"][0]["angle"] is None
    assert found["to-go", "none", "plain"].variance > 0.0
    assert "nan" not in str(found)


# --- the test's level ------------------------------------------------------------------------------------------------


def false_alarms(mdp: MDP, names: tuple[str, str, str], batch: int, estimates: int, repetitions: int) -> Tensor:
    """P-values of so many audits of one row."""
    on = Bench(mdp, tabular_policy(mdp, seeded(0)), "exact", batch)
    cell = one_cell(on, *names)
    (trial,) = on.sample(2, seeded(8))
    coupled = on.couples(cell, trial)
    sampled = on.sample(estimates * repetitions, seeded(9))
    found = torch.cat([on.estimates(cell, chunk, coupled) for chunk in sampled])
    return torch.tensor([judge(part, on.reference).p for part in found.split(estimates)])


def at_level(p: Tensor, alpha: float) -> bool:
    """Within 4 standard errors of what a uniform p has."""
    return abs(float((p < alpha).double().mean()) - alpha) <= 4.0 * math.sqrt(alpha * (1.0 - alpha) / len(p))


@pytest.mark.parametrize("names", [("to-go", "value", "discount"), ("total", "none", "plain")])
def test_false_alarms_of_1000_repetitions_match_the_level(names):
    p = false_alarms(SMALL, names, batch=4, estimates=100, repetitions=1000)
    for alpha in (0.01, 0.05, 0.2, 0.5):
        assert at_level(p, alpha), (alpha, float((p < alpha).double().mean()))


@pytest.mark.slow
@pytest.mark.parametrize("names", [("to-go", "loo", "discount"), ("to-go", "crossfit:2", "discount")])
def test_false_alarms_match_the_level_where_episodes_are_coupled(names):
    p = false_alarms(SMALL, names, batch=4, estimates=50, repetitions=1000)
    for alpha in (0.01, 0.05, 0.2, 0.5):
        assert at_level(p, alpha), (alpha, float((p < alpha).double().mean()))


def test_the_level_of_a_table_is_shared_by_the_rows_that_are_tested():
    """Bonferroni: with twelve of them each has a twelfth; rows that are exact take none."""
    mdp, names = make_mdp("random"), ("to-go", "value", "plain")
    full = audit(mdp, None, ["total", "to-go", "td", "q"], ["none", "value", "mean"], ["plain"], repeats=50, alpha=0.12)
    assert {r.proof for r in full.rows} == {"test"}
    alone = audit(mdp, None, ["to-go"], ["value"], ["plain"], repeats=50, alpha=0.01)
    assert full[names].bias_interval == pytest.approx(alone[names].bias_interval, rel=1e-9)
    mixed = audit(SMALL, None, ["to-go"], ["none", "value", "loo"], ["plain"], repeats=50)
    single = audit(SMALL, None, ["to-go"], ["loo"], ["plain"], repeats=50)
    assert [r.proof for r in mixed.rows] == ["exact", "exact", "test"]
    assert mixed.rows[2].bias_interval == single.rows[0].bias_interval


# --- what can be audited ---------------------------------------------------------------------------------------------


def test_an_estimator_of_ones_own_is_a_function():
    def squared(rollout, values):
        return rollout.rew**2

    found = audit(SMALL, None, ["to-go", squared, RewardToGo(0.9)], ["value"], ["plain", "discount"], repeats=50)
    assert {r.estimator for r in found.rows} == {"to-go", "squared", "RewardToGo(gamma=0.9)"}
    same = ("variance", "bias", "cosine", "mse")
    theirs, ours = (found[name, "value", "discount"] for name in ("RewardToGo(gamma=0.9)", "to-go"))
    assert all(getattr(theirs, name) == getattr(ours, name) for name in same)


def test_objects_do_for_baselines_wrappers_and_critics():
    class Halved(pg.NoBaseline):
        def __call__(self, rollout, ret, values):
            return 0.5 * values.val

    wrap = lambda inner: Standardized(StateDiscounted(inner))  # noqa: E731
    policy = tabular_policy(SMALL, seeded(0))
    found = audit(
        SMALL, policy, ["to-go"], [Halved(), "none"], [wrap, "plain"], critic=pg.lab.ExactCritic(SMALL), repeats=5
    )
    assert len(found.rows) == 4
    assert found.critic == "ExactCritic"
    with pytest.raises(ValueError, match="QValue needs a critic of q"):
        audit(SMALL, policy, ["q"], critic=pg.lab.ExactCritic(SMALL), repeats=5)


def test_every_name_can_be_audited():
    policy, behavior = tabular_policy(SMALL, seeded(0)), starting_policy("small", SMALL, 1)
    found = audit(SMALL, policy, [*ESTIMATORS], [*BASELINES], ["plain"], batch=4, repeats=3)
    assert {r.estimator for r in found.rows} == set(ESTIMATORS)
    assert {r.baseline for r in found.rows} == set(BASELINES)
    wrapped = audit(SMALL, policy, ["to-go"], ["none"], [*WRAPPERS, "is:2"], batch=4, repeats=3, behavior=behavior)
    assert {r.wrapper for r in wrapped.rows} == {*WRAPPERS, "is:2"}


def test_combinations_that_make_no_sense_are_left_out_with_the_reason():
    grid = {"estimators": ["total", "to-go", "td"], "baselines": ["none", "value", "loo"]}
    found = audit(SMALL, None, **grid, critic="none", batch=1, repeats=5)
    reasons = dict(found.left_out)
    assert "discounted from t = 0 already" in reasons["total · discount"]
    assert "critic" in reasons["td · none · plain"]
    assert "at least 2 trajectories" in reasons["to-go · loo · plain"]
    assert {r.estimator for r in found.rows} == {"total", "to-go"}
    undiscounted = audit(replace(SMALL, gamma=1.0), None, ["to-go"], ["none"], repeats=5)
    assert undiscounted.left_out == [("to-go · discount", "γ = 1, so there is nothing to discount")]


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"estimators": ["to-gp"]}, "did you mean 'to-go'"),
        ({"estimators": ["zzz"]}, "available: total"),
        ({"estimators": ["gae:x"]}, "takes a number"),
        ({"estimators": ["total:1"]}, "takes nothing"),
        ({"estimators": ["gae:1.5"]}, "lam must be in"),
        ({"estimators": [3]}, "an estimator is a name or"),
        ({"baselines": ["values"]}, "did you mean 'value'"),
        ({"wrappers": ["plain+discont"]}, "did you mean 'discount'"),
        ({"critic": "perfect"}, "critic must be one of"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"repeats": 1}, "repeats must be at least 2"),
        ({"estimators": []}, "nothing is left"),
        ({"estimators": ["td"], "critic": "none"}, "nothing is left to audit: td"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(keywords, says):
    with pytest.raises(ValueError, match=says) as raised:
        audit(SMALL, **keywords)
    assert "\n" not in str(raised.value)


# --- what it looks like ----------------------------------------------------------------------------------------------


def test_the_table_names_every_row_fits_a_terminal_and_explains_its_columns(grid):
    text = str(grid)
    header = next(line for line in text.splitlines() if line.startswith("estimator ·"))
    assert "gae:0.6 · best-state · discount" in text
    assert max(map(len, text.split("\n\nleft out")[0].splitlines())) <= 120
    for column in header.replace("estimator · baseline · wrapper", "").split():
        assert re.search(rf"^{column} ", text, re.MULTILINE), column
    assert "left out" in text


def test_json_has_all_numbers(grid):
    made = json.loads(json.dumps(grid.to_json(), allow_nan=False))
    assert len(made["rows"]) == len(grid.rows)
    first, ours = made["rows"][0], grid.rows[0]
    assert first["variances"] == ours.variances.tolist()
    assert first["bias_interval"] == list(ours.bias_interval)
    assert made["reference"] == grid.reference.tolist()
    assert made["listed"] == 3888


def test_a_row_that_is_not_there_is_named():
    found = audit(SMALL, None, ["to-go"], ["none"], ["plain"], repeats=5)
    with pytest.raises(KeyError, match="to-go"):
        found["total", "none", "plain"]


def test_the_page_needs_nothing_else_and_escapes_what_it_is_given(tmp_path):
    def hostile(rollout, values):
        return rollout.rew

    hostile.__name__ = "<script>alert(1)</script>&"
    found = audit(SMALL, None, ["to-go", hostile], ["none", "same-mean"], repeats=20)
    curve = pg.lab.baseline_curve(SMALL, tabular_policy(SMALL, seeded(0)))
    text = found.html(tmp_path / "below" / "audit.html", curve).read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"https?://|src=|@import|url\(", text)
    assert text.count("<tr>") == len(found.rows) + 1 + 4
    assert "1 − 1/N" in text
    assert "prefers-color-scheme: dark" in text


def test_the_picture_is_drawn_with_and_without_biases_and_a_curve(tmp_path):
    from matplotlib.image import imread

    found = audit(SMALL, None, ["to-go"], ["none", "value"], ["discount"], repeats=20)
    curve = pg.lab.baseline_curve(SMALL, tabular_policy(SMALL, seeded(0)))
    found.plot(tmp_path / "a" / "1.png")
    found.plot(tmp_path / "2.png", curve)
    shapes = [imread(tmp_path / name).shape[:2] for name in ("2.png", "a/1.png")]
    assert shapes[0] == shapes[1]  # a page wide; the curve stands beside the trade-off
    biased = audit(SMALL, None, ["td"], ["none", "same-mean"], critic="wrong", repeats=20)
    figure = biased.plot(tmp_path / "3.svg")
    assert isinstance(figure, Chart)
    assert (tmp_path / "3.svg").read_text().startswith("<?xml")
    legend = {text.get_text() for text in figure.axes[1].get_legend().get_texts()}  # pyright: ignore
    assert legend == {"td", "none", "same-mean", "discount", "same-mean · discount"}
    assert figure.axes[0].get_xlabel() == "variance or bias² of one batch, in ‖g‖²"
    assert len(found.plot(curve=curve).axes) == 3


def test_the_points_of_the_u_curve_can_be_told_apart_where_they_are_the_same():
    at = {"best": 0.0, "least": 1.0, "without": 1.0, "mean": 0.0, "at_mean": 1.0}
    curve = BaselineCurve([-1.0, 0.0, 1.0], [2.0, 1.0, 2.0], **at, exact=True)
    axis = Chart().subplots()
    draw_curve(axis, curve)
    sizes = [line.get_markersize() for line in axis.lines[1:]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["b = 0", "mean return", "b*"]  # pyright: ignore
    assert not [text for text in axis.texts if text.get_text() in ("b = 0", "mean return", "b*")]
    names = r"<text x='[\d.]+' y='([\d.]+)'[^>]*>(?:b = 0|mean return|b\*)<"
    heights = [float(y) for y in re.findall(names, curve_section(curve))]
    assert len(heights) == 3
    assert min(b - a for a, b in pairwise(sorted(heights))) >= 16


def test_objects_can_be_given_names_in_a_dict():
    def mine(rollout, values):
        return rollout.rew

    found = audit(SMALL, None, {"own": mine}, {"zero": pg.NoBaseline()}, {"as it is": lambda x: x}, repeats=5)
    same = audit(SMALL, None, [mine], ["none"], ["plain"], repeats=5)
    assert found["own", "zero", "as it is"].bias == same["mine", "none", "plain"].bias
    for given, message in (
        ({"to-go": mine}, "the estimator 'to-go' is one of the package"),
        ({"gae:0.3": mine}, "give yours another name"),
        ({"own": "to-go"}, "names of your own and objects, got 'own': 'to-go'"),
        ({mine: mine}, "names of your own and objects"),
    ):
        with pytest.raises(ValueError, match=message):
            audit(SMALL, None, given, repeats=5)
    with pytest.raises(ValueError, match="the wrapper 'discount\\+x' is one of the package"):
        audit(SMALL, None, ["to-go"], ["none"], {"discount+x": lambda x: x}, repeats=5)


def test_a_notebook_shows_the_table_with_its_legend_and_escapes_names():
    def hostile(rollout, values):
        return rollout.rew

    hostile.__name__ = "<script>&"
    found = audit(SMALL, None, ["to-go", hostile], ["none"], ["plain"], repeats=5)
    html = found._repr_html_()
    assert html.count("<tr>") == len(found.rows) + 1 + 9  # and nine columns
    assert "<script" not in html
    assert "&lt;script&gt;&amp;" in html
    assert "the component of the bias along g" in html


def test_the_same_seed_gives_the_same_numbers_and_rows_share_their_episodes():
    first, again, other = (audit(SMALL, None, ["to-go"], repeats=20, seed=seed) for seed in (0, 0, 1))
    assert first.rows[0].bias == again.rows[0].bias != other.rows[0].bias
    alone = audit(SMALL, None, ["to-go"], ["value"], ["discount"], repeats=20)
    assert alone.rows[0].bias == first["to-go", "value", "discount"].bias


def test_batches_come_some_at_a_time_and_in_all_as_many_as_asked_for(monkeypatch):
    monkeypatch.setattr("policygrad.lab.auditing.bench.MAX_AT_ONCE", 3)
    on = Bench(SMALL, tabular_policy(SMALL, seeded(0)), "exact", 4)
    cell = one_cell(on, "to-go")
    chunks = list(on.sample(7, seeded(0)))
    assert [chunk.batches for chunk in chunks] == [3, 3, 1]
    found = torch.cat([on.estimates(cell, chunk, False) for chunk in chunks])
    assert found.shape == (7, 6)
    made = row(on, cell, found, None)
    assert made.proof == "test"
    assert made.bias_exact is None


def test_batches_of_which_not_even_two_fit_at_a_time_are_audited_alike(monkeypatch):
    together = audit(SMALL, None, ["to-go"], ["none", "mean", "loo"], ["plain"], repeats=5)
    monkeypatch.setattr("policygrad.lab.auditing.bench.MAX_NUMBERS", 16 * 3 * 4)
    one_by_one = audit(SMALL, None, ["to-go"], ["none", "mean", "loo"], ["plain"], repeats=5)
    assert len(one_by_one.rows) == len(together.rows) == 3
    assert one_by_one.listed is None  # too many numbers for that, too
    assert [r.microseconds > 0.0 for r in one_by_one.rows] == [True] * 3


def test_estimates_that_are_not_finite_are_refused_and_zeros_have_no_ratio_to_noise():
    with pytest.raises(ValueError, match="some estimate is not finite"):
        audit(SMALL, None, [lambda rollout, values: math.nan * rollout.rew], ["none"], ["plain"], repeats=5)
    nothing = audit(SMALL, None, [lambda rollout, values: 0.0 * rollout.rew], ["none"], ["plain"], repeats=5).rows[0]
    assert nothing.variance == 0.0
    assert math.isnan(nothing.snr)
    assert nothing.verdict == "biased"


def test_an_mdp_by_its_name_has_the_policy_that_goes_with_it():
    named = audit("deceptive", None, "to-go", "none,value", "plain", repeats=2)
    mdp = make_mdp("deceptive")
    given = audit(mdp, starting_policy("deceptive", mdp), ["to-go"], ["none", "value"], ["plain"], repeats=2)
    assert [row.variance_exact for row in named.rows] == [row.variance_exact for row in given.rows]
    assert named.rows[1].variance_exact > 60 * named.rows[0].variance_exact


def test_episodes_do_not_depend_on_the_scale_of_an_estimate():
    def tripled(rollout, values):
        return 3.0 * RewardToGo(SMALL.gamma)(rollout, values).ret.numpy()

    plain, scaled = (audit(SMALL, None, [e], ["none"], ["plain"], repeats=2).rows[0] for e in ("to-go", tripled))
    assert (plain.verdict, scaled.verdict) == ("biased", "biased")
    assert scaled.variance_exact == pytest.approx(9 * plain.variance_exact)
    assert scaled.episodes == pytest.approx(plain.episodes)


def test_where_nothing_is_left_to_audit_every_reason_is_given():
    with pytest.raises(ValueError, match=r"total · value · plain: needs a critic.*") as caught:
        audit(SMALL, None, ["total"], ["value"], ["plain", "discount"], critic="none")
    assert "discount" in str(caught.value)

    def narrow(rollout, values):
        return rollout.rew[:1]

    with pytest.raises(ValueError, match="narrow must give"):
        audit(SMALL, None, [narrow], ["none"], ["plain"])


def test_a_gradient_of_nothing_but_rounding_is_0_and_a_constant_on_all_rewards_is_no_bias():
    rounds = make_mdp("rock-paper-scissors")
    found = audit(rounds, tabular_policy(rounds, scale=0.0), ["to-go"], ["none"], ["plain"], batch=4, repeats=20)
    assert found.norm == 0.0
    assert 0.0 < found.rows[0].variance_exact < 10.0
    mdp = random_mdp(3, 2, 4, np.random.default_rng(0))
    for by in (0.0, 1e8):
        shifted = replace(mdp, reward=mdp.reward + by)
        rows = audit(shifted, None, ["to-go", "gae:0.95"], ["none", "value"], ["plain"], batch=4, repeats=20).rows
        assert [(r.verdict, r.proof) for r in rows] == [("unbiased", "exact")] * 4
    dropped = audit(replace(make_mdp("small"), gamma=0.9), None, ["to-go"], ["none"], ["plain"], repeats=20).rows[0]
    assert dropped.verdict == "biased"


@pytest.mark.parametrize(
    ("estimators", "baselines", "says"),
    [
        (["n-step:inf"], ["none"], "n-step takes a whole number"),
        (["n-step:2.5"], ["none"], "n-step takes a whole number"),
        (["gae:nan"], ["none"], "gae takes a number"),
        (["to-go"], ["crossfit:2.5"], "crossfit takes a whole number"),
        (["to-go"], ["const:inf"], "const takes a number"),
    ],
)
def test_numbers_after_a_colon_are_finite_and_whole_where_they_must_be(estimators, baselines, says):
    with pytest.raises(ValueError, match=says):
        audit(SMALL, None, estimators, baselines, repeats=5)


def test_policies_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="float64"):
        audit(SMALL, tabular_policy(SMALL).float())
    with pytest.raises(ValueError, match="one-hot observations of 3 states and give 2 actions"):
        audit(SMALL, tabular_policy(chain(5, 4)))


@pytest.mark.parametrize("given", [{"batch": 10**9}, {"limit": 10**9}])
def test_a_batch_that_no_memory_holds_is_refused_at_once(given):
    with pytest.raises(ValueError, match="take fewer episodes, or a smaller limit"):
        audit("corridor", estimators="td", baselines="value", **({"limit": 100} | given))
