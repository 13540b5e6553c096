"""The replay buffer: transitions by hand, against a slow reference, in all autoreset modes; seeded, of bounded size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import same
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy.stats import chisquare

import policygrad as pg
from policygrad.data import Record
from policygrad.envs.collector import Collector
from policygrad.forms import FormError, form_of
from policygrad.models.exploring import ActionValues, ExploringPolicy
from policygrad.models.observations import Encoding
from policygrad.models.policy import make_policy
from policygrad.replay import ReplayBuffer, ReplayError
from policygrad.tree import to_torch, tree_leaves

LAYOUTS = ("NEXT_STEP", "SAME_STEP")


def buffer(capacity: int, num_envs: int = 1, seed: int = 0) -> ReplayBuffer:
    """For observations of one number."""
    return ReplayBuffer(capacity, np.zeros((num_envs, 1), np.float32), np.zeros(num_envs, np.int64), seed)


def column(*rows: tuple[Any, ...], shown: float, next_obs: list[float] | None = None, first: int = 0) -> Record:
    """One environment's rows, each (observation, reward, what): "step", "terminated", "truncated" or "reset"."""
    obs = np.array([row[0] for row in rows] + [shown], np.float32).reshape(-1, 1, 1)
    what = [row[2] for row in rows]
    time = []
    for i, word in enumerate(what):
        time.append(first if not i else 0 if what[i - 1] != "step" else time[-1] + 1)
        assert word in ("step", "terminated", "truncated", "reset")
    flag = {word: np.array([w == word for w in what]).reshape(-1, 1) for word in ("terminated", "truncated", "reset")}
    return Record(
        obs=obs,
        next_obs=obs[1:] if next_obs is None else np.array(next_obs, np.float32).reshape(-1, 1, 1),
        act=np.zeros((len(rows), 1), np.int64),
        rew=np.array([row[1] for row in rows], np.float32).reshape(-1, 1),
        terminated=flag["terminated"],
        truncated=flag["truncated"],
        cut=np.zeros((len(rows), 1), bool),
        mask=~flag["reset"],
        time=np.array(time).reshape(-1, 1),
    )


def drawn(held: ReplayBuffer, gamma: float, n_step: int, draws: int = 400) -> dict[float, tuple[float, float, float]]:
    """Every transition that can be drawn: its observation → (ret, discount, next observation)."""
    batch = held.sample(draws, gamma, n_step)
    rows = zip(batch.ret.tolist(), batch.discount.tolist(), batch.next_obs[:, 0].tolist(), strict=True)
    found: dict[float, tuple[float, float, float]] = {}
    for obs, row in zip(batch.obs[:, 0].tolist(), rows, strict=True):
        assert found.setdefault(obs, row) == row
    return found


def test_the_next_observation_of_one_step_is_bootstrapped_from_unless_the_episode_was_terminated() -> None:
    held = buffer(10)
    held.add(column((0, 0, "step"), (1, 1, "terminated"), shown=2))  # A → B → (+1, terminal)
    assert drawn(held, 0.5, 1) == {0: (0.0, 0.5, 1), 1: (1.0, 0.0, 2)}


TWO_EPISODES = (
    column((0, 1, "step"), (1, 2, "step"), (2, 3, "terminated"), shown=3),
    column((3, 0, "reset"), (10, 4, "step"), (11, 5, "step"), (12, 6, "truncated"), shown=13),
)


@pytest.mark.parametrize("capacity", [5, 6, 7, 50])
def test_n_steps_end_with_the_episode_and_wrap_around_the_end_of_the_arrays(capacity: int) -> None:
    held = buffer(capacity)
    for record in TWO_EPISODES:
        held.add(record)
    expected = {
        0: (1 + 0.5 * 2 + 0.25 * 3, 0.0, 3),
        1: (2 + 0.5 * 3, 0.0, 3),
        2: (3.0, 0.0, 3),  # terminated: nothing after it counts
        10: (4 + 0.5 * 5 + 0.25 * 6, 0.125, 13),
        11: (5 + 0.5 * 6, 0.25, 13),  # truncated: two rewards, γ², and the final observation
        12: (6.0, 0.5, 13),
    }
    kept = {obs: row for obs, row in expected.items() if capacity >= 7 or obs > 7 - capacity - 1}
    assert drawn(held, 0.5, 3) == kept


def test_the_newest_row_is_the_edge_and_moves_on_with_the_next_record() -> None:
    held = buffer(5)
    held.add(column((0, 1, "step"), (1, 2, "step"), shown=2))
    assert drawn(held, 0.5, 3) == {0: (2.0, 0.25, 2), 1: (2.0, 0.5, 2)}
    held.add(column((2, 4, "step"), shown=3, first=2))
    assert drawn(held, 0.5, 3) == {0: (3.0, 0.125, 3), 1: (4.0, 0.25, 3), 2: (4.0, 0.5, 3)}
    held.add(column((3, 8, "terminated"), (4, 0, "reset"), (9, 16, "step"), shown=10, first=3))
    assert drawn(held, 0.5, 3) == {  # the oldest of six rows is gone, and row 0 of the arrays is the newest
        1: (2 + 0.5 * 4 + 0.25 * 8, 0.0, 4),
        2: (4 + 0.5 * 8, 0.0, 4),
        3: (8.0, 0.0, 4),
        9: (16.0, 0.5, 10),
    }


def test_where_environments_were_reset_in_between_nothing_is_summed_across() -> None:
    held = buffer(9)
    held.add(column((0, 1, "step"), (1, 2, "step"), shown=2))
    held.add(column((20, 4, "step"), (21, 8, "step"), shown=22))  # begins anew, though no end was announced
    expected = {0: (2.0, 0.25, 2), 1: (2.0, 0.5, 2), 20: (8.0, 0.25, 22), 21: (8.0, 0.5, 22)}
    assert drawn(held, 0.5, 3) == expected
    # the same where what is shown at the beginning is what was shown last
    held = buffer(9)
    held.add(column((0, 1, "step"), (1, 2, "step"), shown=0))
    held.add(column((0, 4, "step"), (21, 8, "step"), shown=22))
    batch = held.sample(200, 0.5, 3)
    assert set(zip(batch.obs[:, 0].tolist(), batch.ret.tolist(), strict=True)) == {(0, 2), (1, 2), (0, 8), (21, 8)}


def test_rows_before_the_first_separate_next_observation_keep_theirs() -> None:
    held = buffer(9)
    held.add(column((0, 1, "step"), (1, 2, "step"), shown=2))
    held.add(column((2, 4, "truncated"), (10, 8, "step"), shown=11, next_obs=[3, 11], first=2))
    assert drawn(held, 0.5, 1) == {0: (1, 0.5, 1), 1: (2, 0.5, 2), 2: (4, 0.5, 3), 10: (8, 0.5, 11)}


@dataclass
class Reference:
    """Plays N environments whose every observation is another number, and knows every transition by its lists."""

    layout: str
    num_envs: int
    rng: np.random.Generator
    episodes: list[list[dict[str, Any]]] = field(default_factory=list)  # steps: row, obs, rew, next, terminated
    row: int = 0  # rows of the buffer so far
    fresh: int = 0

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Reset all environments."""
        self.now = [self._new() for _ in range(self.num_envs)]
        self.open: list[list[dict[str, Any]]] = [self._episode() for _ in range(self.num_envs)]
        self.resetting = [False] * self.num_envs

    def _new(self) -> int:
        self.fresh += 1
        return self.fresh

    def _episode(self) -> list[dict[str, Any]]:
        self.episodes.append([])
        return self.episodes[-1]

    def play(self, T: int) -> Record:
        N = self.num_envs
        obs, final = np.zeros((T + 1, N, 1), np.float32), np.zeros((T, N, 1), np.float32)
        rew, time = np.zeros((T, N), np.float32), np.zeros((T, N), np.int64)
        terminated, truncated, mask = (np.zeros((T, N), bool) for _ in range(3))
        for t in range(T):
            for n in range(N):
                obs[t, n] = self.now[n]
                if self.resetting[n]:
                    self.resetting[n], self.now[n] = False, self._new()
                    self.open[n] = self._episode()
                    continue
                mask[t, n], time[t, n] = True, len(self.open[n])
                rew[t, n] = self.rng.integers(-8, 9)
                after, ends = self._new(), self.rng.random() < 0.3
                terminated[t, n] = ends and self.rng.random() < 0.5
                truncated[t, n] = ends and not terminated[t, n]
                step = {"row": self.row + t, "obs": self.now[n], "rew": float(rew[t, n]), "next": after}
                self.open[n].append(step | {"terminated": bool(terminated[t, n])})
                final[t, n] = self.now[n] = after
                if ends and self.layout == "NEXT_STEP":
                    self.resetting[n] = True
                elif ends:
                    self.open[n], self.now[n] = self._episode(), self._new()
        obs[T, :, 0] = self.now
        self.row += T
        flags = {"terminated": terminated, "truncated": truncated, "cut": np.zeros((T, N), bool), "mask": mask}
        following = obs[1:] if self.layout == "NEXT_STEP" else final
        return Record(obs=obs, next_obs=following, act=np.zeros((T, N), np.int64), rew=rew, time=time, **flags)

    def expected(self, oldest: int, gamma: float, n_step: int) -> dict[float, tuple[float, float, float]]:
        """What can be drawn of the rows from `oldest` on."""
        found = {}
        for steps in self.episodes:
            for i, step in enumerate(steps):
                if step["row"] < oldest:
                    continue
                ahead = steps[i : i + n_step]
                ret = sum(gamma**k * each["rew"] for k, each in enumerate(ahead))
                discount = 0.0 if ahead[-1]["terminated"] else gamma ** len(ahead)
                found[float(step["obs"])] = (ret, discount, float(ahead[-1]["next"]))
        return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_transition_is_what_a_slow_reference_says(layout: str, num_envs: int) -> None:
    rng = np.random.default_rng(num_envs)
    for capacity, n_step in ((4, 1), (9, 2), (21, 3), (60, 5)):
        world, held = Reference(layout, num_envs, rng), buffer(capacity * num_envs, num_envs)
        for turn in range(12):
            if turn in (4, 7):  # somebody resets the environments
                world.begin()
                world.row += 1  # the row that is no step
            held.add(world.play(int(rng.integers(1, 9))))
            assert held.added == world.row
            expected = world.expected(held.added - held.size, 0.5, n_step)
            if expected:
                assert drawn(held, 0.5, n_step, 40 * len(expected)) == expected


class Count(gym.Env):
    """Shows 10 · episode + steps, and is truncated after 3 steps: no two observations are alike."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._shown(), {}

    def _shown(self) -> np.ndarray:
        return np.array([10 * self.episode + self.t], np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return self._shown(), float(self.t), False, self.t == 3, {}


def actor(space: spaces.Space = Count.observation_space, **keywords: Any) -> ExploringPolicy:
    choices = spaces.Discrete(2)
    words: Any = {"head": partial(ActionValues, 2), "kind": ExploringPolicy, "hidden": ()}
    return make_policy(space, choices, **words, **keywords)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_at_a_truncation_it_is_the_final_observation_in_every_autoreset_mode(mode: AutoresetMode) -> None:
    collector = Collector(SyncVectorEnv([Count, Count], autoreset_mode=mode))
    policy, held = actor(), buffer(100, 2)
    for T in (2, 1, 5, 4):
        held.add(collector.steps(policy, T))
    found = drawn(held, 0.5, 1)
    assert {13, 23}.isdisjoint(found)  # final observations: nobody acts there
    assert (
        found.items()
        >= {10: (1, 0.5, 11), 11: (2, 0.5, 12), 12: (3, 0.5, 13), 20: (1, 0.5, 21), 22: (3, 0.5, 23)}.items()
    )
    assert found | drawn(held, 0.5, 2) == found | {
        obs: (t + 0.5 * (t + 1), 0.25, obs + 2) if t < 3 and (obs + 1) in found else found[obs]
        for obs in found
        for t in [int(obs) % 10 + 1]
    }


@pytest.mark.filterwarnings("ignore:warmup = .* are played before anything is learned")
def test_learning_again_on_ones_own_environment_joins_no_two_episodes() -> None:
    agent = pg.Agent("dqn", Count(), warmup=1000, n_step=3, num_steps=2, buffer_size=50, hidden=())
    agent.learn(2)
    agent.learn(5)  # resets the environment in the middle of an episode
    found = drawn(agent.learner.replay, 0.5, 3)
    assert found[10] == (1 + 0.5 * 2, 0.25, 12)
    assert found[11] == (2.0, 0.5, 12)
    assert found[20] == (1 + 0.5 * 2 + 0.25 * 3, 0.125, 23)
    assert set(found) == {10, 11, 20, 21, 22, 30, 31}


def test_every_valid_step_is_drawn_with_the_same_probability_and_no_other_row_ever() -> None:
    rng = np.random.default_rng(3)
    world, held = Reference("NEXT_STEP", 3, rng), buffer(60, 3)
    for _ in range(9):
        held.add(world.play(7))
    valid = world.expected(held.added - held.size, 0.5, 1)
    assert 30 < len(valid) < 60  # of the others, the resets, there are some
    assert not held.store["mask"].all()
    counts = dict.fromkeys(valid, 0)
    for obs in held.sample(200 * len(valid), 0.5).obs[:, 0].tolist():
        counts[obs] += 1  # a KeyError for another row
    p = float(chisquare(list(counts.values())).pvalue)
    assert 1e-3 < p < 1.0 - 1e-3
    counts[next(iter(counts))] *= 1.4  # the test notices a row that is drawn 1.4 times as often
    assert chisquare(list(counts.values()), np.full(len(counts), np.mean(list(counts.values())))).pvalue < 1e-3


def test_draws_are_the_seeds_and_go_on_after_a_state_is_loaded() -> None:
    def filled(seed: int) -> ReplayBuffer:
        world, held = Reference("SAME_STEP", 2, np.random.default_rng(0)), buffer(20, 2, seed)
        for _ in range(5):
            held.add(world.play(4))
        return held

    one, other, third = filled(0), filled(0), filled(1)
    a, b, c = (held.sample(50, 0.9, 2) for held in (one, other, third))
    assert same(a, b)
    assert not torch.equal(a.obs, c.obs)
    again = buffer(20, 2, seed=7)
    state = one.state_dict()
    form_of(again)("replay", state)
    again.load_state_dict(state)
    assert same(one.sample(50, 0.9, 2), again.sample(50, 0.9, 2))
    other.load_state_dict(filled(0).state_dict())  # over rows that are there
    assert same(a, other.sample(50, 0.9, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("old", "new"), [(12, 5), (5, 12), (12, 12), (40, 12), (12, 40)])
def test_a_state_fits_a_buffer_of_another_size_with_its_newest_rows(layout: str, old: int, new: int) -> None:
    world, held, other = Reference(layout, 2, np.random.default_rng(5)), buffer(2 * old, 2), buffer(2 * new, 2)
    for _ in range(5):
        held.add(world.play(4))
    state = held.state_dict()
    form_of(other)("replay", state)
    other.load_state_dict(state)
    rows = min(held.size, new)
    assert other.size == rows
    assert drawn(other, 0.5, 3, 2000) == world.expected(world.row - rows, 0.5, 3)
    other.add(world.play(3))
    rows = min(rows + 3, new)
    assert drawn(other, 0.5, 3, 2000) == world.expected(world.row - rows, 0.5, 3)


def test_states_that_cannot_be_are_refused() -> None:
    held = buffer(5)
    held.add(TWO_EPISODES[0])
    state = held.state_dict()
    with pytest.raises(FormError, match="3 rows, but only 2"):
        form_of(held)("replay", state | {"added": 2})
    with pytest.raises(FormError, match=r"shown must be .* \(1, 1\)"):
        form_of(held)("replay", state | {"shown": torch.zeros(2, 1)})
    with pytest.raises(FormError, match=r"mask must be .* \(3, 1\)"):
        form_of(buffer(5, 2))("replay", state | {"rows": state["rows"] | {"mask": torch.ones(3, 2, dtype=torch.bool)}})
    with pytest.raises(FormError, match="act"):
        form_of(held)("replay", state | {"rows": state["rows"] | {"act": state["rows"]["act"].float()}})


@pytest.mark.parametrize(
    ("choices", "act", "token"),
    [
        (3, [0, 1, 2], None),
        (3, [0, 3, 0], r"act must have finite numbers in \[0, 2\], it has 0 to 3"),
        (3, [0, -1, 0], r"act must have .* it has -1"),
        (np.array([3, 2]), [[2, 1], [0, 0], [0, 1]], None),
        (np.array([3, 2]), [[0, 0], [0, 2], [0, 0]], r"act must be choices below \[3, 2\]"),
        (np.array([3, 2]), [[0, 0], [3, 0], [0, 0]], r"act must have finite numbers in \[0, 2\]"),
    ],
)
def test_a_state_with_actions_beyond_the_last_is_refused(choices: Any, act: list[Any], token: str | None) -> None:
    acts = np.array(act)
    held = ReplayBuffer(5, np.zeros((1, 1), np.float32), acts[:1], choices=choices)
    record = column((0, 0, "step"), (1, 0, "step"), (2, 0, "terminated"), shown=3)
    held.add(replace(record, act=acts[:, None]))
    if token is None:
        form_of(held)("replay", held.state_dict())
        return
    with pytest.raises(FormError, match=f"replay/rows/{token}"):
        form_of(held)("replay", held.state_dict())
    with pytest.raises(FormError, match=f"block/{token}"):
        held.columns_form(3)("block", to_torch(held.columns(0, 3)))
    form_of(other := ReplayBuffer(5, np.zeros((1, 1), np.float32), acts[:1]))("replay", held.state_dict())
    assert other.choices is None


def test_a_state_of_other_environments_leaves_a_buffer_empty_and_says_so() -> None:
    world, held = Reference("NEXT_STEP", 3, np.random.default_rng(0)), buffer(30, 3)
    for _ in range(4):
        held.add(world.play(5))
    world, other = Reference("SAME_STEP", 2, np.random.default_rng(1)), buffer(20, 2)
    other.add(world.play(3))
    state = held.state_dict()
    form_of(other)("replay", state)
    with pytest.warns(UserWarning, match=r"begins empty.* of 3 environments, and this one of 2"):
        other.load_state_dict(state)
    assert (other.size, other.added, other.apart, other.first) == (0, 0, 0, 0)
    with pytest.raises(ReplayError, match="nothing is stored"):
        other.sample(1, 0.9)
    world = Reference("SAME_STEP", 2, np.random.default_rng(2))
    other.add(world.play(4))
    assert drawn(other, 0.5, 2) == world.expected(0, 0.5, 2)
    other.load_state_dict(buffer(30, 3).state_dict())  # where there was nothing, there is nothing to say
    assert other.size == 0


@pytest.mark.filterwarnings("ignore:warmup = .* are played before anything is learned")
def test_an_agent_may_change_the_size_of_its_buffer() -> None:
    agent = pg.Agent("dqn", Count(), warmup=10**6, buffer_size=12, hidden=()).learn(60)
    before = drawn(agent.learner.replay, 0.5, 2)
    agent.change(buffer_size=400)
    assert drawn(agent.learner.replay, 0.5, 2) == before
    agent.change(buffer_size=4)
    assert drawn(agent.learner.replay, 0.5, 2).items() < before.items()


SPACE = spaces.Dict({"picture": spaces.Box(0, 255, (4, 4, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,), np.float32)})


def test_types_are_kept_and_memory_does_not_grow() -> None:
    encoding = Encoding(SPACE)
    held = ReplayBuffer(10, encoding.empty(2), np.zeros((2, 1), np.float32))
    # 6 rows of 2 environments: 48 bytes of the picture, 8 of the speed, 4 of the action, 4 of the reward, 3 flags
    assert held.nbytes == 6 * 2 * (48 + 8 + 4 + 4 + 3)
    assert sorted(str(x.dtype) for x in tree_leaves(held.store["obs"])) == ["float32", "uint8"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        obs = {
            "picture": rng.integers(0, 256, (4, 2, 4, 4, 3), np.uint8),
            "speed": rng.normal(size=(4, 2, 2)).astype(np.float32),
        }
        flags = dict.fromkeys(("terminated", "truncated", "cut"), np.zeros((3, 2), bool))
        act, rew, time = rng.normal(size=(3, 2, 1)), np.zeros((3, 2), np.float32), np.ones((3, 2), np.int64)
        following = {name: x[1:] for name, x in obs.items()}
        record = Record(obs=obs, next_obs=following, act=act, rew=rew, time=time, mask=np.ones((3, 2), bool), **flags)
        held.add(record)
        assert held.nbytes == 6 * 2 * (48 + 8 + 4 + 4 + 3)
        batch = held.sample(20, 0.9)
        assert (batch.obs["picture"].dtype, batch.obs["speed"].dtype) == (torch.uint8, torch.float32)
    pictures = {x.tobytes() for x in obs["picture"].reshape(8, -1)}
    assert sum(x.numpy().tobytes() in pictures for x in held.sample(200, 0.9).next_obs["picture"]) > 0


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(ReplayError, match="at least one step"):
        buffer(0)
    with pytest.raises(ReplayError, match="nothing is stored"):
        buffer(3).sample(1, 0.9)
    held = buffer(3)
    held.add(column((3, 0, "reset"), shown=10))
    with pytest.raises(ReplayError, match="nothing is stored"):
        held.sample(1, 0.9)
    with pytest.raises(ReplayError, match=r"2 environments, .* of 1"):
        buffer(3, 2).add(TWO_EPISODES[0])
