"""Compiled products with the Fisher matrix, and natural steps with them, against the reference."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policygrad.data import Batch
from policygrad.models.policy import Policy, make_policy
from policygrad.total import reducing
from policygrad.updates import NaturalGradient, TrustRegion

OBS = spaces.Box(-1.0, 1.0, (3,))
BOX = spaces.Box(np.array([-1.0, 0.0]), np.array([3.0, 1.0]), dtype=np.float64)
MASKED = spaces.Dict({"position": OBS, "action_mask": spaces.Box(0, 1, (4,), np.int8)})
ROWS = 61
CASES: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "choices": (spaces.Discrete(4), {}),
    "masked choices": (spaces.Discrete(4), {"obs": MASKED}),
    "several choices": (spaces.MultiDiscrete([2, 3]), {}),
    "normals": (BOX, {}),
    "normals, std by the network": (BOX, {"std": "network"}),
    "squashed": (BOX, {"head": "squashed"}),
    "relu, three layers": (spaces.Discrete(4), {"activation": "relu", "hidden": (16, 8, 16)}),
    "silu": (BOX, {"activation": "silu"}),
    "linear": (spaces.Discrete(4), {"hidden": ()}),
}


def case(name: str, kernel: str = "compiled", dtype: torch.dtype = torch.float32) -> tuple[Policy, Batch]:
    space, words = CASES[name]
    words = {"obs": OBS, "hidden": (16, 16)} | words
    policy = make_policy(words.pop("obs"), space, kernel=kernel, seed=3, **words).to(dtype)
    rng = np.random.default_rng(0)
    policy.flat.add_(torch.from_numpy(0.3 * rng.standard_normal(len(policy.flat))).to(dtype))
    obs: Any = torch.from_numpy(rng.standard_normal((ROWS, 3))).float()
    if policy.head.context:
        mask = torch.from_numpy(rng.integers(2, size=(ROWS, 4)).astype(np.int8))
        mask[:, 1] = 1
        obs = {"position": obs, "action_mask": mask}
    shown = {key: x.numpy() for key, x in obs.items()} if isinstance(obs, dict) else obs.numpy()
    act = torch.from_numpy(policy.act(shown, None, policy.noise(rng, (ROWS,)))[0])
    act = act.to(dtype) if isinstance(space, spaces.Box) else act
    adv, weight = (torch.from_numpy(rng.uniform(low, 1.5, ROWS)).to(dtype) for low in (-1.5, 0.5))
    logp = policy.head.logp(policy.dist(obs), act)
    return policy, Batch(obs, act, logp, adv, weight / ROWS, 1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), pytest.param(torch.float64, 1e-12, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", CASES)
def test_a_product_is_that_of_the_reference(name: str, dtype: torch.dtype, tolerance: float) -> None:
    policy, batch = case(name, dtype=dtype)
    compiled = NaturalGradient().evaluate(policy, batch)
    assert compiled.product is not None
    evaluation = policy.evaluate(batch)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        v = torch.randn(len(policy.flat), generator=generator, dtype=dtype)
        weight = batch.normalized_weight
        expected, made = evaluation.fisher_product(v, weight), compiled.fisher_product(v, weight)
        assert float((made - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("rule", [NaturalGradient(damping=1e-2), TrustRegion(ent_coef=0.01)])
@pytest.mark.parametrize("name", ["choices", "normals"])
def test_a_natural_step_is_that_of_the_reference(rule: Any, name: str) -> None:
    found = []
    for kernel in ("compiled", "closed_form"):
        policy, batch = case(name, kernel)
        own = copy.deepcopy(rule)
        before, stats = policy.flat.clone(), own(policy, batch)
        assert (own.workspace.made is not None) == (kernel == "compiled")
        found.append((policy.flat - before, stats))
    (made, stats), (expected, reference) = found
    assert float((made - expected).norm()) <= 1e-3 * float(expected.norm())  # conjugate gradients in float32
    assert stats["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-5)
    assert stats["cg_curvature"] == pytest.approx(reference["cg_curvature"], rel=1e-2)


def test_where_the_reference_is_to_run() -> None:
    policy, batch = case("choices")
    rule = NaturalGradient()
    assert rule.evaluate(policy, batch).product is not None
    with reducing(lambda x: x, lambda x: x):
        assert rule.evaluate(policy, batch).product is None
    correlated = make_policy(OBS, BOX, noise_autocorrelation=0.5, kernel="compiled")
    extra = {"noise": torch.zeros(ROWS, 2)}
    rows = Batch.of(batch.obs, torch.zeros(ROWS, 2), extra=extra)
    assert rule.evaluate(correlated, rows).product is None
    for kernel in ("auto", "closed_form", "autograd"):
        other, batch = case("choices", kernel)
        assert rule.evaluate(other, batch).product is None
