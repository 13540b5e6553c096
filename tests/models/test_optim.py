"""Our optimisers against torch's, which ascend with maximize=True."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from policygrad.models import optim
from policygrad.models.optim import SGD, Adam, clip_by_norm, make_optimizer

N = 11


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(count: int = 20) -> list[Tensor]:
    """Gradients of very different sizes, zeros among them."""
    scales = 10.0 ** torch.linspace(-6.0, 3.0, N, dtype=torch.float64)
    scales[3] = 0.0
    return [scales * torch.randn(N, generator=generator(s), dtype=torch.float64) for s in range(count)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize(
    ("ours", "theirs", "keywords"),
    [
        (lambda: Adam(), torch.optim.Adam, {"eps": 1e-5}),
        (lambda: Adam(0.5, 0.9, 1e-8), torch.optim.Adam, {"eps": 1e-8, "betas": (0.5, 0.9)}),
        (lambda: SGD(), torch.optim.SGD, {}),
    ],
    ids=["adam", "adam with other constants", "sgd"],
)
def test_twenty_steps_are_those_of_torch(
    ours: Any, theirs: Any, keywords: dict[str, Any], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "fused_is_right", lambda: fused)
    own = ours()
    start = torch.randn(N, generator=generator(), dtype=torch.float64)
    params, leaf = start.clone(), start.clone().requires_grad_()
    optimizer = theirs([leaf], lr=1.0, maximize=True, **keywords)
    for i, grad in enumerate(gradients()):
        lr = 0.01 * (1.0 + i % 3)  # the rate of a schedule
        optimizer.param_groups[0]["lr"] = lr
        leaf.grad = grad.clone()
        optimizer.step()
        own.step(params, grad.clone(), lr)
        torch.testing.assert_close(params, leaf.detach(), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(params, start, atol=1e-3)


def refuses(*args: Any, **keywords: Any) -> None:
    raise TypeError("unexpected arguments")


@pytest.mark.parametrize("fault", ["descends", "refuses", "is gone"])
def test_a_fused_kernel_that_does_something_else_is_not_used(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert optim.fused_is_right.__wrapped__()
    original = getattr(torch, "_fused_adam_")  # noqa: B009  (private: unknown to type checkers)

    def descends(*args: Any, **keywords: Any) -> None:
        original(*args, **keywords | {"lr": -keywords["lr"]})

    if fault == "is gone":
        monkeypatch.delattr(torch, "_fused_adam_")
    else:
        monkeypatch.setattr(torch, "_fused_adam_", descends if fault == "descends" else refuses)
    assert not optim.fused_is_right.__wrapped__()


def test_adams_first_step_is_the_rate_in_the_direction_of_the_gradients_sign() -> None:
    params, grad = torch.zeros(3, dtype=torch.float64), torch.tensor([2.0, -50.0, 0.0], dtype=torch.float64)
    Adam(eps=0.0).step(params[:2], grad[:2], 0.1)
    torch.testing.assert_close(params, torch.tensor([0.1, -0.1, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_step_leaves_the_gradient_alone(name: str) -> None:
    grad = gradients(1)[0]
    before = grad.clone()
    optimizer = make_optimizer(name)
    for _ in range(3):
        optimizer.step(torch.zeros(N, dtype=torch.float64), grad, 0.1)
    assert torch.equal(grad, before)


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_loaded_optimiser_goes_on_the_same_and_apart(name: str, steps_before: int) -> None:
    first, second = make_optimizer(name), make_optimizer(name)
    params = torch.zeros(N, dtype=torch.float64)
    for grad in gradients(steps_before):
        first.step(params, grad, 0.1)
    second.step(params.clone(), gradients(9)[8], 0.1)  # a history of its own, to be overwritten
    second.load_state_dict(first.state_dict())
    twin = params.clone()
    for grad in gradients():
        first.step(params, grad, 0.1)
        second.step(twin, grad, 0.1)
        assert torch.equal(params, twin)


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer must be one of \['adam', 'sgd'\], got 'rmsprop'"):
        make_optimizer("rmsprop")


@pytest.mark.parametrize("max_norm", [None, 0.5, 5.0, 7.0, 12.999, 13.0, 13.001, 1e6])
def test_clipping_scales_to_the_norm_and_says_what_it_was(max_norm: float | None) -> None:
    grad = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    clipped = grad.clone()
    assert float(clip_by_norm(clipped, max_norm)) == 13.0
    if max_norm is None or max_norm >= 13.0:
        assert torch.equal(clipped, grad)
    else:
        torch.testing.assert_close(clipped, grad * max_norm / 13.0, rtol=1e-6, atol=0)
        assert float(clipped.norm()) <= max_norm


def test_clipping_a_zero_gradient_leaves_zero() -> None:
    grad = torch.zeros(3)
    assert float(clip_by_norm(grad, 0.5)) == 0.0
    assert torch.equal(grad, torch.zeros(3))


@pytest.mark.parametrize(("before", "after"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_adams_state_follows_the_parameters_to_another_type(before: torch.dtype, after: torch.dtype) -> None:
    first, grads = Adam(), gradients(6)
    params = torch.zeros(N, dtype=before)
    for grad in grads[:3]:
        first.step(params, grad.to(before), 0.1)
    state = first.state_dict()
    second, twin = Adam(), params.to(after)  # converted by hand
    second.load_state_dict({"t": state["t"], "m": state["m"].to(after), "v": state["v"].to(after)})
    params = params.to(after)
    for grad in grads[3:]:
        first.step(params, grad.to(after), 0.1)
        second.step(twin, grad.to(after), 0.1)
    assert params.dtype == first.state_dict()["m"].dtype == first.state_dict()["v"].dtype == after
    assert torch.equal(params, twin)
    assert first.t == 6
