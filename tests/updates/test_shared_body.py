"""Policy and values on one body: the gradient is that of CleanRL's loss, values keep their scale, and they are learned."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from explicit import HEADS, OBS, moved, same_state
from gymnasium import spaces
from torch import Tensor, nn

import policygrad as pg
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import MatchObservation, Probe
from policygrad.models.ascent import gradient_of
from policygrad.models.networks import WithLogStd
from policygrad.models.policy import make_policy
from policygrad.models.shared import value_output

ROWS, CLIP, ENT, VF = 24, 0.1, 0.03, 0.7
CONTINUOUS = spaces.Box(-1.0, 1.0, (2,), dtype=np.float64)
SPACES = {"choices": spaces.Discrete(3), "normals": CONTINUOUS}


def shared(space: spaces.Space, kernel: str = "auto", **words: Any) -> pg.Policy:
    return moved(pg.with_value(make_policy(OBS, space, hidden=(8, 6), kernel=kernel, **words), seed=1))


def batch_of(policy: pg.Policy, seed: int = 3) -> pg.Batch:
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(ROWS, 3, generator=g, dtype=torch.float64)
    act: Tensor = torch.randint(3, (ROWS,), generator=g)
    if not policy.head.actions:
        act = torch.randn(ROWS, 2, generator=g, dtype=torch.float64)
    adv, target, off = (torch.randn(ROWS, generator=g, dtype=torch.float64) for _ in range(3))
    logp = policy.evaluate(pg.Batch.of(obs, act)).logp + 0.2 * off
    weight = torch.full((ROWS,), 1.0 / ROWS, dtype=torch.float64)
    return pg.Batch(obs, act, logp, adv, weight, 1, target=3.0 * target + 2.0)


def loss_of_cleanrl(policy: pg.Policy, batch: pg.Batch, vf_coef: float = VF, mse: bool = False) -> Tensor:
    """The loss of its ppo.py and ppo_continuous_action.py, without value clipping; mse: with Stable-Baselines3's value loss."""
    out = policy.network(batch.obs)
    newvalue = out[:, -1]
    if policy.head.actions:
        probs: Any = torch.distributions.Categorical(logits=out[:, :-1])
        newlogprob, entropy = probs.log_prob(batch.act), probs.entropy()
    else:
        probs = torch.distributions.Normal(out[:, :2], out[:, 2:4].exp())
        newlogprob, entropy = probs.log_prob(batch.act).sum(1), probs.entropy().sum(1)
    ratio = (newlogprob - batch.logp).exp()
    pg_loss = torch.max(-batch.adv * ratio, -batch.adv * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)).mean()
    assert batch.target is not None
    v_loss = nn.functional.mse_loss(batch.target, newvalue) if mse else 0.5 * ((newvalue - batch.target) ** 2).mean()
    return pg_loss - ENT * entropy.mean() + v_loss * vf_coef


@pytest.mark.parametrize("kernel", ["closed_form", "autograd"])
@pytest.mark.parametrize("space", SPACES)
def test_the_gradient_is_minus_that_of_cleanrls_loss(space: str, kernel: str) -> None:
    policy = shared(SPACES[space], kernel)
    batch, critic = batch_of(policy), pg.SharedCritic(VF)
    rule = pg.ClippedSurrogate(clip=CLIP, ent_coef=ENT, terms=(critic.term,))
    found = gradient_of([rule.objective(0.0), *rule.terms], policy, batch).clone()
    torch.testing.assert_close(found, -policy.gradient(loss_of_cleanrl(policy, batch)), rtol=0, atol=1e-12)
    # Stable-Baselines3 has no ½, so half of its coefficient is CleanRL's
    of_sb3 = -policy.gradient(loss_of_cleanrl(policy, batch, VF / 2.0, mse=True))
    torch.testing.assert_close(found, of_sb3, rtol=0, atol=1e-12)
    other = -policy.gradient(loss_of_cleanrl(policy, batch, VF, mse=True))
    assert float((found - other).abs().max()) > 0.1


@pytest.mark.parametrize("space", SPACES)
def test_one_norm_of_all_parameters_is_clipped_and_one_optimiser_steps(space: str) -> None:
    policy = shared(SPACES[space])
    batch, critic = batch_of(policy), pg.SharedCritic(VF)
    twin: Any = copy.deepcopy(policy)
    words: dict[str, Any] = {"optimizer": "sgd", "epochs": 1, "minibatches": 1, "max_grad_norm": 0.5}
    pg.ClippedSurrogate(0.1, clip=CLIP, ent_coef=ENT, terms=(critic.term,), **words)(policy, batch)
    parameters = list(twin.network.parameters())
    loss_of_cleanrl(twin, batch).backward()
    norm = nn.utils.clip_grad_norm_(parameters, 0.5)
    assert float(norm) > 0.6  # or nothing would have been clipped
    torch.optim.SGD(parameters, lr=0.1).step()
    written = torch.cat([p.detach().reshape(-1) for p in parameters])
    torch.testing.assert_close(policy.flat, written, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kernel", ["auto", "autograd"])
def test_a_value_output_leaves_the_distribution_as_it_was(name: str, kernel: str) -> None:
    space, words = HEADS[name]
    plain = moved(make_policy(OBS, space, hidden=(8,), kernel=kernel, **words))
    policy = pg.with_value(copy.deepcopy(plain))
    obs = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    context = torch.ones(5, plain.head.context, dtype=torch.float64)
    given: Any = {"action_mask": context, "obs": obs} if plain.head.context and not plain.head.stateful else obs
    extra = {"noise": context} if plain.head.stateful else {}
    torch.testing.assert_close(policy.dist(given, extra), plain.dist(given, extra), rtol=0, atol=1e-14)
    assert len(policy.flat) == len(plain.flat) + 9
    weight, bias = value_output(policy)
    assert float(weight.square().sum()) == pytest.approx(1.0)  # orthogonal, gain 1
    assert float(bias.detach()) == 0.0


@pytest.mark.parametrize("name", ["categorical", "gaussian", "gaussian, std of the network", "squashed"])
def test_without_a_value_loss_the_policy_learns_as_one_without_a_value(name: str) -> None:
    space, words = HEADS[name]
    plain = moved(make_policy(OBS, space, hidden=(8,), **words))
    policy, critic = pg.with_value(copy.deepcopy(plain)), pg.SharedCritic(0.0)
    obs = torch.randn(ROWS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    act = torch.from_numpy(plain.act(obs.numpy(), None, plain.noise(rng, (ROWS,)))[0])
    batch = pg.Batch.of(
        obs, act if plain.head.actions else act.double(), adv=torch.from_numpy(rng.standard_normal(ROWS))
    )
    batch.logp[:] = plain.evaluate(batch).logp
    batch = pg.Batch(**vars(batch) | {"target": batch.adv})
    row = [part.clone() for part in value_output(policy)]
    for one, terms in ((plain, ()), (policy, (critic.term,))):
        rule = pg.ClippedSurrogate(0.01, epochs=3, minibatches=2, ent_coef=0.01, terms=terms)
        for _ in range(3):
            rule(one, batch)
    assert all(map(torch.equal, row, value_output(policy)))
    torch.testing.assert_close(policy.dist(obs), plain.dist(obs), rtol=0, atol=1e-11)


@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_the_scale_of_the_targets_moves_no_value_and_no_probability(scale: float) -> None:
    policy, critic = shared(SPACES["choices"]), pg.SharedCritic()
    obs = torch.randn(ROWS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    count, ones = ROWS, torch.ones((), dtype=torch.float64)
    critic.follow(count, 2.0 * ones, 4.0 * ones, value_output(policy))  # the first one sets it
    values, dist = critic.value(obs, policy), policy.dist(obs)
    critic.follow(count, scale * ones, scale**2 * ones, value_output(policy))
    assert (critic.mean, critic.std) != (2.0, 2.0)
    torch.testing.assert_close(critic.value(obs, policy), values, rtol=0, atol=1e-12 * max(1.0, scale))
    assert torch.equal(policy.dist(obs), dist)


@pytest.mark.parametrize("standardized", [False, True])
def test_the_gradient_grows_with_the_rewards_as_a_whole_where_advantages_do(standardized: bool) -> None:
    """So that their unit moves no direction: of standardised advantages it is the same, whatever the rewards are."""
    policy, c = shared(SPACES["choices"]), 1e3
    batch, gradients = batch_of(policy), []
    assert batch.target is not None
    for unit in (1.0, c):
        critic = pg.SharedCritic(VF, standardized=standardized)
        critic.mean, critic.std = 2.0 * unit, 3.0 * unit
        adv = batch.adv if standardized else unit * batch.adv
        scaled = pg.Batch(**vars(batch) | {"adv": adv, "target": unit * batch.target})
        rule = pg.ClippedSurrogate(clip=CLIP, terms=(critic.term,))
        gradients.append(gradient_of([rule.objective(0.0), *rule.terms], policy, scaled).clone())
    torch.testing.assert_close(gradients[1], gradients[0] * (1.0 if standardized else c), rtol=1e-12, atol=0)


class ScaledMatch(MatchObservation):
    """The same task with rewards in other units."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def step(self, action: Any) -> Any:
        obs, rew, *rest = super().step(action)
        return obs, self.scale * rew, *rest


class Unscaled(pg.SharedCritic):
    """As CleanRL and Stable-Baselines3 have it: targets are regressed on as they are."""

    def rescale_to(self, *_: Any) -> None: ...


def trained(scale: float, kind: type[pg.SharedCritic] = pg.SharedCritic) -> tuple[float, float]:
    """The probability of the best action, and the error of the values in units of the reward, after 20 iterations of PPO."""
    probe = ScaledMatch(scale)
    policy = pg.with_value(make_policy(probe.observation_space, probe.action_space, hidden=(16,)), seed=1)
    critic = kind()
    rule = pg.ClippedSurrogate(pg.linear(0.03), epochs=4, minibatches=2, terms=(critic.term,))
    learner = pg.Learner(policy, pg.Standardized(pg.GAE(0.5, 0.95)), rule, critic=critic)
    collector = Collector(make_envs(lambda: ScaledMatch(scale), 8), 0)
    for i in range(20):
        learner.step(collector.steps(policy, 16), (i + 1) / 20)
    obs, act = (torch.tensor(column) for column in zip(*probe.best, strict=True))
    best = policy.evaluate(pg.Batch.of(obs[:, None], act)).logp.exp().min()
    return float(best), float((critic.value(obs[:, None], policy) / scale - 1.0).abs().max())


@pytest.mark.parametrize("scale", [1e3, 1.0, 1e-3])
def test_rewards_of_any_scale_are_learned(scale: float) -> None:
    best, error = trained(scale)
    assert best >= 0.95
    if scale >= 1.0:  # of smaller targets the standard deviation counts as at least LEAST_STD
        assert error <= 0.05


def test_without_a_scale_large_rewards_are_not_learned() -> None:
    assert trained(1.0, Unscaled)[1] <= 0.1
    assert trained(1e3, Unscaled)[1] > 0.5


def test_shapes_and_rules_that_cannot_share_are_refused() -> None:
    linear = make_policy(OBS, spaces.Discrete(2), hidden=())
    with pytest.raises(ValueError, match="hidden layers or a body, and this policy has none"):
        pg.with_value(linear)
    policy, critic = make_policy(OBS, spaces.Discrete(2)), pg.SharedCritic()
    rule = pg.ClippedSurrogate(terms=(critic.term,))
    with pytest.raises(ValueError, match=r"this network has 2: use with_value\(policy\)"):
        pg.Learner(policy, pg.GAE(), rule, critic=critic).step(
            Collector(make_envs(lambda: Positions(), 2)).steps(policy, 4)
        )
    with pytest.raises(ValueError, match="has 3 outputs already"):
        pg.with_value(pg.with_value(policy))
    for update in (pg.ClippedSurrogate(), pg.TrustRegion(), pg.ClippedSurrogate(terms=(pg.SharedCritic().term,))):
        with pytest.raises(ValueError, match=r"terms=\(critic.term,\)"):
            pg.Learner(policy, pg.GAE(), update, critic=critic)
    with pytest.raises(ValueError, match="value_coef must be at least 0"):
        pg.SharedCritic(-1.0)


class Positions(Probe):
    """Observations like OBS, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = OBS

    def observe(self) -> np.ndarray:
        return np.full(3, 0.5, np.float32)

    def step(self, action: Any) -> Any:
        return self.one_step(1.0)


def test_a_value_is_an_output_beside_a_log_std_of_its_own() -> None:
    policy = shared(CONTINUOUS, log_std=-0.5)
    network: Any = policy.network
    assert isinstance(network, WithLogStd)
    obs = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out, mean = network(obs), network.mean(obs)
    assert torch.equal(out, torch.cat([mean[:, :2], network.log_std.expand(4, 2), mean[:, 2:]], -1))
    torch.testing.assert_close(policy.kernel.forward(obs), out, rtol=0, atol=1e-14)
    assert torch.equal(torch.from_numpy(policy.outputs(obs.numpy())), policy.kernel.forward(obs)[:, :4])


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_learns_as_the_first_and_apart_from_it(how: Any) -> None:
    agent = pg.ppo("CartPole-v1", shared_body=True, hidden=(8,), num_envs=2, num_steps=16, epochs=2, minibatches=2)
    agent.learn(64)
    other = how(agent)
    assert other.learner.critic.term.scale is other.learner.critic is not agent.learner.critic
    assert other.learner.update.terms == (other.learner.critic.term,)
    for one in (agent, other):
        one.learn(64)
    assert same_state(agent.learner.state_dict(), other.learner.state_dict())
