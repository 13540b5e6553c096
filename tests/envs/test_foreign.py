"""Environments are foreign code: each fault is named in one sentence, whoever moved one is noticed, nothing is misread."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import same_state
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import policygrad as pg
from policygrad.envs import checks, serial
from policygrad.envs.advice import far_bounds, unscaled_pictures
from policygrad.envs.blame import foreign
from policygrad.envs.checks import final_observation, flag, number, write
from policygrad.envs.collector import Collector
from policygrad.envs.lent import Witness
from policygrad.envs.make import make_envs
from policygrad.envs.twin import twin
from policygrad.errors import ContractError, EnvError, ForeignCodeError, PolicygradError
from policygrad.models.observations import Encoding
from policygrad.models.policy import make_policy
from policygrad.training.callbacks import EvalCallback

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "survival" / "environments.py"


def campaign() -> Any:
    spec = importlib.util.spec_from_file_location("survival_environments", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["survival_environments"] = module
    spec.loader.exec_module(module)
    return module


C = campaign()
Plain, SMALL, LENGTH = C.Plain, C.SMALL, C.LENGTH


@pytest.mark.parametrize("name", C.RUNS)
def test_each_environment_is_named_in_one_sentence_or_right(name: str) -> None:
    run, words = C.RUNS[name]
    result, text = C.outcome(run, words)
    assert result == ("named" if words else "right"), text


def test_there_are_many_of_them() -> None:
    assert len(C.RUNS) >= 80
    assert sum(bool(words) for _, words in C.RUNS.values()) >= 80


@pytest.mark.parametrize("name", ["observation: shape (1,)", "observation: 300 as a byte", "observation: a number"])
def test_without_the_checks_the_campaign_says_that_nobody_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def __init__(self, space: spaces.Space, row: Any) -> None:
            self.row = row

        def __setitem__(self, everything: slice, obs: Any) -> None:
            with np.errstate(all="ignore"):
                self.row[...] = np.asarray(obs).astype(self.row.dtype)

    monkeypatch.setattr(serial, "place_of", Careless)
    assert C.outcome(*C.RUNS[name])[0] == "wrong"


@pytest.mark.parametrize("name", ["moved: EvalCallback", "moved: collect", "moved: looked at by hand"])
def test_without_a_reset_the_campaign_sees_impossible_transitions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "forget", lambda self: None)
    result, text = C.outcome(*C.RUNS[name])
    assert result == "wrong"
    assert "AssertionError" in text


def test_a_foreign_error_is_also_of_the_class_it_was_and_keeps_it() -> None:
    agent = pg.ppo(partial(Plain, fault=C.raising(ConnectionError("gone"))), num_envs=2, **SMALL)
    with pytest.raises(ConnectionError) as caught:
        agent.learn(20)
    assert isinstance(caught.value, ForeignCodeError)
    assert isinstance(caught.value, EnvError)
    assert type(caught.value.__cause__) is ConnectionError
    assert str(caught.value) == (
        "environment 0 (Plain): step() raised ConnectionError: gone, at step 2 of its episode 1"
    )


@pytest.mark.parametrize("kind", [KeyError, OSError, UnicodeDecodeError, C.Lost, RuntimeError, ExceptionGroup])
def test_every_class_of_error_can_be_foreign(kind: type[Exception]) -> None:
    error = foreign(kind, "who did it")
    assert str(error) == "who did it"
    assert isinstance(error, ForeignCodeError)
    assert isinstance(error, kind) or kind is ExceptionGroup


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
def test_interrupts_pass_through(kind: type[BaseException]) -> None:
    agent = pg.ppo(partial(Plain, fault=C.raising(kind())), num_envs=2, **SMALL)
    with pytest.raises(kind) as caught:
        agent.learn(20)
    assert type(caught.value) is kind


def test_counters_and_open_episodes_after_an_exception_are_those_before_it() -> None:
    agent = pg.ppo(partial(C.Flaky, ConnectionError()), num_envs=2, **SMALL)
    assert isinstance(agent.collector, Collector)
    before: Any = None

    def note(agent: pg.Agent, row: Any) -> None:
        nonlocal before
        before = agent.collector.state_dict()

    with pytest.raises(ConnectionError):
        agent.learn(200, note)
    assert before is not None
    after = agent.collector.state_dict()
    assert all(same_state(after[name], before[name]) for name in before if name != "envs")
    for was, now in zip(before["envs"], after["envs"], strict=True):
        assert same_state(now | {"generator": None}, was | {"generator": None})
    record = agent.collector.steps(agent.policy, 3)
    assert record.time[0].tolist() == before["time"].tolist()
    assert (record.obs[:-1, :, 0][record.mask] == record.time[record.mask]).all()


class Untouchable(dict):
    """An info that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"somebody asked an info for {name}")

    def __iter__(self) -> Any:
        raise AssertionError("somebody went through an info")


def test_infos_that_nobody_asks_for_are_not_touched() -> None:
    make = partial(
        Plain, fault=C.put(4, lambda t: Untouchable()), at_reset=lambda a: (a[0], Untouchable()), always=True
    )
    agent = pg.ppo(make, num_envs=2, **SMALL).learn(40)
    assert agent.evaluate(3).lengths == (LENGTH,) * 3


def test_actions_that_an_environment_edits_are_learned_from_as_they_were_sampled() -> None:
    actions = spaces.MultiDiscrete([3, 3])
    for envs in (
        make_envs(partial(C.EditsActions, actions=actions), 2),
        SyncVectorEnv([partial(C.EditsActions, actions=actions)] * 2),
    ):
        policy = make_policy(C.BOX, actions, hidden=(4,))
        assert Collector(envs, 0).steps(policy, 10).act.min() >= 0


def test_a_setting_that_a_callback_turns_is_no_step_of_somebody_else() -> None:
    env = Plain(length=7)
    env.level = 0  # pyright: ignore[reportAttributeAccessIssue]
    agent = pg.ppo(env, **SMALL)
    seen = C.Seen(agent, 7)

    def harder(agent: pg.Agent, row: Any) -> None:
        env.level += 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(80, harder)
    assert seen.episodes >= 9  # none of them cut short


def test_a_callback_that_steps_a_lent_environment_is_told_so_once() -> None:
    env = Plain(length=7)
    agent = pg.ppo(env, **SMALL)
    with pytest.warns(UserWarning, match=r"other code stepped or reset the environment Plain .*time") as said:
        agent.learn(80, C.steps_by_hand(env))
    assert len(said) == 1


@pytest.mark.parametrize("move", ["step", "reset", "draw"])
def test_a_witness_sees_steps_resets_and_draws(move: str) -> None:
    env = gym.make("CartPole-v1")
    witness = Witness([env])
    env.reset(seed=0)
    witness.begin()
    env.step(0)
    witness.look()
    env.step(1)
    witness.look()
    assert not witness.moved()
    {"step": lambda: env.step(0), "reset": env.reset, "draw": lambda: env.unwrapped.np_random.random()}[move]()
    if move == "draw":  # CartPole draws at resets only, so nothing that steps change has changed
        assert not witness.moved()
        return
    with pytest.warns(UserWarning, match="other code"):
        assert witness.moved()


def test_after_an_evaluation_in_the_training_environment_the_episodes_are_new_ones() -> None:
    env = gym.make("CartPole-v1")
    agent = pg.ppo(env, **SMALL)
    starts: list[list[float]] = []
    agent.collector.observers.append(lambda record: starts.append(record.obs[0, 0].tolist()))
    agent.learn(64, lambda agent, row: agent.evaluate(1, env=env) and None)
    assert len({tuple(start) for start in starts}) == len(starts) >= 4


def test_an_evaluation_elsewhere_leaves_training_as_it_was() -> None:
    def trained(evaluates: bool) -> torch.Tensor:
        callback = EvalCallback(16, episodes=1) if evaluates else None
        return pg.ppo(gym.make("CartPole-v1"), **SMALL).learn(64, callback).policy.flat

    assert torch.equal(trained(True), trained(False))


def test_learning_twice_in_a_callables_environments_goes_on_where_it_stopped() -> None:
    agent = pg.ppo(partial(Plain, length=50), num_envs=1, **SMALL)
    times: list[int] = []
    agent.collector.observers.append(lambda record: times.extend(record.time[:, 0].tolist()))
    agent.learn(16)
    agent.learn(16)
    assert times == list(range(32))


def numbers(obs: Any) -> list[float]:
    """All of an observation, copied."""
    if isinstance(obs, dict | tuple):
        return [x for part in (obs.values() if isinstance(obs, dict) else obs) for x in numbers(part)]
    return np.ravel(obs).astype(float).tolist()


@pytest.mark.parametrize("space", [C.BOX, C.NUMBER, C.DICT, C.PAIR], ids=["Box", "Discrete", "Dict", "Tuple"])
def test_a_copy_of_the_vector_environment_shows_its_own_observations(space: spaces.Space) -> None:
    envs = make_envs(partial(Plain, space), 2)
    envs.reset(seed=1)
    copied, act = deepcopy(envs), np.zeros(2, int)
    assert numbers(copied.step(act)[0]) == [1.0] * len(numbers(envs.step(act)[0]))
    assert numbers(copied.step(act)[0]) == [2.0] * len(numbers(envs.step(act)[0]))
    shown = envs.step(act)[0]
    copied.reset(seed=1)
    assert set(numbers(shown)) == {3.0}


def test_an_environment_with_other_observations_is_not_evaluated_in() -> None:
    agent = pg.ppo(Plain, num_envs=2, **SMALL)
    for other in (C.NUMBER, spaces.Box(-9.0, 9.0, (1,)), C.DICT):
        for env in (partial(Plain, other), SyncVectorEnv([partial(Plain, other)] * 2)):
            with pytest.raises(ValueError, match="learned from observations of"):
                agent.evaluate(2, env=env)
    assert agent.evaluate(2, env=partial(Plain, spaces.Box(-1e3, 1e3, (3,), np.float64))).lengths == (LENGTH,) * 2


# A second environment to evaluate in


class Connected(Plain):
    """Each has a number of its own, as connections to a simulator do."""

    made = 0

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        Connected.made += 1
        self.connection, self.size = Connected.made, size

    def __deepcopy__(self, memo: Any) -> Any:
        raise AssertionError("a connection cannot be copied")


@pytest.fixture
def connected() -> Any:
    gym.register("Connected-v0", lambda **_: Connected())
    try:
        yield gym.make("Connected-v0")
    finally:
        del gym.registry["Connected-v0"]


def test_numbers_that_every_environment_has_for_itself_are_no_settings(connected: Any) -> None:
    connected.reset(seed=1)
    connected.step(0)
    made: Any = twin(connected)
    assert made.unwrapped.connection > connected.unwrapped.connection


def test_a_setting_that_cannot_be_had_a_second_time_is_named(connected: Any) -> None:
    connected.unwrapped.size = 6
    with pytest.raises(ValueError, match=r"another size, .*pass env="):
        twin(connected)


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "FrozenLake-v1", "Pendulum-v1"])
def test_an_environment_that_was_only_played_is_made_anew_from_its_spec(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policygrad.envs.twin.deepcopy", None)
    env = gym.make(name)
    env.reset(seed=3)
    for _ in range(12):
        if env.step(env.action_space.sample())[2]:
            break
    made = twin(env)
    assert made.unwrapped is not env.unwrapped
    assert made.spec == env.spec


def test_what_was_set_on_the_instance_is_evaluated() -> None:
    env: Any = gym.make("CartPole-v1")
    env.unwrapped.length = 2.5
    assert twin(env).unwrapped.length == 2.5  # pyright: ignore[reportAttributeAccessIssue]
    lander: Any = gym.make("LunarLander-v3")
    lander.unwrapped.gravity = -3.0
    with pytest.raises(ValueError, match="another gravity"):
        twin(lander)


# Evaluation


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_environment_plays_as_many_episodes_as_asked(mode: AutoresetMode) -> None:
    lengths = iter((2, 3, 7))
    envs = SyncVectorEnv([lambda: Plain(length=next(lengths))] * 3, autoreset_mode=mode)
    told: list[tuple[int, int]] = []
    agent = pg.ppo(Plain, num_envs=2, **SMALL)
    result = agent.evaluate(7, env=envs, progress=lambda done, of: told.append((done, of)))
    assert sorted(result.lengths) == [2, 2, 2, 3, 3, 7, 7]
    assert told[-1] == (7, 7)


def test_greedy_in_a_vector_environment_is_greedy_and_sampled_is_not() -> None:
    agent = pg.ppo("CartPole-v1", num_envs=2, seed=1, num_steps=100, lr=3e-3).learn(3000)
    envs = gym.make_vec("CartPole-v1", 4, "sync")
    greedy, sampled = (agent.evaluate(8, greedy, env=envs).mean for greedy in (True, False))
    assert greedy > sampled + 10
    assert agent.evaluate(8, env=envs).returns == agent.evaluate(8, env=envs).returns


def test_progress_is_told_at_every_end_and_shaping_rests() -> None:
    told: list[tuple[int, int]] = []
    agent = pg.ppo(Plain, num_envs=2, **SMALL)
    agent.evaluate(5, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (5, 5)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_close_that_raises_is_a_warning_once_the_results_are_safe() -> None:
    agent = pg.ppo(C.ClosesBadly, num_envs=2, **SMALL)
    with pytest.warns(UserWarning, match=r"closing .*ClosesBadly raised AttributeError"):
        assert agent.evaluate(3).lengths == (LENGTH,) * 3


# Parts


def test_an_info_of_old_and_new_names_gives_the_last_observation() -> None:
    last = np.array([None, np.array([1, 2, 3], np.float32)], object)
    for key in ("final_obs", "final_observation"):
        assert final_observation(C.BOX, {key: last, f"_{key}": np.array([False, True])}, 1).tolist() == [[1, 2, 3]]
        with pytest.raises(ContractError, match="environment 0"):
            final_observation(C.BOX, {key: last, f"_{key}": np.array([False, True])}, 0)


@pytest.mark.parametrize("value", [True, np.True_, 1, np.uint8(1), np.array(True), torch.tensor(True)])
def test_what_is_true_is_true(value: Any) -> None:
    assert flag("terminated", value) is True


@pytest.mark.parametrize("value", [2, 2.5, np.float32(2), np.array(2), torch.tensor(2.0)])
def test_a_reward_is_one_number(value: Any) -> None:
    assert number(value) == value
    assert type(number(value)) is float


def test_an_array_is_written_whole_or_not_at_all() -> None:
    row = np.zeros(3, np.uint8)
    with pytest.raises(ContractError, match=r"shape \(1,\)"):
        write(C.BYTES, row, np.ones(1, np.uint8))
    assert row.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("space", "obs"),
    [
        (spaces.Discrete(5), 5),
        (spaces.Discrete(5, start=1), 0),
        (spaces.MultiDiscrete([2, 3]), [1, 3]),
        (spaces.MultiBinary(2), [0, 2]),
        (spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(0, 1, (2,))), {"a": -1, "b": [0.0, 0.0]}),
    ],
)
def test_predict_refuses_what_is_no_choice(space: spaces.Space, obs: Any) -> None:
    agent = pg.ppo(lambda: Plain(space), num_envs=1, **SMALL)
    with pytest.raises(ValueError, match="expected an observation"):
        agent.predict(obs)
    agent.predict(space.sample())


def test_predict_refuses_what_is_not_finite() -> None:
    agent = pg.ppo(Plain, num_envs=1, **SMALL)
    with pytest.raises(PolicygradError, match="finite numbers"):
        agent.predict(np.array([0.0, np.nan, 0.0]))


def test_a_batch_of_one_hots_is_looked_at_as_a_whole() -> None:
    encoding = Encoding(spaces.MultiDiscrete([2, 3]))
    x = encoding.empty(4, 2)
    encoding.encode(np.tile([1, 2], (8, 1)), {}, x.reshape(8, -1))
    leaf = encoding.leaves[0]
    assert leaf.strangers(x) is None
    x[2, 1, 0:2] = 0
    wrong: Any = leaf.strangers(x)
    assert np.argwhere(wrong).tolist() == [[2, 1]]


# Advice


def box(low: Any, high: Any, **keywords: Any) -> spaces.Box:
    return spaces.Box(np.float32(low), np.float32(high), **keywords)


@pytest.mark.parametrize(
    ("space", "std", "word"),
    [
        (box([0.0], [1000.0]), 1.0, "1000"),
        (box([-0.01], [0.01]), 1.0, "0.01"),
        (box([-1.0, 0.0], [1.0, 500.0]), 1.0, "500"),
        (box([-2.0], [2.0]), 0.05, "± 0.05"),
        (box([-2.0], [2.0]), 1.0, None),
        (box([-0.4], [0.4]), 1.0, None),
        (box([-np.inf], [np.inf]), 1.0, None),
        (box([0.0], [1000.0]), 300.0, None),
        (spaces.Discrete(1000), 1.0, None),
    ],
)
def test_bounds_that_a_gaussian_does_not_fit(space: spaces.Space, std: float, word: str | None) -> None:
    text = far_bounds(space, std)
    assert text is None if word is None else word in str(text)


@pytest.mark.parametrize(
    ("space", "word"),
    [
        (spaces.Box(0, 255, (4, 4), np.uint8), "bytes"),
        (spaces.Dict(a=spaces.Box(0, 255, (4,), np.uint8)), "['a']"),
        (spaces.Box(0, 1, (4, 4), np.uint8), None),
        (spaces.Box(0.0, 255.0, (4, 4)), None),
        (spaces.MultiBinary(3), None),
    ],
)
def test_bytes_that_nobody_scales(space: spaces.Space, word: str | None) -> None:
    text = unscaled_pictures(space)
    assert text is None if word is None else word in str(text)


VALVE = partial(Plain, actions=box([0.0], [1000.0]))


def test_defaults_that_cannot_work_are_said_once_where_the_agent_is_made(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="head = beta") as said:
        agent = pg.ppo(VALVE, num_envs=2, **SMALL)
    assert len(said) == 1
    bytes_ = partial(Plain, C.BYTES)
    with pytest.warns(UserWarning, match="normalize_obs"):
        pg.ppo(bytes_, num_envs=2, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(20)
        pg.ppo(VALVE, head="beta", num_envs=2, **SMALL)
        pg.ppo(VALVE, head="squashed", num_envs=2, **SMALL)
        pg.ppo(VALVE, log_std=5.0, num_envs=2, **SMALL)
        pg.ppo(bytes_, normalize_obs=True, num_envs=2, **SMALL)
        pg.ppo(bytes_, body=lambda space: torch.nn.Linear(3, 4), num_envs=2, **SMALL)
        pg.load(agent.save(tmp_path / "valve"), env=VALVE)  # it was said before


def test_the_learner_is_not_reached_by_what_is_refused() -> None:
    agent = pg.ppo(partial(Plain, fault=C.put(0, np.array([0.0, np.nan, 0.0]))), num_envs=2, **SMALL)
    before = agent.policy.flat.clone()
    with pytest.raises(FloatingPointError):
        agent.learn(40)
    assert torch.equal(agent.policy.flat, before)


def test_the_types_that_survive() -> None:
    def kept(dtype: Any) -> Any:
        return checks.surviving(np.dtype(dtype))

    assert np.dtype(np.int64) not in kept(np.uint8)
    assert np.dtype(bool) in kept(np.uint8)
    assert np.dtype(np.int64) in kept(np.float32)
    assert np.dtype(complex) not in kept(np.float32)
