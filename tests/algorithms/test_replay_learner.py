"""Recipes that learn from a replay buffer: when they learn, how they explore, seeds, copies, save and load."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policygrad as pg
from policygrad.algorithms.recipes import RECIPES
from policygrad.cli import main
from policygrad.data import Wants
from policygrad.envs.advice import AdviceWarning
from policygrad.training.callbacks import History

REPLAYED = ("dqn", "ddpg", "td3", "sac")
CLASSES = ("dqn", "td3", "sac")  # ddpg is td3 with other defaults
ENV = {"dqn": "CartPole-v1"} | dict.fromkeys(REPLAYED[1:], "Pendulum-v1")
SMALL: dict[str, Any] = {"hidden": (8,), "warmup": 20, "batch_size": 8, "buffer_size": 60, "num_envs": 2}


def made(algo: str, seed: int = 0, **keywords: Any) -> pg.Agent:
    return pg.Agent(algo, ENV[algo], seed=seed, preset={}, **SMALL | {"num_steps": 4} | keywords)


@pytest.mark.parametrize("algo", REPLAYED)
def test_two_runs_of_a_seed_are_the_same_bytes_and_another_seed_is_another_run(algo: str, tmp_path: Path) -> None:
    first, second, third = (
        made(algo, seed).learn(64).save(tmp_path / f"{i}").read_bytes() for i, seed in enumerate((0, 0, 1))
    )
    assert first == second
    assert first != third


@pytest.mark.parametrize("algo", CLASSES)
def test_a_run_that_was_saved_in_the_middle_goes_on_as_if_it_had_not_been(algo: str, tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"n_step": 3, "normalize_obs": True}
    whole, half = made(algo, **keywords), made(algo, **keywords)
    for agent in (whole, half):
        agent.learn(48, horizon=96)
    loaded = pg.load(half.save(tmp_path / "half"))
    for agent in (whole, loaded):
        agent.learn(48, horizon=96)
    assert loaded.save(tmp_path / "a").read_bytes() == whole.save(tmp_path / "b").read_bytes()


@pytest.mark.parametrize("algo", CLASSES)
def test_loading_changes_no_configuration_however_often(algo: str, tmp_path: Path) -> None:
    agent = made(algo, **({"target_every": 2500} if algo == "dqn" else {})).learn(40)
    config, path = dict(agent.config), agent.save(tmp_path / "0")
    for i in range(1, 6):
        agent = pg.load(path)
        path = agent.save(tmp_path / str(i))
    assert dict(agent.config) == config
    assert path.read_bytes() == (tmp_path / "0.safetensors").read_bytes()


@pytest.mark.filterwarnings("ignore:warmup = .* are played before anything is learned")
@pytest.mark.parametrize("algo", REPLAYED)
def test_one_step_is_enough_to_be_asked_for(algo: str) -> None:
    agent = pg.Agent(algo, ENV[algo], hidden=(8,)).learn(1)
    assert math.isfinite(agent.policy.epsilon)
    assert agent.collector.steps_done >= 1


@pytest.mark.parametrize("fraction", [0.0, 1e-9, 1.0])
def test_epsilon_falls_from_one_to_its_end_and_is_one_while_the_buffer_fills(fraction: float) -> None:
    history = History()
    agent = made("dqn", epsilon=0.1, epsilon_fraction=fraction)
    seen, steps = [], []

    def look(agent: pg.Agent, row: Any) -> None:
        seen.append(agent.policy.epsilon)
        steps.append(agent.learner.steps)

    agent.learn(200, [history, look], log_every=1)
    assert seen[:2] == [1.0, 1.0]  # 16 of 20 steps
    rest = seen[2:]
    if fraction < 1.0:
        assert rest == pytest.approx([0.1] * len(rest))
        assert agent.policy.epsilon == pytest.approx(0.1)
    else:
        assert rest == pytest.approx([1.0 - 0.9 * before / 200 for before in steps[1:-1]])  # as of a record's start
    assert [row["epsilon"] for row in history.rows] == pytest.approx(seen)


def test_the_target_network_is_copied_as_often_as_its_interval_fits_into_the_steps() -> None:
    agent = pg.dqn("CartPole-v1", hidden=(8,), num_steps=10, target_every=15, warmup=20, batch_size=8, buffer_size=200)
    rule = agent.learner.rule
    copies, follow = [], rule.copy.follow
    rule.copy.follow = lambda *given: (copies.append(agent.learner.steps), follow(*given))
    agent.learn(300)
    steps = agent.learner.steps
    assert steps == agent.collector.steps_done
    assert len(copies) == steps // 15
    assert all(now - 10 < 15 * (i + 1) <= now for i, now in enumerate(copies))  # each in the record that reaches it


def test_nothing_is_learned_from_random_steps_alone_nor_from_resets() -> None:
    agent = made("sac", num_steps=1, num_envs=1, gradient_steps=3)
    calls, rule = [], agent.learner.rule
    agent.learner.rule = type("Counted", (), {})()
    agent.learner.rule.synchronise = rule.synchronise
    agent.learner.rule.report = rule.report
    agent.learner.rule.__class__.__call__ = lambda self, policy, batch, progress=0.0: calls.append(len(batch.ret))
    start = agent.policy.flat.clone()
    with pytest.warns(AdviceWarning, match="warmup = 20"):
        agent.learn(19)
    assert calls == []
    assert torch.equal(agent.policy.flat, start)
    agent.learn(201)  # beyond an end of an episode, at 200, after which a row is a reset
    learned = agent.collector.steps_done - 19
    assert calls == [8] * (3 * learned)


@pytest.mark.parametrize(("keywords", "expected"), [({}, 8), ({"gradient_steps": 3}, 3)])
def test_as_many_minibatches_as_steps_unless_told_otherwise(keywords: dict[str, int], expected: int) -> None:
    agent = made("dqn", warmup=0, **keywords)
    rule, counts = agent.learner.rule, []
    learn = type(rule).__call__
    rule.__class__ = type("Counted", (type(rule),), {"__call__": lambda *given: (counts.append(1), learn(*given))})
    record = agent.collector.collect(agent.policy, Wants(4))
    agent.learner.step(record)
    assert record.steps == 8
    assert len(counts) == expected


def test_without_replay_it_learns_from_the_last_steps_alone() -> None:
    agent = made("dqn", replay=False, num_steps=5).learn(60)
    assert agent.learner.replay.size == 5
    one = pg.dqn("CartPole-v1", replay=False, num_steps=1, gradient_steps=1, hidden=(8,)).learn(60)
    assert one.learner.replay.size == 1  # which is a reset row now and then, and then there is nothing to learn from


class Cells(gym.Env):
    """Action a moves to cell a; cell a allows all actions but a, and pays 1 for 2 → 0."""

    action_space = spaces.Discrete(3)

    def __init__(self, where: str) -> None:
        one, mask = spaces.Discrete(3), spaces.MultiBinary(3)
        self.where = where
        self.observation_space = one if where == "info" else spaces.Dict({"cell": one, "action_mask": mask})

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        mask = np.array([a != self.cell for a in range(3)], np.int8)
        return (
            (self.cell, {"action_mask": mask})
            if self.where == "info"
            else ({"cell": self.cell, "action_mask": mask}, {})
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell, self.time = 0, 0
        return self._seen()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action != self.cell, "an illegal action"
        reward = float((self.cell, action) == (2, 0))
        self.cell, self.time = int(action), self.time + 1
        obs, info = self._seen()
        return obs, reward, False, self.time == 7, info


@pytest.mark.parametrize("where", ["info", "observation"])
def test_illegal_actions_are_never_played_and_no_value_is_taken_from_them(where: str) -> None:
    words: dict[str, Any] = {"mask_source": where, "warmup": 50, "batch_size": 32, "num_steps": 4, "epsilon": 0.3}
    agent = pg.dqn(lambda: Cells(where), hidden=(), lr=0.1, gamma=0.9, target_every=20, **words)
    with torch.no_grad():
        agent.policy.flat[:9].view(3, 3).fill_diagonal_(100.0)  # what illegal actions are said to be worth
    agent.learner.rule.copy.follow(agent.policy, 1.0)
    agent.learn(300)
    q = agent.policy.network(torch.eye(3)).detach()
    assert float(q.diagonal().min()) > 90.0  # nobody learned about them
    others = q[~torch.eye(3, dtype=torch.bool)]
    best = 1.0 / (1.0 - 0.9**2)  # 2 → 0 → 2 → 0 …
    assert 0.0 < float(others.min()) < float(others.max()) <= best + 0.3


def test_pictures_stay_bytes_and_parts_stay_parts() -> None:
    class Seen(gym.Env):
        """A picture and a speed."""

        observation_space = spaces.Dict(
            {"picture": spaces.Box(0, 255, (4, 4, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,), np.float32)}
        )

        def __init__(self, action_space: spaces.Space) -> None:
            self.action_space = action_space

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            super().reset(seed=seed)
            self.observation_space.seed(seed)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.2), False, {}

    for algo, space in (("dqn", spaces.Discrete(3)), ("sac", spaces.Box(-1.0, 1.0, (2,), np.float32))):
        agent = pg.Agent(algo, Seen(space), **SMALL | {"num_envs": 1, "num_steps": 4}, normalize_obs=True)
        agent.learn(60)
        held = agent.learner.replay
        assert {name: str(x.dtype) for name, x in held.store["obs"].items()} == {"picture": "uint8", "speed": "float32"}
        assert held.nbytes < 61 * (48 + 8 + 16 + 4 + 3) + 1
        assert agent.policy.flat.isfinite().all()


def test_alpha_stays_of_its_size_while_sac_learns() -> None:
    history = History()
    made("sac", lr=1e-2).learn(150, history, log_every=1)
    alphas = [row["alpha"] for row in history.rows if row.get("alpha") is not None]
    assert len(alphas) > 10
    assert all(isinstance(alpha, float) and 0.01 < alpha < 10.0 for alpha in alphas)
    assert alphas[-1] < alphas[0]  # the first policy has more entropy than the target, −1


def test_workers_begin_differently_and_reproducibly() -> None:
    shown = []
    for _ in range(2):
        agent = made("ddpg", num_envs=4)
        shown.append(agent.collector.collect(agent.policy, Wants(1)).obs[0])
    assert np.array_equal(*shown)
    assert len({row.tobytes() for row in shown[0]}) == 4


@pytest.mark.parametrize(
    ("algo", "env", "token"),
    [("dqn", "Pendulum-v1", "sac or td3"), ("sac", "CartPole-v1", "use dqn"), ("td3", "CartPole-v1", "use dqn")],
)
def test_actions_that_a_recipe_cannot_take_are_refused_with_one_that_can(algo: str, env: str, token: str) -> None:
    with pytest.raises(TypeError, match=token):
        pg.Agent(algo, env)


def test_what_gives_the_gradient_is_said_of_every_recipe() -> None:
    found = {name: recipe.spec.gradient for name, recipe in RECIPES.items()}
    assert {name for name, gradient in found.items() if gradient == "pathwise"} == {"ddpg", "td3", "sac"}
    assert {name for name, gradient in found.items() if gradient == "none"} == {"dqn", "pqn"}
    assert set(found.values()) == {"score function", "pathwise", "none"}


@pytest.mark.parametrize("algo", [*REPLAYED, "pqn"])
def test_what_is_said_of_the_last_minibatch_outlives_a_file(algo: str, tmp_path: Path) -> None:
    """A row of metrics may be due at a reset alone, right after a run has been resumed."""
    agent = (pg.pqn("CartPole-v1", preset={}, hidden=(8,)) if algo == "pqn" else made(algo)).learn(300)
    said = agent.learner.report()
    assert {"q_mean", "td_error"} <= said.keys()
    assert list(pg.load(agent.save(tmp_path / "agent")).learner.report().items()) == list(said.items())


@pytest.mark.parametrize("algo", CLASSES)
@pytest.mark.parametrize("count", [1, 3])
def test_it_may_be_loaded_with_another_number_of_environments_and_fills_a_new_buffer(
    algo: str, count: int, tmp_path: Path
) -> None:
    agent = made(algo, n_step=3).learn(80)
    path = agent.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match=rf"replay buffer begins empty.* of 2 environments, and this one of {count}$"):
        loaded = pg.load(path, num_envs=count)
    learner, start = loaded.learner, loaded.policy.flat.clone()
    assert torch.equal(start, agent.policy.flat)
    assert (learner.replay.size, learner.replay.num_envs, learner.steps) == (0, count, agent.learner.steps)
    assert loaded.evaluate(3).returns == agent.evaluate(3).returns
    epsilons = []
    loaded.learn(200, lambda agent, row: epsilons.append(agent.policy.epsilon) if learner.waits else None)
    assert len(epsilons) >= 19 // (
        4 * count
    )  # what is in the buffer is as much as at first, before anything is learned,
    assert set(epsilons) == {agent.policy.epsilon}  # and played by the policy as it is
    assert learner.replay.size > 0
    assert not torch.equal(loaded.policy.flat, start)
    again = pg.load(loaded.save(tmp_path / "again"))
    assert torch.equal(again.learn(20).policy.flat, loaded.learn(20).policy.flat)


def test_nothing_is_learned_until_a_new_buffer_holds_what_the_first_one_held(tmp_path: Path) -> None:
    path = made("sac", num_steps=1).learn(80).save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="begins empty"):
        loaded = pg.load(path, num_envs=1)
    start, moved = loaded.policy.flat.clone(), []
    loaded.learn(30, lambda agent, row: moved.append(not torch.equal(agent.policy.flat, start)))
    assert moved == [False] * 19 + [True] * 11


def test_an_environment_of_ones_own_is_another_number_of_environments(tmp_path: Path) -> None:
    path = made("dqn").learn(60).save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="of 2 environments, and this one of 1"):
        loaded = pg.load(path, env=gym.make("CartPole-v1"))
    assert loaded.learn(60).learner.replay.size > 40
    policy = made("dqn").learn(60).save_policy(tmp_path / "policy")
    assert pg.load(policy, num_envs=3).learner.replay.size == 0  # there was none, so nothing is said


@pytest.mark.parametrize(
    ("warmup", "steps", "horizon", "said"),
    [
        (90, 100, None, None),
        (96, 100, None, 96),  # in whole iterations of 48
        (1000, 100, None, 96),
        (1000, 100, 1000, 960),
        (1000, 100, 2000, None),
        (40, 1, None, None),
        (48, 1, None, 48),
    ],
)
def test_a_warmup_that_is_all_of_the_training_is_said(
    warmup: int, steps: int, horizon: int | None, said: int | None
) -> None:
    agent = made("dqn", warmup=warmup, num_steps=24)
    start = agent.policy.flat.clone()
    words = f"warmup = {warmup:,} steps .* this training has {said} in whole iterations: lower warmup"
    with nullcontext() if said is None else pytest.warns(AdviceWarning, match=words):
        agent.learn(steps, horizon=horizon)
    if said is None and horizon is None:
        assert not torch.equal(agent.policy.flat, start)
    if said is not None and warmup > said:
        assert torch.equal(agent.policy.flat, start)


def test_what_was_played_before_counts_for_the_warmup() -> None:
    agent = made("dqn", warmup=100)
    with pytest.warns(AdviceWarning, match="this training has 56 in whole iterations: "):
        agent.learn(60)
    agent.learn(60)  # an error if there is a warning
    assert agent.learner.waits == 0
    assert pg.ppo("CartPole-v1", hidden=(4,), num_envs=1).learn(1).collector.steps_done > 0  # others have no warmup


def test_the_command_line_says_that_nothing_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "dqn", "CartPole-v1", "--steps", "300", "--hidden", "4", "--num-steps", "4", "-q"]
    with pytest.warns(AdviceWarning, match="warmup = 300 .* this training has 300 .*: lower warmup"):
        assert main([*words, "--eval-episodes", "1", "--warmup", "300", "--run-dir", str(tmp_path / "run")]) == 0
    assert main([*words, "--eval-episodes", "1", "--warmup", "200", "--run-dir", str(tmp_path / "other")]) == 0
