"""The gradient meter: its numbers by definition, exact in the mean on finite MDPs, and no bit of a training changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explicit import BODIES, HEADS, OBS, batch_for, make, randn, same_state
from gymnasium import spaces
from torch import Tensor, nn
from zoo import SCORED, home

import policygrad as pg
from policygrad.algorithms import meter
from policygrad.algorithms.config import ConfigError
from policygrad.algorithms.meter import BUCKETS, MAX_GROUPS, assign_groups, gradient_noise, most_groups
from policygrad.algorithms.recipes import RECIPES
from policygrad.data import Rollout, Stats
from policygrad.gradient.baselines import CriticValue, NoBaseline
from policygrad.gradient.estimators import RewardToGo, TotalReturn, advantages
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import ExactCritic, chain, enumerate_batches, enumerate_trajectories, tabular_policy
from policygrad.lab.exact.worlds import two_states
from policygrad.models.kernels import trainable
from policygrad.models.policy import NOTHING, Policy, make_policy
from policygrad.tree import Tree, take, tree_map

NAMES = {
    *("signal", "noise", "snr", "snr_low", "snr_high", "half_cosine", "noise_scale", "noise_trajectories"),
    *("batch_suggested", "variance_1", "variance_2", "variance_3", "variance_4", "variance_steps"),
    *("meter_groups", "meter_seconds"),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# by definition

ENDS = [
    (1, 0),
    (4, 0),
    (2, 1),
    (5, 1),
    (0, 2),
    (4, 2),
    (5, 3),
]  # (t, n): seven trajectories in four columns of six rows
RESET, PAST = [(2, 0), (3, 1), (1, 2)], [(5, 0), (5, 2)]  # rows that are no steps


def seven_trajectories(policy: Policy, space: spaces.Box = OBS) -> tuple[Rollout, Tensor]:
    """A rollout with every kind of end, resets within columns and padding after them; and advantages (6, 4)."""
    batch = batch_for(policy, 28, space=space)
    obs, act, extra = (tree_map(lambda x: x.unflatten(0, (7, 4)), x) for x in (batch.obs, batch.act, batch.extra))
    mask, end, time = torch.ones(6, 4, dtype=torch.bool), torch.zeros(6, 4, dtype=torch.bool), torch.zeros(6, 4).long()
    for place in RESET + PAST:
        mask[place] = False
    for place in ENDS:
        end[place] = True
    for n, first in enumerate((0, 3, 7, 0)):  # where the columns' first episodes were when the rollout began
        clock = first
        for t in range(6):
            time[t, n] = clock
            clock = clock + 1 if mask[t, n] and not end[t, n] else 0
    terminated, truncated, cut = end.clone(), torch.zeros_like(end), torch.zeros_like(end)
    terminated[4, 0] = terminated[5, 3] = terminated[5, 1] = False
    truncated[4, 0] = True
    cut[5, 3] = cut[5, 1] = True
    rew = torch.zeros(6, 4, dtype=batch.adv.dtype)
    logp = batch.logp.view(7, 4)[:6]
    ends, extra = (terminated, truncated, cut), take(extra, slice(6))
    rollout = Rollout(obs, take(obs, slice(1, None)), act[:6], rew, logp, *ends, mask, time, extra)
    return rollout, batch.adv.view(7, 4)[:6]


def score_by_autograd(policy: Policy, obs: Tree, act: Tensor, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
    """∇log π(a|s) of one row, (P,); some bodies have a parameter that does nothing."""
    parameters = trainable(policy.network)
    grads = torch.autograd.grad(
        policy.logp(obs, act, extra).sum(), parameters, allow_unused=True, materialize_grads=True
    )
    return torch.cat([g.reshape(-1) for g in grads])


def by_hand(policy: Policy, rollout: Rollout, adv: Tensor, reduction: str) -> Stats:
    """The numbers from trajectories' gradients, each row's by autograd, with loops and from the definitions."""
    scale = 1.0 / (rollout.steps if reduction == "step" else rollout.trajectories)
    length = int(rollout.time[rollout.mask].max()) + 1
    parts, masses = [], []  # of every trajectory its gradient in every stretch (4, P), and its mass
    for n in range(adv.shape[1]):
        current, rows = torch.zeros(BUCKETS, len(policy.flat), dtype=torch.float64), 0
        for t in range(len(adv)):
            if not rollout.mask[t, n]:
                continue
            row = ({"obs": rollout.obs, "act": rollout.act, "extra": rollout.extra}, (t, slice(n, n + 1)))
            score = score_by_autograd(policy, **take(*row))
            current[int(rollout.time[t, n]) * BUCKETS // length] += scale * adv[t, n] * score
            rows += 1
            if rollout.end[t, n]:
                parts.append(current)
                masses.append(float(rows) if reduction == "step" else 1.0)
                current, rows = torch.zeros_like(current), 0
    f = torch.tensor(masses, dtype=torch.float64) / sum(masses)
    A = torch.stack(parts)  # (n, 4, P)
    D = A - f.view(-1, 1, 1) * A.sum(0)
    whole = D.sum(1)
    noise = float(whole.square().sum() / (1.0 - f.square().sum()))
    signal = float(A.sum((0, 1)).square().sum()) - noise
    shares = torch.einsum("nbp,np->b", D, whole) / whole.square().sum()
    return {"signal": signal, "noise": noise, "snr": signal / noise} | {
        f"variance_{b}": float(x) for b, x in enumerate(shares, 1)
    }


@pytest.mark.parametrize("reduction", ["step", "trajectory"])
@pytest.mark.parametrize("policy", [*HEADS, *BODIES])
def test_its_numbers_are_those_of_the_trajectories_gradients_written_out(policy: str, reduction: str) -> None:
    space, made = (OBS, make(policy)) if policy in HEADS else BODIES[policy]()
    made = made.double()
    rollout, adv = seven_trajectories(made, space)
    found = gradient_noise(made, rollout, rollout.flatten(adv, reduction), reduction)
    assert found["meter_groups"] == 7
    for name, value in by_hand(made, rollout, adv, reduction).items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert sum(found[f"variance_{b}"] for b in range(1, 5)) == pytest.approx(1.0)
    assert found["variance_steps"] == 8
    assert found["noise_scale"] == pytest.approx(rollout.steps / found["snr"]) or found["snr"] <= 0.0


@pytest.mark.parametrize("kernel", ["closed_form", "autograd"])
@pytest.mark.parametrize("head", HEADS)
def test_log_probabilities_move_along_a_direction_as_their_gradients_say(head: str, kernel: str) -> None:
    policy = make(head, kernel=kernel)
    batch, v = batch_for(policy, 5), randn(len(policy.flat), seed=4)
    along = policy.evaluate(batch).score_jvp(v)
    scores = [
        score_by_autograd(policy, row.obs, row.act, row.extra)
        for row in (batch.take(slice(i, i + 1)) for i in range(5))
    ]
    torch.testing.assert_close(along, torch.stack(scores) @ v)


def test_a_network_that_can_be_differentiated_once_has_all_but_the_shares_of_the_variance() -> None:
    layer = nn.TransformerEncoderLayer(3, 1, 8, dropout=0.0, batch_first=True)
    body = nn.Sequential(nn.Unflatten(1, (1, 3)), layer, nn.Flatten())
    policy = make_policy(OBS, spaces.Discrete(2), body=body)
    single = make_policy(OBS, spaces.Discrete(2)).double()
    rollout, adv = seven_trajectories(single)
    tensors = {field.name: getattr(rollout, field.name) for field in fields(rollout) if field.name != "extra"}
    rollout = Rollout(**{name: x.float() if x.is_floating_point() else x for name, x in tensors.items()})
    found = gradient_noise(policy, rollout, rollout.flatten(adv.float(), "step"), "step")
    assert set(found) == NAMES - {"variance_1", "variance_2", "variance_3", "variance_4", "variance_steps"}
    assert found["noise"] > 0.0


# exact, in the mean


@pytest.mark.parametrize(
    ("estimator", "baseline"), [(TotalReturn(1.0), NoBaseline()), (RewardToGo(1.0), CriticValue())]
)
def test_signal_noise_and_shares_by_time_are_exact_in_the_mean_over_all_batches(estimator: Any, baseline: Any) -> None:
    mdp = two_states(3)
    policy = tabular_policy(mdp, seeded(1))
    rollout, p = enumerate_trajectories(mdp, policy)
    pi = torch.softmax(policy.flat.view(2, 2), -1)
    score = torch.eye(2, dtype=torch.float64)[rollout.act] - pi[rollout.obs[:-1].argmax(-1)]
    adv, _ = advantages(rollout, ExactCritic(mdp)(rollout, policy), estimator, baseline)
    g = torch.einsum("tn,tns,tna->tnsa", adv, rollout.obs[:-1], score).flatten(2)  # (T, N, P)
    whole = g.sum(0)
    mean = p @ whole
    signal, variance = float(mean @ mean), float(p @ (whole - mean).square().sum(1))
    by_time = torch.einsum("n,tnp,np->t", p, g - (p @ g).unsqueeze(1), whole - mean)  # Cov(g_t, g)
    totals, expected = dict.fromkeys(("signal", "noise", "variance_1", "variance_2", "variance_3"), 0.0), []
    for batch, probability in enumerate_batches(rollout, p, 2):
        adv, _ = advantages(batch, ExactCritic(mdp)(batch, policy), estimator, baseline)
        found = gradient_noise(policy, batch, batch.flatten(adv, "trajectory"), "trajectory")
        for name in totals:
            of = found["noise"] if name.startswith("variance") else 1.0
            totals[name] += float(probability) * (found[name] * of if of > 0.0 else 0.0)
    expected = [signal, variance / 2, *(by_time / 2).tolist()]
    assert list(totals.values()) == pytest.approx(expected, rel=1e-9)
    assert max(expected[2:]) > 1.05 * min(expected[2:])  # the shares differ, or any would do


def measured(episodes: int, seed: int, groups: int = MAX_GROUPS) -> tuple[Stats, float]:
    """Of so many episodes, and the exact SNR of one."""
    mdp = chain(4, 6, slip=0.1)
    policy = tabular_policy(mdp, seeded(3), 0.3)
    every, p = enumerate_trajectories(mdp, policy)
    estimator, baseline = RewardToGo(1.0), CriticValue()

    def adv_of(rollout: Rollout) -> Tensor:
        return advantages(rollout, ExactCritic(mdp)(rollout, policy), estimator, baseline)[0]

    pi = torch.softmax(policy.flat.view(4, 2), -1)
    score = torch.eye(2, dtype=torch.float64)[every.act] - pi[every.obs[:-1].argmax(-1)]
    weight = torch.where(every.mask, adv_of(every), 0.0)
    g = torch.einsum("tn,tns,tna->nsa", weight, every.obs[:-1], score).flatten(1)
    mean = p @ g
    exact = float(mean @ mean / (p @ (g - mean).square().sum(1)))
    rollout = sample(mdp, policy, episodes, seeded(seed))
    return gradient_noise(policy, rollout, rollout.flatten(adv_of(rollout), "trajectory"), "trajectory"), exact


def test_the_noise_scale_is_the_exact_one() -> None:
    scales = []
    for seed in range(20):
        found, exact = measured(640, seed)
        assert found["snr_low"] > 0.0
        assert found["batch_suggested"] == found["noise_scale"]
        scales.append(found["noise_trajectories"] * exact)
    mean, error = np.mean(scales), float(np.std(scales, ddof=1)) / math.sqrt(20)
    assert mean == pytest.approx(1.0, abs=4 * error + 0.02)  # 0.02: the mean of a ratio
    assert error < 0.1


def test_of_a_batch_that_is_too_large_some_trajectories_tell_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole, exact), few = measured(640, 0), []
    monkeypatch.setattr(meter, "MAX_ROWS", 500)
    for seed in range(20):
        few.append(measured(640, seed)[0])
    assert all(found["meter_groups"] == MAX_GROUPS for found in few)
    noise = np.array([found["noise"] for found in few])
    assert noise.mean() == pytest.approx(whole["noise"], abs=4 * noise.std() / math.sqrt(20) + 0.1 * whole["noise"])
    snr = np.array([found["snr"] for found in few])
    assert snr.mean() == pytest.approx(640 * exact, abs=4 * snr.std() / math.sqrt(20))


# which trajectories


def test_trajectories_are_dealt_whole_evenly_and_always_alike() -> None:
    mdp = chain(4, 6, slip=0.1)
    rollout = sample(mdp, tabular_policy(mdp), 100, seeded())
    group, sampled = assign_groups(rollout, 16)
    assert sampled == 1.0
    column = rollout.valid(torch.arange(100).expand_as(rollout.time))
    of = {int(n): set(group[column == n].tolist()) for n in range(100)}
    assert all(len(groups) == 1 for groups in of.values())
    counts = np.bincount([groups.pop() for groups in of.values()])
    assert (len(counts), counts.min(), counts.max()) == (16, 6, 7)
    state = torch.random.get_rng_state()
    assert torch.equal(assign_groups(rollout, 16)[0], group)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(
        group[:100], torch.arange(100) % 16
    )  # shuffled: neighbours in a column are not neighbours here


def test_what_is_measured_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    mdp = two_states(10)
    rollout = sample(mdp, tabular_policy(mdp), 300, seeded())
    monkeypatch.setattr(meter, "MAX_ROWS", 200)
    group, sampled = assign_groups(rollout, 16)
    assert int((group >= 0).sum()) == 200
    assert sampled == 20 / 300
    monkeypatch.setattr(meter, "MAX_ROWS", 10)
    assert int((assign_groups(rollout, 16)[0] >= 0).sum()) == 80  # eight trajectories, however long
    assert most_groups(5_000) == MAX_GROUPS
    assert most_groups(6_000_000) == 11
    assert most_groups(10**9) == 8


# in training

SMALL: dict[str, dict[str, Any]] = {
    "actor_critic": {"num_envs": 4},
    "reinforce": {"episodes": 6},
    "off_policy_pg": {"episodes": 6},
    "a2c": {},
    "a3c": {},
    "ppo": {"num_steps": 32, "epochs": 2},
    "ppo_kl": {"num_steps": 32, "epochs": 2},
    "npg": {"num_steps": 32},
    "trpo": {"num_steps": 32},
}


def trained(algo: str, env: str, meter: bool, steps: int = 300, **keywords: Any) -> tuple[Any, list[dict[str, Any]]]:
    agent, history = pg.Agent(algo, env, gradient_meter=meter, hidden=(8,), **keywords), pg.History()
    agent.learn(steps, history, log_every=1)
    return agent, history.rows


@pytest.mark.parametrize(
    ("algo", "env", "keywords"),
    [
        *((algo, "CartPole-v1", keywords) for algo, keywords in SMALL.items()),
        ("ppo", "Pendulum-v1", {"num_steps": 40, "num_envs": 3, "normalize_obs": True, "noise_autocorrelation": 0.5}),
        ("ppo", "CartPole-v1", {"num_steps": 32, "kernel": "autograd"}),
        ("a2c", "FrozenLake-v1", {"standardize": "episode"}),
    ],
)
def test_no_bit_of_a_training_changes(algo: str, env: str, keywords: dict[str, Any]) -> None:
    (plain, few), (metered, more) = (trained(algo, env, meter, **keywords) for meter in (False, True))
    assert same_state(plain.state_dict(), metered.state_dict())
    for k, (a, b) in enumerate(zip(few, more, strict=True)):
        own = b.keys() - a.keys()
        assert own == NAMES if k % 2 == 0 else not own  # every second row
        timed = {"seconds", "steps_per_second"} | own
        assert {x: y for x, y in a.items() if x not in timed} == {x: y for x, y in b.items() if x not in timed}
    assert any(row.get("snr") is not None for row in more)


def test_every_recipe_with_a_score_function_is_among_them() -> None:
    assert set(SMALL) == set(SCORED)


@pytest.mark.parametrize("algo", sorted({*RECIPES} - {*SCORED}))
def test_recipes_without_a_score_function_refuse_to_be_measured(algo: str) -> None:
    for asked in ({"gradient_meter": True}, {"fisher_eigenvalues": 2}):
        with pytest.raises(ConfigError, match=f"{algo} follows no score function.*{next(iter(asked))}"):
            pg.Agent(algo, home(algo), **asked)


def test_no_bit_changes_where_stored_trajectories_are_learned_from() -> None:
    stored = pg.reinforce("CartPole-v1", hidden=(8,)).collect(12)
    pairs = [trained("off_policy_pg", "CartPole-v1", meter, episodes=9, dataset=stored) for meter in (False, True)]
    assert same_state(pairs[0][0].state_dict(), pairs[1][0].state_dict())
    assert pairs[1][1][0]["snr_high"] > 0.0


def test_a_saved_training_goes_on_the_same_with_and_without_and_always_measures_the_same(tmp_path: Path) -> None:
    path = trained("ppo", "CartPole-v1", True, num_steps=32)[0].save(tmp_path / "agent")
    states, rows = [], []
    for metered in (True, True, False):
        agent, history = pg.load(path), pg.History()
        agent.gradient_meter = metered
        agent.learn(600, history, log_every=1)
        states.append(agent.state_dict())
        rows.append([{k: row[k] for k in NAMES & row.keys() - {"meter_seconds"}} for row in history.rows])
    assert same_state(states[0], states[1])
    assert same_state(states[0], states[2])
    assert rows[0] == rows[1]
    assert "snr" in rows[0][0]
    assert not any(rows[2])


def test_a_batch_of_one_trajectory_has_no_numbers_and_no_error() -> None:
    agent, rows = trained("actor_critic", "CartPole-v1", True, steps=10)
    assert rows[0].keys() & NAMES == {"meter_groups", "meter_seconds"}
    assert rows[0]["meter_groups"] == 1
    assert agent.gradient_meter


def test_few_trajectories_have_numbers_but_no_interval_and_no_batch_is_suggested() -> None:
    _, rows = trained("reinforce", "CartPole-v1", True, episodes=4)
    assert all(row["snr_low"] is None and row["batch_suggested"] is None for row in rows[::2])
    assert all(row["snr"] is not None for row in rows[::2])


def test_advantages_of_0_are_no_signal_and_no_noise() -> None:
    policy = make().double()
    rollout, adv = seven_trajectories(policy)
    found = gradient_noise(policy, rollout, rollout.flatten(torch.zeros_like(adv), "step"), "step")
    assert (found["signal"], found["noise"]) == (0.0, 0.0)
    assert all(
        math.isnan(found[name]) for name in ("snr", "noise_scale", "batch_suggested", "half_cosine", "variance_1")
    )


@pytest.mark.slow
def test_the_noise_of_rollouts_of_a_fixed_number_of_steps_is_that_of_many_of_them() -> None:
    """Trajectories of one column share its steps, so they are not quite independent; the trace is right all the same."""
    agent = pg.ppo("CartPole-v1", seed=0, standardize="no")
    learner = agent.learner
    for _ in range(12):
        learner.step(agent.collector.collect(agent.policy, agent.plan.wants))
    gradients, noise = [], []
    for _ in range(400):
        rollout = Rollout.of(agent.collector.collect(agent.policy, agent.plan.wants), agent.policy)
        adv, _ = advantages(rollout, learner.critic(rollout, learner.policy), learner.estimator, learner.baseline)
        batch = rollout.flatten(adv, learner.reduction)
        gradients.append(learner.policy.evaluate(batch).gradient(batch.weight * batch.adv).clone().double())
        noise.append(gradient_noise(learner.policy, rollout, batch, learner.reduction)["noise"])
    assert np.mean(noise) == pytest.approx(float(torch.stack(gradients).var(0).sum()), rel=0.2)
