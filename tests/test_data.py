"""The records: what a rollout must be, and what is left of it when time is dropped."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policygrad.data import Batch, Rollout, Values, by_step, by_trajectory, shares_memory

T, N = 4, 3
LENGTHS = (4, 2, 3)


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """The columns of a batch."""
    columns = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return {name: x for name, x in columns.items() if isinstance(x, torch.Tensor)}


def equal(a: Batch, b: Batch) -> bool:
    """In every column, and in which ones there are."""
    first, second = tensors(a), tensors(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def whole() -> Rollout:
    """Three episodes, one per column, of 4, 2 and 3 steps."""
    time = torch.arange(T)[:, None].expand(T, N)
    mask, end = time < torch.tensor(LENGTHS), time == torch.tensor(LENGTHS) - 1
    obs = torch.arange((T + 1) * N * 2.0).view(T + 1, N, 2)
    none, numbers = torch.zeros(T, N, dtype=torch.bool), torch.arange(T * N).view(T, N)
    return Rollout(obs, obs[1:], numbers, numbers * 10.0, -numbers * 1.0, end, none, none, mask, time)


def changed(t: int, n: int, **flags: bool) -> Rollout:
    rollout, fields = whole(), {}
    for name, value in flags.items():
        fields[name] = getattr(rollout, name).clone()
        fields[name][t, n] = value
    return dataclasses.replace(rollout, **fields)


class TestRollout:
    def test_it_counts_steps_and_trajectories(self):
        rollout = whole()
        assert (rollout.steps, rollout.trajectories) == (9, 3)
        assert rollout.whole_episodes

    @pytest.mark.parametrize("name", ["act", "logp", "terminated", "truncated", "cut", "mask", "time"])
    def test_a_field_of_another_shape_is_named(self, name):
        begins = "start with" if name == "act" else "be"
        with pytest.raises(ValueError, match=rf"{name} must {begins} \(T, N\) = \(4, 3\), got \(3, 3\)"):
            dataclasses.replace(whole(), **{name: getattr(whole(), name)[1:]})
        if name != "act":
            with pytest.raises(ValueError, match=rf"{name} must be \(T, N\) = \(4, 3\), got \(4, 3, 1\)"):
                dataclasses.replace(whole(), **{name: getattr(whole(), name).unsqueeze(-1)})

    def test_observations_have_one_row_more_and_the_shape_of_the_next_ones(self):
        rollout = whole()
        with pytest.raises(ValueError, match=r"obs must be \(5, 3, 2\), got \(4, 3, 2\)"):
            dataclasses.replace(rollout, obs=rollout.obs[1:])
        with pytest.raises(ValueError, match=r"obs must be \(5, 3, 1\), got \(5, 3, 2\)"):
            dataclasses.replace(rollout, next_obs=rollout.next_obs[..., :1])
        with pytest.raises(ValueError, match="next_obs must start with"):
            dataclasses.replace(rollout, next_obs=rollout.obs)

    def test_the_parts_of_observations_are_told_by_their_keys_not_by_their_order(self):
        rollout = whole()
        obs = {"a": rollout.obs, "b": rollout.obs[..., :1]}
        same = dataclasses.replace(rollout, obs=obs, next_obs={"b": obs["b"][1:], "a": obs["a"][1:]})
        assert shares_memory(same.obs, same.next_obs)
        with pytest.raises(ValueError, match="obs must be"):
            dataclasses.replace(same, next_obs={"b": obs["a"][1:], "a": obs["b"][1:]})

    def test_the_last_valid_row_of_a_column_must_be_an_end(self):
        with pytest.raises(ValueError, match=r"row \(t=3, n=0\): the last valid row of every column must be an end"):
            changed(3, 0, terminated=False)
        with pytest.raises(ValueError, match=r"row \(t=1, n=1\).*Set `cut` where an episode goes on"):
            changed(1, 1, terminated=False)
        for kind in ("truncated", "cut"):
            assert changed(1, 1, **{"terminated": False, kind: True}).end[1, 1]

    def test_ends_are_valid_rows_and_terminated_excludes_truncated(self):
        with pytest.raises(ValueError, match=r"row \(t=2, n=1\).*ends must be valid rows"):
            changed(2, 1, terminated=True)
        with pytest.raises(ValueError, match=r"row \(t=3, n=0\).*terminated excludes truncated"):
            changed(3, 0, truncated=True)

    def test_an_end_may_stand_inside_a_column_and_a_column_may_be_empty(self):
        two = changed(1, 0, terminated=True)
        assert two.trajectories == 4
        empty = whole()
        fields = {f: getattr(empty, f).clone() for f in ("mask", "terminated")}
        for field in fields.values():
            field[:] = False
        assert dataclasses.replace(empty, **fields).steps == 0

    def test_whole_episodes_start_at_time_0_in_the_first_row_are_not_cut_and_alone_in_their_column(self):
        assert changed(1, 1, terminated=False, truncated=True).whole_episodes
        assert not changed(1, 1, terminated=False, cut=True).whole_episodes
        assert not changed(1, 0, terminated=True).whole_episodes
        assert not dataclasses.replace(whole(), time=whole().time + 1).whole_episodes
        assert not changed(0, 2, mask=False).whole_episodes


class TestFlatten:
    def test_it_keeps_the_valid_rows_and_their_order_in_every_field(self):
        rollout = whole()
        adv = torch.arange(T * N).view(T, N) + 0.5
        batch = rollout.flatten(adv, "step")
        rows = rollout.mask.nonzero().tolist()
        assert len(batch) == len(rows) == 9
        for i, (t, n) in enumerate(rows):
            assert torch.equal(batch.obs[i], rollout.obs[t, n])
            assert batch.act[i] == rollout.act[t, n]
            assert batch.logp[i] == rollout.logp[t, n]
            assert batch.adv[i] == adv[t, n]

    def test_trajectory_weights_divide_by_trajectories_and_step_weights_by_steps(self):
        rollout, adv = whole(), torch.zeros(T, N, dtype=torch.float64)
        by_trajectory, by_step = (rollout.flatten(adv, reduction).weight for reduction in ("trajectory", "step"))
        assert by_trajectory.tolist() == pytest.approx([1 / 3] * 9)
        assert by_step.tolist() == pytest.approx([1 / 9] * 9)
        assert by_step.dtype == torch.float64
        assert rollout.flatten(adv, "step").trajectories == 3

    def test_garbage_in_masked_rows_stays_behind(self):
        rollout = whole()
        adv = torch.where(rollout.mask, 1.0, torch.nan)
        assert torch.equal(rollout.flatten(adv, "trajectory").adv, torch.ones(9))

    def test_strides_do_not_matter(self):
        rollout = whole()
        strided = Rollout(
            **{
                f.name: getattr(rollout, f.name).mT.contiguous().mT
                for f in dataclasses.fields(rollout)
                if f.name != "extra"
            }
            | {"obs": rollout.obs, "next_obs": rollout.next_obs}
        )
        assert not strided.mask.is_contiguous()
        adv = torch.arange(T * N).view(T, N) + 0.5
        a, b = rollout.flatten(adv, "step"), strided.flatten(adv.mT.contiguous().mT, "step")
        assert tensors(a).keys() == {"obs", "act", "logp", "adv", "weight"}
        assert equal(a, b)

    def test_an_unknown_reduction_is_refused(self):
        with pytest.raises(ValueError, match=r"reduction must be one of \('trajectory', 'step'\), got 'mean'"):
            whole().flatten(torch.zeros(T, N), "mean")


class TestMinibatches:
    def make(self, rows: int) -> Batch:
        rng = torch.Generator().manual_seed(rows)
        weight = torch.rand(rows, generator=rng, dtype=torch.float64)
        numbers = torch.arange(rows)
        return Batch(numbers[:, None] * 1.0, numbers, numbers * 2.0, numbers * 3.0, weight, 1)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
    def test_a_pass_covers_every_row_once_in_even_pieces_whose_sums_estimate_the_batchs(self, rows, count, seed):
        batch = self.make(rows)
        pieces = list(batch.minibatches(count, torch.Generator().manual_seed(seed)))
        sizes = [len(piece) for piece in pieces]
        assert len(pieces) == min(rows, count)  # never an empty piece
        assert sum(sizes) == rows
        assert max(sizes) - min(sizes) <= 1
        assert sorted(torch.cat([piece.act for piece in pieces]).tolist()) == list(range(rows))
        for piece in pieces:  # the fields of a row stay together
            assert torch.equal(piece.obs[:, 0], piece.act * 1.0)
            assert torch.equal(piece.logp, piece.act * 2.0)
            assert torch.equal(piece.adv, piece.act * 3.0)
            torch.testing.assert_close(piece.weight, batch.weight[piece.act] * (rows / len(piece)))
        # a row falls into a piece of b rows with probability b/B: the mean of its sum is the batch's
        total = sum(float((piece.weight * piece.adv).sum()) * len(piece) / rows for piece in pieces)
        assert total == pytest.approx(float((batch.weight * batch.adv).sum()))

    def test_one_piece_is_the_batch_itself_and_more_are_shuffled_by_the_generator(self):
        batch, generator = self.make(20), torch.Generator().manual_seed(0)
        (whole,) = batch.minibatches(1, generator)
        assert equal(whole, batch)
        first, second = ([p.act.tolist() for p in batch.minibatches(4, generator)] for _ in range(2))
        again = [p.act.tolist() for p in batch.minibatches(4, torch.Generator().manual_seed(0))]
        assert first == again != second

    @pytest.mark.parametrize("count", [1, 3, 20])
    def test_a_distribution_stays_with_its_row_where_there_is_one(self, count):
        batch = self.make(20)
        dist = torch.stack([batch.act, 5 * batch.act], 1)
        for piece in dataclasses.replace(batch, dist=dist).minibatches(count, torch.Generator().manual_seed(0)):
            assert torch.equal(piece.dist, torch.stack([piece.act, 5 * piece.act], 1))
            assert piece.trajectories == batch.trajectories
        assert all(piece.dist is None for piece in batch.minibatches(count, torch.Generator().manual_seed(0)))


class TestUnits:
    """Runs of `segment` rows that belong together."""

    def make(self, units: int, segment: int) -> Batch:
        numbers = torch.arange(units * segment)
        obs = {"x": numbers[:, None] * 1.0, "deep": {"y": numbers * 2}}
        return Batch.of(obs, numbers, target=numbers * 3.0, extra={"key": numbers // segment}, segment=segment)

    @pytest.mark.parametrize(("units", "segment", "count"), [(6, 2, 3), (7, 3, 4), (5, 4, 5), (3, 2, 9), (4, 1, 2)])
    def test_minibatches_shuffle_units_and_tear_none_apart(self, units, segment, count):
        batch = self.make(units, segment)
        pieces = list(batch.minibatches(count, torch.Generator().manual_seed(1)))
        sizes = [len(piece) // segment for piece in pieces]
        assert len(pieces) == min(count, units)
        assert max(sizes) - min(sizes) <= 1
        order = torch.cat([piece.act for piece in pieces]).view(-1, segment)
        assert torch.equal(order, order[:, :1] + torch.arange(segment))
        assert sorted(order[:, 0].tolist()) == list(range(0, units * segment, segment))
        assert order[:, 0].tolist() != sorted(order[:, 0].tolist())
        for piece in pieces:  # every column goes with its row, whatever tree it is in
            assert torch.equal(piece.obs["x"][:, 0], piece.act * 1.0)
            assert torch.equal(piece.obs["deep"]["y"], piece.act * 2)
            assert torch.equal(piece.target, piece.act * 3.0)
            assert torch.equal(piece.extra["key"], piece.act // segment)
            assert torch.equal(piece.weight, batch.weight[piece.act] * (len(batch) / len(piece)))

    def test_a_unit_is_summed_and_what_it_has_goes_back_to_its_rows(self):
        batch = self.make(3, 2)
        assert batch.unit_sum(batch.target).tolist() == [3.0, 15.0, 27.0]
        assert batch.to_rows(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
        assert self.make(3, 1).unit_sum(torch.arange(3)).tolist() == [0, 1, 2]

    def test_rows_that_do_not_make_whole_units_are_refused(self):
        with pytest.raises(ValueError, match=r"7 rows .* segments of 2"):
            Batch.of(torch.zeros(7, 1), torch.zeros(7), segment=2)
        with pytest.raises(ValueError, match=r"1 rows .* segments of 2"):
            self.make(3, 2).take(slice(0, 1))


class TestReductions:
    def test_a_name_is_its_function_and_a_function_of_ones_own_gives_any_weights(self):
        rollout, adv = whole(), torch.zeros(T, N, dtype=torch.float64)
        for name, function in (("trajectory", by_trajectory), ("step", by_step)):
            assert torch.equal(rollout.flatten(adv, name).weight, rollout.flatten(adv, function).weight)

        def by_length(rollout: Rollout) -> torch.Tensor:
            """Every trajectory counts alike, whatever its length."""
            return rollout.valid((rollout.mask / (rollout.mask.sum(0) * rollout.trajectories)).double())

        weight = rollout.scatter(rollout.flatten(adv, by_length).weight)
        torch.testing.assert_close(weight.sum(0), torch.full((N,), 1.0 / N, dtype=torch.float64))

    def test_target_and_extra_come_along(self):
        rollout = dataclasses.replace(
            whole(), extra={"key": torch.arange(T * N).view(T, N), "in": {"x": whole().obs[1:]}}
        )
        batch = rollout.flatten(torch.zeros(T, N), "step", target=rollout.extra["key"] + 0.5)
        assert torch.equal(batch.extra["key"] + 0.5, batch.target)
        assert torch.equal(batch.extra["key"], rollout.rows)
        assert torch.equal(batch.extra["in"]["x"], rollout.valid(rollout.obs[1:]))
        assert torch.equal(rollout.columns([1]).extra["key"], rollout.extra["key"][:, [1]])


def test_no_critic_says_zero_and_does_not_bootstrap():
    values = Values.zeros(whole())
    assert not values.bootstraps
    assert not values.val.any()
    assert not values.next_val.any()
    assert Values(values.val, values.next_val).bootstraps
