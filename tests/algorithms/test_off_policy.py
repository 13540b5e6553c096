"""off_policy_pg: better than who acted, from that alone; refused where the data say no more; the same bits when resumed."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes
from gymnasium import spaces

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.cli import main
from policygrad.envs.collector import Collector
from policygrad.models.policy import make_policy
from policygrad.stored.directory import RunDirectory
from policygrad.stored.trajectories import Trajectories, TrajectoryError, collect
from policygrad.training.callbacks import EvalCallback, History
from policygrad.training.seeds import failure


class Steps(gym.Env):
    """Four steps; action 1 pays 1, action 0 pays 0, and where it was last taken is what is seen."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        return self.time, float(action), self.time == 4, False, {}


if "Steps-v0" not in gym.registry:
    gym.register("Steps-v0", Steps, order_enforce=False, disable_env_checker=True)


@pytest.fixture(scope="module")
def uniform() -> Trajectories:
    """400 episodes of the uniform policy: their mean return is 2, and the best is 4."""
    return collect(
        make_policy(Steps.observation_space, Steps.action_space, hidden=()), "Steps-v0", 400, name="Steps-v0"
    )


SMALL = {"hidden": (), "optimizer": "sgd", "lr": 0.3, "clone_epochs": 0, "gamma": 1.0, "baseline": "leave-one-out"}


def value(agent: pg.Agent) -> float:
    """J, exactly: Σ_t π(1 | t)."""
    return float(agent.policy.dist(torch.eye(5)[:4]).exp()[:, 1].sum())


@pytest.mark.parametrize("weighting", ["per-decision", "trajectory"])
@pytest.mark.parametrize("more", [{}, {"self_normalize": False}, {"max_weight": 5.0}, {"baseline": "value"}])
def test_it_becomes_better_than_who_acted_and_stops_where_the_data_say_no_more(uniform, weighting, more):
    history = History()
    agent = pg.off_policy_pg("Steps-v0", dataset=uniform, weighting=weighting, min_ess=0.2, **SMALL | more)
    assert value(agent) == pytest.approx(2.0, abs=1e-6)
    with pytest.raises(pg.CollapsedError, match=r"is \d+\.\d of 400 trajectories, below 20%"):
        agent.learn(10**6, history, log_every=1)
    assert value(agent) > 3.0
    ess = [row["ess"] for row in history.rows]
    assert ess[0] == pytest.approx(400)
    assert all(x >= 0.2 * 400 for x in ess)
    assert ess[-1] < 200
    assert agent.collector.steps_done == 1600 * (len(ess) + 1)  # drawn once more, and refused


def test_a_planted_blow_up_is_refused_and_the_policy_stays_what_it_was(uniform):
    agent = pg.off_policy_pg("Steps-v0", dataset=uniform, **SMALL | {"lr": 50.0})
    seen = []
    with pytest.raises(pg.CollapsedError, match="Nothing was updated"):
        agent.learn(10**6, lambda a, row: seen.append(a.policy.flat.clone()))
    assert len(seen) == 1  # one step, far too long; the next one is refused
    assert torch.equal(agent.policy.flat, seen[0])


def test_without_a_limit_it_would_have_gone_on(uniform):
    agent = pg.off_policy_pg("Steps-v0", dataset=uniform, min_ess=0.0, **SMALL)
    agent.learn(1600 * 200)
    assert value(agent) > 3.5


def test_without_a_dataset_it_is_reinforce_to_the_bit():
    options = {
        "num_envs": 2,
        "episodes": 4,
        "hidden": (8,),
        "lr": 1e-2,
        "lr_schedule": "constant",
        "max_grad_norm": None,
    }
    one, other = (pg.Agent(algo, "CartPole-v1", **options) for algo in ("off_policy_pg", "reinforce"))
    for agent in (one, other):
        agent.learn(600)
    assert torch.equal(one.policy.flat, other.policy.flat)
    assert torch.equal(one.learner.critic.flat, other.learner.critic.flat)
    assert one.collector.steps_done == other.collector.steps_done


def test_an_agent_that_is_loaded_goes_on_bit_for_bit_and_acts_without_its_dataset(uniform, tmp_path):
    keywords = SMALL | {"episodes": 50, "clone_epochs": 2, "baseline": "value", "optimizer": "adam", "lr": 1e-2}
    whole = pg.off_policy_pg("Steps-v0", dataset=uniform, seed=3, **keywords)
    half = pg.off_policy_pg("Steps-v0", dataset=uniform, seed=3, **keywords)
    whole.learn(600)
    whole.learn(600)
    half.learn(600)
    path = half.save(tmp_path / "half")
    loaded = pg.load(path, dataset=uniform)
    loaded.learn(600)
    assert loaded.save(tmp_path / "a").read_bytes() == whole.save(tmp_path / "b").read_bytes()
    assert not torch.equal(whole.policy.flat, half.policy.flat)
    alone = pg.load(path)
    assert isinstance(alone.collector, Collector)
    assert alone.collector.steps_done == 600
    assert alone.evaluate(3).returns == half.evaluate(3).returns
    start = pg.load(half.save_policy(tmp_path / "policy"), dataset=uniform)
    with pytest.warns(UserWarning, match="critic, optimisers and counters begin anew"):
        start.learn(1)  # a policy that was given is not cloned over
    assert float((start.policy.flat - half.policy.flat).abs().max()) <= 1e-2 + 1e-6


def test_it_starts_as_who_acted(uniform):
    policy = make_policy(Steps.observation_space, Steps.action_space, hidden=())
    policy.flat.copy_(torch.randn(policy.flat.shape, generator=torch.Generator().manual_seed(0)))
    stored = collect(policy, "Steps-v0", 1000, name="Steps-v0")
    agent = pg.off_policy_pg("Steps-v0", dataset=stored, hidden=(16,), lr=1e-9, min_ess=0.8)
    agent.learn(1)
    x = torch.eye(5)[:4]
    assert torch.allclose(agent.policy.dist(x).exp(), policy.dist(x).exp(), atol=0.06)


def test_draws_are_whole_episodes_each_once_and_all_of_them_where_there_are_no_more(uniform):
    agent = pg.off_policy_pg("Steps-v0", dataset=uniform, **SMALL)
    collector = agent.collector
    assert roll_episodes(collector, agent.policy, 400).trajectories == 400
    assert torch.equal(roll_episodes(collector, agent.policy, 999).rew.sum(0), uniform.returns.float())
    drawn = collector.rng.bit_generator.state
    first = roll_episodes(collector, agent.policy, 60)
    assert first.trajectories == 60
    assert not torch.equal(first.rew, roll_episodes(collector, agent.policy, 60).rew)
    collector.rng.bit_generator.state = drawn
    assert torch.equal(first.rew, roll_episodes(collector, agent.policy, 60).rew)
    for _ in range(5):  # of all but one, every return is there once
        assert 0.0 <= float(uniform.returns.sum() - roll_episodes(collector, agent.policy, 399).rew.sum()) <= 4.0
    with pytest.raises(TrajectoryError, match="whole episodes"):
        collector.collect(agent.policy, pg.Wants(5))


def test_callbacks_evaluate_in_the_environment_meanwhile(uniform):
    agent = pg.off_policy_pg("Steps-v0", dataset=uniform, **SMALL)
    callback = EvalCallback(every=1600, episodes=5)
    history = History()
    agent.learn(1600 * 4, [callback, history], log_every=1)
    assert history.rows[-1]["eval_return_mean"] == 4.0  # greedy
    assert all(row["return_mean"] is None for row in history.rows)  # it plays nothing


def test_a_dataset_is_for_recipes_that_weigh_and_nothing_is_saved_of_it(uniform, tmp_path):
    for algo in ("reinforce", "ppo"):
        with pytest.raises(ConfigError, match=f"{algo} learns from episodes of its own policy"):
            pg.Agent(algo, "Steps-v0", dataset=uniform)
    agent = pg.off_policy_pg("Steps-v0", dataset=uniform, **SMALL)
    with pytest.raises(ValueError, match="no trajectories to save"):
        pg.train(agent, tmp_path / "run", steps=10, save_trajectories=True)


def test_collapsed_training_leaves_a_policy_a_checkpoint_and_a_message(uniform, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    uniform.save("stored.safetensors")
    words = (
        "train off_policy_pg Steps-v0 --dataset stored.safetensors --optimizer sgd --lr 50 --hidden none --run-dir run"
    )
    assert main([*words.split(), "--eval-episodes", "2", "-q"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("policygrad: training stopped: the importance weights have collapsed")
    assert lines[1].startswith("run holds policy.safetensors and checkpoints/step-")
    run = RunDirectory(tmp_path / "run")
    assert len(run.metrics()) == 1
    assert run.evaluation() is None
    error = pg.CollapsedError("gone")
    assert failure(error, run) == "training stopped: gone"
    assert main(["eval", "run", "--episodes", "2"]) == 0
    held = pg.load(run.model_file())
    assert np.isfinite(held.policy.flat.numpy()).all()


@pytest.mark.slow
def test_several_seeds_side_by_side(uniform, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    uniform.save("stored.safetensors")
    words = (
        "train off_policy_pg CartPole-v1 --seed 0 1 --steps 500 --eval-episodes 2 --run-dir runs -q --save-trajectories"
    )
    assert main([*words.split(), "--episodes", "4"]) == 0
    words = (
        "train off_policy_pg CartPole-v1 --seed 0 1 --steps 500 --eval-episodes 2 --run-dir off -q --dataset runs/seed0"
    )
    assert main([*words.split(), "--episodes", "4"]) == 0
    for seed in (0, 1):
        assert RunDirectory(tmp_path / "off" / f"seed{seed}").evaluation() is not None


@pytest.mark.slow
def test_cartpole_from_the_stored_episodes_of_a_mediocre_policy():
    gains = []
    for seed in range(3):
        acted = pg.reinforce("CartPole-v1", seed=seed).learn(6_000)
        stored = acted.collect(512)
        agent = pg.off_policy_pg("CartPole-v1", seed=seed, dataset=stored).learn()
        gains.append(agent.evaluate(100, greedy=False).mean - float(stored.returns.mean()))
    assert min(gains) > 5.0
    assert np.mean(gains) > 10.0
