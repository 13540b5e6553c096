"""The Agent: environments of every kind in, actions out, learning in whole iterations, files that give the agent back."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import same_state
from gymnasium import spaces
from torch import nn

import policygrad as pg
from policygrad.algorithms.config import ConfigError
from policygrad.envs.probes import Chain, Target
from policygrad.training.agent import Agent

SMALL = {"num_envs": 2, "hidden": (8,)}
PPO = SMALL | {"num_steps": 50, "epochs": 2, "minibatches": 2}


class Shifted(gym.Env):
    """Discrete actions that count from −2; reward 1 for the action −1; ten steps."""

    observation_space = spaces.Box(-1.0, 1.0, (3,))
    action_space = spaces.Discrete(3, start=-2)

    def __init__(self):
        self.actions: list[int] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        return np.zeros(3, np.float32), float(action == -1), self.time == 10, False, {}


@pytest.mark.parametrize("deterministic", [True, False])
def test_predict_gives_one_action_for_one_observation_and_a_batch_for_a_batch(deterministic):
    discrete, box, shifted = pg.a2c("CartPole-v1", **SMALL), pg.a2c("Pendulum-v1", **SMALL), pg.a2c(Shifted, **SMALL)
    for agent, shape in ((discrete, ()), (box, (1,)), (shifted, ())):
        space = agent.envs.single_action_space
        observations = np.stack([agent.envs.single_observation_space.sample() for _ in range(5)]) * 0.1
        action, state = agent.predict(observations[0], deterministic)
        assert state is None
        assert np.shape(action) == shape
        assert space.contains(action)
        actions, _ = agent.predict(observations, deterministic)
        assert actions.shape == (5, *shape)
        assert all(space.contains(a) for a in actions)
        agent.predict(observations[0].tolist())
        with pytest.raises(ValueError, match="expected observations of shape"):
            agent.predict(observations[0][:-1])
        with pytest.raises(ValueError, match="expected observations of shape"):
            agent.predict(observations[None])


def test_predict_is_the_mode_when_deterministic_and_a_sample_when_not():
    agent = pg.a2c("CartPole-v1", seed=1, **SMALL)
    obs = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    greedy, again, sampled = (agent.predict(obs, d)[0] for d in (True, True, False))
    logits = agent.policy.dist(torch.from_numpy(obs))
    assert np.array_equal(greedy, logits.argmax(-1).numpy())
    assert np.array_equal(greedy, again)
    assert 0.3 < (sampled != greedy).mean() < 0.7  # a fresh policy is nearly uniform


@pytest.mark.filterwarnings("ignore:the action space has a bound")  # so that nearly all are
def test_predicted_actions_are_clipped_to_the_box():
    agent = pg.a2c("Pendulum-v1", log_std=5.0, **SMALL)
    actions, _ = agent.predict(np.zeros((100, 3), np.float32))
    assert np.abs(actions).max() == 2.0
    assert actions.dtype == np.float32


@pytest.mark.parametrize("steps", [100, 199, 200, 399])
def test_learn_does_the_whole_iterations_that_fit(steps):
    agent = pg.ppo("CartPole-v1", **PPO)
    agent.learn(steps)
    assert steps - 100 < agent.collector.steps_done <= steps


def test_learn_does_one_iteration_at_least_and_goes_on_where_it_stopped():
    agent = pg.ppo("CartPole-v1", **PPO)
    agent.learn(1)
    first = agent.collector.steps_done
    assert 50 < first <= 100
    agent.learn(1)
    assert first < agent.collector.steps_done <= first + 100


def test_the_configurations_steps_are_the_default():
    agent = pg.a2c(Target, steps=64, num_steps=8, **SMALL)
    agent.learn()
    assert 48 < agent.collector.steps_done <= 64


def test_the_callback_is_called_once_an_iteration_and_stops_training_with_false():
    agent, rows = pg.ppo("CartPole-v1", **PPO), []
    agent.learn(1000, lambda a, row: rows.append(row), log_every=250)
    steps = [row["steps"] for row in rows if row is not None]
    assert len(rows) >= 10
    assert rows[0] is not None
    assert len(steps) == 4
    assert min(np.diff(steps)) >= 250
    calls = []
    agent.learn(10_000, lambda a, row: calls.append((a.collector.steps_done, row)) or len(calls) < 3)
    assert [row is None for _, row in calls] == [False, True, True]  # every training has a row of its first iteration
    assert agent.collector.steps_done == calls[-1][0]


def test_schedules_see_the_progress_before_a_rollout():
    rows = []
    agent = pg.ppo("CartPole-v1", lr=0.01, lr_schedule="linear", **PPO)
    agent.learn(500, lambda a, row: rows.append(row), log_every=1)
    before = [0, *(row["steps"] for row in rows[:-1])]
    assert [row["lr"] for row in rows] == pytest.approx([0.01 * (1.0 - steps / 500) for steps in before])


def test_rows_hold_the_same_numbers_for_every_algorithm():
    keys = []
    for agent in (pg.ppo("CartPole-v1", **PPO), pg.a2c("CartPole-v1", **SMALL), pg.reinforce("CartPole-v1", **SMALL)):
        rows = []
        agent.learn(200, lambda a, row, rows=rows: rows.append(row))
        keys.append(set(rows[0]))
    common = {"steps", "episodes", "return_mean", "length_mean", "seconds", "steps_per_second"}
    common |= {"kl", "entropy", "gain", "grad_norm", "explained_variance", "value_loss"}
    assert all(common <= k for k in keys)


def test_equal_seeds_learn_equal_policies_and_different_seeds_different_ones():
    flats = [pg.ppo("CartPole-v1", seed=s, **PPO).learn(400).policy.flat for s in (3, 3, 4)]
    assert torch.equal(flats[0], flats[1])
    assert not torch.equal(flats[0], flats[2])


def test_keywords_of_stable_baselines3_and_cleanrl_mean_what_they_mean_there():
    agent = Agent(
        "ppo",
        "CartPole-v1",
        n_envs=2,
        n_steps=64,
        batch_size=32,
        n_epochs=3,
        clip_range=0.1,
        gae_lambda=0.9,
        learning_rate=1e-3,
        normalize_advantage=False,
        total_timesteps=500,
    )
    expected = {
        "num_envs": 2,
        "num_steps": 64,
        "minibatches": 4,
        "epochs": 3,
        "clip": 0.1,
        "lam": 0.9,
        "lr": 1e-3,
        "standardize": "no",
        "steps": 500,
    }
    assert {k: agent.config[k] for k in expected} == expected
    assert Agent("ppo", "CartPole-v1", normalize_advantage=True).config["standardize"] == "batch"


def test_unknown_keywords_name_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean 'num_steps'"):
        pg.ppo("CartPole-v1", num_step=3)
    with pytest.raises(ConfigError, match="Did you mean 'ppo'"):
        Agent("pppo", "CartPole-v1")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"num_envs": float("inf")}, "num_envs = inf"),
        ({"num_envs": float("nan")}, "num_envs = nan"),
        ({"lr": float("inf")}, "lr = inf"),
        ({"num_envs": "8", "batch_size": 64}, "num_envs = '8'"),
        ({"num_envs": 2.5}, r"num_envs = 2\.5"),
        ({"num_envs": True}, "num_envs = True"),
        ({"lr": "3e-4"}, "lr = '3e-4'"),
        ({"hidden": "64"}, "hidden = '64'"),
        ({"normalize_obs": 1}, "normalize_obs = 1"),
        ({"batch_size": 7}, "batch_size = 7"),
        ({"baseline": "mean"}, "no hyperparameter 'baseline'"),
    ],
)
def test_configurations_that_cannot_be_are_refused_with_what_was_given(wrong, match):
    with pytest.raises(ConfigError, match=match):
        pg.ppo("CartPole-v1", **wrong)


@pytest.mark.parametrize("steps", [0, -5, 1.5])
def test_learning_for_no_steps_is_refused(steps):
    with pytest.raises(ConfigError, match="steps = "):
        pg.a2c(Target, **SMALL).learn(steps)


@pytest.mark.parametrize(("asked", "done"), [(29, 30), (30, 30), (59, 30), (60, 60), (61, 60), (89, 60)])
def test_an_iteration_is_begun_only_if_all_of_it_fits(asked, done):
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=gym.vector.AutoresetMode.DISABLED
    )  # without reset rows, an iteration is 3 × 10 steps exactly
    assert pg.a2c(envs, num_steps=10, hidden=(8,)).learn(asked).collector.steps_done == done


@pytest.mark.parametrize(
    "kind", ["id", "callable", "class", "instance", "vector", "same-step vector", "disabled vector"]
)
def test_environments_of_every_kind_are_taken(kind):
    mode = {
        "same-step vector": gym.vector.AutoresetMode.SAME_STEP,
        "disabled vector": gym.vector.AutoresetMode.DISABLED,
    }
    made = {
        "id": lambda: "CartPole-v1",
        "callable": lambda: lambda: gym.make("CartPole-v1"),
        "class": lambda: Target,
        "instance": lambda: gym.make("CartPole-v1"),
    }
    vector = gym.vector.SyncVectorEnv(
        [lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=mode.get(kind, gym.vector.AutoresetMode.NEXT_STEP)
    )
    env = made.get(kind, lambda: vector)()
    agent = pg.a2c(env, **({} if kind.endswith("vector") else {"num_envs": 1 if kind == "instance" else 2}))
    assert (
        agent.config["num_envs"]
        == agent.envs.num_envs
        == (3 if kind.endswith("vector") else 1 if kind == "instance" else 2)
    )
    agent.learn(300)
    assert agent.collector.steps_done > 100
    play = None if kind not in ("vector", "same-step vector", "disabled vector") else "CartPole-v1"
    assert len(agent.evaluate(3, env=play).returns) == 3


def test_an_environment_instance_cannot_be_several():
    with pytest.raises(ValueError, match="pass a callable"):
        pg.a2c(gym.make("CartPole-v1"), num_envs=2)


def test_evaluation_does_not_touch_the_training_environments():
    def trained(evaluates: bool) -> torch.Tensor:
        agent = pg.a2c(gym.make("CartPole-v1"), num_envs=1)
        agent.learn(100)
        if evaluates:
            agent.evaluate(3)
            agent.evaluate(3, greedy=False)
        return agent.learn(100).policy.flat

    assert torch.equal(trained(True), trained(False))


@pytest.mark.parametrize("as_function", [True, False])
def test_a_network_of_the_users_own_learns_is_saved_and_loaded(as_function, tmp_path):
    def body(space: spaces.Space) -> nn.Module:
        assert space.shape == (4,)
        return nn.Sequential(nn.Linear(4, 12), nn.ReLU())

    def mine():
        return body if as_function else body(spaces.Box(-1, 1, (4,)))

    agent = pg.ppo("CartPole-v1", body=mine(), **PPO)
    before = agent.policy.flat.clone()
    agent.learn(200)
    assert not torch.equal(before, agent.policy.flat)
    path = agent.save(tmp_path / "mine")
    with pytest.raises(ValueError, match="pass body="):
        pg.load(path)
    loaded = pg.load(path, body=mine())
    assert torch.equal(loaded.policy.flat, agent.policy.flat)
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, True)[0], agent.predict(obs, True)[0])


@pytest.mark.parametrize(
    ("algo", "env", "more"),
    [
        ("ppo", "CartPole-v1", {"num_steps": 50, "epochs": 2, "minibatches": 2, "normalize_obs": True}),
        ("a2c", "Pendulum-v1", {"lr_schedule": "linear"}),
        ("reinforce", "CartPole-v1", {"baseline": "running-mean", "episodes": 4}),
        ("reinforce", "CartPole-v1", {"baseline": "value", "episodes": 4, "optimizer": "sgd"}),
    ],
)
def test_a_saved_agent_comes_back_whole_and_learns_on_as_the_first_would(algo, env, more, tmp_path):
    agent = Agent(algo, env, seed=5, **SMALL, **more)
    agent.learn(300)
    path = agent.save(tmp_path / "agent")
    assert path.name == "agent.safetensors"
    loaded = pg.load(path)
    assert (loaded.algo, loaded.env_name, loaded.seed, loaded.config) == (agent.algo, agent.env_name, 5, agent.config)
    assert same_state(loaded.state_dict(), agent.state_dict())
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()
    obs = np.random.default_rng(0).normal(size=(20, *agent.envs.single_observation_space.shape)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, True)[0], agent.predict(obs, True)[0])
    record = agent.collector.collect(agent.policy, agent.plan.wants)
    for _ in range(2):
        agent.learner.step(record, 0.5)
        loaded.learner.step(record, 0.5)
    assert same_state(loaded.learner.state_dict(), agent.learner.state_dict())


def test_a_loaded_agent_goes_on_bit_for_bit_where_environments_have_no_chance_of_their_own(tmp_path):
    def chain():
        return Chain([0.0, 1.0, 0.0], terminate_after=3)

    agent = Agent("reinforce", chain, episodes=4, **SMALL)
    agent.learn(60)
    loaded = pg.load(agent.save(tmp_path / "agent"), env=chain)
    for one in (agent, loaded):
        one.learn(60)
    assert same_state(loaded.state_dict(), agent.state_dict())


def test_a_policy_file_acts_alike_and_holds_no_training_state(tmp_path):
    agent = pg.ppo("Pendulum-v1", normalize_obs=True, **PPO).learn(300)
    path = agent.save_policy(tmp_path / "policy.safetensors")
    loaded = pg.load(path)
    assert same_state(dict(loaded.policy.state_dict()), dict(agent.policy.state_dict()))
    assert loaded.collector.steps_done == 0
    assert path.stat().st_size < agent.save(tmp_path / "whole").stat().st_size / 3
    assert loaded.evaluate(3).returns == agent.evaluate(3).returns
    assert loaded.evaluate(3, greedy=False).returns == agent.evaluate(3, greedy=False).returns


def test_loading_refuses_environments_with_other_spaces(tmp_path):
    path = pg.a2c("CartPole-v1", **SMALL).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="observation_space"):
        pg.load(path, env="Pendulum-v1")
    wrapped = gym.wrappers.RescaleObservation
    with pytest.raises(ValueError, match="observation_space"):
        pg.load(path, env=lambda: wrapped(gym.make("MountainCar-v0"), np.float32(0), np.float32(1)))
    three = pg.a2c(Shifted, **SMALL).save(tmp_path / "three")
    with pytest.raises(ValueError, match="pass env="):
        pg.load(three)
    assert pg.load(three, env=Shifted).env_name == "Shifted"


def test_discrete_actions_that_do_not_count_from_0_learn():
    agent = pg.a2c(Shifted, seed=0, lr=0.03, num_steps=10, **SMALL).learn(2000)
    assert agent.evaluate(3).mean == 10.0
    assert int(agent.predict(np.zeros(3))[0]) in (-2, -1, 0)
    assert int(agent.predict(np.zeros(3), deterministic=True)[0]) == -1


def test_one_environment_is_one_without_saying_so():
    agent = pg.ppo(gym.make("CartPole-v1"), n_steps=64, batch_size=32)
    assert agent.config["num_envs"] == 1
    assert agent.config["minibatches"] == 2
    assert agent.learn(total_timesteps=64).collector.steps_done <= 64


def test_a_vector_environment_brings_its_number():
    envs = gym.make_vec("CartPole-v1", 2, "sync")
    agent = pg.ppo(envs, n_steps=64, batch_size=32)
    assert (agent.config["num_envs"], agent.config["minibatches"]) == (2, 4)
    with pytest.raises(ValueError, match="num_envs = 8, but the vector environment has 2"):
        pg.ppo(envs, num_envs=8)
    assert agent.evaluate(2) == agent.evaluate(2, env="CartPole-v1")  # which is the task inside


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lr": 1e-3, "learning_rate": 1e-4}, "learning_rate = 0.0001 contradicts"),
        ({"batch_size": 64, "minibatches": 4}, "minibatches = 4 contradicts"),
        ({"minibatches": 100_000}, "minibatches = 100000 must be at most num_envs × num_steps = 1024"),
        ({"num_envs": 1, "num_steps": 1, "minibatches": 1}, "standardize needs at least 2 steps"),
        ({"seed": -1}, "seed = -1 must be in"),
        ({"seed": None}, "seed = None must be a whole number"),
    ],
)
def test_what_does_not_go_together_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        pg.ppo("CartPole-v1", **keywords)


def test_leave_one_out_needs_two_episodes():
    with pytest.raises(ValueError, match=r"leave-one-out .* episodes must be at least 2"):
        pg.reinforce("CartPole-v1", baseline="leave-one-out", episodes=1)


def test_numbers_of_numpy_are_numbers():
    agent = pg.ppo("CartPole-v1", num_steps=np.int64(64), lr=np.float32(0.5), gamma=np.float64(0.5), minibatches=1)
    assert [type(agent.config[k]) for k in ("num_steps", "lr", "gamma")] == [int, float, float]
    json.dumps(agent.config)


@pytest.mark.parametrize("env", [None, 3, {"id": "CartPole-v1"}])
def test_what_is_no_environment_is_refused(env):
    with pytest.raises(TypeError, match="env must be an id, an environment or a callable"):
        pg.ppo(env)


def test_sampled_actions_go_on_after_loading_where_they_stopped(tmp_path):
    agent = pg.ppo("CartPole-v1", kernel="autograd")
    obs = np.zeros((50, 4))
    agent.predict(obs)
    twin = pg.load(agent.save(tmp_path / "agent"))
    assert twin.policy.kernel.name == "autograd"
    assert (agent.predict(obs)[0] == twin.predict(obs)[0]).all()


def test_an_evaluation_of_an_episode_that_does_not_end_is_an_error():
    from policygrad.envs.endless import EndlessEpisodeError
    from policygrad.training.evaluate import evaluate

    agent = pg.ppo(lambda: Chain([1.0, 2.0]))
    with pytest.raises(EndlessEpisodeError, match="did not end in 300 steps: give the environment a time limit"):
        evaluate(agent.policy, lambda: Chain([1.0, 2.0]), 3, max_episode_steps=300)


def test_what_cannot_be_evaluated_is_not_trained_first(tmp_path):
    from policygrad.training.train import train

    envs = gym.make_vec("CartPole-v1", 2, "sync", max_episode_steps=30)
    agent = pg.ppo(envs, steps=1000, num_steps=50, minibatches=1)
    with pytest.raises(ValueError, match="made from a vector environment: pass eval_env="):
        train(agent, tmp_path / "run")
    assert agent.collector.steps_done == 0


def test_a_trainer_reads_its_counters_from_a_state_and_nothing_else() -> None:
    agent = pg.ppo("CartPole-v1", num_envs=1, num_steps=8, hidden=(4,), minibatches=1)
    state, step = agent.trainer.state_dict(), agent.trainer.step
    agent.trainer.load_state_dict(state | {"rows": 3, "step": "hostile", "source": None})
    assert (agent.trainer.rows, agent.trainer.step, agent.trainer.source) == (3, step, agent.collector)


def test_an_agent_that_is_loaded_measures_the_gradient_in_the_rows_it_would_have(tmp_path):
    measured = []

    def look(agent, row):
        measured.append("meter_groups" in row)
        agent.trainer.leave = len(measured) == 3

    agent = pg.ppo("CartPole-v1", gradient_meter=True, **PPO).learn(600, look, log_every=1)
    loaded = pg.load(agent.save(tmp_path / "half"))
    loaded.gradient_meter = True
    loaded.go_on(look, log_every=1)
    assert measured[:6] == [True, False] * 3
