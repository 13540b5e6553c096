"""Returns against their definitions as plain double loops, their limits, published values, and what never leaks."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from zoo import BASELINES, ESTIMATORS, WRAPPERS, earlier_batch

from policygrad.data import Rollout, TooFewError, Values
from policygrad.gradient import returns
from policygrad.gradient.baselines import Constant, CriticValue, LeaveOneOut, NoBaseline, RunningMean
from policygrad.gradient.estimators import (
    GAE,
    NStep,
    QValue,
    RewardToGo,
    Standardized,
    StateDiscounted,
    TDError,
    TotalReturn,
    advantages,
)
from policygrad.stored.storage import load_state, save_state

STEP, TERMINATED, TRUNCATED, GAP = range(4)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
quick = settings(max_examples=40)
SAMPLING = [m for m in ESTIMATORS if not m.discounted and not m.needs_q]  # the next reward, at least, is seen
gammas = st.sampled_from([0.0, 0.5, 0.99, 1.0])


def make_rollout(rew: Tensor, end: Tensor | None = None) -> Rollout:
    """End (T, N): STEP, TERMINATED, TRUNCATED or GAP, a masked row. What runs into a gap or the edge is cut."""
    T, N = rew.shape
    end = torch.zeros(T, N, dtype=torch.int64) if end is None else end
    mask, terminated, truncated = end != GAP, end == TERMINATED, end == TRUNCATED
    followed = torch.cat([mask[1:], torch.zeros(1, N, dtype=torch.bool)])
    cut = (end == STEP) & ~followed
    time = torch.zeros(T, N, dtype=torch.int64)
    for t in range(1, T):
        time[t] = torch.where(mask[t] & (end[t - 1] == STEP), time[t - 1] + 1, 0)
    obs = torch.zeros(T + 1, N, 1, dtype=rew.dtype)
    none = torch.zeros(T, N, dtype=torch.int64)
    return Rollout(obs, obs[1:], none, rew, torch.zeros_like(rew), terminated, truncated, cut, mask, time)


def column(rew: list[float], kind: int = TERMINATED) -> Rollout:
    """One trajectory; kind is its last row's."""
    end = torch.zeros(len(rew), 1, dtype=torch.int64)
    end[-1] = kind
    return make_rollout(torch.tensor(rew, dtype=torch.float64)[:, None], end)


@st.composite
def rollouts(draw) -> tuple[Rollout, Values]:
    """Random ends and gaps; rewards and values of a random sign, garbage wherever it must not be looked at.

    next_val is no shifted val: where episodes follow each other without a gap it cannot be.
    """
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 3)))
    end = torch.from_numpy(draw(hnp.arrays(np.int64, shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2, 3]))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rew, val, next_val = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(3))
    garbage = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    inside = (end == STEP)[:-1] & (end != GAP)[1:]
    next_val[:-1] = torch.where(inside, val[1:], next_val[:-1])  # in an episode V(s_{t+1}) is one number
    for x in (rew, val, next_val):
        x[end == GAP] = garbage
    next_val[end == TERMINATED] = garbage
    return make_rollout(rew, end), Values(val, next_val)


def walk(rollout: Rollout, t: int, n: int) -> list[int]:
    """The rows from t to the end of its trajectory."""
    rows = [t]
    while not rollout.end[rows[-1], n]:
        rows.append(rows[-1] + 1)
    return rows


def loop(rollout: Rollout, definition) -> Tensor:
    """definition(rows, n) at every valid row, 0 elsewhere."""
    out = torch.zeros_like(rollout.rew)
    for t, n in rollout.mask.nonzero().tolist():
        out[t, n] = definition(walk(rollout, t, n), n)
    return out


def naive_n_step(rollout: Rollout, next_val: Tensor, gamma: float, n_steps: float) -> Tensor:
    def definition(rows: list[int], n: int) -> float:
        rows = rows[: int(min(n_steps, len(rows)))]
        total = sum(gamma**k * float(rollout.rew[t, n]) for k, t in enumerate(rows))
        if not rollout.terminated[rows[-1], n]:
            total += gamma ** len(rows) * float(next_val[rows[-1], n])
        return total

    return loop(rollout, definition)


def naive_gae(rollout: Rollout, values: Values, gamma: float, lam: float) -> Tensor:
    def delta(t: int, n: int) -> float:
        after = 0.0 if rollout.terminated[t, n] else float(values.next_val[t, n])
        return float(rollout.rew[t, n]) + gamma * after - float(values.val[t, n])

    return loop(rollout, lambda rows, n: sum((gamma * lam) ** k * delta(t, n) for k, t in enumerate(rows)))


def valid(x: Tensor, rollout: Rollout) -> Tensor:
    return torch.where(rollout.mask, x, 0.0)


class TestDefinitions:
    @quick
    @given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**32 - 1))
    def test_the_recursion_by_doubling_is_the_recursion_for_any_decay(self, T, N, seed):
        rng = np.random.default_rng(seed)
        x, decay = (torch.from_numpy(rng.standard_normal((T, N))) for _ in range(2))
        decay[torch.from_numpy(rng.random((T, N)) < 0.2)] = 0.0
        expected, copies = x.clone(), (x.clone(), decay.clone())
        for t in reversed(range(T - 1)):
            expected[t] = x[t] + decay[t] * expected[t + 1]
        torch.testing.assert_close(returns.discounted_cumsum(x, decay), expected, **TIGHT)
        assert torch.equal(x, copies[0])
        assert torch.equal(decay, copies[1])

    def test_the_recursion_does_not_care_about_strides_or_trailing_axes(self):
        x, decay = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4, 9, 3)))
        one_by_one = torch.stack([returns.discounted_cumsum(a, d) for a, d in zip(x, decay, strict=True)], 1)
        assert not x.permute(1, 0, 2).is_contiguous()
        assert torch.equal(returns.discounted_cumsum(x.permute(1, 0, 2), decay.permute(1, 0, 2)), one_by_one)

    @quick
    @given(rollouts(), gammas)
    def test_reward_to_go_is_its_definition(self, drawn, gamma):
        rollout, values = drawn
        ret = RewardToGo(gamma)(rollout, values).ret
        torch.testing.assert_close(ret, naive_n_step(rollout, values.next_val, gamma, math.inf), **TIGHT)

    @quick
    @given(rollouts(), gammas, st.integers(1, 14))
    def test_the_n_step_return_is_its_definition(self, drawn, gamma, n):
        rollout, values = drawn
        ret = NStep(gamma, n)(rollout, values).ret
        torch.testing.assert_close(ret, naive_n_step(rollout, values.next_val, gamma, n), **TIGHT)

    @quick
    @given(rollouts(), gammas)
    def test_the_td_target_is_the_one_step_return(self, drawn, gamma):
        rollout, values = drawn
        ret = TDError(gamma)(rollout, values).ret
        torch.testing.assert_close(ret, naive_n_step(rollout, values.next_val, gamma, 1), **TIGHT)

    @quick
    @given(rollouts(), gammas, st.sampled_from([0.0, 0.3, 0.95, 1.0]))
    def test_the_generalised_advantage_is_its_definition(self, drawn, gamma, lam):
        rollout, values = drawn
        expected = naive_gae(rollout, values, gamma, lam)
        torch.testing.assert_close(returns.gae(rollout, values.val, values.next_val, gamma, lam), expected, **TIGHT)
        adv, estimate = advantages(rollout, values, GAE(gamma, lam), CriticValue())
        torch.testing.assert_close(valid(adv, rollout), expected, **TIGHT)
        torch.testing.assert_close(estimate.target, expected + valid(values.val, rollout), **TIGHT)

    @quick
    @given(rollouts(), gammas)
    def test_the_q_value_is_the_critics_and_its_target_that_of_expected_sarsa(self, drawn, gamma):
        rollout, values = drawn
        values = dataclasses.replace(values, act_val=values.val + 1.0)
        adv, estimate = advantages(rollout, values, QValue(gamma), CriticValue())
        assert torch.equal(estimate.ret, valid(values.val + 1.0, rollout))
        torch.testing.assert_close(valid(adv, rollout), rollout.mask.double(), **TIGHT)
        torch.testing.assert_close(estimate.target, naive_n_step(rollout, values.next_val, gamma, 1), **TIGHT)

    def test_a_q_value_without_a_critic_of_q_is_refused(self):
        rollout = column([1.0, 2.0])
        with pytest.raises(ValueError, match=r"QValue needs a critic of q\(s, a\).*give the learner a QCritic"):
            QValue(0.9)(rollout, Values(rollout.rew, rollout.rew))

    @quick
    @given(st.lists(st.integers(1, 6), min_size=1, max_size=4), gammas, st.integers(0, 2**32 - 1))
    def test_the_total_return_is_its_definition(self, lengths, gamma, seed):
        rng = np.random.default_rng(seed)
        rew = torch.from_numpy(rng.standard_normal((max(lengths), len(lengths))))
        end = torch.full(rew.shape, GAP)
        for n, length in enumerate(lengths):
            end[:length, n] = STEP
            end[length - 1, n] = int(rng.choice([TERMINATED, TRUNCATED]))
            rew[length:, n] = math.nan
        rollout = make_rollout(rew, end)
        rollout = dataclasses.replace(rollout, time=torch.arange(len(rew))[:, None].expand(rew.shape))
        estimate = TotalReturn(gamma)(rollout, Values.zeros(rollout))
        for n, length in enumerate(lengths):
            total = sum(gamma**t * float(rew[t, n]) for t in range(length))
            torch.testing.assert_close(estimate.ret[:, n], torch.full((len(rew),), total, dtype=rew.dtype), **TIGHT)
        zeros = torch.zeros_like(rew)
        torch.testing.assert_close(estimate.target, naive_n_step(rollout, zeros, gamma, math.inf), **TIGHT)

    @quick
    @given(rollouts(), st.sampled_from([0.5, 0.9, 1.0]))
    def test_state_discounting_multiplies_by_gamma_to_the_time_inside_the_episode(self, drawn, gamma):
        rollout, values = drawn
        plain, _ = advantages(rollout, values, GAE(gamma, 0.9), CriticValue())
        discounted, _ = advantages(rollout, values, StateDiscounted(GAE(gamma, 0.9)), CriticValue())
        for t, n in rollout.mask.nonzero().tolist():
            assert float(discounted[t, n]) == pytest.approx(gamma ** int(rollout.time[t, n]) * float(plain[t, n]))


class TestIdentities:
    @quick
    @given(rollouts(), gammas)
    def test_gae_1_is_reward_to_go_less_v_and_gae_0_the_td_error(self, drawn, gamma):
        rollout, values = drawn
        gae = {lam: advantages(rollout, values, GAE(gamma, lam), CriticValue())[0] for lam in (0.0, 1.0)}
        to_go, _ = advantages(rollout, values, RewardToGo(gamma), CriticValue())
        delta, _ = advantages(rollout, values, TDError(gamma), CriticValue())
        torch.testing.assert_close(valid(gae[1.0], rollout), valid(to_go, rollout), **TIGHT)
        torch.testing.assert_close(valid(gae[0.0], rollout), valid(delta, rollout), **TIGHT)

    @quick
    @given(rollouts(), gammas, st.integers(0, 3))
    def test_n_step_with_n_at_least_t_is_reward_to_go(self, drawn, gamma, more):
        rollout, values = drawn
        long = NStep(gamma, len(rollout.rew) + more)(rollout, values)
        torch.testing.assert_close(long.ret, RewardToGo(gamma)(rollout, values).ret, **TIGHT)

    @quick
    @given(rollouts(), gammas)
    def test_gae_is_the_exponential_average_of_n_step_advantages(self, drawn, gamma):
        """ArXiv 1506.02438, eq. 16: (1 − λ) Σ_n λⁿ⁻¹ Â⁽ⁿ⁾; beyond the end all Â⁽ⁿ⁾ are equal."""
        rollout, values = drawn
        lam, longest = 0.7, len(rollout.rew)
        mean = torch.zeros_like(rollout.rew)
        for n in range(1, longest + 1):
            share = (1 - lam) * lam ** (n - 1) if n < longest else lam ** (longest - 1)
            mean += share * NStep(gamma, n)(rollout, values).ret
        torch.testing.assert_close(GAE(gamma, lam)(rollout, values).ret, mean, **TIGHT)

    @pytest.mark.parametrize("member", [m for m in ESTIMATORS if not m.needs_q], ids=lambda m: m.name)
    def test_without_a_future_every_return_is_the_reward(self, member):
        one = column([2.5])
        values = Values(torch.full((1, 1), 7.0).double(), torch.full((1, 1), 9.0).double())
        assert float(member.make(0.9)(one, values).ret) == pytest.approx(2.5)
        rollout = column([2.5, -1.0, 4.0])
        values = Values(torch.randn(3, 1).double(), torch.randn(3, 1).double())
        if not member.discounted:
            torch.testing.assert_close(member.make(0.0)(rollout, values).ret, rollout.rew, **TIGHT)

    @pytest.mark.parametrize("kind", [STEP, TRUNCATED])
    @pytest.mark.parametrize("member", SAMPLING, ids=lambda m: m.name)
    def test_after_a_truncation_or_cut_one_step_is_reward_plus_discounted_v(self, member, kind):
        values = Values(torch.full((1, 1), 7.0).double(), torch.full((1, 1), 9.0).double())
        assert float(member.make(0.9)(column([2.5], kind), values).ret) == pytest.approx(2.5 + 0.9 * 9.0)

    @pytest.mark.parametrize("wrapper", [w for w in WRAPPERS if w.standardizes != "batch"], ids=lambda w: w.name)
    @pytest.mark.parametrize("member", SAMPLING, ids=lambda m: m.name)
    def test_episodes_one_after_the_other_are_episodes_side_by_side(self, member, wrapper):
        estimator, rng = wrapper.wrap(member.make(0.9)), np.random.default_rng(0)
        kinds = [(3, TERMINATED), (1, TRUNCATED), (4, TERMINATED), (2, STEP)]
        parts = [column(rng.standard_normal(length).tolist(), kind) for length, kind in kinds]
        values = [Values(*torch.from_numpy(rng.standard_normal((2, len(p.rew), 1)))) for p in parts]
        alone = [
            advantages(p, v, estimator, CriticValue())[0] for p, v in zip(parts, values, strict=True) if p.steps > 1
        ]
        # the cut column must come last: an episode that follows a cut row would continue it
        end = torch.cat([torch.where(p.terminated, 1, 0) + torch.where(p.truncated, 2, 0) for p in parts])
        joined = make_rollout(torch.cat([p.rew for p in parts]), end)
        both = Values(torch.cat([v.val for v in values]), torch.cat([v.next_val for v in values]))
        adv, _ = advantages(joined, both, estimator, CriticValue())
        torch.testing.assert_close(torch.cat([adv[:3], adv[4:]]), torch.cat(alone), **TIGHT)

    @quick
    @given(rollouts(), st.randoms())
    def test_the_order_of_columns_does_not_matter(self, drawn, random):
        rollout, values = drawn
        order = list(range(rollout.rew.shape[1]))
        random.shuffle(order)
        fields = {f.name: getattr(rollout, f.name)[:, order] for f in dataclasses.fields(rollout) if f.name != "extra"}
        swapped, swapped_values = Rollout(**fields), Values(values.val[:, order], values.next_val[:, order])
        for estimator in (RewardToGo(0.9), NStep(0.9, 2), GAE(0.9, 0.8)):
            ret = estimator(rollout, values).ret[:, order]
            torch.testing.assert_close(estimator(swapped, swapped_values).ret, ret, **TIGHT)


class TestPublishedValues:
    """rlax's examples (multistep_test.py, Apache-2.0), each re-derived here in exact fractions before it is used."""

    REW = (("0", "0", "1", "0", "-.5"), ("0", "0", "0", "0", "1"))
    VAL = (("1", "4", "-3", "-2", "-1", "-1"), ("-3", "-2", "-1", "0", "5", "-1"))
    DISCOUNT = (("0.99",) * 5, ("0.9", "0.9", "0.9", "0", "0.9"))  # a discount of 0 is a termination

    @pytest.mark.parametrize(
        ("lam", "published"),
        [
            ("1", [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3, 2, 1, 0, -4.9]]),
            ("0.7", [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1, 0, -4.9]]),
            ("0.4", [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1, 0, -4.9]]),
        ],
    )
    def test_gae(self, lam, published):
        for row in range(2):
            rew, val, discount = ([Fraction(x) for x in table[row]] for table in (self.REW, self.VAL, self.DISCOUNT))
            exact, after = [], Fraction(0)
            for t in reversed(range(5)):
                after = rew[t] + discount[t] * val[t + 1] - val[t] + discount[t] * Fraction(lam) * after
                exact.insert(0, float(after))
            assert exact == pytest.approx(published[row], abs=1e-3)  # printed to three digits or more
            end = torch.tensor([[TERMINATED if d == 0 else STEP] for d in discount])
            rollout = make_rollout(torch.tensor([[float(x)] for x in rew]).double(), end)
            v = torch.tensor([[float(x)] for x in val]).double()
            adv = returns.gae(rollout, v[:-1], v[1:], float(discount[0]), float(lam))
            assert adv[:, 0].tolist() == pytest.approx(exact, abs=1e-12)

    def test_discounted_and_lambda_returns_with_a_discount_for_every_step(self):
        rew = torch.tensor([[1.0, 0.0, -1.0, 0.0, 1.0], [0.5, 0.8, -0.7, 0.0, 2.1]]).double().T
        discount = torch.tensor([[0.5, 0.9, 1.0, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]]).double().T
        val = torch.tensor([[3.0, 1.0, 5.0, -5.0, 3.0], [-1.7, 1.2, 2.3, 2.2, 2.7]]).double().T
        published = {
            1.0: [[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]],
            0.75: [
                [1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4],
                [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99],
            ],
        }
        for lam, expected in published.items():
            decay = lam * discount
            decay[-1] = 0.0
            x = rew + discount * (1.0 - lam) * val
            x[-1] = rew[-1] + discount[-1] * val[-1]
            y = returns.discounted_cumsum(x, decay)
            torch.testing.assert_close(y.T, torch.tensor(expected).double(), rtol=0, atol=1e-6)


class TestStandardized:
    @quick
    @given(rollouts(), st.sampled_from(["batch", "episode"]))
    def test_the_valid_rows_have_mean_0_and_std_1(self, drawn, over):
        rollout, values = drawn
        if rollout.steps < 2:
            return
        plain, _ = advantages(rollout, values, RewardToGo(0.9), NoBaseline())
        adv, _ = advantages(rollout, values, Standardized(RewardToGo(0.9), over), NoBaseline())
        assert torch.isfinite(adv[rollout.mask]).all()
        if over == "batch":
            groups = [(plain[rollout.mask], adv[rollout.mask])]
        else:
            starts = [(t, n) for t, n in rollout.mask.nonzero().tolist() if rollout.time[t, n] == 0]
            groups = [(plain[rows, n], adv[rows, n]) for t, n in starts for rows in [walk(rollout, t, n)]]
            assert len(groups) == rollout.trajectories
        for before, after in groups:
            std = float(before.std(correction=0))
            rounding = 1e-14 * (1.0 + float(before.abs().max()) / (std + 1e-8))  # what cancels in before − mean
            assert float(after.mean()) == pytest.approx(0.0, abs=rounding)
            # the 1e-8 that keeps the division finite shows where the std is small
            assert float(after.std(correction=0)) == pytest.approx(std / (std + 1e-8), abs=rounding)
            assert len(before) > 1 or not after.any()

    def test_moments_are_the_populations_and_order_is_kept(self):
        rollout = column([1.0, 2.0, 6.0])
        adv, _ = advantages(rollout, Values.zeros(rollout), Standardized(TDError(0.0)), NoBaseline())
        centred = torch.tensor([-2.0, -1.0, 3.0]).double()
        torch.testing.assert_close(adv[:, 0], centred / math.sqrt(14 / 3), rtol=1e-7, atol=0)

    def test_a_trajectory_of_one_step_gets_0_and_equal_advantages_too(self):
        end = torch.tensor([[TERMINATED, STEP], [GAP, TERMINATED]])
        rollout = make_rollout(torch.tensor([[5.0, 1.0], [math.nan, 3.0]]).double(), end)
        estimator = Standardized(TDError(0.0), over="episode")
        adv, _ = advantages(rollout, Values.zeros(rollout), estimator, NoBaseline())
        assert float(adv[0, 0]) == 0.0
        assert adv[:, 1].tolist() == pytest.approx([-1.0, 1.0])
        level = column([2.0, 2.0])
        adv, _ = advantages(level, Values.zeros(level), Standardized(TDError(0.0)), NoBaseline())
        assert adv.tolist() == [[0.0], [0.0]]

    @pytest.mark.parametrize("over", ["batch", "episode"])
    def test_fewer_than_two_rows_are_a_named_error(self, over):
        one = column([1.0])
        with pytest.raises(TooFewError, match="Standardized needs at least 2 valid steps, got 1: collect more steps"):
            advantages(one, Values.zeros(one), Standardized(TDError(0.9), over), NoBaseline())

    def test_it_is_the_outermost_wrapper_and_there_once(self):
        with pytest.raises(ValueError, match=r"outermost wrapper: write Standardized\(StateDiscounted"):
            StateDiscounted(Standardized(RewardToGo(0.9)))
        with pytest.raises(ValueError, match="Standardized is applied already"):
            Standardized(Standardized(RewardToGo(0.9)))
        with pytest.raises(ValueError, match=r"over must be .*'running', got 'row'"):
            Standardized(RewardToGo(0.9), over="row")

    def test_the_total_return_is_not_discounted_twice(self):
        with pytest.raises(ValueError, match="TotalReturn is discounted from t = 0 already"):
            StateDiscounted(TotalReturn(0.9))

    def test_states_are_not_discounted_twice(self):
        with pytest.raises(ValueError, match="StateDiscounted is applied already"):
            StateDiscounted(StateDiscounted(RewardToGo(0.9)))


class TestContracts:
    @pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
    @pytest.mark.parametrize("member", ESTIMATORS, ids=lambda m: m.name)
    def test_wrappers_pass_on_what_the_estimator_says_of_itself(self, member, wrapper):
        inner = member.make(0.9)
        if wrapper.discounts and member.discounted:
            return
        outer = wrapper.wrap(inner)
        assert outer.gamma == inner.gamma == 0.9
        assert outer.needs_critic == inner.needs_critic
        assert [outer.needs_episodes(b) for b in (False, True)] == [inner.needs_episodes(b) for b in (False, True)]

    @pytest.mark.parametrize("member", ESTIMATORS, ids=lambda m: m.name)
    def test_estimators_are_values_that_print_and_compare(self, member):
        assert member.make(0.9) == member.make(0.9) != member.make(0.8)
        assert "gamma=0.9" in repr(member.make(0.9))

    @pytest.mark.parametrize("member", ESTIMATORS, ids=lambda m: m.name)
    @pytest.mark.parametrize("gamma", [-0.1, 1.1, math.nan])
    def test_a_discount_outside_0_to_1_is_refused(self, member, gamma):
        with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got"):
            member.make(gamma)

    def test_bad_n_and_lambda_are_refused(self):
        with pytest.raises(ValueError, match="n must be at least 1, got 0"):
            NStep(0.9, 0)
        with pytest.raises(ValueError, match=r"lam must be in \[0, 1\], got 1.5"):
            GAE(0.9, 1.5)

    def test_who_needs_episodes(self):
        assert TotalReturn().needs_episodes(True)
        assert TotalReturn().needs_episodes(False)
        assert RewardToGo().needs_episodes(False)
        assert not RewardToGo().needs_episodes(True)
        assert not GAE().needs_episodes(True)

    def test_monte_carlo_refuses_cut_episodes_but_takes_truncated_ones(self):
        cut = column([1.0, 2.0], STEP)
        with pytest.raises(
            ValueError, match=r"RewardToGo without a critic needs whole episodes.*collect with .episodes"
        ):
            RewardToGo(0.9)(cut, Values.zeros(cut))
        with pytest.raises(ValueError, match="TotalReturn needs whole episodes, one per column"):
            TotalReturn(0.9)(cut, Values.zeros(cut))
        truncated = column([1.0, 2.0], TRUNCATED)
        assert RewardToGo(0.5)(truncated, Values.zeros(truncated)).ret[:, 0].tolist() == [2.0, 2.0]
        assert TotalReturn(0.5)(truncated, Values.zeros(truncated)).ret[:, 0].tolist() == [2.0, 2.0]

    @pytest.mark.parametrize("wrapper", [w for w in WRAPPERS if w.standardizes], ids=lambda w: w.name)
    @pytest.mark.parametrize("baseline", [b for b in BASELINES if not b.couples], ids=lambda b: b.name)
    def test_garbage_in_masked_rows_reaches_no_valid_row(self, baseline, wrapper):
        rng, end = (
            np.random.default_rng(0),
            torch.tensor([[STEP, GAP], [TERMINATED, STEP], [GAP, TRUNCATED], [STEP, GAP]]),
        )
        rew, val, next_val = (torch.from_numpy(rng.standard_normal((4, 2))) for _ in range(3))
        clean = [
            advantages(make_rollout(rew, end), Values(val, next_val), wrapper.wrap(m.make(0.9)), baseline.make(1))[0]
            for m in SAMPLING
        ]
        for x in (rew, val, next_val):
            x[end == GAP] = math.nan
        next_val[end == TERMINATED] = math.inf
        dirty = [
            advantages(make_rollout(rew, end), Values(val, next_val), wrapper.wrap(m.make(0.9)), baseline.make(1))[0]
            for m in SAMPLING
        ]
        for a, b in zip(clean, dirty, strict=True):
            assert torch.equal(a[end != GAP], b[end != GAP])


class TestBaselines:
    def test_no_baseline_constant_and_the_critics_v(self):
        rollout = column([1.0, 2.0])
        values = Values(torch.tensor([[3.0], [4.0]]).double(), torch.zeros(2, 1).double())
        ret = rollout.rew
        assert NoBaseline()(rollout, ret, values).tolist() == [[0.0], [0.0]]
        assert Constant(1.5)(rollout, ret, values).tolist() == [[1.5], [1.5]]
        assert CriticValue()(rollout, ret, values) is values.val
        assert CriticValue.needs_critic
        assert repr(Constant(1.5)) == "Constant(value=1.5)"

    def test_the_running_mean_is_of_earlier_batches_and_survives_a_checkpoint(self):
        end = torch.tensor([[STEP, TERMINATED], [TERMINATED, GAP]])
        rollout = make_rollout(torch.zeros(2, 2).double(), end)
        ret = torch.tensor([[1.0, 2.0], [6.0, math.nan]]).double()
        baseline, values = RunningMean(0.9), Values.zeros(rollout)
        assert baseline(rollout, ret, values).tolist() == [[0.0, 0.0], [0.0, 0.0]]
        baseline.fit(rollout, ret)
        assert baseline(rollout, ret, values).tolist() == [[3.0, 3.0], [3.0, 3.0]]  # the first fit sets it
        baseline.fit(rollout, ret + 10.0)
        assert baseline.mean == pytest.approx(0.9 * 3.0 + 0.1 * 13.0)
        again = RunningMean(0.9)
        again.load_state_dict(baseline.state_dict())
        assert again.mean == baseline.mean
        again.fit(rollout, ret)
        assert again.mean == pytest.approx(0.9 * 4.0 + 0.1 * 3.0)
        for decay in (1.0, -0.1):
            with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
                RunningMean(decay)

    def test_leave_one_out_is_the_mean_of_the_others_at_the_same_step_the_finished_ones_counting_0(self):
        end = torch.tensor([[STEP, STEP, TERMINATED], [STEP, TERMINATED, GAP], [TERMINATED, GAP, GAP]])
        rollout = make_rollout(torch.arange(9).view(3, 3).double(), end)
        rollout = dataclasses.replace(rollout, time=torch.arange(3)[:, None].expand(3, 3))
        ret = RewardToGo(1.0)(rollout, Values.zeros(rollout)).ret
        b = LeaveOneOut()(rollout, ret, Values.zeros(rollout))
        for t, n in rollout.mask.nonzero().tolist():
            others = [float(ret[t, m]) if rollout.mask[t, m] else 0.0 for m in range(3) if m != n]
            assert float(b[t, n]) == pytest.approx(sum(others) / 2)

    def test_leave_one_out_says_what_it_needs(self):
        one = column([1.0, 2.0])
        with pytest.raises(TooFewError, match="LeaveOneOut needs at least 2 trajectories, got 1: collect more or use"):
            LeaveOneOut()(one, one.rew, Values.zeros(one))
        cut = make_rollout(torch.zeros(2, 2).double())
        with pytest.raises(ValueError, match="LeaveOneOut needs whole episodes, one per column") as error:
            LeaveOneOut()(cut, cut.rew, Values.zeros(cut))
        assert not isinstance(error.value, TooFewError)  # more would not help
        assert LeaveOneOut.needs_episodes

    @pytest.mark.parametrize("member", BASELINES, ids=lambda m: m.name)
    def test_every_baselines_state_goes_round_through_a_model_file(self, member, tmp_path):
        (rollout, ret), baseline = earlier_batch(3), member.make(3)
        values = Values(ret, ret)
        baseline.fit(rollout, ret + 1.0)
        again = member.make(3)
        save_state(tmp_path / "state", {"baseline": baseline.state_dict()}, {})
        again.load_state_dict(load_state(tmp_path / "state")[0]["baseline"])
        for _ in range(2):
            b, other = (
                valid(x(rollout, torch.where(rollout.mask, ret, 0.0), values), rollout) for x in (baseline, again)
            )
            assert torch.equal(b, other)
            again.fit(rollout, ret - 3.0)
            baseline.fit(rollout, ret - 3.0)
        assert isinstance(repr(baseline), str)
