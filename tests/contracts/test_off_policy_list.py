"""An off-policy learner: ε-greedy values act, transitions go into a plain list, and `Agent` trains it like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.data import Record, Stats, Wants
from policygrad.envs.probes import Chain
from policygrad.lab.steps.rules import training_batch
from policygrad.stored.trajectories import TrajectoryError

ENV, EPSILON = (lambda: Chain((0.0, 0.0, 1.0), terminate_after=3)), 0.5


class Greedy:
    """q(s, a) = w_a · s + b_a, and ε-greedy in it."""

    stateful, begins_once, encoding = False, True, None

    def __init__(self) -> None:
        self.w = torch.zeros(2, 2)  # by action: slope and intercept

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.random((*shape, 2))

    def begin(self, noise: np.ndarray) -> None: ...

    def mode(self, obs: np.ndarray, state: None) -> tuple[np.ndarray, None]:
        return (obs @ self.w[:, :1].T.numpy() + self.w[:, 1].numpy()).argmax(-1), state

    def act(self, obs: np.ndarray, state: None, noise: np.ndarray) -> tuple[np.ndarray, None, dict[str, Any]]:
        explores = noise[:, 0] < EPSILON
        act = np.where(explores, (2 * noise[:, 1]).astype(int), self.mode(obs, state)[0])
        return act, None, {"explored": explores}

    def to_env(self, act: np.ndarray) -> np.ndarray:
        return act

    def state_dict(self) -> dict[str, Any]:
        return {"w": self.w}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.w = state["w"].clone()


class QLearning:
    """A step on one stored transition for every new one."""

    wants = Wants(num_steps=5)

    def __init__(self, lr: float, seed: int) -> None:
        self.policy, self.lr, self.rng, self.memory = Greedy(), lr, np.random.default_rng(seed), []

    def step(self, record: Record, progress: float = 0.0) -> Stats:
        m = record.mask
        columns = record.obs[:-1][m], record.act[m], record.rew[m], record.next_obs[m], record.terminated[m]
        rows = zip(*columns, strict=True)
        self.memory += [[float(s[0]), int(a), float(r), float(after[0]), bool(over)] for s, a, r, after, over in rows]
        for i in self.rng.integers(len(self.memory), size=record.steps):
            s, a, r, after, over = self.memory[i]
            w = self.policy.w
            error = r + 0.9 * (0.0 if over else float((w[:, 0] * after + w[:, 1]).max())) - float(w[a, 0] * s + w[a, 1])
            w[a] += self.lr * (1.0 - progress) * error * torch.tensor([s, 1.0])
        return {"stored": len(self.memory), "explored": float(record.extra["explored"].mean())}

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict(), "memory": self.memory, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.memory, self.rng.bit_generator.state = [list(x) for x in state["memory"]], state["rng"]


def q_learning(task: pg.Task, *, lr: float = 0.1) -> pg.Plan:
    """Q-learning on everything it has seen."""
    return pg.Plan(QLearning(lr, task.seed))


def test_an_agent_trains_it_saves_it_and_goes_on(tmp_path: Path) -> None:
    history = pg.History()
    agent = pg.Agent(q_learning, ENV, seed=1).learn(200, history, log_every=40)
    assert len(agent.learner.memory) == agent.collector.steps_done > 100
    assert 0.3 < sum(row["explored"] or 0.0 for row in history.rows) / len(history.rows) < 0.7
    again = pg.load(agent.save(tmp_path / "agent"), env=ENV, recipe=q_learning)
    for each in (agent, again):
        each.collector.obs = None  # both go on with fresh episodes
        each.collector._seed_environments(0)
        each.learn(40)
    assert torch.equal(agent.policy.w, again.policy.w)
    assert agent.learner.memory == again.learner.memory
    assert agent.predict(np.zeros(1, np.float32), deterministic=True)[0] in (0, 1)


def test_a_run_of_a_learner_without_kernel_head_or_observers_is_kept_and_what_needs_them_says_so(
    tmp_path: Path,
) -> None:
    run = pg.train(pg.Agent(q_learning, ENV), tmp_path / "run", steps=100, episodes=2, eval_env=ENV)
    assert run.config()["kernel"] is None
    agent = pg.load(run.policy_file, env=ENV, recipe=q_learning)
    assert len(agent.evaluate(3).returns) == 3
    with pytest.raises(TrajectoryError, match="Greedy has no head"):
        agent.collect(2)
    with pytest.raises(TrajectoryError, match=r"QLearning.*`observers`"):
        pg.train(pg.Agent(q_learning, ENV), tmp_path / "other", steps=100, save_trajectories=True)
    with pytest.raises(ConfigError, match=r"QLearning.*`prepare`"):
        training_batch(agent)


class Flat(QLearning):
    """Keeps its state without a part called policy."""

    def state_dict(self) -> dict[str, Any]:
        return {"weights": [self.policy.w, {"moves": 3}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.w = state["weights"][0].clone()


def flat(task: pg.Task) -> pg.Plan:
    """A learner with a state of another shape."""
    return pg.Plan(Flat(0.1, task.seed))


def test_a_learner_names_the_parts_of_its_state_as_it_likes(tmp_path: Path) -> None:
    agent = pg.Agent(flat, ENV).learn(60)
    again = pg.load(agent.save(tmp_path / "agent"), env=ENV, recipe=flat)
    assert torch.equal(agent.policy.w, again.policy.w)
    assert agent.policy.w.abs().sum() > 0.0


def test_a_plan_says_how_much_is_wanted_once() -> None:
    learner: Any = type("Silent", (), {})()
    with pytest.raises(ValueError, match=r"num_steps or episodes.*Silent has no `wants`"):
        pg.Plan(learner)
    with pytest.raises(ValueError, match="num_steps or episodes"):
        pg.Plan(learner, num_steps=4, episodes=3)
    assert pg.Plan(learner, episodes=3).wants == Wants(episodes=3)
