"""Callbacks: when they are called, what they keep, how they stop, and that training is what it would be without them."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import policygrad as pg
from policygrad.cli.values import MOST_EPISODES
from policygrad.envs.probes import Target
from policygrad.training.callbacks import (
    CheckpointCallback,
    EvalCallback,
    Every,
    History,
    StopAfter,
    StopOnReward,
    combine,
)
from policygrad.training.evaluate import EVALUATION_SEED
from policygrad.training.train import train

SMALL = {"num_envs": 2, "num_steps": 33, "epochs": 2, "minibatches": 2}
MORE = 2  # steps asked for: an iteration is 64, and might have been 66


class Steady(gym.Env):
    """Episodes of 32 steps and a row to reset: an iteration of SMALL is 64 steps. It rewards actions that tell x's sign."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.x = 0, self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x, {}

    def step(self, action):
        rew = abs(float(self.x[0])) * float((self.x[0] > 0) == action)
        self.time, self.x = self.time + 1, self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x, rew, self.time == 32, False, {}


def test_every_callback_of_a_list_is_called_in_order_also_when_one_stops():
    calls = []

    def named(name, result=None):
        def callback(agent, row):
            calls.append(name)
            return result

        return callback

    agent = pg.ppo(Steady, **SMALL)
    agent.learn(640 + MORE, [named("a"), named("b", False), named("c", True)])
    assert calls == ["a", "b", "c"]
    assert agent.collector.steps_done == 64
    calls.clear()
    agent.learn(192 + MORE, (named("a", 0), named("b", "")))  # False stops, nothing else does
    assert calls == ["a", "b"] * 3
    calls.clear()
    agent.learn(192 + MORE, named("numpy's", np.mean([1.0]) > 2.0))
    assert calls == ["numpy's"]
    calls.clear()
    agent.learn(64 + MORE, [])
    agent.learn(64 + MORE, named("alone", False))
    assert calls == ["alone"]


def test_what_is_no_callback_is_refused_before_training():
    agent = pg.ppo(Steady, **SMALL)
    for given in (StopAfter, [StopAfter], pg.LiveCurve):
        with pytest.raises(TypeError, match=r"did you forget the brackets, \w+\(\)\?"):
            agent.learn(64 + MORE, given)
    for given in (7, "print", [lambda agent, row: None, 7]):
        with pytest.raises(TypeError, match=r"must be a function of \(agent, row\), .* got (7|'print')"):
            agent.learn(64 + MORE, given)
    with pytest.raises(TypeError, match=r"is called with \(agent, row\), but <lambda> takes \(row\)"):
        agent.learn(64 + MORE, lambda row: None)
    for given in (lambda *both: None, lambda agent, row=None, more=0: None, [].__class__.append, max):
        combine(given, agent)
    assert agent.collector.steps_done == 0
    assert combine(None, agent) is None
    assert combine([], agent) is None


def test_no_run_is_begun_with_what_is_no_callback(tmp_path):
    with pytest.raises(TypeError, match="did you forget the brackets"):
        train(pg.ppo(Steady, **SMALL), tmp_path / "run", callback=History)
    assert not (tmp_path / "run").exists()


def test_a_callback_is_told_when_training_begins_each_time():
    begun = []

    class Mine:
        def start(self, agent):
            begun.append(agent.collector.steps_done)

        def __call__(self, agent, row):
            return None

    agent = pg.ppo(Steady, **SMALL)
    agent.learn(64 + MORE, Mine()).learn(64 + MORE, [Mine(), Mine()])
    assert begun == [0, 64, 64]


def test_every_calls_at_the_first_iteration_that_gets_there():
    steps = []
    agent = pg.ppo(Steady, **SMALL).learn(64 + MORE)
    agent.learn(640 + MORE, Every(100, lambda agent, row: steps.append(agent.collector.steps_done)))
    assert steps == [192, 320, 448, 576, 704]
    agent.learn(640 + MORE, Every(1, lambda agent, row: False))
    assert agent.collector.steps_done == 704 + 64


@pytest.mark.parametrize("recipe", [pg.ppo, pg.reinforce])
def test_evaluating_while_training_changes_not_one_bit_of_it(recipe, tmp_path):
    config = SMALL if recipe is pg.ppo else {"num_envs": 2, "episodes": 4}
    keywords = {"seed": 5, "normalize_obs": True} | config
    plain, callbacks = recipe("CartPole-v1", **keywords).learn(1500), []
    for greedy in (True, False):
        callbacks.append(EvalCallback(100, 3, greedy=greedy, directory=tmp_path / str(greedy)))
    watched = recipe("CartPole-v1", **keywords).learn(1500, [*callbacks, CheckpointCallback(200, directory=tmp_path)])
    assert len(callbacks[0].evaluations) == len(callbacks[1].evaluations) >= 5
    assert np.array_equal(plain.policy.flat.numpy(), watched.policy.flat.numpy())
    assert list(plain.collector.returns) == list(watched.collector.returns)
    assert plain.collector.rng.bit_generator.state == watched.collector.rng.bit_generator.state
    plain.save(tmp_path / "a")
    watched.save(tmp_path / "b")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_evaluations_are_those_of_the_policy_at_their_steps_and_the_best_one_is_kept(tmp_path):
    wanted = {}

    def look(agent, row):
        wanted[agent.collector.steps_done] = agent.evaluate(3, seed=callback.seed).returns

    callback = EvalCallback(256, episodes=3, directory=tmp_path / "new")
    agent = pg.ppo(Steady, seed=1, lr=0.01, **SMALL).learn(2560 + MORE, [look, callback])
    assert list(callback.evaluations) == list(range(256, 2561, 256))
    assert all(callback.evaluations[steps].returns == wanted[steps] for steps in callback.evaluations)
    means = [evaluation.mean for evaluation in callback.evaluations.values()]
    assert callback.best == max(means) > means[-1]  # so that the best is not the last
    best = pg.load(tmp_path / "new" / "best_policy.safetensors", env=Steady)
    scores = [each.evaluate(3, seed=callback.seed).mean for each in (best, agent)]
    assert scores[0] == callback.best != scores[1]
    with np.load(tmp_path / "new" / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == list(callback.evaluations)
        assert file["results"].mean(1).tolist() == pytest.approx(means)


def test_evaluations_are_played_as_the_callback_was_told():
    wanted, callback = [], EvalCallback(64, episodes=2, greedy=False, seed=7)

    def look(agent, row):
        wanted.append(agent.evaluate(2, False, 7).returns)
        assert wanted[-1] not in (agent.evaluate(2, True, 7).returns, agent.evaluate(2, False).returns)

    pg.ppo(Steady, **SMALL).learn(128 + MORE, [look, callback])
    assert [evaluation.returns for evaluation in callback.evaluations.values()] == wanted


def test_the_next_row_of_metrics_has_the_evaluation_also_when_it_comes_later():
    history, callback = History(), EvalCallback(128, episodes=2)
    agent = pg.ppo(Steady, **SMALL)
    agent.learn(640 + MORE, [callback, history], log_every=192)
    assert [row["steps"] for row in history.rows] == [64, 256, 448, 640]
    assert [row.get("eval_steps") for row in history.rows] == [None, 256, 384, 640]
    for row in history.rows[1:]:
        evaluation = callback.evaluations[row["eval_steps"]]
        assert row["eval_return_mean"] == evaluation.mean
        assert row["eval_length_mean"] == np.mean(evaluation.lengths)


def test_a_row_has_news_only():
    history = History()
    pg.ppo(Steady, **SMALL).learn(640 + MORE, [EvalCallback(192, episodes=1), history], log_every=1)
    assert [row["steps"] for row in history.rows if "eval_steps" in row] == [192, 384, 576]


def test_an_evaluation_that_is_good_enough_ends_the_training():
    callback = EvalCallback(64, episodes=2, stop_at=float("-inf"))
    assert pg.ppo(Steady, **SMALL).learn(6400 + MORE, callback).collector.steps_done == 64
    callback = EvalCallback(64, episodes=2, stop_at=1e9)
    assert pg.ppo(Steady, **SMALL).learn(640 + MORE, callback).collector.steps_done == 640


def test_evaluation_in_another_environment_and_refusal_before_training():
    short = EvalCallback(64, episodes=2, env=lambda: gym.wrappers.TimeLimit(Steady(), 3))
    pg.ppo(Steady, **SMALL).learn(64 + MORE, short)
    assert short.evaluations[64].lengths == (3, 3)
    agent = pg.ppo(SyncVectorEnv([Steady] * 2), num_steps=33, minibatches=2)
    with pytest.raises(ValueError, match="pass env="):
        agent.learn(64 + MORE, EvalCallback(64))
    assert agent.collector.steps_done == 0
    agent.learn(64 + MORE, EvalCallback(64, env=Steady, episodes=1))


def test_a_callback_that_is_used_again_begins_anew_with_another_agent(tmp_path):
    callback = EvalCallback(64, episodes=1)
    one, two = (pg.ppo(Steady, seed=seed, **SMALL) for seed in (0, 1))
    train(one, tmp_path / "one", steps=128 + MORE, episodes=1, callback=callback)
    train(two, tmp_path / "two", steps=64 + MORE, episodes=1, callback=callback)
    assert list(callback.evaluations) == [64]
    with np.load(tmp_path / "two" / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == [64]
    with np.load(tmp_path / "one" / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == [64, 128]
    two.learn(64 + MORE, callback)
    assert list(callback.evaluations) == [64, 128]


def test_callbacks_of_a_run_write_into_its_directory_unless_told_otherwise(tmp_path):
    elsewhere = CheckpointCallback(128, directory=tmp_path / "elsewhere", keep=2)
    here = CheckpointCallback(128)
    agent = pg.ppo(Steady, **SMALL)
    run = train(agent, tmp_path / "run", steps=640 + MORE, episodes=1, callback=[EvalCallback(320, 2), here, elsewhere])
    assert (run.path / "best_policy.safetensors").exists()
    assert sorted(p.name for p in (run.path / "snapshots").iterdir()) == [
        f"step-{k}.safetensors" for k in (128, 256, 384, 512, 640)
    ]
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == [
        "step-512.safetensors",
        "step-640.safetensors",
    ]
    assert len(run.checkpoints()) == 2  # as ever
    again = pg.load(run.path / "snapshots" / "step-640.safetensors", env=Steady)
    assert np.array_equal(again.policy.flat.numpy(), agent.policy.flat.numpy())
    assert again.collector.steps_done == 640


@pytest.mark.parametrize("kind", [lambda **k: EvalCallback(32, 1, **k), lambda **k: CheckpointCallback(32, **k)])
def test_two_that_would_write_the_same_files_are_refused(kind, tmp_path):
    agent = pg.a2c("CartPole-v1", num_envs=2, num_steps=4)
    with pytest.raises(ValueError, match="same files"):
        train(agent, tmp_path / "both", steps=64, episodes=1, callback=[kind(), kind()])
    train(agent, tmp_path / "apart", steps=64, episodes=1, callback=[kind(), kind(directory=tmp_path / "own")])
    assert list((tmp_path / "own").iterdir())


def test_checkpoints_without_a_place_are_refused_before_training():
    agent = pg.ppo(Steady, **SMALL)
    with pytest.raises(ValueError, match="needs directory="):
        agent.learn(64 + MORE, CheckpointCallback(64))
    assert agent.collector.steps_done == 0


def test_training_stops_on_reward_once_enough_episodes_say_so():
    agent = pg.ppo(Target, num_envs=2, num_steps=5, minibatches=1)
    agent.learn(1000 + MORE, StopOnReward(-1e9, episodes=30))
    assert 30 <= agent.collector.episodes_done < 30 + 10
    stopped = agent.collector.steps_done
    agent.learn(1000 + MORE, StopOnReward(-1e9, episodes=30))  # episodes of the training before do not count
    assert agent.collector.steps_done > stopped + 10
    before = agent.collector.steps_done
    agent.learn(100, StopOnReward(1e9, episodes=1))
    assert agent.collector.steps_done > before + 90


def test_reward_is_the_mean_of_the_last_episodes_alone():
    agent = pg.ppo(Target, num_envs=2, num_steps=5, minibatches=1).learn(100)
    collector, stop = agent.collector, StopOnReward(2.5, episodes=2)
    collector.returns.clear()
    collector.returns.extend([100.0, 2.0, 3.0])
    assert stop(agent, None) is False
    assert StopOnReward(2.6, episodes=2)(agent, None) is None
    assert StopOnReward(35.0, episodes=3)(agent, None) is False


def test_training_stops_after_a_time(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("policygrad.training.callbacks.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    agent, callback = pg.ppo(Steady, **SMALL), StopAfter(0.2)
    clock[0] += 1.0  # the clock runs while training does

    def tick(agent, row):
        clock[0] += 0.0625

    agent.learn(10**4, [tick, callback])
    assert agent.collector.steps_done == 4 * 64  # after 0.0625, 0.125, 0.1875 and 0.25 seconds


@pytest.mark.parametrize(
    "make",
    [
        lambda: Every(0, print),
        lambda: Every(episodes=0),
        lambda: EvalCallback(-1),
        lambda: EvalCallback(10, episodes=0),
        lambda: EvalCallback(1.5),  # pyright: ignore[reportArgumentType]
        lambda: CheckpointCallback(10, keep=0),
        lambda: CheckpointCallback(True),
        lambda: StopOnReward(1.0, episodes=101),
        lambda: StopAfter(0.0),
        lambda: StopAfter(float("nan")),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError, match=r"must be|remembers"):
        make()
    Every(2e4, print)  # pyright: ignore[reportArgumentType]


def test_every_counts_episodes_too_and_prints_a_line_without_a_function(capsys):
    seen = []
    agent = pg.ppo(Steady, **SMALL).learn(64 + MORE)  # two episodes an iteration
    agent.learn(640 + MORE, Every(episodes=5, function=lambda agent, row: seen.append(agent.collector.episodes_done)))
    assert seen == [8, 14, 20]
    agent.learn(640 + MORE, Every(episodes=10))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["32 episodes", "42 episodes"]
    assert lines[1].endswith(f"last 42: {np.mean(agent.collector.returns):.2f}")
    agent.learn(640 + MORE, Every(episodes=1, function=lambda agent, row: False))
    assert agent.collector.episodes_done == 44


@pytest.mark.parametrize("given", [{}, {"steps": 1, "episodes": 1}])
def test_every_counts_one_thing(given):
    with pytest.raises(ValueError, match="either steps or episodes"):
        Every(**given, function=print)


@pytest.mark.parametrize("config", [{"num_steps": 500}, {"algo": "reinforce", "episodes": 130}])
def test_a_history_has_every_episode_also_where_more_than_100_end_in_an_iteration(config):
    history, seen = History(), []
    agent = pg.Agent(config.pop("algo", "ppo"), "CartPole-v1", **{"num_envs": 8} | config)
    agent.collector.observers.append(lambda record: seen.extend(record.finished))
    agent.learn(5_000, history).learn(3_000, history)
    assert len(history.returns) == len(history.lengths) == agent.collector.episodes_done > 200
    assert list(zip(history.returns, history.lengths, strict=True)) == seen
    assert history.returns[-100:] == list(agent.collector.returns)


def test_a_history_is_a_picture_in_a_notebook():
    history = History()
    with pytest.raises(ValueError, match="pass this to agent"):
        history.plot()
    pg.ppo(Steady, **SMALL).learn(640 + MORE, history, log_every=1)
    assert len(history.rows) == 10
    assert history.plot()._repr_png_().startswith(b"\x89PNG")


def test_what_chooses_the_best_policy_is_not_what_scores_it():
    """No episode of an EvalCallback has the seed of one of `evaluate`, however many either plays."""
    agent, episodes = pg.ppo(Steady, **SMALL), 5
    evaluating = EvalCallback(64, episodes)
    agent.learn(64, evaluating)
    (chosen,) = evaluating.evaluations.values()
    assert chosen.returns != agent.evaluate(episodes).returns
    assert chosen.returns == agent.evaluate(episodes, seed=evaluating.seed).returns
    assert evaluating.seed > EVALUATION_SEED + MOST_EPISODES
