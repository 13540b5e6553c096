"""Every space there is, in training: 300 random ones, actions as spaces want them, correlated noise in the collector."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from explicit import roll_episodes, roll_steps, same
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from random_spaces import ACTIONS, OBSERVATIONS, box, moderate
from torch import Tensor

import policygrad as pg
from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.data import Batch, Rollout
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.models.policy import Policy, make_policy
from policygrad.training.evaluate import evaluate


class Anything(gym.Env):
    """Shows moderate elements of its observation space, wants elements of its action space, ends soon."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return moderate(self.observation_space, self.np_random), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.action_space.shape == ():  # a number of NumPy's, as Gymnasium's own vector environments have it
            action = np.asarray(action)
        assert self.action_space.contains(action), (action, getattr(action, "dtype", None))
        self.time += 1
        obs, rew = moderate(self.observation_space, self.np_random), float(self.np_random.standard_normal())
        return obs, rew, self.time >= 3 and rew > 0.0, self.time >= 4, {}


KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "head": st.sampled_from(("gaussian", "squashed", "beta")),
        "std": st.sampled_from(("parameter", "network")),
        "noise_autocorrelation": st.sampled_from((0.5, 0.9)),
        "normalize_obs": st.booleans(),
        "hidden": st.just(()),
    },
)
MODES = st.sampled_from((None, *AutoresetMode))
ALGORITHMS = st.sampled_from(("ppo", "a2c", "reinforce"))


def vector(make: Callable[[], gym.Env], mode: AutoresetMode | None, n: int = 2) -> VectorEnv:
    return make_envs(make, n) if mode is None else SyncVectorEnv([make] * n, autoreset_mode=mode)


def learner_of(policy: Policy, space: spaces.Space, algorithm: str) -> pg.Learner:
    if algorithm == "reinforce":
        return pg.Learner(policy, pg.RewardToGo(), pg.VanillaGradient(), baseline=pg.RunningMean())
    critic = pg.make_critic(space, hidden=(4,))
    if algorithm == "a2c":
        return pg.Learner(policy, pg.NStep(n=3), pg.VanillaGradient(ent_coef=0.01), critic=critic)
    return pg.Learner(policy, pg.GAE(), pg.ClippedSurrogate(epochs=2, minibatches=2, ent_coef=0.01), critic=critic)


def named(error: Exception, *outer: spaces.Space) -> bool:
    """Whether a refusal names the space, or the part of it that is the trouble."""
    parts = [part for space in outer for part in every_part(space)]
    return any(str(part) in str(error) for part in parts)


def every_part(space: spaces.Space) -> list[spaces.Space]:
    inner = space.spaces.values() if isinstance(space, spaces.Dict) else getattr(space, "spaces", ())
    return [space, *(found for part in inner for found in every_part(part))]


def only_one(space: spaces.Discrete | spaces.MultiDiscrete) -> bool:
    return int(np.max(space.n if isinstance(space, spaces.Discrete) else space.nvec)) == 1


TRAINED: list[bool] = []


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(OBSERVATIONS, ACTIONS, KEYWORDS, MODES, ALGORITHMS)
def train(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    keywords: dict[str, Any],
    mode: AutoresetMode | None,
    algorithm: str,
) -> None:
    refused: Exception | None = None
    try:
        policy = make_policy(observation_space, action_space, **{"hidden": (4,), **keywords})
        learner = learner_of(policy, observation_space, algorithm)
    except (TypeError, ValueError) as error:
        refused = error
    TRAINED.append(refused is None)
    if refused is not None:
        note(str(refused))
        beta = keywords.get("head") == "beta" and "noise_autocorrelation" in keywords
        assert named(refused, observation_space, action_space) or (beta and "noise_autocorrelation" in str(refused))
        return
    collector = Collector(vector(partial(Anything, observation_space, action_space), mode))
    for _ in range(2):
        before = policy.flat.clone()
        rollout = roll_episodes(collector, policy, 2) if algorithm == "reinforce" else roll_steps(collector, policy, 6)
        stats = diagnosed_step(learner, rollout, 0.5)
        without = {"explained_variance"} | ({"value_loss"} if algorithm == "reinforce" else set())  # none is NaN
        assert all(math.isfinite(v) for name, v in stats.items() if name not in without), stats
        assert torch.isfinite(policy.flat).all()
        assert torch.isfinite(rollout.logp).all()
        one = isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete) and only_one(action_space)
        assert torch.equal(policy.flat, before) == one, "the policy learns unless there is one action only"


def test_every_space_trains_two_finite_updates_or_is_refused_by_name() -> None:
    """Most train, and some are refused."""
    TRAINED.clear()
    train()
    assert len(TRAINED) >= 100
    assert {*TRAINED} == {True, False}


@pytest.mark.slow
def test_many_spaces_train_two_finite_updates_or_are_refused_by_name() -> None:
    settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])(train)()
    assert 0.6 * len(TRAINED) < sum(TRAINED) < len(TRAINED) - 10


@pytest.mark.parametrize("kind", ["extreme", "unbounded"])
def test_observations_too_large_for_float32_are_named_and_nothing_is_updated(kind: str) -> None:
    class Huge(Anything):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            obs, *rest = super().step(action)
            return (np.full_like(obs, 1e300) if self.time == 2 else obs), *rest

    policy = make_policy(box((2,), np.float64, kind), spaces.Discrete(2), hidden=(4,))
    before = policy.flat.clone()
    envs = make_envs(lambda: Huge(box((2,), np.float64, kind), spaces.Discrete(2)))
    with (
        np.errstate(over="ignore"),
        pytest.raises(FloatingPointError, match=r"observation\[0\] is inf .*Nothing was updated"),
    ):
        Collector(envs).steps(policy, 6)
    assert torch.equal(policy.flat, before)


class Batched(SyncVectorEnv):
    """SAME_STEP with the final observations as native vector environments have them: a batch, part by part."""

    def step(self, actions: Any) -> tuple[Any, ...]:
        obs, rew, terminated, truncated, info = super().step(actions)
        if "final_obs" in info:
            shown = [
                final if final is not None else self.single_observation_space.sample() for final in info["final_obs"]
            ]
            info["final_obs"] = {key: np.stack([part[key] for part in shown]) for key in obs}
        return obs, rew, terminated, truncated, info


def test_final_observations_may_come_as_a_batch_too() -> None:
    space = spaces.Dict(a=spaces.Box(-1.0, 1.0, (2,)), b=spaces.Discrete(3, start=1))
    policy = make_policy(space, spaces.Discrete(2), hidden=(4,))
    makers = [partial(Anything, space, spaces.Discrete(2))] * 3
    one, two = (
        roll_steps(Collector(kind(makers, autoreset_mode=AutoresetMode.SAME_STEP)), policy, 30)
        for kind in (SyncVectorEnv, Batched)
    )
    assert one.truncated.any()
    assert same(one, two)
    assert not torch.equal(one.next_obs["a"][:-1], one.obs["a"][1:-1])
    assert not torch.equal(one.next_obs["b"][:-1], one.obs["b"][1:-1])


class Wants(Anything):
    """Keeps the actions it was given."""

    def __init__(self, action_space: spaces.Space) -> None:
        super().__init__(spaces.Box(-1.0, 1.0, (2,)), action_space)
        self.given: list[Any] = []

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.given.append(action)
        return super().step(action)


NARROW_TYPES = [
    spaces.Discrete(3, start=-1, dtype=np.int8),
    spaces.Discrete(3, dtype=np.int32),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiDiscrete([2, 3], dtype=np.uint8, start=[1, 5]),
]


@pytest.mark.parametrize("space", NARROW_TYPES, ids=str)
def test_actions_have_the_type_of_the_space(space: spaces.Space) -> None:
    env = Wants(space)
    agent = pg.ppo(env, hidden=(4,), num_steps=8, epochs=1, minibatches=1).learn(8)
    action, _ = agent.predict(np.zeros(2, np.float32))
    assert space.contains(action)


def test_actions_of_no_dimensions_are_arrays() -> None:
    env = Wants(spaces.Box(-1.0, 1.0, ()))
    agent = pg.ppo(env, hidden=(4,), num_steps=8, epochs=1, minibatches=1).learn(8)
    action, _ = agent.predict(np.zeros(2, np.float32))
    assert all(isinstance(act, np.ndarray) for act in (*env.given, action))


@pytest.mark.parametrize(
    ("space", "every"),
    [
        (spaces.Discrete(3, start=-1), {-1, 0, 1}),
        (spaces.MultiDiscrete([2, 1], start=[5, -2]), {(5, -2), (6, -2)}),
        (spaces.MultiDiscrete([[1, 2]], start=[[0, 7]]), {((0, 7),), ((0, 8),)}),
        (spaces.MultiBinary(2), {(0, 0), (0, 1), (1, 0), (1, 1)}),
    ],
    ids=lambda x: str(sorted(x) if isinstance(x, set) else x),  # a set has no order that all processes share
)
def test_the_environment_is_given_every_action_there_is_and_predict_gives_the_same(space, every) -> None:
    env = Wants(space)
    agent = pg.ppo(env, hidden=(4,), num_steps=64, epochs=1, minibatches=1).learn(64)

    def hashable(act: Any) -> Any:
        return tuple(map(hashable, act)) if np.ndim(act) else int(act)

    assert {hashable(act) for act in env.given} == every
    obs = np.zeros((64, 2), np.float32)
    acts, _ = agent.predict(obs)
    assert {hashable(act) for act in acts} == every
    assert all(act in space for act in acts)
    assert agent.predict(obs[0], deterministic=True)[0] in space


@pytest.mark.parametrize("head", ["gaussian", "squashed", "beta"])
def test_box_actions_are_within_their_bounds_and_plain_ones_pile_up_on_them(head: str) -> None:
    low, high = np.array([-1.0, 2.0], np.float32), np.array([0.5, 2.25], np.float32)
    env = Wants(spaces.Box(low, high))
    agent = pg.ppo(env, hidden=(4,), num_steps=64, epochs=1, minibatches=1, head=head).learn(64)
    given = np.array(env.given)
    assert given.dtype == np.float32
    assert ((low <= given) & (given <= high)).all()
    assert ((given == low) | (given == high)).any() == (head == "gaussian")
    assert all(agent.predict(np.zeros(2, np.float32), greedy)[0] in env.action_space for greedy in (True, False))


# Correlated noise: a_t = μ(s_t) + σ ε_t, ε_t = ρ ε_{t−1} + √(1 − ρ²) z_t

RHO = 0.8


class Endless(VectorEnv):
    """Many copies that never end, all showing the same."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (Gymnasium's)

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-1.0, 1.0, (1,))
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,))
        self.obs, self.never = np.full((num_envs, 1), 0.5, np.float32), np.zeros(num_envs, bool)

    def reset(self, **keywords: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return self.obs, {}

    def step(self, actions: Any) -> tuple[Any, ...]:
        return self.obs, np.zeros(self.num_envs), self.never, self.never, {}


class Short(gym.Env):
    """Episodes of three or four steps; the reward is the first entry of the action."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Box(-9.0, 9.0, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.length = 0, int(self.np_random.integers(3, 5))
        return self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        over = self.time >= self.length
        return self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32), float(action[0]), over, False, {}


def correlated(rho: float = RHO, **keywords: Any) -> Policy:
    space = Short.action_space
    policy = make_policy(
        Short.observation_space, space, hidden=(4,), noise_autocorrelation=rho, log_std=-0.5, seed=1, **keywords
    )
    policy.flat[-14:] += 0.5 * torch.randn(14, generator=torch.Generator().manual_seed(3))
    return policy


def parameters(policy: Policy, features: Tensor) -> tuple[Tensor, Tensor]:
    """μ and σ of the network, whatever the noise was."""
    mean, log_std = policy.network(features.reshape(-1, 1)).detach().chunk(2, -1)
    return mean.view(*features.shape[:-1], 2), log_std.exp().view(*features.shape[:-1], 2)


def test_every_action_alone_is_the_uncorrelated_policys_and_the_correlation_falls_off_as_rho_to_the_k() -> None:
    N, T = 4000, 9
    policy = correlated()
    rollout = roll_steps(Collector(Endless(N), seed=2), policy, T)
    mean, std = parameters(policy, torch.tensor([[0.5]]))
    eps = ((rollout.act - mean) / std).double()  # (T, N, 2)
    assert float(eps.mean(1).abs().max()) <= 4 / math.sqrt(N)  # at every step, the first one too
    assert float((eps.var(1) - 1.0).abs().max()) <= 4 * math.sqrt(2 / N)
    for k in range(1, T):
        expected = RHO**k
        found = (eps[k:] * eps[:-k]).mean((0, 1))
        assert float((found - expected).abs().max()) <= 4 * math.sqrt((1 + expected**2) / N)  # were all steps one
    across = (eps[..., 0] * eps[..., 1]).mean()
    assert abs(float(across)) <= 4 / math.sqrt(N)


@pytest.mark.parametrize("std", ["parameter", "network"])
def test_the_log_probability_is_that_of_all_actions_together(std: str) -> None:
    """Σ_t log π(a_t|s_t, ε_{t−1}) + log N(ε_{−1}) = log N((ε_{−1}, …, ε_{T−1}); 0, ρ^|i−j|) − Σ log σ_t, an entry at a time."""
    T = 6
    policy = correlated(std=std).double()
    rng = torch.Generator().manual_seed(0)
    features = torch.rand(T, 1, generator=rng, dtype=torch.float64)
    act = torch.randn(T, 2, generator=rng, dtype=torch.float64)  # any sequence: nothing was sampled
    mean, sigma = parameters(policy, features)
    eps = torch.cat([torch.randn(1, 2, generator=rng, dtype=torch.float64), (act - mean) / sigma])
    logp = policy.evaluate(Batch.of(features, act, extra={"noise": eps[:-1]})).logp.sum()
    power = (torch.arange(T + 1)[:, None] - torch.arange(T + 1)).abs()
    joint = torch.distributions.MultivariateNormal(torch.zeros(T + 1).double(), RHO ** power.double())
    start = torch.distributions.Normal(0.0, 1.0).log_prob(eps[0]).sum()
    expected = joint.log_prob(eps.T).sum() - sigma.log().sum()
    torch.testing.assert_close(logp + start, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("keywords", [{}, {"std": "network"}, {"head": "squashed"}, {"normalize_obs": True}], ids=str)
def test_its_gradient_is_autograds(keywords: dict[str, Any]) -> None:
    policy = correlated(**keywords).double()
    rng = torch.Generator().manual_seed(0)
    obs, act = torch.randn(20, 1, generator=rng).double(), torch.randn(20, 2, generator=rng).double()
    weight, ent_weight = torch.randn(2, 20, generator=rng).double()
    extra = {"noise": torch.randn(20, 2, generator=rng).double()}
    gain = (weight * policy.logp(obs, act, extra) + ent_weight * policy.head.entropy(policy(obs, extra))).sum()
    ours = policy.evaluate(Batch.of(obs, act, extra=extra)).gradient(weight, ent_weight)
    torch.testing.assert_close(ours, policy.gradient(gain), rtol=1e-11, atol=1e-11)


def noise_of(rollout: Rollout, policy: Policy) -> tuple[Tensor, Tensor]:
    """ε_{t−1}, which the policy was told, and ε_t, which the action shows, both (T, N, 2)."""
    mean, std = parameters(policy, rollout.obs[:-1])
    return rollout.extra["noise"], (rollout.act - mean) / std


@pytest.mark.parametrize("episodes", [False, True])
@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_within_an_episode_the_noise_goes_on_and_every_episode_begins_with_fresh_noise(
    mode: AutoresetMode | None, episodes: bool
) -> None:
    N, policy = 40, correlated()
    collector = Collector(vector(Short, mode, N), seed=1)
    rollouts = (
        [roll_episodes(collector, policy, 400)] if episodes else [roll_steps(collector, policy, T) for T in (1, 50, 49)]
    )
    told, last = [], []
    for rollout in rollouts:
        before, now = noise_of(rollout, policy)
        goes_on = rollout.mask[1:] & (rollout.time[1:] > 0)
        torch.testing.assert_close(before[1:][goes_on], now[:-1][goes_on], rtol=0, atol=2e-5)
        begins = rollout.mask & (rollout.time == 0)
        told.append(before[begins])
        if not episodes:  # the noise at the end of the episode before
            for n in range(N):
                rows = rollout.mask[:, n].nonzero().squeeze(-1)
                later = [(a, b) for a, b in itertools.pairwise(rows) if rollout.time[b, n] == 0]
                last += [(now[a, n], before[b, n]) for a, b in later]
    start = torch.cat(told).double()
    assert len(start) >= 400
    assert float(start.mean(0).abs().max()) <= 4 / math.sqrt(len(start))
    assert float((start.var(0) - 1.0).abs().max()) <= 4 * math.sqrt(2 / len(start))
    if last:
        product = torch.stack([a * b for a, b in last]).double().mean(0)
        assert len(last) >= 400
        assert float(product.abs().max()) <= 4 / math.sqrt(len(last))


@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_the_log_probability_in_a_rollout_is_that_given_the_noise_before(mode: AutoresetMode | None) -> None:
    policy, collector = correlated(), Collector(vector(Short, mode, 4), seed=1)
    for rollout in (roll_steps(collector, policy, 30), roll_episodes(collector, policy, 9)):
        before, _ = noise_of(rollout, policy)
        mean, std = parameters(policy, rollout.obs[:-1])
        given, alone = (
            torch.distributions.Normal(mean + std * rho * before, std * math.sqrt(1.0 - rho**2)).log_prob(rollout.act)
            for rho in (RHO, 0.0)
        )
        valid = rollout.mask
        torch.testing.assert_close(rollout.logp[valid], given.sum(-1)[valid], rtol=0, atol=2e-5)
        assert float((rollout.logp - alone.sum(-1))[valid].abs().max()) > 0.1
        batch = rollout.flatten(torch.zeros_like(rollout.rew), "step")
        for piece in batch.minibatches(3, torch.Generator().manual_seed(0)):
            found = policy.evaluate(Batch.of(piece.obs, piece.act, extra=piece.extra)).logp
            torch.testing.assert_close(found, piece.logp, rtol=0, atol=2e-5)


def test_rollouts_hand_the_noise_on() -> None:
    """The first row of a rollout goes on where the last one stopped."""
    policy, collector = correlated(), Collector(Endless(5), seed=0)
    first, second = roll_steps(collector, policy, 3), roll_steps(collector, policy, 3)
    assert torch.equal(first.obs[-1], second.obs[0])
    torch.testing.assert_close(noise_of(second, policy)[0][0], noise_of(first, policy)[1][-1], rtol=0, atol=2e-5)


def test_the_greedy_policy_has_no_noise_at_all() -> None:
    with_noise, without = correlated(), correlated(0.0)
    assert torch.equal(with_noise.flat, without.flat)
    assert evaluate(with_noise, Short, 20) == evaluate(without, Short, 20)
    assert evaluate(with_noise, Short, 20, greedy=False) != evaluate(with_noise, Short, 20)
    agent = pg.ppo(Short, num_envs=1, hidden=(4,), noise_autocorrelation=RHO)
    obs = np.array([0.3], np.float32)
    acts = [agent.predict(obs, deterministic=True)[0].tolist() for _ in range(3)]
    assert acts[0] == acts[1] == acts[2]
    assert len({tuple(agent.predict(obs)[0].tolist()) for _ in range(3)}) == 3


def test_sampled_evaluation_is_correlated_and_depends_on_the_episode_alone() -> None:
    policy = correlated()
    alone, together = (evaluate(policy, Short, 60, greedy=False, num_envs=n).returns for n in (1, 7))
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-4)
    # the noise of an episode of 3 or 4 steps adds up: its variance is (n + 2 Σ (n − k) ρᵏ) σ², not n σ²
    many, none = (np.var(evaluate(correlated(r), Short, 600, greedy=False).returns) for r in (0.95, 0.0))
    assert many > 2.0 * none


def test_a_collector_resumed_twice_goes_on_with_the_same_noise_bit_for_bit() -> None:
    policy = correlated()
    collector = Collector(vector(Short, None, 3), seed=5)
    collector.steps(policy, 17)
    state = collector.state_dict()
    resumed = []
    for seed in (5, 5, 6):
        again = Collector(vector(Short, None, 3), seed=seed)
        again.load_state_dict(state)
        resumed.append(roll_steps(again, policy, 25))
    assert torch.equal(resumed[0].obs, resumed[1].obs)
    assert torch.equal(resumed[0].act, resumed[1].act)
    assert torch.equal(resumed[0].obs, resumed[2].obs)  # whatever it was made with


def test_an_agent_with_correlated_noise_learns_on_bit_for_bit_from_its_file(tmp_path) -> None:
    keywords = {
        "num_envs": 2,
        "num_steps": 16,
        "epochs": 1,
        "minibatches": 1,
        "hidden": (4,),
        "noise_autocorrelation": RHO,
    }
    path = pg.ppo(Short, **keywords).learn(64).save(tmp_path / "agent")
    one, two = (pg.load(path, env=Short).learn(64) for _ in range(2))
    assert torch.equal(one.policy.flat, two.policy.flat)
    assert not torch.equal(one.policy.flat, pg.load(path, env=Short).policy.flat)
