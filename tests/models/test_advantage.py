"""The advantage regressor: centred whatever it has learned, exact where it can be, and what it says of another policy."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from zoo import MDPS, World

from policygrad.data import Batch
from policygrad.lab.exact.tabular import discounts, objective, policy_matrix, solve, tabular_policy, visits
from policygrad.models.advantage import AdvantageRegressor, fit_advantage
from policygrad.models.heads import Categorical
from policygrad.models.networks import MLP, TabularNetwork
from policygrad.models.policy import Policy, make_policy

WORLD = next(w for w in MDPS if w.name == "random, γ=0.8")


def timed(policy: Policy, horizon: int) -> Policy:
    """The same policy on observations that tell the time: one-hot of t · S + s."""
    S, A = policy.network.table.shape
    other = Policy(TabularNetwork(horizon * S, A), Categorical(A)).double()
    other.flat.copy_(policy.flat.repeat(horizon))
    return other


def data(world: World) -> tuple[Batch, Tensor]:
    """Every (t, s, a) with probability γᵗ d_t(s) π(a|s), two noisy samples of its advantage each; the exact A (H·S, A)."""
    mdp, pi = world.mdp, world.pi
    V, Q = solve(mdp, pi)
    H, S, A = Q.shape
    p = discounts(mdp) * visits(mdp, pi)[..., None] * pi
    t, s, a = (p > 0).nonzero().unbind(1)
    obs, adv = torch.eye(H * S, dtype=torch.float64)[t * S + s], (Q - V[:-1, :, None])[t, s, a]
    noise = torch.where(torch.arange(len(adv)) % 2 == 0, 1.5, -0.5)
    weight = p[t, s, a]
    both = Batch(
        obs.repeat(2, 1), a.repeat(2), a.repeat(2) * 0.0, torch.cat([adv + noise, adv - noise]), weight.repeat(2) / 2, 1
    )
    return both, (Q - V[:-1, :, None]).view(H * S, A)


def test_on_a_small_mdp_it_finds_the_exact_advantage() -> None:
    (batch, exact), policy = data(WORLD), timed(WORLD.policy(), WORLD.mdp.horizon)
    states, actions = exact.shape
    network = TabularNetwork(states, actions).double()
    advantage = fit_advantage(policy, batch, network, lr=0.01, epochs=3000, minibatches=1)
    seen = batch.obs.sum(0) > 0
    assert 4 <= int(seen.sum()) < states
    found = advantage(torch.eye(states, dtype=torch.float64))
    torch.testing.assert_close(found[seen], exact[seen], rtol=0, atol=1e-6)
    assert float(exact[seen].abs().max()) > 0.5


def test_its_gain_over_old_states_is_the_surrogate_and_to_first_order_the_rise_of_the_objective() -> None:
    """Σ_t γᵗ Σ_s d_t(s) Σ_a π'(a|s) A(s,a): what trust regions rest on; the error shrinks with the square of the step."""
    (batch, exact), mdp, policy = data(WORLD), WORLD.mdp, timed(WORLD.policy(), WORLD.mdp.horizon)
    states, actions = exact.shape
    advantage = fit_advantage(
        policy, batch, TabularNetwork(states, actions).double(), lr=0.01, epochs=3000, minibatches=1
    )
    direction = tabular_policy(mdp, torch.Generator().manual_seed(9)).flat
    errors = []
    for step in (0.1, 0.01):
        other = WORLD.policy()
        other.flat.add_(step * direction)
        gain = float((batch.weight * advantage.gain(timed(other, mdp.horizon), batch.obs)).sum())
        rise = float((objective(mdp, policy_matrix(mdp, other)) - objective(mdp, WORLD.pi)).detach())
        errors.append(abs(gain - rise))
        assert abs(rise) > 5 * errors[-1]
    assert errors[1] < errors[0] / 50
    assert float(advantage.gain(policy, batch.obs).abs().max()) <= 1e-12


@pytest.mark.parametrize("kernel", ["auto", "autograd"])
def test_it_is_centred_under_the_policy_of_the_data_even_when_that_moves(kernel: str) -> None:
    policy = make_policy(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3), hidden=(8,), seed=1).double()
    policy.flat.mul_(5.0)
    obs = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    old = policy.dist(obs).exp()
    advantage = AdvantageRegressor(MLP(2, (8,), 3), policy, kernel=kernel).double()
    policy.flat.zero_()
    assert not torch.allclose(policy.dist(obs).exp(), old, atol=1e-2)
    torch.testing.assert_close((old * advantage(obs)).sum(-1), torch.zeros(20).double(), rtol=0, atol=1e-14)
    assert float(advantage(obs).abs().max()) > 0.1


def test_one_step_is_adams_on_the_weighted_squared_error() -> None:
    policy = make_policy(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3), hidden=(8,), seed=1).double()
    generator = torch.Generator().manual_seed(0)
    obs, adv, weight = (torch.randn(20, *shape, generator=generator, dtype=torch.float64) for shape in ((2,), (), ()))
    act = torch.randint(3, (20,), generator=generator)
    batch = Batch(obs, act, adv, 100.0 * adv, weight.abs(), 1)
    network = MLP(2, (8,), 3, generator=generator).double()
    twin = deepcopy(network)
    advantage = fit_advantage(policy, batch, network, lr=0.01, epochs=1, minibatches=1)
    share, rms = batch.weight / batch.weight.sum(), float(advantage.scale)
    assert rms == pytest.approx(float((share * batch.adv.square()).sum().sqrt()))
    f = twin(obs)
    centred = f - (policy.dist(obs).exp() * f).sum(-1, keepdim=True)
    loss = 0.5 * (share * (batch.adv / rms - centred.gather(1, act[:, None]).squeeze(1)).square()).sum()
    grads = torch.cat([g.reshape(-1) for g in torch.autograd.grad(-loss, list(twin.parameters()))])
    before = torch.cat([p.detach().reshape(-1) for p in twin.parameters()])
    # Adam's first step: lr · g / (|g| + eps)
    torch.testing.assert_close(advantage.flat, before + 0.01 * grads / (grads.abs() + 1e-5), rtol=0, atol=1e-12)


def test_continuous_actions_are_refused() -> None:
    box = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(
        TypeError, match="advantages of every action need Discrete ones, and the policy's head is Gaussian"
    ):
        AdvantageRegressor(MLP(2, (8,), 3), make_policy(box, box))
