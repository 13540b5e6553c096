"""KL divergences of the distributions of whole trajectories: exact, by enumeration, and estimated from samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from zoo import MDPS

import policygrad as pg
from policygrad.data import Rollout
from policygrad.gradient.importance import trajectory_kl
from policygrad.lab.exact.mdp import MDP
from policygrad.lab.exact.policies import log_policy
from policygrad.lab.exact.trajectories import seen_by

WORLDS = {world.name: world.mdp for world in MDPS}


def pair(mdp: MDP) -> tuple[Rollout, Tensor, Tensor, Tensor]:
    """Every trajectory of μ as π sees it, its probability, and both policies as tables."""
    mu, pi = (pg.lab.tabular_policy(mdp, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    rollout, p = pg.lab.enumerate_trajectories(mdp, mu)
    rollout = seen_by(rollout, log_policy(mdp, pi).detach())
    return rollout, p, pg.lab.policy_matrix(mdp, mu).detach(), pg.lab.policy_matrix(mdp, pi).detach()


@pytest.mark.parametrize("name", WORLDS)
def test_the_mean_of_the_unbiased_estimates_is_the_exact_divergence(name: str) -> None:
    rollout, p, mu, pi = pair(WORLDS[name])
    exact = pg.lab.exact_trajectory_kl(WORLDS[name], mu, pi)
    assert float(exact) > 1e-3
    for kind in ("k1", "k3"):
        assert float(p @ trajectory_kl(rollout, kind)) == pytest.approx(float(exact), rel=1e-10)
    assert abs(float(p @ trajectory_kl(rollout, "k2")) / float(exact) - 1.0) > 1e-3
    assert float(trajectory_kl(rollout, "k1").min()) < 0.0 <= float(trajectory_kl(rollout, "k3").min())
    assert float(pg.lab.exact_trajectory_kl(WORLDS[name], mu, mu)) == 0.0


def test_it_is_the_sum_over_trajectories_of_p_log_p_over_q() -> None:
    mdp = WORLDS["crossing, γ=0.8"]
    _, _, mu, pi = pair(mdp)
    found = {}
    for seed, name in ((1, "mu"), (2, "pi")):
        policy = pg.lab.tabular_policy(mdp, torch.Generator().manual_seed(seed))
        rollout, p = pg.lab.enumerate_trajectories(mdp, policy)
        for n, probability in enumerate(p.tolist()):
            key = (
                name,
                tuple(rollout.obs[:, n].flatten().tolist()),
                tuple(rollout.act[:, n].tolist()),
                rollout.mask[:, n].sum().item(),
            )
            found[key] = found.get(key, 0.0) + probability
    ours = {key[1:]: x for key, x in found.items() if key[0] == "mu"}
    direct = sum(x * math.log(x / found["pi", *key]) for key, x in ours.items())
    assert float(pg.lab.exact_trajectory_kl(mdp, mu, pi)) == pytest.approx(direct, rel=1e-12)


def test_samples_come_close_to_it_and_k3_scatters_less() -> None:
    mdp = WORLDS["chain, γ=0.9"]
    mu, pi = (pg.lab.tabular_policy(mdp, torch.Generator().manual_seed(seed), scale=0.3) for seed in (1, 2))
    tables = [pg.lab.policy_matrix(mdp, x).detach() for x in (mu, pi)]
    rollout = pg.lab.sample(mdp, tables[0], 4_000, torch.Generator().manual_seed(0))
    rollout, exact = seen_by(rollout, tables[1].log()), float(pg.lab.exact_trajectory_kl(mdp, *tables))
    errors = {}
    for kind in ("k1", "k3"):
        x = trajectory_kl(rollout, kind)
        errors[kind] = float(x.std() / len(x) ** 0.5)
        assert abs(float(x.mean()) - exact) < 4.0 * errors[kind]
    assert errors["k3"] < 0.5 * errors["k1"]


def test_without_a_horizon_it_is_the_limit_of_long_ones_and_not_discounted() -> None:
    generator = torch.Generator().manual_seed(3)
    transition = torch.rand(3, 2, 3, generator=generator, dtype=torch.float64) + 0.1
    transition[2, :, :2] = 0.0
    transition /= transition.sum(-1, keepdim=True)
    mdp = MDP(transition, torch.rand(3, 2, generator=generator), torch.tensor([0.5, 0.5, 0.0]), None, 0.5, (2,))
    p, q = torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) + 0.2
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    forever = float(pg.lab.exact_trajectory_kl(mdp, p, q))
    parts = [float(pg.lab.exact_trajectory_kl(mdp, p, q, limit=n)) for n in (1, 5, 200)]
    assert parts[0] < parts[1] < parts[2]
    assert parts[2] == pytest.approx(forever, rel=1e-9)


def test_what_the_other_never_does_is_infinitely_far_where_it_is_visited() -> None:
    mdp = WORLDS["bandit"]
    uniform = torch.full((mdp.states, mdp.actions), 1.0 / mdp.actions, dtype=torch.float64)
    narrow = torch.zeros_like(uniform)
    narrow[:, 0] = 1.0
    assert float(pg.lab.exact_trajectory_kl(mdp, uniform, narrow)) == math.inf
    assert float(pg.lab.exact_trajectory_kl(mdp, narrow, uniform)) == pytest.approx(math.log(mdp.actions))
    mdp = WORLDS["crossing, γ=1"]  # its terminal state is nobody's business
    other = torch.full((3, 2), 0.5, dtype=torch.float64)
    other[2] = torch.tensor([1.0, 0.0])
    assert float(pg.lab.exact_trajectory_kl(mdp, torch.full((3, 2), 0.5, dtype=torch.float64), other)) == 0.0


def test_other_kinds_and_parts_of_episodes_are_refused() -> None:
    rollout, *_ = pair(WORLDS["bandit"])
    with pytest.raises(ValueError, match=r"k1, k2, k3, got 'k4'"):
        pg.trajectory_kl(rollout, "k4")
    rollout, *_ = pair(WORLDS["level, γ=0.8"])
    rollout.time[0, 0] = 1
    with pytest.raises(ValueError, match="whole episodes"):
        pg.trajectory_kl(rollout)
