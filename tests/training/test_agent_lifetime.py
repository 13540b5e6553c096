"""Agents between their trainings: threads that ask them, copies, pickles, other hyperparameters, and their end."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import runpy
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from zoo import home, quick

import policygrad as pg
from policygrad.algorithms.config import ConfigError, parameters
from policygrad.algorithms.recipes import RECIPES
from policygrad.envs.probes import Target
from policygrad.errors import NotFiniteError, PolicygradError
from policygrad.training.threads import BusyError

SURVIVAL = Path(__file__).parents[2] / "benchmarks" / "survival"
THREADS, MEMORY = (runpy.run_path(str(SURVIVAL / f"{name}.py")) for name in ("threads", "memory"))
SMALL = {"num_envs": 2, "hidden": (8,)}
PPO = SMALL | {"num_steps": 32, "epochs": 2, "minibatches": 2}
COPIES = {"pickle": lambda agent: pickle.loads(pickle.dumps(agent)), "deepcopy": copy.deepcopy}


def weights(agent) -> np.ndarray:
    return agent.policy.flat.numpy().copy()


@pytest.fixture(autouse=True)
def quick_switches():
    """Threads take turns a hundred times as often as usual, so that what can go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", list(THREADS["AGENTS"]))
def test_predict_from_many_threads_gives_no_wrong_action(name):
    assert (
        THREADS["wrong_actions"](20_000 if name == "closed form, Discrete" else 1_000, THREADS["AGENTS"][name]()) == 0
    )


def test_threads_without_turns_do_give_wrong_actions():
    """A negative control: the memory of a network's passes is shared."""
    agent = pg.ppo("CartPole-v1", hidden=(64, 64))
    agent._turns = threading.Semaphore(16)  # pyright: ignore[reportAttributeAccessIssue]
    assert any(THREADS["wrong_actions"](5_000, agent) for _ in range(20))


@pytest.mark.slow
def test_a_million_calls_of_predict_from_many_threads_give_no_wrong_action():
    assert all(outcome.startswith("0 ") for _, outcome in THREADS["campaign"]())


def test_sampled_actions_of_threads_are_those_of_one_generator():
    many, alone = (pg.a2c("CartPole-v1", seed=3, **SMALL) for _ in range(2))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: int(many.predict(np.zeros(4))[0]), range(400)))
    assert sum(found) == sum(int(alone.predict(np.zeros(4))[0]) for _ in range(400))  # each draw is given once


def test_while_an_agent_learns_other_threads_are_refused_and_its_own_is_not():
    agent, refused = pg.ppo("CartPole-v1", **PPO), []

    def elsewhere(call):
        with pytest.raises(BusyError, match=r"another thread.*deepcopy"):
            call()
        refused.append(call)

    def callback(agent, row):
        agent.predict(np.zeros(4))
        agent.evaluate(1)
        for call in (lambda: agent.predict(np.zeros(4)), lambda: agent.evaluate(1), lambda: agent.learn(1)):
            thread = threading.Thread(target=elsewhere, args=(call,))
            thread.start()
            thread.join()
        return False

    agent.learn(100, callback)
    assert len(refused) == 3
    agent.predict(np.zeros(4))


@pytest.mark.parametrize("algo", list(RECIPES))
@pytest.mark.parametrize("way", list(COPIES))
def test_a_copy_learns_on_by_itself_as_a_loaded_agent_does(algo, way, tmp_path):
    linear = {"lr_schedule": "linear"} if "lr_schedule" in parameters(algo) else {}
    few = {"episodes": 4} if "episodes" in parameters(algo) else {}
    agent = pg.Agent(algo, home(algo), seed=1, **SMALL, **linear, **few, **quick(algo)).learn(60)
    before = weights(agent)
    twin, loaded = COPIES[way](agent), pg.load(agent.save(tmp_path / "agent"))
    assert np.array_equal(weights(twin), before)
    for one in (twin, loaded):
        one.learn(60)
    assert np.array_equal(weights(twin), weights(loaded))
    assert np.array_equal(weights(agent), before)
    assert (twin.algo, twin.env_name, twin.config) == (agent.algo, agent.env_name, agent.config)


def test_a_copy_of_a_fresh_agent_learns_the_same():
    agent = pg.ppo("CartPole-v1", seed=5, **PPO)
    twin = copy.deepcopy(agent)
    assert np.array_equal(weights(agent.learn(200)), weights(twin.learn(200)))


def test_a_copy_draws_on_from_the_same_stored_trajectories():
    stored = pg.a2c("CartPole-v1", **SMALL).collect(8)
    agent = pg.off_policy_pg("CartPole-v1", dataset=stored, episodes=4, min_ess=0.0, **SMALL)
    agent.learn(100)
    twin = pickle.loads(pickle.dumps(agent))
    assert np.array_equal(weights(twin.learn(100)), weights(agent.learn(100)))


def test_a_copy_made_by_a_callback_has_nobody_looking_on():
    agent, copies = pg.ppo("CartPole-v1", **PPO), []
    agent.learner.observers.append(lambda rollout: None)  # cannot be pickled
    agent.collector.observers.append(lambda record: None)
    agent.learn(200, lambda agent, row: copies.append(pickle.loads(pickle.dumps(agent))))
    assert copies[-1].learner.observers == copies[-1].collector.observers == []
    assert copies[-1].plan.learner is copies[-1].learner
    assert len(agent.learner.observers) == 1


@pytest.mark.parametrize("backend", ["gymnasium", "compiled", "async"])
def test_copies_have_environments_of_their_own(backend):
    with pg.a2c("CartPole-v1", backend=backend, **SMALL) as agent:
        twin = copy.deepcopy(agent.learn(20))
        assert twin.envs is not agent.envs
        twin.learn(20)
        twin.close()
        agent.learn(20)


def test_an_agent_of_a_lent_environment_and_of_a_body_can_be_copied():
    agent = pg.ppo(gym.make("CartPole-v1"), body=nn.Linear(4, 8), num_steps=32, minibatches=1).learn(40)
    twin = pickle.loads(pickle.dumps(agent))
    assert twin.env is not agent.env
    before = weights(agent)
    twin.learn(40)
    assert np.array_equal(weights(agent), before)
    assert not np.array_equal(weights(twin), before)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_closing_gives_back_what_worker_processes_held():
    agents, held, left = [], [], []
    for _ in range(2):  # the first opens what is opened once a process, too
        before = descriptors()
        with pg.a2c("CartPole-v1", backend="async", **SMALL) as agent:
            agent.learn(20)
            held.append(descriptors() - before)
        left.append(descriptors() - before)
        agents.append(agent)
    assert held[1] > left[1]
    assert left[1] <= 1  # the memory that was shared, which arrays still lie in
    before = descriptors()
    del agent
    agents.clear()
    gc.collect()
    assert descriptors() <= before - 2


def test_a_closed_agent_acts_and_is_evaluated_but_does_not_learn():
    agent = pg.a2c("CartPole-v1", **SMALL)
    with agent as same:
        assert same is agent
    agent.close()
    agent.predict(np.zeros(4))
    agent.evaluate(2)
    with pytest.raises(BusyError, match="closed"):
        agent.learn(20)


@pytest.mark.parametrize("backend", ["gymnasium", "compiled", "async"])
def test_a_closed_agent_is_saved_and_copied_as_an_open_one(backend, tmp_path):
    with pg.a2c("CartPole-v1", backend=backend, **SMALL) as agent:
        agent.learn(60)
        before = agent.save(tmp_path / "before").read_bytes()
    assert agent.save(tmp_path / "after").read_bytes() == before
    with copy.deepcopy(agent) as one, pg.load(tmp_path / "before") as other:
        assert np.array_equal(weights(one.learn(60)), weights(other.learn(60)))


@pytest.mark.parametrize("backend", ["gymnasium", "compiled", "async"])
def test_environments_that_were_closed_behind_an_agent_are_where_they_were_or_a_warning_says_so(backend, tmp_path):
    agents = [pg.a2c("CartPole-v1", backend=backend, **SMALL).learn(60) for _ in range(2)]
    agents[0].envs.close()
    with pg.load(agents[0].save(tmp_path / "closed"), backend=backend) as other, agents[1]:
        if backend == "async":  # the processes have taken it with them
            with pytest.warns(UserWarning, match="its process had ended or was closed"):
                other.learn(60)
        else:
            assert np.array_equal(weights(other.learn(60)), weights(agents[1].learn(60)))


def test_closing_leaves_a_lent_environment_open():
    class Lent(Target):
        closed = False

        def close(self):
            self.closed = True

    env = Lent()
    with pg.a2c(env, num_steps=8):
        pass
    assert not env.closed
    assert env.reset()[0] is not None


def test_an_agent_that_cannot_be_made_closes_its_environments(monkeypatch):
    from policygrad.envs.serial import SerialVectorEnv

    closed = []
    monkeypatch.setattr(SerialVectorEnv, "close", lambda self, **_: closed.append(self))
    with pytest.raises(ValueError, match="closed form"):
        pg.ppo("CartPole-v1", backend="gymnasium", kernel="closed_form", body=nn.Linear(4, 8))
    assert len(closed) == 1


def test_changed_hyperparameters_take_effect():
    agent = pg.ppo("CartPole-v1", lr=1e-2, **PPO).learn(100)
    learned, critic = weights(agent), copy.deepcopy(agent.learner.critic.state_dict())
    assert agent.change(learning_rate=0.0, batch_size=16) is agent
    assert (agent.config["lr"], agent.config["minibatches"]) == (0.0, 4)
    assert np.array_equal(weights(agent), learned)
    now = agent.learner.critic.state_dict()
    assert all(torch.equal(now[name], x) for name, x in critic.items() if isinstance(x, torch.Tensor))
    agent.learn(100)
    assert np.array_equal(weights(agent), learned)  # with lr = 0
    assert agent.metadata()["config"]["lr"] == 0.0
    agent.change(lr=1e-2)
    agent.learn(100)
    assert not np.array_equal(weights(agent), learned)


def test_a_change_to_the_values_that_there_are_changes_nothing():
    one, other = (pg.ppo("CartPole-v1", seed=2, lr=3e-3, **PPO).learn(100) for _ in range(2))
    other.change(lr=3e-3)
    assert np.array_equal(weights(one.learn(100)), weights(other.learn(100)))


def test_the_number_of_steps_can_change_whatever_the_network_is():
    agent = pg.ppo("CartPole-v1", body=nn.Linear(4, 8), num_steps=32, num_envs=1, minibatches=1)
    learner = agent.learner
    assert agent.change(total_timesteps=70).learner is learner
    assert agent.config["steps"] == 70
    with pytest.raises(ConfigError, match="network of its own"):
        agent.change(lr=0.0)
    assert agent.learn().collector.steps_done <= 70


def test_a_callback_can_change_hyperparameters_while_the_agent_learns():
    agent, seen = pg.ppo("CartPole-v1", lr=1e-2, **PPO), []

    def freeze(agent, row):
        agent.change(lr=0.0)
        seen.append(weights(agent))

    agent.learn(300, freeze)
    assert len(seen) > 2
    assert all(np.array_equal(x, seen[0]) for x in seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (3,)}, "hidden cannot change"),
        ({"activation": "relu"}, "activation cannot change"),
        ({"num_envs": 3}, r"num_envs cannot change.*load"),
        ({"optimizer": "sgd"}, "optimizer cannot change"),
        ({"lr": -1.0}, r"lr = -1.0 must be in"),
        ({"learning_rat": 1.0}, "Did you mean 'learning_rate'"),
    ],
)
def test_what_cannot_change_is_refused_and_the_agent_stays_as_it_was(changes, message):
    agent = pg.ppo("CartPole-v1", **PPO).learn(70)
    config, learner = dict(agent.config), agent.learner
    with pytest.raises(ConfigError, match=message):
        agent.change(**changes)
    assert (agent.config, agent.learner) == (config, learner)


@pytest.mark.parametrize("write", [lambda c: c.update(lr=1), lambda c: c.__setitem__("lr", 1), lambda c: c.pop("lr")])
def test_a_configuration_is_not_written_to(write):
    agent = pg.ppo("CartPole-v1", **PPO)
    with pytest.raises(ConfigError, match=r"agent\.change\("):
        write(agent.config)
    assert agent.config == pickle.loads(pickle.dumps(agent.config)) == dict(agent.config)


def test_loading_takes_other_hyperparameters_and_more_environments(tmp_path):
    path = pg.ppo("CartPole-v1", lr=1e-2, **PPO).learn(100).save(tmp_path / "agent")
    agent = pg.load(path, learning_rate=1e-3, n_envs=4)
    assert (agent.config["lr"], agent.envs.num_envs, agent.config["num_steps"]) == (1e-3, 4, 32)
    done = agent.collector.steps_done
    agent.learn(128)
    assert agent.collector.steps_done > done
    for wrong, message in (
        ({"hidden": (3,)}, "hidden cannot"),
        ({"device": "gpu"}, "got 'gpu'"),
        ({"lr": "x"}, "a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            pg.load(path, **wrong)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), 3.0, np.float32(3)])
def test_a_seed_is_a_whole_number_whatever_its_type(seed):
    agent, usual = pg.ppo("CartPole-v1", seed=seed, **PPO), pg.ppo("CartPole-v1", seed=3, **PPO)
    assert np.array_equal(weights(agent.learn(70)), weights(usual.learn(70)))
    assert agent.evaluate(2, seed=seed).returns == usual.evaluate(2, seed=3).returns
    assert type(agent.seed) is int


def test_predict_refuses_what_reset_returns():
    agent = pg.ppo("FrozenLake-v1", **SMALL)
    env = gym.make("FrozenLake-v1")
    with pytest.raises(ValueError, match=r"\(observation, info\).*first part"):
        agent.predict(env.reset(seed=0))
    agent.predict(env.reset(seed=0)[0])
    two = gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Dict(x=gym.spaces.Discrete(2))])

    class Pairs(gym.Env):
        observation_space, action_space = two, gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return two.sample(), {}

    pg.ppo(Pairs, **SMALL).predict((1, {"x": 0}))  # which is an observation here


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predict_refuses_numbers_that_are_not_finite(bad):
    agent = pg.ppo("CartPole-v1", **SMALL)
    with pytest.raises(NotFiniteError, match=f"finite numbers.*got {bad}"):
        agent.predict([0.0, 0.0, bad, 0.0])
    with pytest.raises(NotFiniteError, match=f"finite numbers.*got {bad}"):
        agent.predict([[0.0] * 4, [0.0, 0.0, bad, 0.0]])


SB3 = [
    (lambda a: pg.ppo("MlpPolicy", "CartPole-v1"), "leave the policy's name out"),
    (lambda a: pg.ppo("MlpPolicy", env="CartPole-v1"), "leave the policy's name out"),
    (lambda a: pg.ppo(policy="CnnPolicy", env="CartPole-v1"), "leave the policy's name out"),
    (lambda a: pg.ppo("CartPole-v1", verbose=1), "print nothing"),
    (lambda a: pg.ppo("CartPole-v1", cuda=True), 'device="cuda"'),
    (lambda a: pg.a2c("CartPole-v1", policy_kwargs={}), "hidden="),
    (lambda a: pg.a2c("CartPole-v1", tensorboard_log="x"), "tensorboard --logdir"),
    (lambda a: pg.trpo("CartPole-v1", sub_sampling_factor=2), "all rows"),
    (lambda a: a.learn(10, tb_log_name="x"), "event files"),
    (lambda a: a.learn(10, log_interval=1), "log_every"),
    (lambda a: a.learn(10, nonsense=1), "no keyword 'nonsense'"),
    (lambda a: a.evaluate(deterministic=True), "greedy=True"),
    (lambda a: a.evaluate(n_eval_episodes=3), "episodes="),
    (lambda a: a.set_env("CartPole-v1"), r"env=…"),
    (lambda a: pg.PPO, r"policygrad\.ppo"),
]


@pytest.mark.parametrize(("call", "answer"), SB3, ids=[answer for _, answer in SB3])
def test_the_words_of_stable_baselines3_are_answered(call, answer):
    agent = pg.ppo("CartPole-v1", **SMALL)
    with pytest.raises((ConfigError, TypeError, AttributeError), match=answer):
        call(agent)
    assert agent.collector.steps_done == 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"steps": 1e300}, r"steps = 1e\+300 must be at most 1e\+15"),
        ({"steps": 10**5000}, "steps = inf"),
        ({"num_steps": 1e12}, "num_steps"),
        ({"ent_coef": 1e308}, "ent_coef"),
        ({"max_grad_norm": 1e38}, "max_grad_norm"),
        ({"hidden": (65536,) * 30}, r"hidden.*GiB.*lower hidden"),
        ({"num_envs": 4096, "num_steps": 10**7}, r"observations.*GiB.*lower num_steps"),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_tried(keywords, message):
    with pytest.raises(ConfigError, match=message):
        pg.ppo(lambda: gym.make("CartPole-v1"), **({"minibatches": 1, "num_envs": 1} | keywords))


def test_absurd_numbers_of_episodes_are_refused():
    agent = pg.ppo("CartPole-v1", **SMALL)
    for call in (agent.evaluate, agent.collect):
        with pytest.raises(ConfigError, match="episodes = 1e"):
            call(1e99)


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    agent = pg.ppo("CartPole-v1", **PPO)
    assert agent.save("~/model") == tmp_path / "model.safetensors"
    assert pg.load("~/model").algo == "ppo"
    run = pg.train(agent, "~/run", steps=70, episodes=2)
    assert run.path == tmp_path / "run"
    assert not (tmp_path / "~").exists()
    assert pg.load("~/run").env_name == "CartPole-v1"


def test_load_takes_a_run_directory_and_says_why_another_file_is_none(tmp_path):
    run = pg.train(pg.ppo("CartPole-v1", **PPO), tmp_path / "run", steps=70, episodes=2)
    assert np.array_equal(weights(pg.load(run.path)), weights(pg.load(run.policy_file)))
    (tmp_path / "model.pt").write_bytes(b"PK")
    for name, message in (
        ("sb3.zip", "hold pickles"),
        ("model.pt", r"\.safetensors"),
        ("none", "no run directory .*none, and no model file"),
    ):
        with pytest.raises(ValueError, match=message):
            pg.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"give one of the 1 runs in it, such as .*run$"):
        pg.load(tmp_path)
    run.policy_file.unlink()
    for checkpoint in run.checkpoints():
        checkpoint.unlink()
    with pytest.raises(ValueError, match="stopped before its first checkpoint"):
        pg.load(run.path)


def test_a_directory_that_cannot_be_is_refused():
    agent = pg.ppo("CartPole-v1", **PPO)
    with pytest.raises(PolicygradError, match="cannot make the run directory"):
        pg.train(agent, "a\0b", steps=70)
    assert agent.collector.steps_done == 0


def test_warnings_are_no_part_of_copying():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy.deepcopy(pg.ppo("CartPole-v1", **PPO).learn(70))


def test_the_campaign_about_memory_finds_a_leak_in_the_noise_and_none_where_there_is_none():
    steps, noise = np.linspace(0.025, 5.0, 200), np.random.default_rng(0).normal(0.0, 1.0, 200)
    warm = 300.0 + 50.0 * (steps > 0.4)  # imports, and whatever else comes in the first tenth
    for leak in (0.0, 0.4):
        slope, low, high, _ = MEMORY["slope"](np.stack([steps, warm + leak * steps + noise], 1))
        assert low < leak < high
        assert low < slope < high < low + 1.0
        assert (low < 0.0) == (leak == 0.0)
