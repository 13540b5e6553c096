"""Actors of other kinds than a policy: what the collector hands them, and that it forgets where episodes end only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from policygrad.data import Record
from policygrad.envs.collector import Collector
from policygrad.envs.probes import Counting
from policygrad.envs.serial import SerialVectorEnv
from policygrad.training.evaluate import evaluate
from policygrad.tree import Tree

LENGTHS = (2, 3, 5)
MAKERS = [partial(Counting, 2), partial(Counting, 3, truncates=True), partial(Counting, 5)]
MODES = [None, *AutoresetMode]


class Remembers:
    """Its state is a tree: how often it acted since `begin`, which `begin` it was, and the sum of what it has seen since."""

    stateful, begins_once, encoding = True, False, None

    def __init__(self) -> None:
        self.begun = 0

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, 2))

    def begin(self, noise: np.ndarray) -> Tree:
        return {
            "count": np.zeros(len(noise), np.int64),
            "deep": {"seen": np.zeros((len(noise), 1)), "of": noise.copy()},
        }

    def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
        act = (noise[:, 0] > 0.0).astype(np.int64)
        after = {
            "count": state["count"] + 1,
            "deep": {"seen": state["deep"]["seen"] + obs[:, 1:2], "of": state["deep"]["of"]},
        }
        return act, after, {"state": state, "noise": noise.copy()}

    def mode(self, obs: Tree, state: Tree) -> tuple[np.ndarray, Tree]:
        act, after, _ = self.act(obs, state, np.zeros((len(obs), 2)))
        self.counts = state["count"]
        return act, after

    def to_env(self, act: np.ndarray) -> np.ndarray:
        return act

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        pass


def vector(mode: AutoresetMode | None, makers: list[Any] = MAKERS) -> VectorEnv:
    return SerialVectorEnv(makers) if mode is None else SyncVectorEnv(makers, autoreset_mode=mode)


def column(record: Record, n: int) -> dict[str, np.ndarray]:
    """The valid rows of a column, one after another."""
    rows, state = record.mask[:, n], record.extra["state"]
    return {
        "time": record.time[rows, n],
        "count": state["count"][rows, n],
        "seen": state["deep"]["seen"][rows, n, 0],
        "of": state["deep"]["of"][rows, n],
        "shown": record.obs[:-1][rows, n, 1],
    }


def check(rows: dict[str, np.ndarray]) -> None:
    """At every step of an episode the state is of this episode and of all of it: the acts before, and what was shown there."""
    np.testing.assert_array_equal(rows["count"], rows["time"])
    np.testing.assert_array_equal(rows["shown"], rows["time"])  # what Counting shows
    np.testing.assert_array_equal(rows["seen"], rows["time"] * (rows["time"] - 1) // 2)
    begins = rows["time"] == 0
    goes_on = ~begins[1:]
    assert (rows["of"][1:][goes_on] == rows["of"][:-1][goes_on]).all()
    assert len(np.unique(rows["of"][begins], axis=0)) == begins.sum()  # every episode has a beginning of its own


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_state_begins_anew_exactly_where_episodes_begin(mode: AutoresetMode | None) -> None:
    actor, collector = Remembers(), Collector(vector(mode), seed=1)
    records = [collector.steps(actor, T) for T in (4, 1, 1, 1, 13, 2, 11)]
    for n in range(3):
        parts = [column(record, n) for record in records]
        check({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    assert sum(len(record.finished) for record in records) >= 15


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_in_whole_episodes_too(mode: AutoresetMode | None) -> None:
    actor, collector = Remembers(), Collector(vector(mode), seed=1)
    collector.steps(actor, 4)
    for _ in range(2):
        record = collector.episodes(actor, 8)
        for n in range(8):
            check(column(record, n))
        begins = record.extra["state"]["deep"]["of"][0]
        assert len(np.unique(begins, axis=0)) == 8


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_an_actor_tells_comes_row_by_row_and_padding_is_zero(mode: AutoresetMode | None) -> None:
    actor, collector = Remembers(), Collector(vector(mode), seed=1)
    for record in (collector.steps(actor, 9), collector.episodes(actor, 7)):
        T, N = record.mask.shape
        assert record.extra["noise"].shape == record.extra["state"]["deep"]["of"].shape == (T, N, 2)
        assert record.extra["state"]["count"].shape == (T, N)
        assert record.extra["state"]["count"].dtype == np.int64
        expected = record.extra["noise"][..., 0] > 0.0
        np.testing.assert_array_equal(record.act[record.mask], expected[record.mask])
    assert not record.extra["noise"][~record.mask].any()
    assert not record.extra["state"]["count"][~record.mask].any()


def test_in_evaluation_the_state_is_of_the_episode() -> None:
    counts = []

    class Watched(Remembers):
        def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
            counts.append((state["count"].copy(), obs[:, 1].copy()))
            return super().act(obs, state, noise)

    for greedy in (True, False):
        counts.clear()
        assert evaluate(Watched(), partial(Counting, 4), 6, greedy, num_envs=2).lengths == (4,) * 6
        assert len(counts) == 12
        for count, time in counts:
            np.testing.assert_array_equal(count, time)


class Stateless(Remembers):
    """Has no state, and is never handed one."""

    stateful = False

    def begin(self, noise: np.ndarray) -> Tree:
        raise AssertionError("there is nothing to begin")

    def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
        assert state is None
        return (noise[:, 0] > 0.0).astype(np.int64), None, {}


def test_an_actor_without_a_state_is_handed_none() -> None:
    collector = Collector(vector(AutoresetMode.NEXT_STEP), seed=1)
    assert collector.steps(Stateless(), 9).extra == {}
    assert collector.episodes(Stateless(), 4).extra == {}


def test_observers_are_shown_every_record_with_the_episodes_that_ended_in_it() -> None:
    collector, shown = Collector(vector(None), seed=1), []
    collector.observers.append(shown.append)
    records = [collector.steps(Stateless(), 9), collector.episodes(Stateless(), 4), collector.steps(Stateless(), 1)]
    assert all(a is b for a, b in zip(shown, records, strict=True))
    finished = [episode for record in records for episode in record.finished]
    assert len(finished) == collector.episodes_done
    assert [ret for ret, _ in finished] == list(collector.returns)
    assert [length for _, length in finished] == list(collector.lengths)
    assert sorted(length for _, length in records[1].finished) == [2, 2, 3, 5]
    assert records[2].finished == []


class LooksBack(Remembers):
    """Its state is what it saw last: the very arrays it was handed."""

    def begin(self, noise: np.ndarray) -> Tree:
        return np.full((len(noise), 3), -1.0, np.float32)

    def act(self, obs: Tree, state: Tree, noise: np.ndarray) -> tuple[np.ndarray, Tree, Mapping[str, Tree]]:
        return np.zeros(len(obs), np.int64), obs, {"state": state}

    def mode(self, obs: Tree, state: Tree) -> tuple[np.ndarray, Tree]:
        self.steps_back = [*getattr(self, "steps_back", []), *(obs[:, 1] - state[:, 1]).tolist()]
        return self.act(obs, state, np.zeros((len(obs), 2)))[:2]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_an_actor_was_shown_stays_as_it_was(mode: AutoresetMode | None) -> None:
    actor = LooksBack()
    record = Collector(vector(mode), seed=1).steps(actor, 20)
    back = record.obs[:-1][..., 1] - record.extra["state"][..., 1]
    assert (back[record.mask] == 1.0).all()
    evaluate(actor, partial(Counting, 5), 1)
    assert actor.steps_back == [1.0] * 5
