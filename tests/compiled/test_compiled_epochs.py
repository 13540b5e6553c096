"""Compiled epochs against the reference: the same weights, moments, norms and random numbers, after many minibatches."""

from __future__ import annotations

import copy
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policygrad.data import Batch, Rollout
from policygrad.errors import NotFiniteError
from policygrad.models.ascent import ValueLoss
from policygrad.models.critic import Critic, make_critic, make_q_critic
from policygrad.models.optim import SGD
from policygrad.models.policy import Policy, make_policy
from policygrad.models.shared import with_value
from policygrad.models.workspace import Workspace
from policygrad.total import reducing
from policygrad.updates import ClippedSurrogate, PenalizedSurrogate, VanillaGradient

OBS = spaces.Box(-1.0, 1.0, (3,))
BOX = spaces.Box(np.array([-1.0, 0.0]), np.array([3.0, 1.0]), dtype=np.float64)
MASKED = spaces.Dict({"position": OBS, "action_mask": spaces.Box(0, 1, (4,), np.int8)})
ROWS = 61  # which is divided into uneven pieces
PPO, KL = ClippedSurrogate, PenalizedSurrogate

VALUE = ValueLoss(0.7, SimpleNamespace(mean=0.3, std=1.7))

# what is trained: the rule, the action space, and keywords of the policy
CASES: dict[str, tuple[Any, spaces.Space, dict[str, Any]]] = {
    "choices": (lambda: PPO(ent_coef=0.02), spaces.Discrete(4), {}),
    "masked choices": (lambda: PPO(ent_coef=0.02), spaces.Discrete(4), {"obs": MASKED}),
    "several choices": (lambda: PPO(ent_coef=0.02), spaces.MultiDiscrete([2, 3]), {}),
    "several choices, KL": (lambda: KL(beta=2.0, target_kl=None), spaces.MultiDiscrete([2, 3]), {}),
    "one step": (lambda: VanillaGradient(1e-2, ent_coef=0.02), spaces.Discrete(4), {}),
    "KL stops it": (lambda: PPO(target_kl=1e-3), spaces.Discrete(4), {}),
    "normals": (lambda: PPO(ent_coef=0.02), BOX, {}),
    "normals, KL": (lambda: KL(beta=2.0, ent_coef=0.02), BOX, {}),
    "normals, std by the network": (lambda: KL(beta=2.0, ent_coef=0.02), BOX, {"std": "network"}),
    "normals, autocorrelated": (lambda: PPO(), BOX, {"noise_autocorrelation": 0.8}),
    "normals, autocorrelated, std by the network": (
        lambda: KL(ent_coef=0.02),
        BOX,
        {"noise_autocorrelation": 0.8, "std": "network"},
    ),
    "squashed": (lambda: PPO(ent_coef=0.02), BOX, {"head": "squashed"}),
    "squashed, KL": (lambda: KL(), BOX, {"head": "squashed", "std": "network"}),
    "relu": (lambda: PPO(max_grad_norm=None), spaces.Discrete(4), {"activation": "relu", "hidden": (16, 8, 16)}),
    "a value beside choices": (
        lambda: PPO(ent_coef=0.02, terms=(VALUE,)),
        spaces.MultiDiscrete([2, 3]),
        {"value": True},
    ),
    "a value beside masked choices": (lambda: PPO(terms=(VALUE,)), spaces.Discrete(4), {"obs": MASKED, "value": True}),
    "a value beside normals": (lambda: KL(beta=2.0, ent_coef=0.02, terms=(VALUE,)), BOX, {"value": True}),
    "a value beside normals, std by the network": (
        lambda: VanillaGradient(1e-2, terms=(VALUE,)),
        BOX,
        {"value": True, "std": "network", "noise_autocorrelation": 0.8},
    ),
    "a value that nothing trains": (lambda: PPO(), spaces.Discrete(4), {"value": True}),
    "silu": (lambda: PPO(), spaces.Discrete(4), {"activation": "silu"}),
    "linear": (lambda: PPO(), spaces.Discrete(4), {"hidden": ()}),
}


def policy_of(kernel: str, space: spaces.Space, words: dict[str, Any], dtype: torch.dtype) -> Policy:
    words = {"obs": OBS, "hidden": (16, 16), "value": False} | words
    value = words.pop("value")
    policy = make_policy(words.pop("obs"), space, kernel=kernel, seed=3, **words)
    return (with_value(policy) if value else policy).to(dtype)


def batch_of(policy: Policy, seed: int, space: spaces.Space) -> Batch:
    """Steps of a policy that was slightly another one."""
    rng, dtype = np.random.default_rng(seed), policy.flat.dtype
    obs: Any = torch.from_numpy(rng.standard_normal((ROWS, 3))).float()
    if policy.head.context and not policy.head.stateful:
        mask = torch.from_numpy(rng.integers(2, size=(ROWS, 4)).astype(np.int8))
        mask[:, 1] = 1
        obs = {"position": obs, "action_mask": mask}
    context = torch.from_numpy(rng.standard_normal((ROWS, policy.head.context))).to(dtype)
    extra = {"noise": context} if policy.head.stateful else {}
    noise = policy.noise(rng, (ROWS,))
    shown = {key: x.numpy() for key, x in obs.items()} if isinstance(obs, dict) else obs.numpy()
    act, _, _ = policy.act(shown, context.numpy().astype(np.float32), noise)
    dist = policy.dist(obs, extra)
    logp = policy.head.logp(dist, torch.from_numpy(act).to(dtype if isinstance(space, spaces.Box) else torch.int64))
    logp = logp + torch.from_numpy(rng.normal(0.0, 0.15, ROWS)).to(dtype)
    adv = torch.from_numpy(rng.standard_normal(ROWS)).to(dtype)
    weight = torch.from_numpy(rng.uniform(0.5, 1.5, ROWS) / ROWS).to(dtype)
    act = torch.from_numpy(act).to(dtype) if isinstance(space, spaces.Box) else torch.from_numpy(act)
    return Batch(obs, act, logp, adv, weight, 1, extra=extra, target=2.0 * adv + 1.0)


def updated(name: str, kernel: str, dtype: torch.dtype, count: int) -> dict[str, Any]:
    rule, space, words = CASES[name]
    policy, rule = policy_of(kernel, space, words, dtype), rule()
    reference = policy_of("closed_form", space, words, dtype)  # which acts, so that both learn from the same steps
    stats: Any = {}
    for step in range(count):
        stats = rule(policy, batch_of(reference, step, space), step / count)
    assert (rule.workspace.made is not None) == (kernel == "compiled")
    return {"policy": policy.flat.clone(), "rule": copy.deepcopy(rule.state_dict()), "stats": stats}


def compare(made: Any, expected: Any, tolerance: float) -> None:
    assert made.keys() == expected.keys()
    for key, a in made.items():
        b = expected[key]
        if isinstance(a, dict):
            compare(a, b, tolerance)
        elif isinstance(a, float) or (isinstance(a, torch.Tensor) and a.is_floating_point()):
            a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
            assert float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-3), key
        else:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, key


@pytest.mark.parametrize("name", CASES)
def test_many_steps_are_those_of_the_reference(name: str) -> None:
    compiled, reference = (updated(name, kernel, torch.float32, 4) for kernel in ("compiled", "closed_form"))
    compare(compiled, reference, 1e-4)  # Adam divides by √v̂ + 1e-5, so last bits of small gradients count for more
    compare({"policy": compiled["policy"]}, {"policy": reference["policy"]}, 1e-5)


@pytest.mark.slow  # a second set of functions is compiled
@pytest.mark.parametrize("name", CASES)
def test_in_double_precision_they_are_equal_to_the_last_digits(name: str) -> None:
    compiled, reference = (updated(name, kernel, torch.float64, 4) for kernel in ("compiled", "closed_form"))
    compare(compiled, reference, 1e-10)
    compare({"policy": compiled["policy"]}, {"policy": reference["policy"]}, 1e-12)


class Alone:
    """A policy as critics see it: features are observations."""

    def __init__(self, compiles: bool) -> None:
        self.compiles = compiles

    def features(self, obs: Any) -> Any:
        return obs


def rollout_of(seed: int) -> tuple[Rollout, torch.Tensor]:
    rng, shape = np.random.default_rng(seed), (8, 6)
    no, cut = np.zeros(shape, bool), np.zeros(shape, bool)
    cut[-1] = True
    obs = torch.from_numpy(rng.standard_normal((9, 6, 3))).float()
    numbers = torch.from_numpy(rng.standard_normal(shape)).float()
    act = torch.from_numpy(rng.integers(4, size=shape))
    flags = [torch.from_numpy(x) for x in (no, no, cut, ~no)]
    time = torch.arange(8).unsqueeze(1).expand(shape)
    return Rollout(obs, obs[1:], act, numbers, numbers, *flags, time), 3.0 * numbers + obs[:-1].sum(-1)


@pytest.mark.parametrize("make", [make_critic, lambda obs, **words: make_q_critic(obs, spaces.Discrete(4), **words)])
@pytest.mark.parametrize("minibatches", [1, 5])
def test_a_critic_is_fitted_as_by_the_reference(make: Any, minibatches: int) -> None:
    found = []
    for compiles in (True, False):
        critic = make(OBS, hidden=(16, 16), lr=3e-3, epochs=5, minibatches=minibatches, seed=1)
        for seed in range(4):
            rollout, target = rollout_of(seed)
            critic.fit(rollout, target, Alone(compiles))
        assert (critic.workspace.made is not None) == compiles
        found.append({"flat": critic.flat.clone(), **critic.get_extra_state()["optimizer"]})
    compare(*found, 1e-4)
    compare({"flat": found[0]["flat"]}, {"flat": found[1]["flat"]}, 1e-5)


class Mine(ClippedSurrogate):
    def score_weights(self, logp: torch.Tensor, batch: Batch) -> torch.Tensor:
        return torch.zeros_like(logp)


def test_what_is_not_compiled_runs_as_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of one's own, a term of one's own, another optimiser, a shared batch, a kernel asked for, no numba."""
    space = spaces.Discrete(4)

    def left_alone(rule: Any = None, kernel: str = "compiled") -> bool:
        policy, rule = policy_of(kernel, space, {}, torch.float32), rule or ClippedSurrogate()
        rule(policy, batch_of(policy, 0, space))
        return rule.workspace.made is None

    assert not left_alone()
    assert left_alone(Mine())
    assert left_alone(ClippedSurrogate(terms=[lambda evaluation, batch: torch.zeros_like(evaluation.score(batch.adv))]))
    assert left_alone(ClippedSurrogate(optimizer=SGD()))
    assert left_alone(kernel="closed_form")
    assert left_alone(kernel="autograd")
    assert left_alone(kernel="auto")
    with reducing(lambda x: x, lambda x: x):
        assert left_alone()
    for name in [name for name in sys.modules if name.startswith("policygrad.compiled.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not policy_of("compiled", space, {}, torch.float32).compiles
    assert left_alone()


def test_a_long_training_compiles_and_a_short_one_does_not() -> None:
    policy = policy_of("auto", spaces.Discrete(4), {}, torch.float32)
    assert not policy.compiles
    policy.trains_long = True
    assert policy.compiles
    assert copy.deepcopy(policy).compiles
    assert not policy_of("closed_form", spaces.Discrete(4), {}, torch.float32).compiles


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["choices", "normals"])
def test_a_gradient_that_is_not_finite_moves_nothing(name: str, bad: float) -> None:
    rule, space, words = CASES[name]
    policy, rule = policy_of("compiled", space, words, torch.float32), rule()
    batch = batch_of(policy, 0, space)
    batch.adv[3] = bad
    rule.minibatches = 1
    before = policy.flat.clone()
    with pytest.raises(NotFiniteError, match="the policy's gradient"):
        rule(policy, batch)
    assert torch.equal(policy.flat, before)
    assert rule.optimizer.t == 0


@pytest.mark.parametrize("act", [-1, 4])
def test_an_action_that_is_none_is_refused(act: int) -> None:
    space = spaces.Discrete(4)
    policy = policy_of("compiled", space, {}, torch.float32)
    batch = batch_of(policy, 0, space)
    batch.act[2] = act
    with pytest.raises(IndexError, match="not among"):
        ClippedSurrogate()(policy, batch)


def test_copies_and_pickles_go_on_as_the_original_and_the_bits_are_the_same() -> None:
    rule, space, words = CASES["choices"]
    policy, rule = policy_of("compiled", space, words, torch.float32), rule()
    rule(policy, batch_of(policy, 0, space))
    others = [copy.deepcopy((policy, rule)), pickle.loads(pickle.dumps((policy, rule)))]
    batch = batch_of(policy, 1, space)
    for p, r in [(policy, rule), *others]:
        r(p, batch)
        assert torch.equal(p.flat, policy.flat)


def test_a_critic_of_ones_own_runs_its_own_error() -> None:
    class Huber(Critic):
        def _error(self, out: torch.Tensor, rows: dict[str, torch.Tensor]) -> torch.Tensor:
            return (rows["target"] - out).clamp(-0.1, 0.1)

    plain = make_critic(OBS, hidden=(16, 16), seed=1)
    own = Huber(copy.deepcopy(plain.network))
    rollout, target = rollout_of(0)
    own.fit(rollout, target, Alone(True))
    assert own.workspace.made is None
    assert isinstance(own.workspace, Workspace)


@pytest.mark.parametrize("name", [name for name, (_, space, _) in CASES.items() if isinstance(space, spaces.Space)])
def test_compiled_acting_samples_what_the_head_does(name: str) -> None:
    _, space, words = CASES[name]
    rng = np.random.default_rng(0)
    compiled, reference = (policy_of(kernel, space, words, torch.float32) for kernel in ("compiled", "closed_form"))
    obs: Any = rng.standard_normal((8, 3)).astype(np.float32)
    if "obs" in words:
        obs = {"position": obs, "action_mask": np.ones((8, 4), np.int8)}
    state = rng.standard_normal((8, compiled.head.context)).astype(np.float32) if compiled.head.stateful else None
    for _ in range(20):
        noise = compiled.noise(rng, (8,))
        made, expected = compiled.acting(8)(obs, state, noise), reference.acting(8)(obs, state, noise)
        assert made[0].dtype == expected[0].dtype
        np.testing.assert_allclose(made[0], expected[0], rtol=1e-5, atol=1e-6)
    assert (compiled.acting(8) == compiled.act) == (compiled.head.context > 0)
    assert reference.acting(8) == reference.act


@pytest.mark.parametrize("space", [OBS, spaces.Discrete(5)])
def test_compiled_acting_sees_normalised_and_one_hot_observations(space: spaces.Space) -> None:
    made = []
    for kernel in ("compiled", "closed_form"):
        rng, normal = np.random.default_rng(0), isinstance(space, spaces.Box)
        policy = make_policy(space, spaces.Discrete(4), kernel=kernel, normalize_obs=normal, seed=1)
        assert policy.encoding is not None
        if policy.normalizer is not None:
            policy.normalizer.merge(torch.from_numpy(3.0 + 2.0 * rng.standard_normal((50, 3))).float())
        shown = policy.encoding.empty(4)
        policy.encoding.encode(rng.standard_normal((4, 3)) if normal else np.arange(4), {}, shown)
        made.append([policy.acting(4)(shown, None, policy.noise(rng, (4,)))[0] for _ in range(20)])
        assert (policy.acting(4) != policy.act) == (kernel == "compiled")
    np.testing.assert_array_equal(*made)
