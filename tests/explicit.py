"""Small policies of every head and body, batches that they acted in, and their Fisher matrices written out by definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policygrad.data import Batch, Rollout, Wants
from policygrad.envs.collector import Collector
from policygrad.models.continuous import Beta, Gaussian
from policygrad.models.heads import Categorical, Head, MultiCategorical
from policygrad.models.kernels import trainable
from policygrad.models.networks import TabularNetwork, WithLogStd
from policygrad.models.observations import ACTION_MASK
from policygrad.models.policy import NOISE, NOTHING, Policy, make_policy
from policygrad.stored.replay import Replay
from policygrad.tree import Tree

OBS = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0.0, 1.0, (5, 5, 1))
BOX = spaces.Box(np.array([-1.0, 2.0]), np.array([3.0, 2.5]), dtype=np.float64)

# every distribution there is: the action space and the keywords of make_policy
HEADS: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "categorical": (spaces.Discrete(4), {}),
    "categorical, masked": (spaces.Discrete(4), {"mask_source": "info"}),
    "multi-categorical": (spaces.MultiDiscrete([2, 3]), {}),
    "multi-categorical, masked": (spaces.MultiDiscrete([2, 3]), {"mask_source": "info"}),
    "gaussian": (BOX, {"log_std": -0.4}),
    "gaussian, std of the network": (BOX, {"std": "network"}),
    "correlated": (BOX, {"noise_autocorrelation": 0.8}),
    "correlated, std of the network": (BOX, {"noise_autocorrelation": 0.8, "std": "network"}),
    "squashed": (BOX, {"head": "squashed"}),
    "squashed, correlated, std of the network": (
        BOX,
        {"head": "squashed", "noise_autocorrelation": 0.6, "std": "network"},
    ),
    "beta": (spaces.Box(-1.0, 3.0, (1,)), {"head": "beta"}),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def moved(policy: Policy, scale: float = 0.3, seed: int = 9) -> Policy:
    """In float64, and away from where it began: a fresh policy is nearly uniform."""
    policy = policy.double()
    policy.flat += scale * randn(len(policy.flat), seed=seed)
    return policy


def make(
    head: str = "categorical",
    hidden: tuple[int, ...] = (4,),
    activation: str = "tanh",
    kernel: str = "auto",
    scale: float = 0.3,
    seed: int = 9,
) -> Policy:
    """An MLP with this head; a Beta's stays nearer to where it began, for log x below its least x no quadrature sees."""
    space, keywords = HEADS[head]
    scale = scale / 3.0 if head == "beta" else scale
    policy = make_policy(OBS, space, hidden=hidden, activation=activation, kernel=kernel, **keywords)
    return moved(policy, scale, seed)


class Cnn(nn.Module):
    """Channels last, as Gymnasium has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Tanh(), nn.Flatten())

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs.movedim(-1, 1))


class Recurrence(nn.Module):
    """A layer that is used twice, a parameter that does nothing, and one that does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))
        self.steps = nn.ModuleList([nn.Linear(3, 3)] * 2)
        self.scale = nn.Parameter(torch.full((3,), 0.7), requires_grad=False)

    def forward(self, obs: Tensor) -> Tensor:
        for step in self.steps:
            obs = torch.tanh(step(obs)) * self.scale
        return obs


def table(outputs: int, log_std: bool = False) -> nn.Module:
    network = TabularNetwork(3, outputs)
    return WithLogStd(network, outputs) if log_std else network


# bodies other than an MLP: the space they observe and the policy; made anew every time, for a module belongs to one policy
BODIES: dict[str, Callable[[], tuple[spaces.Box, Policy]]] = {
    "table": lambda: (OBS, Policy(table(4), Categorical(4))),
    "table by autograd": lambda: (OBS, Policy(table(4), Categorical(4), kernel="autograd")),
    "table with its own std": lambda: (OBS, Policy(table(2, log_std=True), Gaussian((2,)))),
    "cnn": lambda: (IMAGE, make_policy(IMAGE, spaces.Discrete(3), body=Cnn())),
    "cnn of a correlated gaussian": lambda: (IMAGE, make_policy(IMAGE, BOX, body=Cnn(), noise_autocorrelation=0.8)),
    "recurrence": lambda: (OBS, make_policy(OBS, spaces.Discrete(3), body=Recurrence())),
    "recurrence of a beta": lambda: (OBS, make_policy(OBS, HEADS["beta"][0], body=Recurrence(), head="beta")),
    "normalised": lambda: (OBS, make_policy(OBS, spaces.Discrete(3), hidden=(4,), normalize_obs=True)),
}


def observations(policy: Policy, rows: int, seed: int = 0, space: spaces.Box = OBS) -> tuple[Tree, dict[str, Tree]]:
    """Encoded ones, and the named arrays that go with them; with an action mask, or noise before, of its own in every row
    where there is one.
    """
    obs = randn(rows, *space.shape, seed=seed)
    head = policy.head
    if not head.context:
        return obs, {}
    if head.stateful:
        return obs, {NOISE: randn(rows, head.context, seed=seed + 1)}
    mask = torch.rand(rows, head.context, generator=generator(seed + 1)) < 0.6
    first, start = [], 0
    for size in sizes(head):  # one that is legal always
        first.append(start + torch.randint(size, (rows,), generator=generator(seed + 2)))
        start += size
    return {"obs": obs, ACTION_MASK: mask.scatter_(1, torch.stack(first, 1), True)}, {}


def sizes(head: Head) -> tuple[int, ...]:
    return head.sizes if isinstance(head, MultiCategorical) else (head.size,)


def batch_for(policy: Policy, rows: int = 12, seed: int = 0, space: spaces.Box = OBS) -> Batch:
    """Rows that this policy acted in, with advantages of both signs and uneven weights."""
    obs, extra = observations(policy, rows, seed, space)
    dist = policy.dist(obs, extra)
    noise = policy.head.noise(np.random.default_rng(seed), (rows,))
    act = torch.from_numpy(policy.head.sample(dist.numpy(), noise))
    adv, weight = (
        randn(rows, seed=seed + 3),
        torch.rand(rows, generator=generator(seed + 4), dtype=torch.float64) / rows,
    )
    return Batch(
        obs, act, policy.evaluate(Batch.of(obs, act, extra=extra)).logp, adv, weight, trajectories=3, extra=extra
    )


def share_of(batch: Batch) -> Tensor:
    """The weights of the mean."""
    return batch.weight / batch.weight.sum()


def double_exponential(nodes: int = 61) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (0, 1), whatever the density does at the ends: x = σ(π sinh t), the trapezium rule in t."""
    t = np.linspace(-2.6, 2.6, nodes)
    x = 1.0 / (1.0 + np.exp(-np.pi * np.sinh(t)))
    return torch.from_numpy(x), torch.from_numpy(x * (1.0 - x) * np.pi * np.cosh(t) * 5.2 / (nodes - 1))


def every_action(head: Head, dist: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (B, A, *) and their probabilities (B, A) under dist (B, P), so that Σ is E_{a∼π}: all there are, or the nodes of
    a quadrature: Gauss-Hermite, exact for products of a normal's scores, double exponential for a Beta's.
    """
    rows = len(dist)
    if isinstance(head, Beta):
        x, weight = double_exponential()
        act = torch.cartesian_prod(*[x] * head.dims).reshape(-1, *head.shape)
        length = torch.cartesian_prod(*[weight] * head.dims).reshape(len(act), -1).prod(-1) * float(head.scale.prod())
        act = act.expand(rows, *act.shape)
        return act, _probabilities(head, dist, act) * length
    if isinstance(head, Gaussian):
        node, weight = np.polynomial.hermite.hermgauss(4)
        z = torch.tensor(list(itertools.product(math.sqrt(2.0) * node, repeat=head.dims)))
        p = torch.tensor(list(itertools.product(weight / math.sqrt(math.pi), repeat=head.dims))).prod(-1)
        mean, std = dist[:, None, : head.dims], dist[:, None, head.dims :].exp()
        return (mean + std * z).reshape(rows, len(z), *head.shape), p.expand(rows, -1)
    if isinstance(head, Categorical):
        act = torch.arange(head.size)
    else:
        assert isinstance(head, MultiCategorical)
        act = torch.tensor(list(itertools.product(*map(range, head.sizes)))).reshape(-1, *head.shape)
    act = act.expand(rows, *act.shape)
    return act, _probabilities(head, dist, act)


def _probabilities(head: Head, dist: Tensor, act: Tensor) -> Tensor:
    rows, count = act.shape[:2]
    return head.logp(dist.repeat_interleave(count, 0), act.flatten(0, 1)).exp().view(rows, count)


def jacobian(policy: Policy, obs: Tree) -> tuple[Tensor, Tensor]:
    """The network's outputs (B, n) and ∂out/∂θ (B, n, P), by autograd, one output at a time."""
    out = policy.network(policy.features(obs))
    rows = [
        torch.autograd.grad(x, trainable(policy.network), retain_graph=True, allow_unused=True, materialize_grads=True)
        for x in out.reshape(-1)
    ]
    return out.detach(), torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows]).view(*out.shape, -1)


def scores(policy: Policy, obs: Tree, extra: Mapping[str, Tree] = NOTHING) -> tuple[Tensor, Tensor]:
    """∇log π(a|s) of every action, (B, A, P), and the actions' probabilities (B, A)."""
    head = policy.head
    act, probability = every_action(head, policy(obs, extra).detach())
    rows, count = act.shape[:2]
    out, J = jacobian(policy, obs)
    each = out.repeat_interleave(count, 0).requires_grad_()
    context = policy.context(obs, extra)
    given = each if context is None else head.apply_context(each, context.repeat_interleave(count, 0))
    logp = head.logp(head.canonical(given), act.flatten(0, 1))
    by_out = torch.autograd.grad(logp.sum(), each)[0].view(rows, count, -1)
    return by_out @ J, probability


def fisher_by_scores(policy: Policy, obs: Tree, share: Tensor, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
    """F = Σ_b share_b E_{a∼π}[ ∇log π ∇log πᵀ ], (P, P)."""
    score, probability = scores(policy, obs, extra)
    return torch.einsum("b,ba,bap,baq->pq", share, probability, score, score)


def fisher_by_kl(policy: Policy, obs: Tree, share: Tensor, extra: Mapping[str, Tree] = NOTHING) -> Tensor:
    """F = ∂²/∂θ² Σ_b share_b KL(old_b ‖ π_θ,b) at θ = θ_old, (P, P), by autograd twice."""
    parameters = trainable(policy.network)

    def flat(grads: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([g.reshape(-1) for g in grads])

    keywords: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    dist = policy(obs, extra)
    kl = (share * policy.head.kl(dist.detach(), dist)).sum()
    gradient = flat(torch.autograd.grad(kl, parameters, create_graph=True, **keywords))
    rows = [torch.autograd.grad(g, parameters, retain_graph=True, **keywords) for g in gradient]
    return torch.stack([flat(row) for row in rows])


def plain_gradient(policy: Policy, batch: Batch, ent_coef: float = 0.0) -> Tensor:
    """∇θ of Σ weight · (ratio · adv + ent_coef · entropy), by autograd."""
    dist = policy(batch.obs, batch.extra)
    ratio = (policy.head.logp(dist, batch.act) - batch.logp).exp()
    gain = (batch.weight * (ratio * batch.adv + ent_coef * policy.head.entropy(dist))).sum()
    grads = torch.autograd.grad(gain, trainable(policy.network), allow_unused=True, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in grads])


def same(a: Any, b: Any) -> bool:
    """Whether two records, rollouts or batches are equal to the bit, in the same types, in every array of every field."""
    return all(same_tree(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def same_tree(a: Any, b: Any) -> bool:
    """The same of two trees."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tree(a[name], b[name]) for name in a)
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a.dtype == b.dtype and np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def roll_steps(collector: Collector, policy: Policy, T: int) -> Rollout:
    """T rows of a collector, as the policy's learner sees them."""
    return Rollout.of(collector.steps(policy, T), policy)


def roll_episodes(collector: Collector | Replay, policy: Policy, n: int) -> Rollout:
    """Whole episodes of a source, as the policy's learner sees them."""
    return Rollout.of(collector.collect(policy, Wants(episodes=n)), policy)


def same_state(a: Any, b: Any) -> bool:
    """Whether two state trees are equal, tensors to the bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_state(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return (
            isinstance(b, list | tuple)
            and len(a) == len(b)
            and all(same_state(x, y) for x, y in zip(a, b, strict=True))
        )
    return a == b
