"""A second implementation of `total`: threads in lock-step, each with a shard of the rollout, learn what one learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad import total
from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.algorithms.q_lambda import QLambdaLearner
from policygrad.data import Record
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.gradient.pooled import pooled
from policygrad.models.action_values import make_action_critic
from policygrad.models.critic import make_critic, make_q_critic
from policygrad.models.exploring import ActionValues, Deterministic, ExploringPolicy, Squashed
from policygrad.models.policy import make_policy
from policygrad.models.recurrent import make_recurrent_policy
from policygrad.models.recurrent_critic import make_recurrent_critic
from policygrad.models.shared import SharedCritic, with_value
from policygrad.replay import Transitions
from policygrad.total import Reducer, reducing
from policygrad.tree import take, tree_map
from policygrad.updates.pathwise import Pathwise, Smoothing, Temperature
from policygrad.updates.q_learning import QLearning

OBS, ACT, BOX = spaces.Box(-1.0, 12.0, (1,)), spaces.Discrete(2), spaces.Box(-1.0, 1.0, (2,))
SHARDS = {1: ([0, 1, 2, 3, 4, 5, 6],), 2: ([0, 1], [2, 3, 4, 5, 6]), 3: ([0, 1], [2], [3, 4, 5, 6])}  # columns: uneven
GAE, WHOLE = pg.Standardized(pg.GAE()), pg.RewardToGo()
CELLS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {  # estimator, rule, baseline (None: the critic's V)
    "ppo": lambda: (GAE, pg.ClippedSurrogate(0.01, epochs=3, minibatches=3, target_kl=0.02, ent_coef=0.01), None),
    "ppo_kl": lambda: (GAE, pg.PenalizedSurrogate(0.01, epochs=3, minibatches=2), None),
    "a2c": lambda: (pg.GAE(lam=1.0), pg.VanillaGradient(0.01), None),
    "npg": lambda: (GAE, pg.NaturalGradient(0.01), None),
    "dense npg": lambda: (GAE, pg.NaturalGradient(lr=0.1, solver="dense"), None),
    "trpo": lambda: (GAE, pg.TrustRegion(0.01, ent_coef=0.01), None),
    "leave-one-out": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.LeaveOneOut()),
    "running mean": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.RunningMean()),
    "running moments": lambda: (
        pg.Standardized(WHOLE, over="running"),
        pg.VanillaGradient(0.01),
        pg.NoBaseline(),
    ),
    "time average": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.TimeAverage()),
    "linear": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.LinearFeatures()),
    "regressor": lambda: (WHOLE, pg.VanillaGradient(0.01), pg.Regressor(NearestReturn())),
    "weighted": lambda: (pg.ImportanceWeighted(WHOLE, self_normalize=True), pg.VanillaGradient(0.01), pg.NoBaseline()),
    "per decision": lambda: (pg.PerDecision(WHOLE, self_normalize=True), pg.VanillaGradient(0.01), pg.NoBaseline()),
    "shared body": lambda: (GAE, pg.ClippedSurrogate(0.01, epochs=2, minibatches=2), None),
    "q critic": lambda: (pg.QValue(), pg.VanillaGradient(0.01), None),
    "recurrent": lambda: (GAE, pg.ClippedSurrogate(0.01, epochs=2, minibatches=2), None),
}


class NearestReturn:
    """A regression that depends on the rows alone, and not on their order: the mean return of the rows with the same input."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def predict(self, x: np.ndarray) -> np.ndarray:
        near = ((x[:, None] - self.x[None]) ** 2).sum(-1)
        return np.array([self.y[row <= row.min() + 1e-9].mean() for row in near])


def learner(cell: str) -> pg.Learner:
    estimator, rule, baseline = CELLS[cell]()
    words: dict[str, Any] = {"hidden": (8,)}
    if cell == "recurrent":
        policy = make_recurrent_policy(OBS, ACT, **words, memory_size=4, segment=4).double()
        critic: Any = make_recurrent_critic(OBS, **words, memory_size=4, epochs=2, minibatches=2, lr=0.01).double()
        return pg.Learner(policy, estimator, rule, critic=critic)
    policy = make_policy(OBS, ACT, **words, normalize_obs=True).double()
    words |= {"epochs": 2, "minibatches": 3, "lr": 0.01}
    critic = None if baseline else make_critic(OBS, **words).double()
    if cell == "shared body":
        policy, critic = with_value(policy), SharedCritic()
        rule.terms = (critic.term,)
    if cell == "q critic":
        critic = make_q_critic(OBS, ACT, **words).double()
    return pg.Learner(policy, estimator, rule, critic=critic, baseline=baseline, reduction="trajectory")


class Threads:
    """Shards as threads in lock-step: `run(f)` calls f(0), f(1), … each in the context of its shard."""

    def __init__(self, size: int) -> None:
        self.size, self.slots, self.barrier = size, [None] * size, Barrier(size)

    def run(self, function: Callable[[int], Any]) -> list[Any]:
        def one(rank: int) -> Any:
            try:
                with reducing(self._reducer(rank, torch.sum), self._reducer(rank, torch.amax), rank, self.size):
                    return function(rank)
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(one, range(self.size)))

    def _reducer(self, rank: int, op: Callable[..., Tensor]) -> Reducer:
        def reduce(x: Tensor) -> Tensor:
            self.slots[rank] = x.clone()
            self.barrier.wait(20)
            assert len({y.shape for y in self.slots}) == 1, "shards reduce different things"
            result = op(torch.stack(self.slots), dim=0)
            self.barrier.wait(20)  # everybody has read before anybody writes again
            return result

        return reduce


def shard_of(rollout: pg.Rollout, columns: list[int]) -> pg.Rollout:
    """These columns, up to the end of their own longest episode: the shards differ in T where episodes are whole."""
    part = rollout.columns(columns)
    T = int(part.mask.any(1).nonzero().max()) + 1 if part.whole_episodes else len(part.rew)
    return pg.Rollout(**{f.name: take(getattr(part, f.name), slice(T + (f.name == "obs"))) for f in fields(part)})


def minibatches_of(shards: Sequence[list[int]], column: Tensor, segment: int) -> Callable[..., Iterator[Any]]:
    """`shuffled` for one process: minibatch k is that of all the shards together. column: of every unit of rows, (units,)."""
    shard = torch.tensor([next(k for k, own in enumerate(shards) if int(c) in own) for c in column])
    rows = [(shard == k).nonzero().squeeze(-1) for k in range(len(shards))]

    def shuffled(columns: Any, pieces: int, generator: torch.Generator, _: int = 1) -> Iterator[Any]:
        pieces = min(pieces, *map(len, rows)) if pieces > 1 else 1
        if pieces == 1:
            yield columns, len(column) * segment
            return
        seed = int(torch.randint(2**62, (), generator=generator))
        orders = [torch.randperm(len(r), generator=torch.Generator().manual_seed(seed + k)) for k, r in enumerate(rows)]
        parts = [r[order].tensor_split(pieces) for r, order in zip(rows, orders, strict=True)]
        for piece in map(torch.cat, zip(*parts, strict=True)):
            index = (piece.unsqueeze(1) * segment + torch.arange(segment)).flatten()
            yield tree_map(lambda x, index=index: x[index], columns), len(index)

    return shuffled


@pytest.mark.parametrize("size", SHARDS)
@pytest.mark.parametrize("cell", CELLS)
def test_shards_in_lock_step_learn_what_the_whole_learns(cell: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, shards, threads = learner(cell), [learner(cell) for _ in SHARDS[size]], Threads(size)
    segment = whole.policy.segment
    lengths = iter((3, 4, 4, 5, 6, 6, 7))
    collector = Collector(make_envs(lambda: Chain((1.0, -2.0, 0.5, 3.0) * 2, terminate_after=next(lengths)), 7), seed=1)

    def step(rank: int) -> pg.Stats:
        return diagnosed_step(shards[rank], shard_of(rollout, SHARDS[size][rank]))

    for _ in range(2):
        record = collector.episodes(whole.policy, 7) if whole.needs_episodes else collector.steps(whole.policy, 12)
        rollout = pg.Rollout.of(record, whole.policy)
        if cell != "recurrent":
            rollout = replace(rollout, extra={"logp": rollout.logp + 0.3 * rollout.obs[:-1, :, 0].sin()})
        found = threads.run(step)
        columns = torch.arange(7).expand(12 // segment, 7).flatten() if segment > 1 else rollout.mask.nonzero()[:, 1]
        with monkeypatch.context() as patched:
            for module in ("data", "models.critic", "models.recurrent_critic"):
                patched.setattr(f"policygrad.{module}.shuffled", minibatches_of(SHARDS[size], columns, segment))
            expected = diagnosed_step(whole, rollout)
        for shard, stats in zip(shards, found, strict=True):
            torch.testing.assert_close(shard.policy.flat, whole.policy.flat, rtol=0, atol=1e-8)
            if whole.policy.normalizer is not None:
                for its, own in zip(whole.policy.normalizer.buffers(), shard.policy.normalizer.buffers(), strict=True):
                    torch.testing.assert_close(own, its, rtol=1e-12, atol=1e-12)
            if hasattr(whole.critic, "flat"):
                torch.testing.assert_close(shard.critic.flat, whole.critic.flat, rtol=0, atol=1e-8)
            assert stats == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)
        states = [shard.state_dict() for shard in shards]
        shards = [learner(cell) for _ in SHARDS[size]]
        for shard, state in zip(shards, states, strict=True):
            shard.load_state_dict(state)


@pytest.mark.parametrize("cell", ["ppo", "a2c", "trpo", "npg", "shared body", "q critic"])
def test_a_shard_without_a_valid_row_adds_nothing(cell: str) -> None:
    """A rollout of one row, where the environments of shard 0 are all at a reset."""
    whole, shards, threads = learner(cell), [learner(cell) for _ in range(2)], Threads(2)
    lengths = iter((3, 3, 5, 5))
    collector = Collector(make_envs(lambda: Chain((1.0, -2.0, 0.5, 3.0) * 2, terminate_after=next(lengths)), 4), seed=1)
    collector.steps(whole.policy, 3)
    row = pg.Rollout.of(collector.steps(whole.policy, 1), whole.policy)
    nothing, something = row.columns([0, 1]), row.columns([2, 3])
    assert (nothing.steps, something.steps) == (0, 2)
    for both in (whole, *shards):
        both.update.minibatches = 1
    expected = diagnosed_step(whole, row)
    found = threads.run(lambda rank: diagnosed_step(shards[rank], (nothing, something)[rank]))
    for shard, stats in zip(shards, found, strict=True):
        torch.testing.assert_close(shard.policy.flat, whole.policy.flat, rtol=0, atol=1e-8)
        assert stats == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)
    assert threads.run(lambda rank: shards[rank].step(nothing)) == [{}, {}]  # nor do two of them


def exploring(kind: str) -> tuple[ExploringPolicy, Any]:
    """A policy, and a rule for its transitions."""
    words: dict[str, Any] = {"hidden": (6,), "kind": ExploringPolicy, "std": "network"}
    if kind in ("dqn", "double dqn"):
        policy = make_policy(OBS, ACT, head=lambda masked: ActionValues(2, masked), **words).double()
        rule: Any = QLearning(policy, lr=0.01, double=kind != "dqn", loss="huber" if kind == "dqn" else "squared")
        rule.copy.double()
        return policy, rule
    head = Squashed(BOX.shape, BOX.low, BOX.high) if kind == "sac" else Deterministic(BOX.shape, BOX.low, BOX.high)
    policy = make_policy(OBS, BOX, head=lambda _: head, **words).double()
    critic = make_action_critic(OBS, 2, hidden=(6,), count=1 if kind == "ddpg" else 2)
    critic.network.double()
    critic.copy.double()
    more: dict[str, Any] = {
        "sac": {"temperature": Temperature(0.5, -2.0)},
        "td3": {"smoothing": Smoothing(), "delay": 2},
    }
    rule = Pathwise(policy, critic, lr=0.01, critic_lr=0.01, **more.get(kind, {}))
    if rule.copy is not None:
        rule.copy.double()
    if rule.temperature is not None:
        rule.temperature.log_alpha = rule.temperature.log_alpha.double()
    return policy, rule


def numbers_of(policy: Any, rule: Any) -> dict[str, Tensor]:
    """All that a step moves."""
    parts = {"policy": policy, "copy": getattr(rule, "copy", None)}
    parts |= {"critic": rule.critic.network, "its copy": rule.critic.copy} if hasattr(rule, "critic") else {}
    found = {name: part.flat for name, part in parts.items() if part is not None}
    temperature = getattr(rule, "temperature", None)
    return found if temperature is None else found | {"alpha": temperature.log_alpha}


@pytest.mark.parametrize("size", SHARDS)
@pytest.mark.parametrize("kind", ["dqn", "double dqn", "ddpg", "td3", "sac"])
def test_transitions_in_shards_move_what_all_of_them_move(kind: str, size: int) -> None:
    whole, shards, threads = exploring(kind), [exploring(kind) for _ in range(size)], Threads(size)
    drawn, cuts = np.random.default_rng(0), [0, *(1, 3)[: size - 1], 8]
    for step in range(4):
        act = torch.from_numpy(drawn.integers(2, size=8) if "dqn" in kind else drawn.uniform(-1, 1, (8, 2)))
        obs, following, ret = (torch.from_numpy(drawn.normal(size=shape)) for shape in ((8, 1), (8, 1), (8,)))
        columns = {"obs": obs, "act": act, "ret": ret, "discount": torch.full_like(ret, 0.9), "next_obs": following}

        def move(rank: int, columns: dict[str, Tensor] = columns, step: int = step) -> pg.Stats:
            policy, rule = shards[rank]
            rule.synchronise(policy, 400 * step, 400 * step + 400)
            rule(policy, Transitions(**take(columns, slice(cuts[rank], cuts[rank + 1]))), 0.0)
            return rule.report()

        found = threads.run(move)
        whole[1].synchronise(whole[0], 400 * step, 400 * step + 400)
        whole[1](whole[0], Transitions(**columns), 0.0)
        for shard, stats in zip(shards, found, strict=True):
            torch.testing.assert_close(numbers_of(*shard), numbers_of(*whole), rtol=0, atol=1e-8)
            assert stats == pytest.approx(whole[1].report(), rel=1e-5)


def columns_of(record: Record, columns: list[int]) -> Record:
    parts = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in ("finished", "next_obs")}
    cut = tree_map(lambda x: x[:, columns], parts)
    return Record(**cut, next_obs=take(cut["obs"], slice(1, None)))


@pytest.mark.parametrize("size", SHARDS)
def test_q_lambda_in_shards(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> QLambdaLearner:
        words: dict[str, Any] = {"head": lambda masked: ActionValues(2, masked), "kind": ExploringPolicy}
        policy = make_policy(OBS, ACT, hidden=(6,), normalize_obs=True, std="network", **words)
        return QLambdaLearner(policy.double(), minibatches=3, lr=0.01)

    whole, shards, threads = made(), [made() for _ in range(size)], Threads(size)
    lengths = iter((3, 4, 4, 5, 6, 6, 7))
    collector = Collector(make_envs(lambda: Chain((1.0, -2.0, 0.5, 3.0) * 2, terminate_after=next(lengths)), 7), seed=1)
    for _ in range(2):
        record = collector.steps(whole.policy, 12)
        threads.run(lambda rank, record=record: shards[rank].step(columns_of(record, SHARDS[size][rank])))
        union = minibatches_of(SHARDS[size], torch.from_numpy(record.mask).nonzero()[:, 1], 1)
        with monkeypatch.context() as patched:
            patched.setattr("policygrad.algorithms.q_lambda.shuffled", union)
            whole.step(record)
        for shard in shards:
            torch.testing.assert_close(shard.policy.flat, whole.policy.flat, rtol=0, atol=1e-8)
            assert shard.last["q_mean"] == pytest.approx(whole.last["q_mean"]) or len(SHARDS[size]) > 1
            torch.testing.assert_close(shard.policy.normalizer.var, whole.policy.normalizer.var)


def test_least_squares_of_shards_is_that_of_all_rows() -> None:
    """Also where features are nearly collinear, and where a shard has fewer rows than there are features, or none."""
    drawn = np.random.default_rng(3)
    x = torch.from_numpy(np.c_[drawn.normal(size=(9, 3)), np.ones(9), 1e-7 * drawn.normal(size=9)])
    y, cuts = torch.from_numpy(drawn.normal(size=9)), (0, 6, 6, 9)
    expected = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]
    for first, second in Threads(3).run(lambda k: pooled(x[cuts[k] : cuts[k + 1]], y[cuts[k] : cuts[k + 1]])):
        found = torch.linalg.lstsq(first, second[:, None], driver="gelsd").solution[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_what_shards_tell_each_other() -> None:
    def tell(rank: int) -> tuple[Any, ...]:
        rows = torch.full((rank, 2), float(rank))
        own = total.gathered(rows).tolist(), total.counts(rank, 10 * rank).tolist(), total.span(rank), total.share(7)
        with total.alone():
            mine = total.total(rank), total.is_shared(), total.rank()
        return *own, mine, total.agreed(rank == 1, False), total.rank(), float(total.mean(rows))

    every, each = [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]], [[0, 0], [1, 10], [2, 20]]
    assert Threads(3).run(tell) == [
        (every, each, (0, 3), (0, 2), (0, False, 0), [True, False], 0, pytest.approx(5 / 3)),
        (every, each, (0, 3), (2, 4), (1, False, 0), [True, False], 1, pytest.approx(5 / 3)),
        (every, each, (1, 3), (4, 7), (2, False, 0), [True, False], 2, pytest.approx(5 / 3)),
    ]
