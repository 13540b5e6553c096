"""Compiled environments are Gymnasium's, to the last bit: what they show, what is inside, and the way back."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from explicit import same_state
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from gymnasium.envs.toy_text import CliffWalkingEnv

import policygrad as pg
from policygrad.envs import agreement
from policygrad.envs.agreement import _actions, _masks
from policygrad.envs.games import KNOWN, is_known
from policygrad.envs.journal import generator_state
from policygrad.envs.make import make_envs, resolve_backend
from policygrad.errors import ContractError, ForeignCodeError

IDS = (
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "FrozenLake-v1",
    "FrozenLake8x8-v1",
    "CliffWalking-v1",
    "CliffWalkingSlippery-v1",
    "Taxi-v4",
)
LIMIT = 15  # steps of a short episode


def short(env_id: str, **keywords: Any) -> str:
    """The id of the same environment with episodes of at most LIMIT steps."""
    name, spec = f"Short{env_id}", gym.spec(env_id)
    if name not in gym.registry:
        gym.register(name, spec.entry_point, max_episode_steps=LIMIT, kwargs={**spec.kwargs, **keywords})
    return name


def both(env_id: str, n: int) -> tuple[Any, Any]:
    """The compiled environments, and Gymnasium's one after another."""
    pair = make_envs(env_id, n, "compiled"), make_envs(env_id, n, "gymnasium")
    for envs in pair:
        envs.report_masks = True
    return pair


def assert_same(ours: Any, theirs: Any, one: Any, other: Any) -> None:
    """Answers, states and generators are the same, bit for bit."""
    for a, b in zip([*one[:-1], *_masks(one[-1])], [*other[:-1], *_masks(other[-1])], strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    states = np.array([ours.game.state_in(env) for env in theirs.envs], ours.game.dtype)
    assert states.tobytes() == ours.state.tobytes()
    assert [ours.generator(i) for i in range(ours.num_envs)] == [generator_state(env) for env in theirs.envs]


def play(ours: Any, theirs: Any, steps: int, rng: np.random.Generator, held: int = 3) -> tuple[int, int]:
    """Step both with the same random actions, each taken a few times. Returns how many episodes terminated, and were cut."""
    ends, act = np.zeros(2, int), None
    for t in range(steps):
        if t % held == 0:
            act = _actions(ours.single_action_space, ours.num_envs, rng)
        one, other = ours.step(act), theirs.step(act)
        assert_same(ours, theirs, one, other)
        ends += other[2].sum(), other[3].sum()
    return int(ends[0]), int(ends[1])


@pytest.mark.parametrize("env_id", IDS)
def test_every_step_is_gymnasiums(env_id: str) -> None:
    assert is_known(env_id)
    rng = np.random.default_rng(1)
    ours, theirs = both(short(env_id), 4)
    for seed in ([5, 6, 7, 8], 9, None):  # the last reset goes on with the generators, in the middle of episodes
        assert_same(ours, theirs, ours.reset(seed=seed), theirs.reset(seed=seed))
        _, cut = play(ours, theirs, 50, rng)
        assert cut or env_id in ("CartPole-v1", "FrozenLake-v1"), "no episode was as long as the limit"


def test_all_of_them_are_tried() -> None:
    assert {gym.spec(env_id).entry_point for env_id in IDS} == set(KNOWN)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("held", [1, 40])
def test_a_hundred_thousand_steps_are_gymnasiums(env_id: str, held: int) -> None:
    ours, theirs = both(env_id, 5)
    assert_same(ours, theirs, ours.reset(seed=held), theirs.reset(seed=held))
    ends = play(ours, theirs, 10_000, np.random.default_rng(held), held)
    assert sum(ends) or env_id.startswith("CliffWalking")


def test_a_balanced_pole_is_gymnasiums_to_the_time_limit() -> None:
    ours, theirs = both("CartPole-v1", 2)
    obs = ours.reset(seed=0)[0]
    theirs.reset(seed=0)
    cut = 0
    for _ in range(505):
        act = (obs @ np.array([1.0, 1.7, 25.0, 5.0]) > 0).astype(np.int64)
        one, other = ours.step(act), theirs.step(act)
        assert_same(ours, theirs, one, other)
        obs, cut = one[0], cut + int(one[3].sum())
    assert cut == 2


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0", "Taxi-v4"])
def test_pauses_and_single_resets_are_those_of_our_serial_environments(env_id: str) -> None:
    rng = np.random.default_rng(2)
    ours, theirs = both(short(env_id), 3)
    assert_same(ours, theirs, ours.reset(seed=1), theirs.reset(seed=1))
    for t in range(40):
        if t % 7 == 6:
            which, seeds = np.arange(3) == t % 3, [None if t % 2 else t] * 3
            one, other = ours.restart(which, seeds), theirs.restart(which, seeds)
            assert one[0].tobytes() == other[0].tobytes()
            assert [mask is None for mask in one[1]["action_mask"]] == [m is None for m in other[1]["action_mask"]]
        for envs in (ours, theirs):
            envs.paused = np.arange(3) == t // 9
        act = _actions(ours.single_action_space, 3, rng)
        assert_same(ours, theirs, ours.step(act), theirs.step(act))
        assert np.array_equal(ours.paused, theirs.paused)
    assert_same(ours, theirs, ours.reset(), theirs.reset())
    assert not ours.paused.any()


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("CartPole-v1", {"low": -0.2, "high": 0.1}),
        ("Pendulum-v1", {"x_init": 0.3}),
        ("Acrobot-v1", {"low": -1.0, "high": 1.0}),
    ],
)
def test_options_of_a_reset_are_gymnasiums(env_id: str, options: dict[str, float]) -> None:
    ours, theirs = both(env_id, 2)
    for _ in range(2):
        assert_same(ours, theirs, ours.reset(seed=4, options=options), theirs.reset(seed=4, options=options))
        play(ours, theirs, 10, np.random.default_rng(0))
    assert ours.snapshot() == theirs.snapshot() == [None, None]  # which is not how a seed alone begins
    with pytest.raises(ForeignCodeError, match=r"environment 0 .*reset\(\) raised ValueError"):
        ours.reset(options={next(iter(options)): "x"})


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake8x8-v1"])
def test_either_goes_on_where_the_other_was(env_id: str) -> None:
    rng, env_id = np.random.default_rng(3), short(env_id)
    ours, theirs = both(env_id, 4)
    for envs in (ours, theirs):
        envs.reset(seed=3)
    for steps in (0, 1, 20, LIMIT - 5):  # at the beginning, inside episodes, and where some are over
        play(ours, theirs, steps, rng)
        marked = []
        for envs in (ours, theirs):
            envs.mark()
            marked.append(envs.snapshot())
        snapshots = [envs.snapshot() for envs in (ours, theirs)]
        for key in ("over", "shown", "generator"):
            assert [x[key] for x in snapshots[0]] == [x[key] for x in snapshots[1]]
        for one, other in zip(*snapshots, strict=True):
            assert len(one["actions"]) == len(other["actions"])
            assert not len(one["actions"]) or one["actions"].dtype == other["actions"].dtype
            assert one["actions"].tobytes() == other["actions"].tobytes()
        for snapshot in snapshots:
            pair = both(env_id, 4)
            for envs in pair:
                assert envs.restore(snapshot) == [None] * 4
            again = [envs.snapshot() for envs in pair]
            assert [x["shown"] for x in again[0]] == [x["shown"] for x in again[1]]
            play(*pair, 2 * LIMIT, np.random.default_rng(steps))
        play(ours, theirs, 5, rng)
        for envs, before in zip((ours, theirs), marked, strict=True):
            for x, y in zip(before, envs.snapshot(marked=True), strict=True):
                assert np.array_equal(x["actions"], y["actions"])
                assert (x["state"], x["shown"], x["over"]) == (y["state"], y["shown"], y["over"])


def test_a_snapshot_of_something_else_is_noticed() -> None:
    ours, _ = both("CartPole-v1", 1)
    ours.reset(seed=1)
    for _ in range(5):
        ours.step(np.array([1]))
    (snapshot,) = ours.snapshot()

    def restored(**changes: Any) -> str:
        (text,) = both("CartPole-v1", 1)[0].restore([snapshot | changes])
        return text or ""

    assert restored() == ""
    assert "another observation" in restored(actions=np.array([1, 1, 1, 1, 0]))
    assert "did not end" in restored(over=True)
    assert "random numbers" in restored(generator="x")
    assert "ended after" in restored(actions=np.ones(50, np.int64))
    for wrong in (np.array([7, 1]), np.array([[1], [1]]), np.array([0.5])):
        assert "the actions are not those of Discrete(2)" in restored(actions=wrong)
    assert "playing it again raised" in restored(seed=None, state=None)
    assert both("CartPole-v1", 1)[0].restore([None])[0]


def test_actions_are_kept_as_long_as_somebody_can_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = both("CliffWalking-v1", 2)  # whose episodes have no end
    ours.reset(seed=0)
    act = np.zeros(2, np.int64)
    for t in range(1500):
        act[0] = t % 4
        if t == 1200:
            ours.reset()
        ours.step(act)
    assert len(ours.snapshot()[0]["actions"]) == 300
    assert both("CliffWalking-v1", 2)[0].restore(ours.snapshot()) == [None, None]
    monkeypatch.setattr("policygrad.envs.batched.LONGEST", 50)
    room = len(ours.history)
    for _ in range(room):
        ours.step(act)
    assert ours.snapshot() == [None, None]
    assert len(ours.history) == room
    ours.reset()
    ours.step(act)
    assert both("CliffWalking-v1", 2)[0].restore(ours.snapshot()) == [None, None]


@pytest.mark.parametrize(
    ("env_id", "actions"),
    [
        ("CartPole-v1", np.array([0, 2])),
        ("CartPole-v1", np.array([0, -1])),
        ("CartPole-v1", np.array([1.0, 0.0])),
        ("Acrobot-v1", np.array([1, 3])),
        ("FrozenLake-v1", np.array([9, 9])),
    ],
)
def test_what_is_no_action_is_refused_as_gymnasium_does(env_id: str, actions: np.ndarray) -> None:
    texts = []
    for envs in both(env_id, 2):
        envs.reset(seed=0)
        envs.step(np.array([1, 1]))
        with pytest.raises(ForeignCodeError) as caught:
            envs.step(actions)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_what_gymnasium_takes_though_it_is_no_action_is_refused_before_anything_moves() -> None:
    ours, _ = both("Acrobot-v1", 2)
    ours.reset(seed=0)
    before = ours.state.copy()
    with pytest.raises(
        ContractError, match=r"environment 1 \(Acrobot-v1\).*-1.* is no action of Discrete\(3\), at step 0"
    ):
        ours.step(np.array([0, -1]))
    with pytest.raises(ContractError, match=r"actions of shape \(3,\), where 2 actions"):
        ours.step(np.array([0, 1, 1]))
    assert np.array_equal(ours.state, before)
    with pytest.raises(ForeignCodeError, match=r"environment 0 .*raised ResetNeeded"):
        both("CartPole-v1", 1)[0].step(np.array([0]))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda envs: pickle.loads(pickle.dumps(envs))])
def test_a_copy_goes_its_own_way(again: Any) -> None:
    ours, theirs = both("Taxi-v4", 2)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    play(ours, theirs, 20, np.random.default_rng(0))
    other = again(ours)
    other.reset(seed=9)
    play(ours, theirs, 20, np.random.default_rng(1))
    assert not np.array_equal(other.state, ours.state)


@pytest.mark.parametrize(
    ("algo", "env", "keywords"),
    [
        ("ppo", "CartPole-v1", {"num_steps": 64, "minibatches": 2}),
        ("reinforce", "FrozenLake-v1", {"episodes": 7}),
        ("a2c", "Pendulum-v1", {}),
        ("a2c", "Taxi-v4", {"mask_source": "info"}),
    ],
)
def test_runs_are_the_same_on_both_and_go_on_on_either(
    algo: str, env: str, keywords: dict[str, Any], tmp_path: Any
) -> None:
    def agent(backend: str) -> Any:
        return pg.Agent(algo, env, seed=5, preset={}, hidden=(8,), num_envs=3, backend=backend, **keywords)

    whole = [agent(backend).learn(600) for backend in ("compiled", "gymnasium")]
    parameters = [each.policy.flat.numpy().tobytes() for each in whole]
    assert parameters[0] == parameters[1]
    assert same_state(*({**each.collector.state_dict(), "envs": None} for each in whole))
    assert whole[0].evaluate(6) == whole[1].evaluate(6)
    for backend, other in (("compiled", "gymnasium"), ("gymnasium", "compiled")):
        half = agent(backend)
        half.learn(600, lambda agent, row: setattr(agent.trainer, "leave", True))
        path = half.save(tmp_path / backend)
        assert pg.load(path).backend == backend
        on = pg.load(path, backend=other).go_on()
        assert on.policy.flat.numpy().tobytes() == parameters[0]
        assert on.backend == other


def test_auto_takes_compiled_code_where_nothing_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {resolve_backend(env_id) for env_id in IDS} == {"compiled"}
    made: Any = lambda: gym.make("CartPole-v1")  # noqa: E731
    for env in (made, gym.make("CartPole-v1"), "Blackjack-v1", "policygrad.envs.probes:Chain"):
        assert resolve_backend(env) == "gymnasium"
    with pytest.raises(ValueError, match="Blackjack-v1 cannot be compiled: only Gymnasium's own"):
        resolve_backend("Blackjack-v1", "compiled")
    with pytest.raises(ValueError, match="cannot be compiled: it is not an id"):
        resolve_backend(made, "compiled")
    assert pg.a2c("FrozenLake-v1", env_kwargs={"is_slippery": False}).backend == "gymnasium"
    wrapped = gym.wrappers.TransformReward(gym.make("CartPole-v1"), float).spec
    assert wrapped is not None
    monkeypatch.setitem(gym.registry, "Wrapped-v0", wrapped)
    assert not is_known("Wrapped-v0")


def heavier(init: Any) -> Any:
    def made(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        self.x_threshold = 2.5

    return made


def other_last_bit(step: Any) -> Any:
    def stepped(self: Any, action: Any) -> Any:
        obs, *rest = step(self, action)
        self.state = np.nextafter(self.state, 9.0)
        return obs, *rest

    return stepped


def one_more_draw(reset: Any) -> Any:
    def begun(self: Any, **keywords: Any) -> Any:
        answer = reset(self, **keywords)
        self.np_random.random()
        return answer

    return begun


@pytest.mark.parametrize(
    ("cls", "method", "planted", "env_id"),
    [
        (CartPoleEnv, "__init__", heavier, "CartPole-v1"),
        (PendulumEnv, "step", other_last_bit, "Pendulum-v1"),
        (CliffWalkingEnv, "reset", one_more_draw, "CliffWalking-v1"),  # where no chance shows
    ],
)
def test_a_planted_difference_is_noticed(cls: Any, method: str, planted: Any, env_id: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, method, planted(getattr(cls, method)))
        assert resolve_backend(env_id) == "gymnasium"
        with pytest.raises(ValueError, match=f"{env_id} cannot be compiled: it does something else here"):
            make_envs(env_id, 2, "compiled")
    assert resolve_backend(env_id) == "compiled"


def test_without_numba_auto_is_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "policygrad.envs.agreement", None)
    assert resolve_backend("CartPole-v1") == "gymnasium"
    with pytest.raises(ValueError, match="numba is not installed"):
        resolve_backend("CartPole-v1", "compiled")


def test_what_is_compared_is_not_compared_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backend("CartPole-v1") == "compiled"
    monkeypatch.setattr(agreement, "agrees", lambda env_id: pytest.fail("compared again"))
    assert resolve_backend("CartPole-v1") == "compiled"
