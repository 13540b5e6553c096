"""The fitted baselines against their definitions: what they remember, what they solve, and what they must not look at."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor
from zoo import MDPS, SameBatch, earlier_batch

from policygrad.data import Rollout, TooFewError, Values
from policygrad.gradient.baselines import (
    CriticValue,
    CrossFit,
    LeaveOneOut,
    LinearFeatures,
    Regressor,
    RunningMean,
    TimeAverage,
)
from policygrad.gradient.estimators import RewardToGo, StateDiscounted, advantages
from policygrad.gradient.features import polynomial_features, raw_features
from policygrad.lab.exact.tabular import enumerate_batches, enumerate_trajectories, exact_gradient


def episodes(lengths: list[int], seed: int = 0, width: int = 2) -> tuple[Rollout, Tensor, Values]:
    """One a column, with random observations and returns; what is not valid is NaN."""
    rng, T, N = np.random.default_rng(seed), max(lengths), len(lengths)
    time, length = torch.arange(T)[:, None].expand(T, N), torch.tensor(lengths)
    mask, none = time < length, torch.zeros(T, N, dtype=torch.bool)
    obs = torch.from_numpy(rng.standard_normal((T + 1, N, width)))
    obs[:-1][~mask] = torch.nan
    obs[-1] = torch.nan
    ret = torch.where(mask, torch.from_numpy(rng.standard_normal((T, N))), torch.nan)
    rollout = Rollout(obs, obs[1:], none.long(), ret, ret, time == length - 1, none, none, mask, time)
    return rollout, ret, Values.zeros(rollout)


def later(rollout: Rollout, steps: int) -> Rollout:
    """The same rows, so many steps later in their episodes."""
    return dataclasses.replace(rollout, time=rollout.time + steps)


class TestTimeAverage:
    def test_it_is_the_mean_of_those_still_running_in_earlier_batches_and_0_before_the_first(self):
        rollout, ret, values = episodes([4, 2, 3])
        baseline = TimeAverage()
        assert not baseline(rollout, ret, values).any()
        baseline.fit(rollout, ret)
        b = baseline(rollout, ret + 7.0, values)
        for t in range(4):
            running = ret[t][rollout.mask[t]]
            assert b[t].tolist() == pytest.approx([float(running.mean())] * 3, abs=1e-14)

    def test_every_step_forgets_only_when_it_is_reached_again(self):
        baseline = TimeAverage(0.5)
        (long, old, values), (short, new, _) = episodes([3, 2]), episodes([1, 1, 1], seed=1)
        baseline.fit(long, old)
        before = baseline(long, old, values)
        baseline.fit(short, new)
        after = baseline(long, old, values)
        expected = (0.5 * 2 * float(before[0, 0]) + float(new.sum())) / (0.5 * 2 + 3)  # batches count by their size
        assert float(after[0, 0]) == pytest.approx(expected, abs=1e-14)
        assert torch.equal(after[1:], before[1:])
        baseline.fit(*episodes([2] * 4, seed=2)[:2])
        expected = (0.5 * 2 * float(before[1, 0]) + float(episodes([2] * 4, seed=2)[1][1].sum())) / (0.5 * 2 + 4)
        assert float(baseline(long, old, values)[1, 0]) == pytest.approx(expected, abs=1e-14)

    @pytest.mark.parametrize(("decay", "remembered"), [(0.0, [2]), (1.0, [0, 1, 2])])
    def test_decay_0_remembers_the_last_batch_alone_and_decay_1_all_alike(self, decay, remembered):
        baseline, batches = TimeAverage(decay), [episodes([2] * (n + 1), seed=n) for n in range(3)]
        for rollout, ret, _ in batches:
            baseline.fit(rollout, ret)
        rollout, ret, values = batches[0]
        mean = torch.cat([batches[n][1] for n in remembered], 1).mean(1, keepdim=True)
        torch.testing.assert_close(baseline(rollout, ret, values), mean.expand_as(ret), rtol=0, atol=1e-14)

    def test_a_step_never_reached_has_the_mean_of_the_last_one_before_it_that_was(self):
        baseline, (rollout, ret, values) = TimeAverage(), episodes([3, 1])
        baseline.fit(rollout, ret)
        baseline.fit(later(rollout, 10), ret)
        known = {t: float(baseline(later(rollout, t), ret, values)[0, 0]) for t in range(15)}
        assert known[3] == known[9] == known[2]
        assert known[10] == known[0] != known[9]
        assert known[14] == known[13] == known[12] != known[11]
        first = TimeAverage()
        first.fit(later(rollout, 10), ret)
        assert float(first(rollout, ret, values)[0, 0]) == known[10]  # none before it: the first that was

    def test_a_large_offset_does_not_swallow_the_differences(self):
        baseline, (rollout, ret, values) = TimeAverage(0.9), episodes([2, 2])
        for _ in range(50):
            baseline.fit(rollout, ret + 1e9)
        found = baseline(rollout, ret, values) - 1e9
        torch.testing.assert_close(found, ret.mean(1, keepdim=True).expand_as(ret), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("decay", [-0.1, 1.1])
    def test_a_decay_outside_0_to_1_is_refused(self, decay):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\], got"):
            TimeAverage(decay)


class TestLinearFeatures:
    def test_it_is_the_ridge_regression_on_the_batch_before(self):
        baseline, (rollout, ret, values) = LinearFeatures(ridge=0.3), episodes([5, 3, 4, 2])
        assert not baseline(rollout, ret, values).any()
        baseline.fit(*episodes([4, 4], seed=5)[:2])  # forgotten
        baseline.fit(rollout, ret)
        mask = rollout.mask
        x, y = polynomial_features(rollout.obs[:-1][mask], rollout.time[mask]), ret[mask]
        w = torch.linalg.solve(x.T @ x + 0.3 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
        b = baseline(rollout, ret, values)
        torch.testing.assert_close(b[mask], x @ w, rtol=0, atol=1e-9)
        assert not b[~mask].any()

    def test_the_features_are_those_of_the_classic_benchmark(self):
        obs, time = torch.tensor([[[2.0], [-30.0], [40.0]]]), torch.tensor([50])
        expected = [[2.0, -10.0, 10.0, 4.0, 100.0, 100.0, 0.5, 0.25, 0.125, 1.0]]
        assert polynomial_features(obs, time).tolist() == expected
        assert raw_features(obs, time).tolist() == [[2.0, -30.0, 40.0, 50.0]]

    def test_float32_rollouts_are_solved_in_float64(self):
        """Features that float32's normal equations could not tell apart, for they differ by 1e-4."""

        def close(obs: Tensor, time: Tensor) -> Tensor:
            x = obs[:, :1].double()
            return torch.cat([torch.ones_like(x), 1.0 + 1e-4 * x], 1)

        rollout, _, values = episodes([5, 4, 3])
        ret = 3.0 + 2.0 * rollout.obs[:-1, :, 0]
        single = {f.name: getattr(rollout, f.name) for f in dataclasses.fields(rollout) if f.name != "extra"}
        rollout = Rollout(**{k: x.float() if x.is_floating_point() else x for k, x in single.items()})
        baseline = LinearFeatures(close, ridge=0.0)
        baseline.fit(rollout, ret.float())
        b = baseline(rollout, ret.float(), values)
        assert b.dtype == torch.float32
        torch.testing.assert_close(b[rollout.mask], ret.float()[rollout.mask], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("ridge", [0.0, 1e-5])
    def test_collinear_features_and_more_features_than_rows_are_no_trouble(self, ridge):
        rollout, ret, values = episodes([2, 1])
        baseline = LinearFeatures(lambda obs, time: torch.cat([polynomial_features(obs, time)] * 2, 1), ridge)
        baseline.fit(rollout, ret)
        b = baseline(rollout, ret, values)
        torch.testing.assert_close(b[rollout.mask], ret[rollout.mask], rtol=0, atol=1e-3)

    def test_what_is_no_features_is_refused(self):
        rollout, ret, _ = episodes([2, 1])
        with pytest.raises(
            ValueError, match=r"features\(obs, time\) must be \(B, F\) for the 3 rows given, got \(3,\)"
        ):
            LinearFeatures(lambda obs, time: time.double()).fit(rollout, ret)
        with pytest.raises(ValueError, match="ridge must be at least 0, got -1"):
            LinearFeatures(ridge=-1.0)


MODELS = {"tree": lambda: DecisionTreeRegressor(random_state=0), "linear": LinearRegression}


class TestRegressor:
    @pytest.mark.parametrize("name", MODELS)
    def test_it_is_the_models_prediction_fitted_on_the_batch_before(self, name):
        baseline, model = Regressor(MODELS[name]()), MODELS[name]()
        (rollout, ret, values), (other, _, _) = episodes([5, 3, 4, 2]), episodes([3, 4], seed=1)
        assert not baseline(rollout, ret, values).any()
        baseline.fit(*episodes([4, 4], seed=5)[:2])
        baseline.fit(rollout, ret)
        rows = [raw_features(r.obs[:-1][r.mask], r.time[r.mask]).numpy() for r in (rollout, other)]
        model.fit(rows[0], ret[rollout.mask].numpy())
        b = baseline(other, torch.zeros(other.rew.shape), Values.zeros(other))
        assert b[other.mask].tolist() == pytest.approx(model.predict(rows[1]).tolist(), abs=1e-6)
        assert not b[~other.mask].any()

    def test_scikit_learns_linear_regression_is_ours(self):
        rollout, ret, values = episodes([5, 3, 4, 2])
        theirs = Regressor(LinearRegression())
        ours = LinearFeatures(lambda o, t: torch.cat([raw_features(o, t), torch.ones(len(o), 1)], 1), ridge=0.0)
        for baseline in (theirs, ours):
            baseline.fit(rollout, ret)
        torch.testing.assert_close(theirs(rollout, ret, values), ours(rollout, ret, values), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("name", MODELS)
    def test_a_checkpoint_keeps_the_data_and_loading_fits_again(self, name):
        baseline, again = Regressor(MODELS[name]()), Regressor(MODELS[name]())
        rollout, ret, values = episodes([5, 3, 4, 2])
        again.load_state_dict(baseline.state_dict())
        assert not again(rollout, ret, values).any()
        baseline.fit(rollout, ret)
        state = baseline.state_dict()
        assert all(isinstance(x, Tensor) for x in state["data"])
        again.load_state_dict(state)
        assert torch.equal(again(rollout, ret, values), baseline(rollout, ret, values))

    def test_what_is_no_model_is_refused(self):
        class Half:
            def fit(self, X: Any, y: Any) -> None: ...

        with pytest.raises(TypeError, match=r"must have fit\(X, y\) and predict\(X\), and .* has no predict"):
            Regressor(Half())

        class Wide(Half):
            def predict(self, X: Any) -> np.ndarray:
                return np.zeros((len(X), 2))

        baseline, (rollout, ret, values) = Regressor(Wide()), episodes([2, 1])
        baseline.fit(rollout, ret)
        with pytest.raises(ValueError, match=r"predict must give one number per row, \(3,\), got \(3, 2\)"):
            baseline(rollout, ret, values)


INNER = {
    "running mean": RunningMean,
    "time average": TimeAverage,
    "linear": LinearFeatures,
    "tree": lambda: Regressor(DecisionTreeRegressor(random_state=0)),
}


class TestCrossFit:
    @pytest.mark.parametrize("folds", [2, 3, 5])
    @pytest.mark.parametrize("name", INNER)
    def test_a_fold_is_fitted_on_the_other_folds_of_the_batch(self, name, folds):
        rollout, ret, values = episodes([5, 3, 4, 2, 3])
        b = CrossFit(INNER[name](), folds)(rollout, ret, values)
        for n in range(5):
            others = [m for m in range(5) if m % folds != n % folds]
            inner = INNER[name]()
            inner.fit(rollout.columns(others), ret[:, others])
            expected = inner(rollout.columns([n]), ret[:, [n]], values.columns([n]))
            valid = rollout.mask[:, n]
            torch.testing.assert_close(b[valid, n], expected[valid, 0], rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", INNER)
    def test_a_trajectory_has_no_part_in_its_own_baseline(self, name):
        rollout, ret, values = episodes([5, 3, 4, 2, 3])
        other = ret.clone()
        other[:, 2] += 5.0
        before, after = (CrossFit(INNER[name](), 2)(rollout, x, values) for x in (ret, other))
        changed = ((before != after) & rollout.mask).any(0)
        assert not changed[[0, 2, 4]].any()  # its own fold
        assert changed[[1, 3]].any()

    def test_with_as_many_folds_as_trajectories_it_is_leave_one_out(self):
        rollout, ret, values = episodes([3] * 6)
        b = CrossFit(TimeAverage(), 6)(rollout, ret, values)
        torch.testing.assert_close(b, LeaveOneOut()(rollout, ret, values), rtol=0, atol=1e-14)

    def test_what_it_was_given_is_never_fitted(self):
        inner, (rollout, ret, values) = TimeAverage(), episodes([3] * 4)
        baseline = CrossFit(inner, 2)
        first = baseline(rollout, ret, values)
        baseline.fit(rollout, ret)
        assert not len(inner.mean)
        assert baseline.state_dict() == {}
        assert torch.equal(baseline(rollout, ret, values), first)

    def test_it_says_what_it_needs(self):
        rollout, ret, values = episodes([3, 2, 1])
        with pytest.raises(
            TooFewError, match="CrossFit needs one trajectory per fold, 4, got 3: collect more episodes or"
        ):
            CrossFit(TimeAverage(), 4)(rollout, ret, values)
        cut = dataclasses.replace(rollout, terminated=rollout.cut, cut=rollout.terminated)
        with pytest.raises(ValueError, match=r"CrossFit needs whole episodes, one per column: collect with .episodes"):
            CrossFit(TimeAverage(), 2)(cut, ret, values)
        with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
            CrossFit(TimeAverage(), 1)
        with pytest.raises(
            ValueError, match=r"CriticValue\(\) is the critic's value and is not fitted here: cross-fit TimeAverage"
        ):
            CrossFit(CriticValue(), 2)
        assert CrossFit(TimeAverage()).needs_episodes
        assert repr(CrossFit(TimeAverage(), 3)) == "CrossFit(TimeAverage(decay=0.5), folds=3)"


@pytest.mark.parametrize("model", MODELS)
def test_scikit_learns_regressors_are_unbiased_on_other_trajectories_and_biased_on_their_own(model):
    """Every batch of two trajectories, weighed by its probability; fitted before, cross-fitted, and on the same batch."""
    world = next(w for w in MDPS if w.name == "crossing, γ=0.8")
    policy, mdp = world.policy(), world.mdp
    exact, estimator = exact_gradient(mdp, policy), StateDiscounted(RewardToGo(mdp.gamma))
    before = Regressor(MODELS[model]())
    before.fit(*earlier_batch(mdp.states))
    made = {"before": before, "others": CrossFit(Regressor(MODELS[model]()), 2)}
    made["same"] = SameBatch(Regressor(MODELS[model]()))
    bias = dict.fromkeys(made, -exact)
    for rollout, p in enumerate_batches(*enumerate_trajectories(mdp, policy), 2):
        for name, baseline in made.items():
            adv, _ = advantages(rollout, Values.zeros(rollout), estimator, baseline)
            batch = rollout.flatten(p * adv, "trajectory")
            bias[name] = bias[name] + policy.evaluate(batch).gradient(batch.weight * batch.adv)
    assert float(bias["before"].abs().max()) <= 1e-12
    assert float(bias["others"].abs().max()) <= 1e-12
    assert float(bias["same"].abs().max()) > 1e-2
