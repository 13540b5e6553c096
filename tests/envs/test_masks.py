"""Legal actions, from info and from the observation, in every kind of vector environment: illegal ones never happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

import policygrad as pg
from policygrad.data import Batch, shares_memory
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.serial import SerialVectorEnv
from policygrad.models.policy import Policy, make_policy
from policygrad.training.evaluate import evaluate
from policygrad.tree import take

DISCRETE = spaces.Discrete(4, start=-1)
MULTI = spaces.MultiDiscrete([[2, 3], [3, 1]], start=[[0, 5], [-1, 0]])
FEATURES = spaces.Box(-1.0, 1.0, (3,))
ACTIONS = {"Discrete": DISCRETE, "MultiDiscrete": MULTI, "MultiBinary": spaces.MultiBinary(3)}


def sizes_of(space: spaces.Space) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return [2] * 3 if isinstance(space, spaces.MultiBinary) else [int(n) for n in space.nvec.reshape(-1)]


class Masked(gym.Env):
    """Other legal actions at every step, drawn anew; refuses the illegal ones, and remembers nothing but their count."""

    def __init__(
        self,
        action_space: spaces.Space,
        where: str = "info",
        length: int = 5,
        form: str = "flat",
        end: str = "terminated",
    ) -> None:
        self.action_space, self.where, self.length, self.form, self.end = action_space, where, length, form, end
        self.sizes = sizes_of(action_space)
        self.observation_space: spaces.Space = FEATURES
        if where == "observation":
            self.observation_space = spaces.Dict(action_mask=spaces.MultiBinary(sum(self.sizes)), x=FEATURES)
        self.parts: list[np.ndarray] = []

    def show(self) -> tuple[Any, dict[str, Any]]:
        rng = self.np_random
        self.parts = [(rng.random(n) < 0.4).astype(np.int8) for n in self.sizes]
        for part in self.parts:
            part[rng.integers(len(part))] = 1
        x, flat = rng.uniform(-1.0, 1.0, 3).astype(np.float32), np.concatenate(self.parts)
        if self.where == "observation":
            return {"action_mask": flat, "x": x}, {}
        return x, {"action_mask": tuple(self.parts) if self.form == "tuple" else flat}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.show()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        choice = np.asarray(action) - getattr(self.action_space, "start", 0)
        if not all(part[c] for part, c in zip(self.parts, choice.reshape(-1), strict=True)):
            raise AssertionError(f"illegal action {action}: legal were {self.parts}")
        self.time += 1
        over = self.time >= self.length
        obs, info = self.show()
        return obs, 1.0, over and self.end == "terminated", over and self.end == "truncated", info


Maker = Callable[[], gym.Env]
VECTORS: dict[str, Callable[[list[Maker]], VectorEnv]] = {
    "ours": SerialVectorEnv,
    **{f"sync {mode.value}": partial(SyncVectorEnv, autoreset_mode=mode) for mode in AutoresetMode},
}


def policy_for(env: gym.Env, mask_source: str = "auto", **keywords: Any) -> Policy:
    policy = make_policy(env.observation_space, env.action_space, hidden=(8,), mask_source=mask_source, **keywords)
    policy.flat += 2.0 * torch.randn(len(policy.flat), generator=torch.Generator().manual_seed(0))  # far from uniform
    return policy


@pytest.mark.parametrize("form", ["flat", "tuple"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("vector", VECTORS)
def test_an_illegal_action_is_never_sampled(vector: str, action: str, form: str) -> None:
    """The environments of the test refuse them; 1,000 steps here, and 10,000 below."""
    make = partial(Masked, ACTIONS[action], "info", 5, form, "truncated")
    collector = Collector(VECTORS[vector]([make] * 4), seed=1)
    policy = policy_for(make(), "info")
    rollout = roll_steps(collector, policy, 300)
    check_masks(policy, rollout)
    check_masks(policy, roll_episodes(collector, policy, 7))


def check_masks(policy: Policy, rollout: pg.Rollout) -> None:
    """Every valid row knows its legal actions, and has taken one of them."""
    obs = rollout.valid_obs
    mask, context = obs["action_mask"], policy.context(obs, rollout.extra)
    assert mask.dtype == torch.bool
    assert context is not None
    assert torch.equal(context, mask.float())
    assert set(mask.unique().tolist()) == {False, True}
    p = policy.dist(obs).exp()
    assert (p[~mask] == 0.0).all()
    assert float(rollout.valid(rollout.logp).min()) > -1e4


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("action", ACTIONS)
def test_legal_actions_come_in_the_observation_as_well(action: str, vector: str) -> None:
    make = partial(Masked, ACTIONS[action], "observation")
    collector = Collector(VECTORS[vector]([make] * 3), seed=1)
    policy = policy_for(make())
    assert policy.head.context == sum(sizes_of(ACTIONS[action]))
    check_masks(policy, roll_steps(collector, policy, 60))
    check_masks(policy, roll_episodes(collector, policy, 5))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_asynchronous_environments_tell_their_legal_actions_too(mode: AutoresetMode) -> None:
    make = partial(Masked, DISCRETE)
    envs = AsyncVectorEnv([make] * 2, autoreset_mode=mode)
    try:
        policy = policy_for(make(), "info")
        check_masks(policy, roll_steps(Collector(envs, seed=1), policy, 40))
    finally:
        envs.close()


@pytest.mark.parametrize("where", ["info", "observation"])
def test_in_ten_thousand_steps_no_illegal_action_is_sampled_nor_greedily_chosen(where: str) -> None:
    make = partial(Masked, DISCRETE, where, 50)
    policy = policy_for(make(), where)
    collector = Collector(make_envs(make, 10), seed=1)
    for _ in range(10):
        collector.steps(policy, 103)
    assert collector.steps_done >= 10_000
    for greedy in (True, False):
        assert evaluate(policy, make, 10, greedy).lengths == (50,) * 10


@pytest.mark.filterwarnings("ignore:.*this policy does not look at")
def test_without_the_mask_these_environments_do_refuse() -> None:
    """The negative control."""
    make = partial(Masked, DISCRETE)
    with pytest.raises(AssertionError, match="illegal action"):
        Collector(make_envs(make, 4), seed=1).steps(policy_for(make(), "none"), 50)
    with pytest.raises(AssertionError, match="illegal action"):
        evaluate(policy_for(make(), "none"), make, 5)


class Telling(Masked):
    """The first features are the mask."""

    def show(self) -> tuple[Any, dict[str, Any]]:
        _, info = super().show()
        return info["action_mask"][:3].astype(np.float32), info


@pytest.mark.parametrize("vector", VECTORS)
def test_the_mask_beside_an_observation_is_that_of_the_same_moment(vector: str) -> None:
    """What the environments said when they showed the observation, reset or not."""
    make = partial(Telling, DISCRETE, "info", 3)
    policy = policy_for(make(), "info")
    collector = Collector(VECTORS[vector]([make] * 3), seed=1)
    for rollout in (roll_steps(collector, policy, 31), roll_episodes(collector, policy, 7)):
        obs = rollout.valid_obs
        assert torch.equal(obs["obs"], obs["action_mask"][:, :3].float())
        assert len(obs["action_mask"].unique(dim=0)) > 3


@pytest.mark.parametrize("vector", VECTORS)
def test_the_mask_beside_a_final_observation_is_its_own(vector: str) -> None:
    """A critic of q(s, a) asks for the policy's probabilities there."""
    make = partial(Telling, DISCRETE, "info", 3, "flat", "truncated")
    policy = policy_for(make(), "info")
    rollout = roll_steps(Collector(VECTORS[vector]([make] * 3), seed=1), policy, 31)
    assert rollout.truncated.any()
    obs = take(rollout.next_obs, rollout.truncated)
    assert torch.equal(obs["obs"], obs["action_mask"][:, :3].float())


@pytest.mark.parametrize("where", ["info", "observation"])
@pytest.mark.parametrize("vector", VECTORS)
def test_the_critic_and_the_normaliser_do_not_see_the_mask(vector: str, where: str) -> None:
    make = partial(Masked, DISCRETE, where, 5, "flat", "truncated")
    env = make()
    policy = policy_for(env, where, normalize_obs=True)
    critic = pg.make_critic(env.observation_space, hidden=(8,))
    rollout = roll_steps(Collector(VECTORS[vector]([make] * 2), seed=1), policy, 40)
    values = critic(rollout, policy)
    before, dist = rollout.valid_obs, policy.dist(rollout.valid_obs)
    rollout = replace(rollout)  # one that has gathered nothing yet
    rollout.obs["action_mask"].logical_not_()  # next_obs is a view of it, or is changed here
    if not shares_memory(rollout.obs, rollout.next_obs):
        rollout.next_obs["action_mask"].logical_not_()
    changed = critic(rollout, policy)
    assert not torch.equal(policy.dist(rollout.valid_obs), dist)
    assert torch.equal(values.val, changed.val)
    assert torch.equal(values.next_val, changed.next_val)
    assert policy.normalizer is not None
    assert policy.normalizer.mean.shape == (3,)
    assert torch.equal(policy.features(rollout.valid_obs), policy.features(before))
    policy.normalizer.merge(policy.raw_features(rollout.valid_obs))
    seen = before["obs" if where == "info" else "x"].double()
    torch.testing.assert_close(policy.normalizer.mean, seen.mean(0), rtol=0, atol=1e-12)


def test_the_gradient_of_a_masked_policy_is_autograds() -> None:
    make = partial(Masked, MULTI)
    policy = policy_for(make(), "info").double()
    rollout = roll_steps(Collector(make_envs(make, 3), seed=1), policy, 30)
    obs, act = rollout.valid_obs, rollout.valid(rollout.act)
    weight, ent_weight = torch.randn(2, len(act), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gain = (weight * policy.logp(obs, act) + ent_weight * policy.head.entropy(policy(obs))).sum()
    torch.testing.assert_close(
        policy.evaluate(Batch.of(obs, act)).gradient(weight, ent_weight), policy.gradient(gain), rtol=1e-11, atol=1e-11
    )


class Silent(Masked):
    """Does not always say what is legal."""

    def __init__(self, when: str) -> None:
        super().__init__(DISCRETE)
        self.when = when

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed)
        return obs, {} if self.when in ("always", "at resets") else info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, rew, terminated, truncated, info = super().step(action)
        silent = self.when in ("always", "in steps") or (self.when == "at ends" and terminated)
        return obs, rew, terminated, truncated, {"other": 1} if silent else info


@pytest.mark.parametrize("vector", VECTORS)
def test_an_environment_that_does_not_say_what_is_legal_is_refused(vector: str) -> None:
    policy = policy_for(Silent("always"), "info")
    with pytest.raises(
        ValueError, match=r"mask_source = info, but the environment's info has no 'action_mask': it has"
    ):
        Collector(VECTORS[vector]([partial(Silent, "always")] * 2)).steps(policy, 3)
    with pytest.raises(ValueError, match=r"mask_source = info, but the environment's info has no 'action_mask'"):
        evaluate(policy, partial(Silent, "always"), 2)


@pytest.mark.parametrize("vector", VECTORS)
def test_an_environment_that_does_not_say_it_at_resets_is_refused(vector: str) -> None:
    policy = policy_for(Silent("at resets"), "info")
    with pytest.raises(ValueError, match="action_mask"):
        Collector(VECTORS[vector]([partial(Silent, "at resets")] * 2)).steps(policy, 20)


@pytest.mark.parametrize("vector", VECTORS)
def test_an_environment_that_says_it_at_resets_only_is_refused(vector: str) -> None:
    policy = policy_for(Silent("in steps"), "info")
    with pytest.raises(ValueError, match="action_mask"):
        Collector(VECTORS[vector]([partial(Silent, "in steps")] * 2)).steps(policy, 20)


@pytest.mark.parametrize("vector", VECTORS)
def test_at_the_end_of_an_episode_nothing_need_be_said(vector: str) -> None:
    policy = policy_for(Silent("at ends"), "info")
    collector = Collector(VECTORS[vector]([partial(Silent, "at ends")] * 2))
    check_masks(policy, roll_steps(collector, policy, 20))


class Stuck(Masked):
    """No action is legal in step 2, and none is refused."""

    def show(self) -> tuple[Any, dict[str, Any]]:
        obs, info = super().show()
        if self.time == 2:
            (obs if self.where == "observation" else info)["action_mask"][:] = 0
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.parts = [np.ones_like(part) for part in self.parts]
        return super().step(action)


@pytest.mark.parametrize("where", ["info", "observation"])
@pytest.mark.parametrize("vector", VECTORS)
def test_no_legal_action_at_all_stops_the_run(vector: str, where: str) -> None:
    make = partial(Stuck, DISCRETE, where)
    policy = policy_for(make(), where)
    with pytest.raises(ValueError, match=r"environment 0 leaves no legal action at step 2 of its episode"):
        Collector(VECTORS[vector]([make] * 2)).steps(policy, 20)


def test_no_legal_action_where_the_episode_is_over_is_no_mistake() -> None:
    make = partial(Stuck, DISCRETE, "info", 2)
    rollout = roll_steps(Collector(make_envs(make, 2)), policy_for(make(), "info"), 20)
    assert rollout.terminated.any()


@pytest.mark.parametrize("vector", VECTORS)
def test_an_environment_that_waits_for_the_others_needs_no_legal_action(vector: str) -> None:
    """The first one's last observation allows nothing, and stays while the second one plays on."""
    makers: list[Callable[[], gym.Env]] = [
        partial(Stuck, DISCRETE, "observation", 2),
        partial(Masked, DISCRETE, "observation", 9),
    ]
    policy = policy_for(makers[0](), "observation")
    rollout = roll_episodes(Collector(VECTORS[vector](makers)), policy, 2)
    assert rollout.mask.sum(0).tolist() == [2, 9]


class OnlyLegal(gym.Env):
    """One step, two of four actions legal, told by info; the reward is the observation's sign for one of them, 0 else."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sign = float(self.np_random.choice([-1.0, 1.0]))
        self.mask = np.array([1, 0, 1, 0] if self.np_random.random() < 0.5 else [0, 1, 0, 1], np.int8)
        return np.array([self.sign], np.float32), {"action_mask": self.mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.mask[action]
        rew = self.sign if action >= 2 else 0.0
        return np.array([self.sign], np.float32), rew, True, False, {"action_mask": self.mask}


def test_ppo_learns_with_legal_actions() -> None:
    """Best: 2 or 3 at +1, 0 or 1 at −1, whatever is legal: mean return ½."""
    policy = make_policy(OnlyLegal.observation_space, OnlyLegal.action_space, hidden=(16,), mask_source="info")
    critic = pg.make_critic(OnlyLegal.observation_space, hidden=(16,), lr=3e-3)
    learner = pg.Learner(policy, pg.GAE(), pg.ClippedSurrogate(lr=1e-2, epochs=4, minibatches=2), critic=critic)
    collector = Collector(make_envs(OnlyLegal, 8), seed=0)
    before = evaluate(policy, OnlyLegal, 100, greedy=False).mean
    for _ in range(25):
        learner.step(collector.steps(policy, 32))
    after = evaluate(policy, OnlyLegal, 100)
    assert before < 0.25
    assert after.mean == pytest.approx(np.mean([r > 0 for r in after.returns]))  # never a −1
    signs = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    mask = torch.tensor([[True, False, True, False], [False, True, False, True]]).repeat(2, 1)
    p = policy.dist({"obs": signs, "action_mask": mask}).exp()
    for row, best in zip(p, (0, 1, 2, 3), strict=True):
        assert float(row[best]) > 0.9
        assert torch.equal(row[(best + 1) % 2 :: 2], torch.zeros(2))


def test_predict_takes_the_legal_actions_of_this_moment() -> None:
    agent = pg.ppo(OnlyLegal, num_envs=2, hidden=(4,), mask_source="info", seed=0)
    obs, masks = np.ones((6, 1), np.float32), np.eye(4, dtype=np.int8)[[0, 1, 2, 3, 1, 2]]
    for deterministic in (True, False):
        act, _ = agent.predict(obs, deterministic, action_masks=masks)
        assert act.tolist() == [0, 1, 2, 3, 1, 2]
        act, _ = agent.predict(obs[0], deterministic, action_masks=masks[3])
        assert act == 3
    with pytest.raises(ValueError, match=r"pass action_masks=info\['action_mask'\]"):
        agent.predict(obs)
    with pytest.raises(ValueError, match="action_masks of 6 observations, got 1"):
        agent.predict(obs, action_masks=masks[:1])
    with pytest.raises(ValueError, match="this one has mask_source = none"):
        pg.ppo(OnlyLegal, num_envs=2, hidden=(4,)).predict(obs, action_masks=masks)


def test_predict_takes_the_legal_actions_from_the_observation() -> None:
    make = partial(Masked, DISCRETE, "observation")
    agent = pg.ppo(make, num_envs=2, hidden=(4,), seed=0)
    obs = {"action_mask": np.eye(4, dtype=np.int8), "x": np.zeros((4, 3), np.float32)}
    for deterministic in (True, False):
        assert agent.predict(obs, deterministic)[0].tolist() == [-1, 0, 1, 2]
        one = {"action_mask": obs["action_mask"][3], "x": obs["x"][3]}
        assert agent.predict(one, deterministic)[0] == 2
