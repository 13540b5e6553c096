"""Agents with a memory: what they solve and others cannot, Stable-Baselines3's predict, files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import policygrad as pg
from policygrad.algorithms.recipe import current_keywords
from policygrad.envs.probes import TMaze
from policygrad.models.recurrent import RecurrentPolicy
from policygrad.training.predicting import StateError

SMALL: dict[str, Any] = {"hidden": (16,), "gamma": 1.0}
SOLVES: dict[str, Any] = {  # environments, steps of each per iteration, and the rest
    "a2c": {"num_envs": 16, "num_steps": 24, "lr": 1e-2, "steps": 25_000},
    "ppo": {"num_envs": 16, "num_steps": 24, "lr": 3e-3, "epochs": 4, "minibatches": 4, "steps": 25_000},
    "trpo": {"num_envs": 64, "num_steps": 24, "critic_epochs": 4, "critic_minibatches": 4, "steps": 25_000},
}


def maze() -> TMaze:
    """Six steps between cue and choice."""
    return TMaze(6)


def made(algo: str, memory: str, seed: int = 0, **others: Any) -> pg.Agent:
    """An agent for the maze."""
    words = SOLVES[algo] | SMALL | {"memory": memory, "seed": seed} | others
    words |= {} if memory == "none" else {"memory_size": 16}
    return getattr(pg, algo)(maze, **words)


@pytest.fixture(scope="module")
def solved() -> pg.Agent:
    """An agent with a memory that has learned."""
    return made("a2c", "gru", steps=20_000).learn()


@pytest.mark.parametrize("algo", ["a2c", "trpo"])
def test_a_memory_solves_what_no_policy_of_the_observation_can(algo: str, solved: pg.Agent) -> None:
    with_memory = solved if algo == "a2c" else made(algo, "gru", steps=20_000).learn()
    without = made(algo, "none", steps=20_000).learn()
    assert with_memory.evaluate(100).mean == TMaze.best_return
    # exactly ½ in expectation, whatever was learned: 4 standard errors
    assert abs(without.evaluate(400, greedy=False).mean - TMaze.best_without_memory) < 4 * 0.5 / 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize("algo", SOLVES)
def test_every_seed_solves_the_maze_with_a_memory(algo: str, memory: str, seed: int) -> None:
    assert made(algo, memory, seed, steps=100_000).learn().evaluate(100).mean == TMaze.best_return


def test_no_policy_of_the_observation_has_more_than_one_half() -> None:
    for p in np.linspace(0.0, 1.0, 11):
        values = []
        for cue, best in ((-1, 0), (1, 1)):
            env = TMaze(3)
            shown = [env.reset()[0]]
            env.cue = cue
            shown += [env.step(0)[0], env.step(0)[0]]
            assert shown[1].tolist() == [0.0, 0.0]
            assert shown[2].tolist() == [0.0, 1.0]
            rewards = [TMaze.step(_at_junction(cue), a)[1] for a in (0, 1)]
            assert rewards[best] == 1.0
            assert rewards[1 - best] == 0.0
            values.append(p * rewards[1] + (1 - p) * rewards[0])
        assert np.mean(values) == pytest.approx(0.5)


def _at_junction(cue: int) -> TMaze:
    env = TMaze(2)
    env.reset()
    env.step(0)
    env.cue = cue
    return env


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_predict_carries_the_state_as_stable_baselines3_has_it(memory: str) -> None:
    agent = made("a2c", memory)
    obs = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    act, state = agent.predict(obs[0], deterministic=True)
    assert act.shape == (3,)
    for row in obs[1:]:
        act, state = agent.predict(row, state, np.zeros(3, bool), deterministic=True)
    _, its = agent.predict(obs[0, 1], deterministic=True)
    for row in obs[1:, 1]:
        _, its = agent.predict(row, state=its, deterministic=True)
    np.testing.assert_allclose(its["memory"][0], state["memory"][1], rtol=0, atol=1e-6)
    # where an episode starts the state does not matter, and elsewhere it does
    starts = np.array([False, True, False])
    mixed = agent.predict(obs[0], state, starts, deterministic=True)[1]
    fresh, on = (agent.predict(obs[0], s, deterministic=True)[1] for s in (None, state))
    for n in range(3):
        expected = fresh if starts[n] else on
        np.testing.assert_array_equal(mixed["memory"][n], expected["memory"][n])
    assert np.abs(fresh["memory"] - on["memory"]).max() > 1e-4
    for wrong in (np.zeros((3, 16)), {"memory": np.zeros((2, 16))}, its):
        with pytest.raises(StateError, match="the state of 3 observations"):
            agent.predict(obs[0], wrong)
    with pytest.raises(StateError, match="episode_start of 3 observations"):
        agent.predict(obs[0], state, np.zeros(2, bool))


def test_predict_of_others_has_no_state_and_takes_deterministic_in_second_place_as_before() -> None:
    agent = made("a2c", "none")
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    act, state = agent.predict(obs, None, np.ones(50, bool), True)
    assert state is None
    np.testing.assert_array_equal(agent.predict(obs, True)[0], act)
    np.testing.assert_array_equal(agent.predict(obs, deterministic=True)[0], act)


def test_stable_baselines3_evaluates_agents_with_a_memory(solved: pg.Agent) -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    model: Any = solved
    mean, std = evaluation.evaluate_policy(model, maze(), n_eval_episodes=20, warn=False)
    assert (mean, std) == (1.0, 0.0)


def test_it_is_evaluated_collected_and_copied_with_its_memory() -> None:
    from copy import deepcopy

    agent = made("a2c", "lstm").learn(3_000)
    vector = pg.make_envs(maze, 4)
    assert agent.evaluate(8, env=vector).lengths == (6,) * 8
    assert agent.collect(4).steps == 24
    copy = deepcopy(agent)
    agent.learn(2_000), copy.learn(2_000)
    assert torch.equal(agent.policy.flat, copy.policy.flat)


@pytest.mark.parametrize("algo", ["ppo", "trpo", "a2c", "npg", "ppo_kl", "reinforce", "actor_critic"])
def test_a_run_that_was_saved_in_the_middle_goes_on_bit_for_bit(algo: str, tmp_path: Path) -> None:
    """Episodes of 6 steps and iterations of 8: open episodes, and the memories of policy and critic, go over the edge."""
    words: dict[str, Any] = {"memory": "gru", "memory_size": 4, "hidden": (4,), "num_envs": 3}
    words |= {"episodes": 4} if algo == "reinforce" else {} if algo == "actor_critic" else {"num_steps": 8}
    agent = getattr(pg, algo)(maze, **words).learn(24)
    again: Any = pg.load(agent.save(tmp_path / "agent"), env=maze)
    assert isinstance(again.policy, RecurrentPolicy)
    for each in (agent, again):
        each.learn(72)
    assert torch.equal(agent.policy.flat, again.policy.flat)
    assert torch.equal(agent.learner.critic.flat, again.learner.critic.flat)
    assert agent.config["memory"] == "gru" == current_keywords(algo, agent.config)["memory"]


def test_a_target_kl_ends_an_update_by_the_exact_kl_of_segments() -> None:
    agent = made("ppo", "gru", target_kl=1e-4, epochs=20)
    stats = agent.learner.step(agent.collector.steps(agent.policy, 24))
    assert stats["kl"] > 1e-4
    assert stats["epochs"] < 20


def test_padding_changes_nothing() -> None:
    """A whole-episode batch with longer padding gives the same step."""
    agent = pg.reinforce(maze, memory="gru", memory_size=4, hidden=(4,), episodes=4, num_envs=2)
    record = agent.collector.episodes(agent.policy, 4)
    rollout = pg.Rollout.of(record, agent.policy)

    def padded(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: padded(part) for key, part in x.items()}
        return torch.cat([x, x.new_ones(5, *x.shape[1:])]) if x.dtype != torch.bool else torch.cat([x, x[:5] & False])

    fields = {k: padded(v) for k, v in vars(rollout).items() if k in pg.Rollout.__dataclass_fields__}
    longer = pg.Rollout(**fields)
    short = agent.learner.prepare(rollout)
    long = agent.learner.prepare(longer)
    assert short is not None
    assert long is not None
    gradients = [
        agent.policy.evaluate(each.batch).gradient(each.batch.weight * each.batch.adv).clone() for each in (short, long)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-7)


def test_what_knows_no_memory_says_so() -> None:
    with pytest.raises(ValueError, match="segment_steps = 4 is for policies with a memory"):
        pg.ppo(maze, segment_steps=4)
    with pytest.raises(ValueError, match="segment_steps = 5 must divide num_steps = 24"):
        made("ppo", "gru", segment_steps=5)
    with pytest.raises(ValueError, match=r"q\(s, a\) has no memory"):
        pg.actor_critic(maze, critic="q", memory="gru")
    for algo in ("dqn", "off_policy_pg", "a3c"):
        with pytest.raises(pg.PolicygradError, match=f"{algo} has no hyperparameter 'memory'"):
            getattr(pg, algo)(maze, memory="gru")
    agent = pg.reinforce(maze, memory="gru")
    with pytest.raises(ValueError, match="memory = none"):
        pg.Learner(agent.policy, pg.ImportanceWeighted(pg.RewardToGo()), pg.VanillaGradient(), replay_episodes=2)
    with pytest.raises(ValueError, match="gradient_meter"):
        made("a2c", "gru", gradient_meter=True).learn(2_000)
