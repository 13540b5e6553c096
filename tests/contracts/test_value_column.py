"""A value column on a shared trunk: the head takes the first outputs, a term of the user's own trains the last one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import policygrad as pg
from policygrad.algorithms.diagnosed import diagnosed_step
from policygrad.envs.collector import Collector
from policygrad.envs.make import make_envs
from policygrad.envs.probes import Chain
from policygrad.models.ascent import KLPenalty, gradient_of
from policygrad.models.continuous import Gaussian
from policygrad.models.heads import Categorical, Head
from policygrad.models.networks import MLP
from policygrad.models.observations import Encoding

OBS, RATE = spaces.Box(-1.0, 12.0, (1,)), 0.5


def value_term(evaluation: Any, batch: pg.Batch) -> Tensor:
    """The derivative of −½ RATE · Σ weight (target − V)² by the outputs: 0 but in the last column."""
    derivative = torch.zeros_like(evaluation.outputs)
    derivative[:, -1] = RATE * batch.weight * (batch.target - evaluation.outputs[:, -1])
    return derivative


class TrunkValue(pg.NoCritic):
    """V is the policy network's last output; the update rule trains it, so there is nothing to fit."""

    bootstraps = True

    def __call__(self, rollout: pg.Rollout, policy: pg.Policy) -> pg.Values:
        out = policy.kernel.forward(policy.features(rollout.obs.flatten(0, 1)))[:, -1].view(len(rollout.obs), -1)
        return pg.Values(out[:-1], out[1:])


def trunk(head: Head, kernel: str = "auto") -> pg.Policy:
    network = MLP(1, (8,), head.size + 1, generator=torch.Generator().manual_seed(0))
    encoding = Encoding(OBS, 0 if head.stateful else head.context)
    return pg.Policy(network, head, kernel=kernel, encoding=encoding).double()


@pytest.mark.parametrize("kernel", ["closed_form", "autograd"])
@pytest.mark.parametrize("head", [Categorical(2), Categorical(2, masked=True), Gaussian((2,), 0.5)], ids=repr)
def test_the_terms_are_summed_in_one_product_and_are_the_gradient_written_out(head: Head, kernel: str) -> None:
    policy, g = trunk(head, kernel), torch.Generator().manual_seed(1)
    obs: Any = torch.rand(6, 1, generator=g, dtype=torch.float64)
    context = torch.rand(6, head.context, generator=g, dtype=torch.float64).round()
    extra = {"noise": context} if head.stateful else {}
    obs = {"obs": obs, "action_mask": context} if head.context and not head.stateful else obs
    act = torch.randint(2, (6,), generator=g) if head.actions else torch.randn(6, 2, generator=g, dtype=torch.float64)
    old, weight = policy.dist(obs, extra).clone(), torch.rand(6, generator=g, dtype=torch.float64)
    batch = pg.Batch.of(obs, act, weight, adv=weight - 0.5, target=weight.sin(), dist=old, extra=extra)
    policy.flat += 0.1
    rule = pg.VanillaGradient(ent_coef=0.3)
    found = gradient_of([rule.objective(0.0), KLPenalty(2.0), value_term], policy, batch).clone()
    gain, value = policy.logp(obs, act, extra) * batch.adv, policy.network(policy.features(obs))[:, -1]
    gain = gain + 0.3 * head.entropy(policy(obs, extra)) - 2.0 * head.kl(old, policy(obs, extra))
    written = policy.gradient((weight * (gain - 0.5 * RATE * (batch.target - value).square())).sum())
    torch.testing.assert_close(found, written, rtol=0, atol=1e-12)


def test_it_learns_from_two_rollouts_and_goes_on_from_its_saved_state() -> None:
    def learner() -> pg.Learner:
        rule = pg.ClippedSurrogate(0.02, epochs=20, minibatches=2, terms=(value_term,))
        return pg.Learner(trunk(Categorical(2)), pg.GAE(), rule, critic=TrunkValue())

    first, again = learner(), learner()
    collector = Collector(make_envs(lambda: Chain((1.0, -2.0, 0.5), terminate_after=3), 4), seed=0)
    rollouts = [collector.steps(first.policy, 16) for _ in range(2)]
    losses = [diagnosed_step(first, rollouts[0])["value_loss"]]
    again.load_state_dict(first.state_dict())
    losses += [diagnosed_step(x, rollouts[1])["value_loss"] for x in (first, again)]
    assert torch.equal(first.policy.flat, again.policy.flat)
    assert losses[1] == losses[2] < 0.5 * losses[0]
