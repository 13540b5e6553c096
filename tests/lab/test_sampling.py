"""Simulated episodes have the distribution of the listed ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from policygrad.data import Rollout
from policygrad.lab.exact import sampling, worlds
from policygrad.lab.exact.mdp import MDP, random_mdp
from policygrad.lab.exact.sampling import sample
from policygrad.lab.exact.tabular import (
    enumerate_trajectories,
    objective,
    optimal_policy,
    policy_matrix,
    tabular_policy,
)

ROOT = Path(__file__).parents[2]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(rollout: Rollout) -> list[tuple[int, ...]]:
    """A trajectory's states, actions and length."""
    states = rollout.obs.argmax(-1) * torch.cat([rollout.mask[:1], rollout.mask])
    return [tuple(row) for row in torch.cat([states, rollout.act, rollout.mask.sum(0, keepdim=True)]).T.tolist()]


def p_value(rollout: Rollout, listed: Rollout, p: Tensor) -> float:
    """Pearson's chi-square test of the sampled trajectories against their probabilities; rare ones count together."""
    names = keys(listed)
    assert len(set(names)) == len(names)
    index = {name: i for i, name in enumerate(names)}
    counts = np.bincount([index[name] for name in keys(rollout)], minlength=len(names))
    expected = p.numpy() * counts.sum()
    rare = expected < 5.0
    observed, wanted = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    keep = wanted > 0.0
    assert keep.sum() > 10
    statistic = ((observed[keep] - wanted[keep]) ** 2 / wanted[keep]).sum()
    return float(chi2.sf(statistic, keep.sum() - 1))


def small(horizon: int | None = 3) -> MDP:
    mdp = random_mdp(4, 2, horizon or 1, np.random.default_rng(1), 0.9, terminal=(3,))
    return dataclasses.replace(mdp, horizon=horizon)


@pytest.mark.parametrize(
    ("mdp", "limit"),
    [(small(), None), (small(), 2), (small(None), 3), (worlds.make_mdp("aliased", horizon=2), None)],
    ids=["horizon", "limit", "limit alone", "aliased"],
)
def test_trajectories_come_with_their_probabilities(mdp, limit):
    policy, other = tabular_policy(mdp, seeded(1)), tabular_policy(mdp, seeded(2))
    rollout = sample(mdp, policy, 20_000, seeded(), limit)
    listed, p = enumerate_trajectories(mdp, policy, limit)
    assert p_value(rollout, listed, p) > 1e-4
    assert p_value(rollout, *enumerate_trajectories(mdp, other, limit)) < 1e-9  # the test would see another policy


def test_a_policy_that_depends_on_time_is_played_by_the_clock():
    mdp = small()
    pi = torch.randn(3, 4, 2, generator=seeded(), dtype=torch.float64).softmax(-1)
    rollout = sample(mdp, pi, 20_000, seeded())
    for t in range(3):
        for s in range(3):
            there = rollout.mask[t] & (rollout.obs[t].argmax(-1) == s)
            n, k, q = int(there.sum()), int(rollout.act[t, there].sum()), float(pi[t, s, 1])
            assert n > 300
            assert abs(k - n * q) <= 4.5 * math.sqrt(n * q * (1.0 - q))
            torch.testing.assert_close(
                rollout.logp[t, there], pi[t, s].log()[rollout.act[t, there]], rtol=0, atol=1e-14
            )
    returns = (mdp.gamma ** rollout.time.double() * rollout.rew).sum(0)
    error = float(returns.std()) / math.sqrt(len(returns))
    assert abs(float(returns.mean() - objective(mdp, pi))) <= 4.5 * error


def test_rows_are_those_of_the_listed_trajectories():
    """Every field of a sampled column is that of the listed one with the same path."""
    mdp = small()
    policy = tabular_policy(mdp, seeded(1))
    rollout, (listed, _) = sample(mdp, policy, 300, seeded()), enumerate_trajectories(mdp, policy)
    assert int(rollout.terminated.sum()) == 300  # the horizon is part of the task
    index = {name: i for i, name in enumerate(keys(listed))}
    same = listed.columns([index[name] for name in keys(rollout)])
    for field in (f for f in dataclasses.fields(rollout) if f.name != "extra"):
        a, b = getattr(rollout, field.name), getattr(same, field.name)
        valid = rollout.mask if a.shape[0] == len(rollout.mask) else torch.cat([rollout.mask[:1], rollout.mask])
        torch.testing.assert_close(a[valid], b[valid], rtol=0, atol=1e-14)


def test_what_has_probability_0_is_never_drawn_whatever_the_uniform_number(monkeypatch):
    """U = 0 and the largest u below 1, with impossible actions and successors first, in the middle and last."""
    pi = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    P = torch.zeros(2, 5, 2, dtype=torch.float64)
    P[0, :, 1] = P[1, :, 0] = 1.0
    mdp = MDP(P, torch.zeros(2, 5), torch.tensor([0.0, 1.0]), 6)
    for u, action in ((0.0, 1), (1.0 - 2.0**-53, 3)):
        monkeypatch.setattr(
            sampling.torch, "rand", lambda *shape, u=u, **rest: torch.full(shape, u, dtype=torch.float64)
        )
        rollout = sample(mdp, pi, 4, seeded())
        assert rollout.obs.argmax(-1)[:, 0].tolist() == [1, 0, 1, 0, 1, 0, 1]
        assert rollout.act[:, 0].tolist() == [2, action] * 3
    monkeypatch.undo()
    rollout = sample(mdp, pi, 5_000, seeded())
    taken = pi[rollout.obs[:-1].argmax(-1), rollout.act]
    assert (taken > 0).all()
    assert torch.isfinite(rollout.logp).all()


def test_the_same_seed_gives_the_same_episodes_and_another_one_others():
    mdp = worlds.make_mdp("gridworld")
    policy = tabular_policy(mdp, seeded())
    one, same, other = (sample(mdp, policy, 50, seeded(seed)) for seed in (3, 3, 4))
    for field in (f for f in dataclasses.fields(one) if f.name != "extra"):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name))
    assert keys(one) != keys(other)


def test_a_table_says_what_the_policy_says():
    mdp = small()
    policy = tabular_policy(mdp, seeded(1))
    one, same = sample(mdp, policy, 50, seeded()), sample(mdp, policy_matrix(mdp, policy).detach(), 50, seeded())
    assert keys(one) == keys(same)
    torch.testing.assert_close(one.logp, same.logp, rtol=0, atol=1e-14)


def test_episodes_that_are_over_stay_over_and_those_that_are_not_are_truncated():
    mdp = worlds.make_mdp("chain", horizon=math.inf)
    rollout = sample(mdp, tabular_policy(mdp, scale=0.0), 200, seeded(), limit=12)
    assert rollout.whole_episodes
    assert rollout.trajectories == 200
    last = rollout.next_obs.argmax(-1)[rollout.end]
    assert torch.equal(mdp.over[last], rollout.terminated[rollout.end])
    assert 20 < int(rollout.truncated.sum()) < 180
    assert (rollout.rew[~rollout.mask] == 0).all()
    right = sample(mdp, optimal_policy(mdp), 200, seeded(), limit=10_000)  # (1, S, A): as it is without a horizon
    assert right.terminated.any(0).all()
    assert len(right.rew) < 60  # no longer than its longest episode


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m, pi: sample(m, pi, 0, seeded()), "episodes must be at least 1, got 0"),
        (lambda m, pi: sample(m, pi, 1, seeded(), limit=0), "limit must be at least 1, got 0"),
        (lambda m, pi: sample(small(None), pi, 1, seeded()), "this MDP has no horizon: give a limit"),
        (lambda m, pi: sample(m, pi[:3], 1, seeded()), r"pi must be \(S, A\) = \(4, 2\)"),
        (lambda m, pi: sample(m, pi.expand(2, -1, -1), 1, seeded()), "for each of 3 steps"),
        (lambda m, pi: sample(m, pi + 1.0, 1, seeded()), r"pi\(a\|s\) must be a probability distribution"),
        (lambda m, pi: sample(m, pi.log(), 1, seeded()), r"pi\(a\|s\) must be a probability distribution"),
    ],
)
def test_mistakes_are_said(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(small(), torch.full((4, 2), 0.5, dtype=torch.float64))


def test_the_throughput_table_has_a_line_for_every_world(capsys):
    spec = importlib.util.spec_from_file_location("simulation", ROOT / "benchmarks" / "simulation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--steps", "2000", "chain", "Taxi-v4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["world", "states", "horizon", "transitions/s"]
    assert [line.split()[:3] for line in lines[1:]] == [["chain", "6", "12"], ["Taxi-v4", "500", "200"]]
    assert all(float(line.split()[3].replace(",", "")) > 0 for line in lines[1:])
