"""The compiled steps against the reference: the same weights, moments, reports and random numbers, after many minibatches."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policygrad.errors import NotFiniteError
from policygrad.models.action_values import make_action_critic
from policygrad.models.exploring import ActionValues, Deterministic, ExploringPolicy, Squashed
from policygrad.models.optim import SGD
from policygrad.models.policy import make_policy
from policygrad.replay import Transitions
from policygrad.tree import tree_map
from policygrad.updates.pathwise import Pathwise, Smoothing, Temperature
from policygrad.updates.q_learning import QLearning

OBS = spaces.Box(-1.0, 1.0, (3,))
MASKED = spaces.Dict({"position": OBS, "action_mask": spaces.Box(0, 1, (4,), np.int8)})
BOX = spaces.Box(np.array([-1.0, 0.0]), np.array([3.0, 1.0]), dtype=np.float64)
ROWS = 32

SAC = {"temperature": {"alpha": 0.5, "target": -2.0, "lr": 1e-2}}
PATHWISE: dict[str, dict[str, Any]] = {
    "sac": SAC,
    "sac, tanh": SAC | {"activation": "tanh"},
    "sac, silu, clipped": SAC | {"activation": "silu", "max_grad_norm": 0.5},
    "sac, one critic, fixed alpha": {"temperature": {"alpha": 0.2}, "count": 1},
    "sac, three layers": SAC | {"hidden": (8, 16, 8)},
    "sac, linear": SAC | {"hidden": ()},
    "ddpg": {"count": 1},
    "td3": {"smoothing": Smoothing(0.2, 0.3), "delay": 2},
}
VALUES: dict[str, dict[str, Any]] = {
    "dqn": {"double": False, "target_every": 5},
    "double": {"target_every": 5},
    "no target network": {"target_every": None},
    "squared, clipped": {"loss": "squared", "max_grad_norm": 0.1},
    "masked": {"masked": True, "target_every": 5},
    "masked, no target network": {"masked": True, "target_every": None},
}


def pathwise(
    kernel: str, words: dict[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[ExploringPolicy, Pathwise]:
    words = dict(words)
    network = {name: words.pop(name, usual) for name, usual in (("hidden", (16, 16)), ("activation", "relu"))}
    alpha, clip = words.pop("temperature", None), words.get("max_grad_norm")
    head = (Deterministic if alpha is None else Squashed)(BOX.shape, BOX.low, BOX.high)
    keywords: dict[str, Any] = {"kind": ExploringPolicy, "std": "network", "kernel": kernel, **network}
    policy = make_policy(OBS, BOX, head=lambda masked: head, **keywords).to(dtype)
    critic = make_action_critic(OBS, 2, count=words.pop("count", 2), kernel=kernel, max_grad_norm=clip, **network)
    critic.network.to(dtype), critic.copy.to(dtype)
    temperature = None if alpha is None else Temperature(**alpha)
    return policy, Pathwise(policy, critic, temperature=temperature, lr=1e-3, critic_lr=2e-3, seed=4, **words)


def values(kernel: str, words: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[ExploringPolicy, QLearning]:
    words = dict(words)
    obs = MASKED if words.pop("masked", False) else OBS
    keywords: dict[str, Any] = {"kind": ExploringPolicy, "hidden": (16, 16), "activation": "relu", "kernel": kernel}
    head: Any = lambda masked: ActionValues(4, masked)  # noqa: E731
    policy = make_policy(obs, spaces.Discrete(4), head=head, **keywords).to(dtype)
    rule = QLearning(policy, lr=1e-3, **words)
    if rule.copy is not None:
        rule.copy.to(dtype)
    return policy, rule


def minibatch(seed: int, rule: Any, masked: bool, dtype: torch.dtype = torch.float32) -> Transitions:
    rng = np.random.default_rng(seed)
    obs, following = (torch.from_numpy(rng.standard_normal((ROWS, 3))).float() for _ in range(2))
    ret, discount = torch.from_numpy(rng.standard_normal(ROWS)), torch.from_numpy(rng.choice([0.0, 0.9], ROWS))
    act = rng.standard_normal((ROWS, 2)) if isinstance(rule, Pathwise) else rng.integers(4, size=ROWS)
    act = torch.from_numpy(act).to(dtype) if isinstance(rule, Pathwise) else torch.from_numpy(act)
    mask = torch.from_numpy(rng.integers(2, size=(ROWS, 4)).astype(np.int8))
    mask[0] = 0  # of no action that is legal
    tree = (lambda x: {"position": x, "action_mask": mask}) if masked else (lambda x: x)
    return Transitions(tree(obs), act, ret.to(dtype), discount.to(dtype), tree(following))


def runs_compiled(rule: Any) -> bool:
    return rule.compiled is not None and rule.compiled.step is not None


def trained(
    make: Any, words: dict[str, Any], kernel: str, count: int, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    policy, rule = make(kernel, words, dtype)
    for step in range(count):
        rule.synchronise(policy, step, step + 1)
        rule(policy, minibatch(step, rule, words.get("masked", False), dtype), progress=step / count)
    assert runs_compiled(rule) == (kernel == "compiled")
    return {"policy": policy.flat.clone(), "rule": copy.deepcopy(rule.state_dict()), "report": rule.report()}


def compare(made: Any, expected: Any, tolerance: float) -> None:
    def same(a: Any, b: Any) -> None:
        if isinstance(a, torch.Tensor | float) and not isinstance(a, bool):
            a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
            assert float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-3)
        else:
            assert a == b

    tree_map(same, made, expected)


CASES = [pytest.param(pathwise, words, id=name) for name, words in PATHWISE.items()]
CASES += [pytest.param(values, words, id=name) for name, words in VALUES.items()]


@pytest.mark.parametrize(("make", "words"), CASES)
def test_many_steps_are_those_of_the_reference(make: Any, words: dict[str, Any]) -> None:
    compiled, reference = (trained(make, words, kernel, 100) for kernel in ("compiled", "closed_form"))
    compare(compiled, reference, 1e-4)  # Adam divides by √v̂ + 1e-5, so last bits of small gradients count for more
    compare(compiled["policy"], reference["policy"], 1e-5)


@pytest.mark.slow  # a second set of functions is compiled
@pytest.mark.parametrize(("make", "words"), CASES)
def test_in_double_precision_they_are_equal_to_the_last_digits(make: Any, words: dict[str, Any]) -> None:
    if make is pathwise:
        words = words | {"temperature": {"alpha": 0.5}} if "temperature" in words else words  # log α is of float32
    compiled, reference = (trained(make, words, kernel, 20, torch.float64) for kernel in ("compiled", "closed_form"))
    compare(compiled, reference, 1e-11)
    compare(compiled["policy"], reference["policy"], 1e-12)


@pytest.mark.parametrize("make", [pathwise, values])
def test_the_same_minibatches_give_the_same_bits(make: Any) -> None:
    words = SAC if make is pathwise else {}
    runs = []
    for _ in range(3):
        torch.empty(int(torch.randint(1, 5000, ())))  # memory of other runs lies elsewhere
        runs.append(trained(make, words, "compiled", 20)["policy"])
    assert all(torch.equal(run, runs[0]) for run in runs)


@pytest.mark.parametrize("make", [pathwise, values])
def test_copies_and_pickles_go_on_as_the_original(make: Any) -> None:
    words = SAC if make is pathwise else {}
    policy, rule = make("compiled", words)
    rule(policy, minibatch(0, rule, False))
    others = [copy.deepcopy((policy, rule)), pickle.loads(pickle.dumps((policy, rule)))]
    for p, r in [(policy, rule), *others]:
        r(p, minibatch(1, r, False))
        assert torch.equal(p.flat, policy.flat)


@pytest.mark.parametrize("make", [pathwise, values])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_moves_nothing(make: Any, bad: float) -> None:
    policy, rule = make("compiled", SAC if make is pathwise else {"loss": "squared"})
    batch = minibatch(0, rule, False)
    batch.ret[3] = bad
    before = copy.deepcopy((policy.flat, rule.state_dict()))
    with pytest.raises(NotFiniteError):
        rule(policy, batch)
    after = (policy.flat, rule.state_dict())
    assert torch.equal(before[0], after[0])
    weights = (lambda s: s["critic"]["network"]) if make is pathwise else (lambda s: s["copy"])
    assert all(torch.equal(a, b) for a, b in zip(weights(before[1]).values(), weights(after[1]).values(), strict=True))
    optimizer = (lambda s: s["critic"]["optimizer"]) if make is pathwise else (lambda s: s["optimizer"])
    assert optimizer(after[1])["t"] == 0


@pytest.mark.parametrize("act", [-1, 4])
def test_an_action_that_is_none_is_refused(act: int) -> None:
    policy, rule = values("compiled", {})
    batch = minibatch(0, rule, False)
    batch.act[2] = act
    before = policy.flat.clone()
    with pytest.raises(IndexError, match="0 … 3"):
        rule(policy, batch)
    assert torch.equal(policy.flat, before)


def test_a_critic_of_other_widths_is_refused() -> None:
    policy, _ = pathwise("compiled", SAC)
    critic = make_action_critic(OBS, 3)
    rule = Pathwise(policy, critic, temperature=Temperature(0.5))
    with pytest.raises(ValueError, match="5 inputs"):
        rule(policy, minibatch(0, rule, False))


def test_what_is_not_compiled_runs_as_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(QLearning):
        def next_value(self, policy: ExploringPolicy, obs: Any) -> torch.Tensor:
            return torch.ones(len(obs))

    def left_alone(policy: ExploringPolicy, rule: Any) -> bool:
        rule(policy, minibatch(0, rule, False))
        return not runs_compiled(rule)

    policy, rule = values("compiled", {})
    assert not left_alone(policy, rule)
    assert left_alone(policy, Mine(policy))
    assert left_alone(policy, QLearning(policy, optimizer=SGD()))  # pyright: ignore[reportArgumentType]
    for kernel in ("closed_form", "autograd", "auto"):
        assert left_alone(*values(kernel, {}))
    for name in [
        name for name in sys.modules if name.startswith(("policygrad.compiled.", "policygrad.updates.compiled"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert left_alone(*values("compiled", {}))
