"""Asynchronous workers: simulated ones against A2C and against their definition; processes that race."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import threading
import warnings
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.crew import CrewError, joined
from policygrad.algorithms.crew_process import SharedNewest, SharedTurn, lighter
from policygrad.algorithms.pushing import AsyncWorker
from policygrad.algorithms.recipes import RECIPES
from policygrad.algorithms.task import Task
from policygrad.data import Rollout
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.supervision import WorkerError
from policygrad.errors import Interrupted
from policygrad.stored.trajectories import TrajectoryError
from policygrad.updates import VanillaGradient

SMALL: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "hidden": (8,), "preset": {}}


def agent(algo: str = "a3c", env: Any = "CartPole-v1", **keywords: Any) -> pg.Agent:
    return pg.Agent(algo, env, **SMALL | keywords)


def learner_of(**keywords: Any) -> Any:
    envs = make_envs("CartPole-v1", 1)
    task = Task(envs.single_observation_space, envs.single_action_space, 3)
    return RECIPES["a3c"](task, num_steps=8, hidden=(8,), **keywords).learner


@pytest.mark.parametrize("keywords", [{}, {"normalize_obs": True, "lr_schedule": "linear", "critic_epochs": 2}])
def test_one_worker_is_a2c_bit_for_bit(keywords: dict[str, Any]) -> None:
    rows = []
    agents = []
    for algo, more in (("a2c", {}), ("a3c", {"workers": 1})):
        history = pg.History()
        agents.append(agent(algo, **keywords, **more).learn(600, history, log_every=100))
        rows.append([{k: x for k, x in row.items() if "second" not in k} for row in history.rows])
    a2c, a3c = agents
    assert torch.equal(a2c.policy.flat, a3c.policy.flat)
    assert torch.equal(a2c.learner.critic.flat, a3c.learner.critic.flat)
    if not keywords:  # what is measured after the round sees the new moments of observations
        assert [row | {"delay": 0.0} for row in rows[0]] == rows[1]
    other = agent(workers=2, **keywords).learn(600)
    assert not torch.equal(a2c.policy.flat, other.policy.flat)


def test_a_gradient_is_that_of_the_workers_copy_and_moves_the_newest_parameters() -> None:
    """Three workers, by hand: every one differentiates where its copy is, whatever the others have done since."""
    learner = learner_of(workers=3, optimizer="sgd", lr=0.3, max_grad_norm=None)
    collector = Collector(make_envs("CartPole-v1", 6), 1)
    for _ in range(3):
        rollout = Rollout.of(collector.steps(learner.actor, 8), learner.actor)
        copies, order = deepcopy(learner.workers), deepcopy(learner.order).permutation(3)
        newest = learner.policy.flat.clone()
        learner.step(rollout)
        for w in order:
            iteration = copies[w].prepare(rollout.columns(range(2 * w, 2 * w + 2)))
            assert torch.allclose(iteration.batch.logp, copies[w].policy.evaluate(iteration.batch).logp, atol=1e-6)
            weight = VanillaGradient().score_weights(iteration.batch.logp, iteration.batch)
            newest += 0.3 * copies[w].policy.evaluate(iteration.batch).gradient(weight)
        torch.testing.assert_close(learner.policy.flat, newest, rtol=0, atol=1e-6)
        last = learner.workers[order[-1]]
        assert torch.equal(last.policy.flat, learner.policy.flat)
        assert torch.equal(last.critic.copy.flat, learner.critic.flat)
        assert not torch.equal(learner.workers[order[0]].policy.flat, learner.policy.flat)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_delays_average_to_the_number_of_other_workers(workers: int) -> None:
    learner, delays = learner_of(workers=workers), []
    collector = Collector(make_envs("CartPole-v1", 4), 1)
    for _ in range(60):
        learner.step(collector.steps(learner.actor, 2))
        delays += [worker.delay for worker in learner.workers]
    assert min(delays[workers:]) >= 0
    assert max(delays) <= 2 * (workers - 1)
    assert np.mean(delays[workers:]) == pytest.approx(workers - 1, abs=4.0 * 0.1)
    assert learner.turn.pushes == 60 * workers


def test_a_simulation_is_decided_by_its_seed_and_goes_on_from_a_file_bit_for_bit(tmp_path: Any) -> None:
    keywords = {"workers": 3, "lr_schedule": "linear", "normalize_obs": True}
    whole = [agent(seed=seed, **keywords).learn(640) for seed in (1, 1, 2)]
    flats = [a.policy.flat for a in whole]
    assert torch.equal(flats[0], flats[1])
    assert not torch.equal(flats[0], flats[2])
    half = agent(seed=1, **keywords).learn(320, horizon=640)
    loaded = pg.load(half.save(tmp_path / "half"))
    loaded.learn(320, horizon=640)
    assert torch.equal(loaded.policy.flat, flats[0])
    assert torch.equal(loaded.learner.critic.flat, whole[0].learner.critic.flat)
    other = pg.load(tmp_path / "half.safetensors", workers=2)  # new workers begin at the newest parameters
    assert torch.equal(other.learner.workers[1].policy.flat, half.policy.flat)
    other.learn(64)


def test_trajectories_are_those_of_the_policies_that_acted() -> None:
    seen: list[Rollout] = []
    one = agent(workers=2)
    one.learner.observers.append(seen.append)
    one.learn(64, log_every=1)
    acted = [deepcopy(worker.policy) for worker in one.learner.workers]
    for row in (1, 10**9):  # measured, and not
        seen.clear()
        one.learn(32, log_every=row)
        logp = seen[0].logp
        for w, policy in enumerate(acted):
            block = seen[0].columns(range(2 * w, 2 * w + 2))
            torch.testing.assert_close(logp[:, 2 * w : 2 * w + 2], policy.log_probs(block.obs[:-1], block.act))
        acted = [deepcopy(worker.policy) for worker in one.learner.workers]


def test_workers_that_share_memory_both_move_it_and_their_statistics_are_one() -> None:
    """What two processes do, in one: the same numbers as two workers of one process in the same order."""
    records = Collector(make_envs("CartPole-v1", 4), 1)
    learner = learner_of(workers=2, normalize_obs=True)
    plain = learner_of(asynchrony="processes", normalize_obs=True)
    buffer = mmap.mmap(-1, SharedNewest(plain).size)
    memory = SharedNewest(plain, buffer)
    memory.write(plain, 0)
    sharing = [AsyncWorker(one, SharedTurn(one, memory, Unwanted()), w) for w, one in enumerate(twins(plain))]
    for _ in range(3):
        rollout = Rollout.of(records.steps(learner.policy, 8), None)
        order = deepcopy(learner.order).permutation(2)
        learner.step(rollout)
        for w in order:
            sharing[w].step(rollout.columns(slice(2 * w, 2 * w + 2)))
    assert memory.read(plain) == learner.turn.pushes == 6
    assert torch.equal(plain.policy.flat, learner.policy.flat)
    assert torch.equal(plain.critic.flat, learner.critic.flat)
    assert torch.equal(plain.policy.normalizer.mean, learner.policy.normalizer.mean)
    assert (plain.critic.seen, plain.critic.std) == (learner.critic.seen, learner.critic.std)
    assert plain.update.optimizer.t == 6
    assert torch.equal(plain.update.optimizer.v, learner.update.optimizer.v)


class Unwanted:
    """A lock that nobody else wants."""

    def acquire(self) -> None: ...
    def release(self) -> None: ...


def twins(learner: Any) -> list[Any]:
    return [deepcopy(learner), deepcopy(learner)]


def test_records_of_workers_are_put_side_by_side() -> None:
    policy = learner_of().policy
    records = [Collector(make_envs("CartPole-v1", 2), seed).steps(policy, 30) for seed in (0, 1)]
    one = joined([lighter(record) for record in records])
    assert lighter(records[0]).next_obs is None
    assert one.steps == sum(record.steps for record in records)
    assert one.finished == [*records[0].finished, *records[1].finished]
    for name in ("obs", "next_obs", "act", "mask", "cut"):
        np.testing.assert_array_equal(getattr(one, name)[:, 2:], getattr(records[1], name))
    Rollout.of(one, policy)  # which checks the ends


def test_an_environment_that_is_one_object_cannot_be_in_several_processes() -> None:
    with pytest.raises(CrewError, match=r"pass an id or a callable .* asynchrony = simulated"):
        pg.a3c(gym.make("CartPole-v1"), asynchrony="processes")
    with pytest.raises(ConfigError, match="asynchrony cannot change"):
        agent().change(asynchrony="processes")


def test_trajectories_of_processes_are_refused_before_any_has_started(tmp_path: Any) -> None:
    one = agent(asynchrony="processes")
    with pytest.raises(TrajectoryError, match="take asynchrony = simulated"):
        pg.train(one, tmp_path / "run", save_trajectories=True)
    assert one.collector.workers == []


def children() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def test_two_processes_both_push_and_a_signal_stops_them_at_a_whole_round(tmp_path: Any) -> None:
    before = children()
    one = agent(asynchrony="processes", lr_schedule="linear", seed=1)

    def press(agent: pg.Agent, row: Any) -> None:
        if min(agent.collector.pushes) >= 3:
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        pg.train(one, run, steps=2_000, episodes=2, callback=press)
    pushes = one.collector.pushes
    assert min(pushes) >= 3
    # only workers step in their memory: the count of Adam is that of all their pushes, and of the whole rounds
    assert one.learner.update.optimizer.t == sum(pushes) == one.learner.critic.optimizer.t
    assert sum(pushes) % 2 == 0
    assert one.trainer.done == one.collector.steps_done <= sum(pushes) * 16
    saved = pg.load(run)
    assert torch.equal(saved.policy.flat, one.policy.flat)
    assert len(children() - before) == 2
    one.close()
    assert children() <= before
    with pytest.warns(UserWarning, match="the workers race"):
        done = pg.resume(run, callback=[lambda agent, row: None])  # in the place of the other callback
    assert done.state()["status"] == "finished"
    last = done.metrics()[-1]
    assert last["delay"] >= 0.0
    assert 0.0 < last["lr"] < 1e-4  # 2,000 steps are almost over
    assert last["steps"] > one.collector.steps_done


def test_the_death_of_a_worker_is_an_error_that_names_it_and_ends_the_others() -> None:
    before = children()
    one = agent(asynchrony="processes")

    def kill(agent: pg.Agent, row: Any) -> None:
        if len(killed) == 0:
            killed.append(agent.policy.flat.clone())
            os.kill(agent.collector.workers[1].pid, signal.SIGKILL)

    killed: list[Any] = []
    with pytest.raises(WorkerError, match=r"worker 1 of 2 \(environments 2 to 3\) ended with SIGKILL"):
        one.learn(100_000, kill)
    assert children() <= before
    assert torch.isfinite(one.policy.flat).all()
    one.learn(64)  # other processes
    assert len(children() - before) == 2
    one.close()
    assert children() <= before
    assert threading.active_count() < 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.close()
