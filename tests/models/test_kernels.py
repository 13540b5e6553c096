"""The closed form against autograd, the reference, and against the definition of a pull-back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from policygrad.models.kernels import AutogradKernel, DenseKernel, LogStdKernel, TableKernel, make_kernel
from policygrad.models.networks import MLP, BodyNetwork, TabularNetwork, WithLogStd
from policygrad.models.stacked import StackedKernel, StackedMLP

OUTPUTS = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flatten(network: nn.Module) -> Tensor:
    flat = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    start = 0
    for p in network.parameters():
        p.data = flat[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return flat


def mlp(hidden: tuple[int, ...], activation: str, inputs: int = 4, log_std: bool = False) -> nn.Module:
    network: nn.Module = MLP(inputs, hidden, OUTPUTS, activation, generator=generator())
    for p in network.parameters():  # biases too
        p.data += 0.3 * torch.randn(p.shape, generator=generator(1))
    if log_std:
        network = WithLogStd(network, OUTPUTS, -0.5)
    return network.double()


def randn(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def assert_kernels_agree(network: nn.Module, obs: Tensor) -> None:
    flat = flatten(network)
    closed, autograd = make_kernel(network, flat, "closed_form"), make_kernel(network, flat, "autograd")
    assert (closed.name, autograd.name) == ("closed_form", "autograd")
    out = closed.forward(obs)
    assert not out.requires_grad
    torch.testing.assert_close(out, autograd.forward(obs), rtol=0, atol=1e-12)
    grad_out = randn(*out.shape, seed=3)
    expected = autograd.vjp(grad_out).clone()
    assert float(expected.abs().max()) > 0.0
    torch.testing.assert_close(closed.vjp(grad_out), expected, rtol=0, atol=1e-12)
    # a second pull at the same observations replaces the first, it does not add to it
    torch.testing.assert_close(closed.vjp(2.0 * grad_out), 2.0 * expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(autograd.vjp(2.0 * grad_out), 2.0 * expected, rtol=0, atol=1e-12)
    by_obs = autograd.vjp_inputs(grad_out)
    assert by_obs.shape == obs.shape
    assert float(by_obs.abs().max()) > 0.0
    for _ in range(2):
        torch.testing.assert_close(closed.vjp_inputs(grad_out), by_obs, rtol=0, atol=1e-12)
        torch.testing.assert_close(closed.vjp(grad_out), expected, rtol=0, atol=1e-12)  # and neither disturbs the other
    v = randn(len(flat), seed=5)
    along = autograd.jvp(v).clone()
    assert along.shape == out.shape
    assert float(along.abs().max()) > 0.0
    torch.testing.assert_close(closed.jvp(v), along, rtol=0, atol=1e-12)
    # ⟨u, Jv⟩ = ⟨Jᵀu, v⟩: each is the transpose of the other, in whatever order they are asked for
    for kernel in (closed, autograd):
        pulled = kernel.vjp(grad_out).clone()
        assert not kernel.jvp(v).requires_grad
        torch.testing.assert_close((grad_out * kernel.jvp(v)).sum(), pulled @ v, rtol=1e-12, atol=1e-12)
        assert torch.equal(kernel.vjp(grad_out), pulled)


@pytest.mark.parametrize("log_std", [False, True], ids=["", "log_std"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("hidden", [(), (5,), (7, 3, 4)], ids=str)
def test_the_closed_form_is_autograds(hidden: tuple[int, ...], activation: str, log_std: bool) -> None:
    for rows in (1, 5, 64):
        assert_kernels_agree(mlp(hidden, activation, log_std=log_std), randn(rows, 4))


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_the_closed_form_is_autograds_for_images(activation: str, rows: int) -> None:
    assert_kernels_agree(mlp((6, 5), activation, inputs=3 * 4 * 2, log_std=True), randn(rows, 3, 4, 2))


def stacked(count: int, hidden: tuple[int, ...], activation: str) -> StackedMLP:
    network = StackedMLP(count, 4, hidden, activation, generator())
    for p in network.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator(1))
    return network.double()


def alone(network: StackedMLP, k: int, hidden: tuple[int, ...]) -> MLP:
    """The k-th network of a stack, as an MLP of its own."""
    one = MLP(4, hidden, 1, network.activation).double()
    for layer, weight, bias in zip(one.layers, network.weights, network.biases, strict=True):
        assert isinstance(layer, nn.Linear)
        layer.weight.data, layer.bias.data = weight.data[k].clone(), bias.data[k].clone()
    return one


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("hidden", [(), (5,), (7, 1, 4)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_stack_is_so_many_mlps_side_by_side_and_its_closed_form_is_autograds(
    count: int, hidden: tuple[int, ...], activation: str
) -> None:
    network = stacked(count, hidden, activation)
    for rows in (1, 5, 64):
        assert_kernels_agree(network, randn(rows, 4))
    obs, grad_out = randn(6, 4), randn(6, count, seed=3)
    flat = flatten(network)
    kernel = make_kernel(network, flat, "auto")
    assert isinstance(kernel, StackedKernel)
    out, grad, by_obs = kernel.forward(obs), kernel.vjp(grad_out), kernel.vjp_inputs(grad_out)
    assert out.shape == (6, count)
    sum_by_obs = torch.zeros_like(obs)
    for k in range(count):
        one = alone(network, k, hidden)
        own = make_kernel(one, flatten(one), "autograd")
        torch.testing.assert_close(out[:, k : k + 1], own.forward(obs), rtol=0, atol=1e-12)
        sum_by_obs += own.vjp_inputs(grad_out[:, k : k + 1])
        # the stack's vector: all weights layer by layer, then all biases; the MLP's: weight and bias of each layer
        weights, biases = StackedKernel._views(network, grad.numpy())
        pairs = zip(weights, biases, strict=True)
        mine = torch.cat([torch.from_numpy(x[k].reshape(-1)) for pair in pairs for x in pair])
        torch.testing.assert_close(mine, own.vjp(grad_out[:, k : k + 1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(by_obs, sum_by_obs, rtol=0, atol=1e-12)


def test_the_networks_of_a_stack_begin_different() -> None:
    first, second = StackedMLP(2, 4, (5,), "relu", generator()).weights[0]
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.detach().T @ first.detach(), 2.0 * torch.eye(4))  # orthogonal, gain √2


@pytest.mark.parametrize("choice", ["closed_form", "autograd"])
def test_a_pull_is_the_sum_of_the_jacobians_rows(choice: str) -> None:
    network, obs = mlp((5,), "tanh", log_std=True), randn(4, 4)
    flat = flatten(network)
    kernel = make_kernel(network, flat, choice)
    grad_out = randn(*kernel.forward(obs).shape, seed=3)
    analytic = kernel.vjp(grad_out).clone()
    numeric = torch.zeros_like(flat)
    for i in range(len(flat)):
        values = []
        for h in (1e-6, -2e-6):
            flat[i] += h
            values.append(float((kernel.forward(obs) * grad_out).sum()))
        flat[i] += 1e-6
        numeric[i] = (values[0] - values[1]) / 2e-6
    torch.testing.assert_close(analytic, numeric, rtol=0, atol=1e-7)


@pytest.mark.parametrize("choice", ["closed_form", "autograd"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("hidden", [(), (5,), (7, 3, 4)], ids=str)
def test_a_push_is_how_the_outputs_move_along_a_direction(
    hidden: tuple[int, ...], activation: str, choice: str
) -> None:
    network, obs = mlp(hidden, activation, log_std=True), randn(6, 4)
    flat = flatten(network)
    kernel, v, h = make_kernel(network, flat, choice), randn(len(flat), seed=5), 1e-6
    kernel.forward(obs)
    along = kernel.jvp(v).clone()
    flat += h * v
    above = kernel.forward(obs).clone()
    flat -= 2.0 * h * v
    below = kernel.forward(obs)
    torch.testing.assert_close(along, (above - below) / (2.0 * h), rtol=0, atol=1e-7)
    assert float(along.abs().min()) > 0.0


@pytest.mark.parametrize("choice", ["closed_form", "autograd"])
def test_a_push_is_linear_and_belongs_to_the_last_forward(choice: str) -> None:
    network = mlp((6, 5), "silu")
    flat = flatten(network)
    kernel, v, u = make_kernel(network, flat, choice), randn(len(flat), seed=5), randn(len(flat), seed=6)
    kernel.forward(randn(8, 4, seed=1))
    first, kept = kernel.jvp(v), kernel.jvp(v).clone()
    both = kernel.jvp(v + 2.0 * u)
    torch.testing.assert_close(both, kept + 2.0 * kernel.jvp(u), rtol=0, atol=1e-12)
    assert torch.equal(first, kept)  # what it gave stays what it was
    flat += 0.1 * u
    for rows in (3, 8, 3):
        obs = randn(rows, 4, seed=rows)
        kernel.forward(obs)
        other = make_kernel(network, flat, "autograd")
        other.forward(obs)
        torch.testing.assert_close(kernel.jvp(v), other.jvp(v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_buffers_are_not_mixed_up_between_batch_sizes(activation: str) -> None:
    network = mlp((6, 5), activation)
    flat = flatten(network)
    closed, autograd = make_kernel(network, flat, "closed_form"), make_kernel(network, flat, "autograd")
    for rows in [*range(1, 14), 3, 1, 13, 3]:  # more sizes than the kernel keeps buffers for
        obs, grad_out = randn(rows, 4, seed=rows), randn(rows, OUTPUTS, seed=rows + 50)
        first = closed.forward(obs)
        kept = first.clone()
        torch.testing.assert_close(first, autograd.forward(obs), rtol=0, atol=1e-12)
        v = randn(len(flat), seed=rows + 80)
        torch.testing.assert_close(closed.jvp(v), autograd.jvp(v), rtol=0, atol=1e-12)
        torch.testing.assert_close(closed.vjp(grad_out), autograd.vjp(grad_out), rtol=0, atol=1e-12)
        closed.forward(randn(rows, 4, seed=99))
        assert torch.equal(first, kept)


def table(states: int = 6, dtype: torch.dtype = torch.float64) -> TabularNetwork:
    network = TabularNetwork(states, OUTPUTS).to(dtype)
    network.table.data = randn(states, OUTPUTS, seed=4).to(dtype)
    return network


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_tables_closed_form_is_autograds(rows: int) -> None:
    states = torch.randint(6, (rows,), generator=generator())
    assert_kernels_agree(table(), torch.eye(6, dtype=torch.float64)[states])
    assert_kernels_agree(table(), randn(rows, 6))  # any features: it is the linear map


def test_a_table_is_looked_up_and_only_the_states_seen_have_a_gradient() -> None:
    network, states = table(), torch.tensor([4, 1, 4])
    flat = flatten(network)
    kernel = make_kernel(network, flat, "auto")
    out = kernel.forward(torch.eye(6, dtype=torch.float64)[states])
    assert torch.equal(out, network.table.detach()[states])
    grad_out = randn(3, OUTPUTS, seed=3)
    grad = kernel.vjp(grad_out).view(6, OUTPUTS)
    torch.testing.assert_close(grad[4], grad_out[0] + grad_out[2], rtol=0, atol=1e-15)
    torch.testing.assert_close(grad[1], grad_out[1], rtol=0, atol=1e-15)
    assert (grad[[0, 2, 3, 5]] == 0.0).all()
    flat += 1.0  # and it is the table of now
    assert torch.equal(kernel.forward(torch.eye(6, dtype=torch.float64)[states]), out + 1.0)


def test_a_float32_table_counts_its_passes_and_keeps_its_type() -> None:
    network = table(dtype=torch.float32)
    kernel = make_kernel(network, flatten(network), "closed_form")
    assert kernel.passes == 0
    assert kernel.forward(torch.eye(6)).dtype == torch.float32
    assert kernel.outputs(torch.eye(6).numpy()).dtype == "float32"
    assert kernel.passes == 2
    assert kernel.vjp(torch.ones(6, OUTPUTS)).dtype == torch.float32


def test_a_pull_belongs_to_the_last_forward_and_to_the_parameters_of_now() -> None:
    network = mlp((5,), "tanh")
    flat = flatten(network)
    kernel = make_kernel(network, flat, "closed_form")
    reference = make_kernel(network, flat, "autograd")
    kernel.forward(randn(8, 4, seed=1))
    flat += 0.1 * randn(len(flat), seed=7)
    obs, grad_out = randn(8, 4), randn(8, OUTPUTS, seed=3)
    torch.testing.assert_close(kernel.forward(obs), network(obs).detach(), rtol=0, atol=1e-12)
    reference.forward(obs)
    torch.testing.assert_close(kernel.vjp(grad_out), reference.vjp(grad_out), rtol=0, atol=1e-12)


def test_float32_works_as_well() -> None:
    network = mlp((16, 16), "tanh", log_std=True).float()
    flat, obs = flatten(network), randn(32, 4).float()
    closed, autograd = make_kernel(network, flat, "closed_form"), make_kernel(network, flat, "autograd")
    torch.testing.assert_close(closed.forward(obs), autograd.forward(obs), rtol=0, atol=1e-5)
    grad_out = randn(32, 2 * OUTPUTS, seed=3).float()
    torch.testing.assert_close(closed.vjp(grad_out), autograd.vjp(grad_out), rtol=0, atol=1e-4)
    assert closed.vjp(grad_out).dtype == torch.float32
    v = randn(len(flat), seed=5).float()
    torch.testing.assert_close(closed.jvp(v), autograd.jvp(v), rtol=1e-4, atol=1e-4)
    assert closed.jvp(v).dtype == torch.float32


def test_auto_is_the_closed_form_for_mlps_and_autograd_for_the_rest() -> None:
    dense, body = mlp((5,), "tanh"), BodyNetwork(nn.Flatten(), torch.zeros(2, 4), 2)
    assert isinstance(make_kernel(dense, flatten(dense), "auto"), DenseKernel)
    gaussian = WithLogStd(dense, OUTPUTS)
    with pytest.raises(
        ValueError, match="a closed form exists for MLPs and tables on a CPU only: use kernel='autograd'"
    ):
        make_kernel(body, flatten(body), "closed_form")
    with pytest.raises(ValueError, match=r"kernel must be one of .* got 'fast'"):
        make_kernel(dense, flatten(dense), "fast")
    gaussian = gaussian.double()
    assert isinstance(make_kernel(gaussian, flatten(gaussian), "auto"), LogStdKernel)
    for network in (body, WithLogStd(body, 2), WithLogStd(TabularNetwork(3, 2), 2)):
        assert isinstance(make_kernel(network, flatten(network), "auto"), AutogradKernel)
    table = TabularNetwork(3, 2)
    assert isinstance(make_kernel(table, flatten(table), "auto"), TableKernel)
    assert isinstance(make_kernel(table, flatten(table), "autograd"), AutogradKernel)


def test_a_body_may_change_its_input_in_place() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, obs: Tensor) -> Tensor:
            x = obs.view(-1, 4)
            x /= 255.0
            return self.layer(x)

    network, obs = Scaled().double(), randn(5, 4)
    kernel, before, grad_out = make_kernel(network, flatten(network), "auto"), obs.clone(), randn(5, 2, seed=3)
    out = kernel.forward(obs)
    assert torch.equal(obs, before)
    expected = grad_out @ network.layer.weight.detach() / 255.0
    torch.testing.assert_close(kernel.vjp_inputs(grad_out), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(out, network.layer(before / 255.0).detach(), rtol=0, atol=1e-12)
    assert float(kernel.vjp(grad_out).abs().min()) > 0.0


def test_a_parameter_that_takes_no_part_has_gradient_zero() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(4, 2), nn.Linear(3, 3)

        def forward(self, obs: Tensor) -> Tensor:
            return self.used(obs)

    network = Spare().double()
    kernel = make_kernel(network, flatten(network), "auto")
    kernel.forward(randn(5, 4))
    grad = kernel.vjp(randn(5, 2, seed=3))
    assert grad[:10].abs().min() > 0.0
    assert torch.equal(grad[10:], torch.zeros(12, dtype=torch.float64))
    v = randn(22, seed=5)
    along = kernel.jvp(v)
    assert float(along.abs().min()) > 0.0
    v[10:] += 1.0  # and along it nothing moves
    assert torch.equal(kernel.jvp(v), along)


def test_a_parameter_that_does_not_learn_is_in_no_direction() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    network[0].weight.requires_grad_(False)
    flat = torch.cat([p.detach().reshape(-1) for p in network.parameters() if p.requires_grad])
    kernel, obs = make_kernel(network, flat, "auto"), randn(6, 4)
    kernel.forward(obs)
    v = randn(5 + 10 + 2, seed=5)
    hidden = torch.tanh(network[0](obs)).detach()
    moved = (1.0 - hidden**2) * v[:5] @ network[2].weight.detach().T + hidden @ v[5:15].view(2, 5).T + v[15:]
    torch.testing.assert_close(kernel.jvp(v), moved, rtol=0, atol=1e-12)
