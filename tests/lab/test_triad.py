"""The deadly triad: which expected updates diverge, as spectra and as paths."""

from __future__ import annotations

import pytest
import torch

from policygrad.lab.exact.tabular import optimum, solve
from policygrad.lab.values import triad as room
from policygrad.lab.values.triad import (
    always,
    baird,
    baird_features,
    q_learning,
    q_learning_features,
    semigradient,
    spiral,
)

UNIFORM = torch.tensor([6 / 7, 1 / 7], dtype=torch.float64).expand(7, 2)


@pytest.fixture(scope="module")
def found():
    return room.triad()


def test_all_three_together_diverge_and_no_other_combination(found):
    assert found.diverging == ("features + bootstrapping + off-policy",)
    assert len(found.corners) == 8
    for corner in found.corners:
        grows = corner.error[-1] > corner.error[0]
        assert grows == (corner.name in found.diverging) == (corner.radius > 1.0 + 1e-9)


def test_the_path_follows_the_spectrum(found):
    """The error grows by the spectral radius in every update, once the other eigenvectors are gone."""
    every = found.corners[0]
    assert every.error[-1] / every.error[-2] == pytest.approx(every.radius, rel=1e-6)
    assert every.radius == pytest.approx(1.0 + found.lr * every.growth)


def test_it_is_the_matrix_of_sutton_and_barto():
    """Chapter 11.2: with uniform states and γ = 0.99. The same by a loop over states."""
    mdp, X = baird(), baird_features()
    A = torch.zeros(8, 8, dtype=torch.float64)
    for s in range(7):
        A += torch.outer(X[s], 0.99 * X[6] - X[s]) / 7
    made = semigradient(mdp, always(mdp, 1), X, UNIFORM)
    torch.testing.assert_close(made.A, A, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(X) == 7  # any v can be represented


@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_on_policy_data_are_safe_whatever_the_features(gamma):
    """Tsitsiklis & Van Roy 1997, theorem 1, on random features; and with off-policy data some of them diverge."""
    mdp, generator = baird(gamma), torch.Generator().manual_seed(0)
    pi = torch.tensor([0.3, 0.7], dtype=torch.float64).expand(7, 2)
    X = [torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(20)]
    safe = [semigradient(mdp, pi, x, pi).growth for x in X]
    unsafe = [semigradient(mdp, always(mdp, 1), x, UNIFORM).growth for x in X]
    assert max(safe) < 0.0 < max(unsafe)
    assert max(semigradient(mdp, always(mdp, 1), x, UNIFORM, bootstrap=False).growth for x in X) < 0.0


def test_fixed_points_are_the_values_where_they_can_be_represented():
    mdp, eye = baird(0.9), torch.eye(7, dtype=torch.float64)
    v = solve(mdp, UNIFORM)[0][0]
    for bootstrap in (True, False):
        made = semigradient(mdp, UNIFORM, eye, UNIFORM, bootstrap)
        torch.testing.assert_close(torch.linalg.solve(-made.A, made.b), v)


def test_q_learning_diverges_with_bairds_features_and_finds_the_optimum_with_a_table():
    mdp, F = baird(), q_learning_features()
    w = torch.cat([torch.tensor(room.START, dtype=F.dtype), torch.zeros(7, dtype=F.dtype)])
    q = q_learning(mdp, F, w, 400, 0.5)
    best = solve(mdp, always(mdp, 1))[1][0]  # 99 and 100
    assert optimum(mdp) == pytest.approx(float(best.max()))
    assert float((q[-1] - best).abs().max()) > 1e6 * float((q[0] - best).abs().max())
    table = torch.eye(14, dtype=F.dtype).view(7, 2, 14)
    last = q_learning(mdp, table, torch.zeros(14, dtype=F.dtype), 400, 14.0)[-1]
    assert float((last - best).abs().max()) == pytest.approx(100.0 * 0.99**400)  # as value iteration


def test_the_spiral_opens_as_fast_as_its_exponent_and_closes_if_it_turns_inwards():
    out, inward, table = spiral(), spiral(outward=-0.1), spiral(table=True)
    ratio = [b / a for a, b in zip(out[-50:-1], out[-49:], strict=True)]
    assert min(ratio) == pytest.approx(max(ratio))
    assert min(ratio) > 1.01
    assert inward[-1] < inward[0] / 2
    assert table[-1] < 1e-12
    assert out[0] == inward[0] == table[0] == pytest.approx(2.0**0.5)


def test_the_function_of_the_spiral_is_the_exponential_of_its_matrix():
    """After one step, by torch's matrix exponential."""
    M = torch.tensor([[1.0, 0.5, 1.5], [1.5, 1.0, 0.5], [0.5, 1.5, 1.0]], dtype=torch.float64)
    P = torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    v = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    M += 0.1 * torch.eye(3, dtype=torch.float64)
    theta = float((M @ v) @ (0.99 * P @ v - v)) / 3.0
    assert theta > 0.0
    assert spiral(steps=1)[1] == pytest.approx(float((torch.matrix_exp(M * theta) @ v).norm()))
