"""Solvers against torch.linalg, products with the Fisher matrix against the matrix written out in two ways by definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from explicit import (
    BODIES,
    HEADS,
    batch_for,
    fisher_by_kl,
    fisher_by_scores,
    generator,
    make,
    moved,
    randn,
    scores,
    share_of,
)
from torch import Tensor

from policygrad.data import Batch
from policygrad.gradient.natural import (
    MAX_DENSE,
    CurvatureError,
    conjugate_gradient,
    damped,
    dense,
    dense_solve,
    scale_to_kl,
)
from policygrad.models.policy import Policy, PolicyEvaluation

EXACT = 1e-8


def orthogonal(n: int, seed: int) -> Tensor:
    return torch.linalg.qr(randn(n, n, seed=seed))[0]


def with_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with these."""
    q = orthogonal(len(values), seed)
    A = (q * values) @ q.T
    return 0.5 * (A + A.T)


def spd(n: int, condition: float, seed: int = 0) -> Tensor:
    return with_eigenvalues(torch.logspace(-math.log10(condition), 0.0, n, dtype=torch.float64), seed)


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class Counted:
    """A matrix that counts its products."""

    def __init__(self, A: Tensor) -> None:
        self.A, self.products = A, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.products += 1
        return self.A @ v


@pytest.mark.parametrize("solve", [lambda A, b: conjugate_gradient(A, b, 2_000), dense_solve], ids=["cg", "dense"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n", "condition"), [(2, 1e6), (10, 1e6), (40, 1e6), (40, 10.0)])
def test_the_solution_is_that_of_torch_linalg(n: int, condition: float, seed: int, solve: Callable) -> None:
    A, b = spd(n, condition, seed), randn(n, seed=seed + 50)
    solution = solve(lambda v: A @ v, b)
    assert relative(solution.x, torch.linalg.solve(A, b)) <= EXACT
    assert solution.residual <= 1e-9


@pytest.mark.parametrize("iterations", [1, 3, 10, 500])
def test_residual_energy_and_iterations_are_those_of_what_is_returned_however_early_it_stops(iterations: int) -> None:
    A, b = spd(30, 1e6), randn(30, seed=1)
    product = Counted(A)
    solution = conjugate_gradient(product, b, iterations)
    residual = float((b - A @ solution.x).norm() / b.norm())
    assert solution.residual == pytest.approx(residual, rel=1e-6, abs=1e-9)
    assert solution.quadratic_form == pytest.approx(float(solution.x @ A @ solution.x), rel=1e-8)
    assert solution.iterations == product.products <= iterations
    assert (solution.iterations == iterations) == (iterations < 500)
    assert (residual <= 1e-9) == (iterations == 500)


def test_the_dense_solvers_residual_and_energy_are_true_where_nothing_solves_the_equation() -> None:
    A = with_eigenvalues(torch.tensor([0.0, 0.0, 1.0, 3.0], dtype=torch.float64))
    b = randn(4, seed=1)
    solution = dense_solve(lambda v: A @ v, b)
    assert solution.residual == pytest.approx(float((b - A @ solution.x).norm() / b.norm()), rel=1e-9)
    assert solution.residual > 0.1
    assert solution.quadratic_form == pytest.approx(float(solution.x @ A @ solution.x), rel=1e-9)
    assert abs(solution.curvature) <= 1e-15


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_k_th_iterate_is_the_best_in_the_span_of_b_and_its_images(k: int) -> None:
    """x_k minimises ½ xᵀAx − bᵀx over span{b, Ab, …, Aᵏ⁻¹b}: what makes ten iterations of it enough."""
    A, b = spd(12, 30.0, seed=3), randn(12, seed=4)
    powers = [b]
    for _ in range(k - 1):
        powers.append(A @ powers[-1])
    basis = torch.linalg.qr(torch.stack(powers, 1))[0]
    best = basis @ torch.linalg.solve(basis.T @ A @ basis, basis.T @ b)
    assert relative(conjugate_gradient(lambda v: A @ v, b, k).x, best) <= 1e-12


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_it_ends_after_as_many_iterations_as_there_are_distinct_eigenvalues(distinct: int) -> None:
    values = torch.linspace(1.0, 3.0, distinct, dtype=torch.float64).repeat_interleave(6)
    A, b = with_eigenvalues(values), randn(len(values), seed=2)
    solution = conjugate_gradient(lambda v: A @ v, b, 100)
    assert solution.iterations == distinct
    assert relative(solution.x, torch.linalg.solve(A, b)) <= 1e-12


def test_the_curvature_met_lies_between_the_eigenvalues() -> None:
    A, b = spd(20, 1e4, seed=2), randn(20, seed=1)
    values, least = torch.linalg.eigvalsh(A), math.inf
    for k in (1, 3, 10, 60):
        curvature = conjugate_gradient(lambda v: A @ v, b, k).curvature
        assert float(values[0]) <= curvature <= float(values[-1])
        assert curvature <= least
        least = curvature
    assert least <= 10.0 * float(values[0])
    assert dense_solve(lambda v: A @ v, b).curvature == pytest.approx(float(values[0]), rel=1e-9)


def test_a_looser_tolerance_stops_earlier_and_keeps_its_word() -> None:
    A, b = spd(30, 1e4, seed=2), randn(30, seed=1)
    iterations = []
    for tolerance in (1e-1, 1e-4, 1e-8):
        solution = conjugate_gradient(lambda v: A @ v, b, 1_000, tolerance)
        assert float((b - A @ solution.x).norm() / b.norm()) <= tolerance * (1.0 + 1e-6)
        iterations.append(solution.iterations)
    assert iterations[0] < iterations[1] < iterations[2]


@pytest.mark.parametrize("solve", [conjugate_gradient, dense_solve])
def test_without_a_right_hand_side_there_is_no_step(solve: Callable) -> None:
    A = spd(5, 10.0)
    solution = solve(lambda v: A @ v, torch.zeros(5, dtype=torch.float64))
    assert torch.equal(solution.x, torch.zeros(5, dtype=torch.float64))
    assert solution.quadratic_form == solution.residual == solution.iterations == 0
    assert torch.equal(scale_to_kl(solution, 0.01), solution.x)


def test_conjugate_gradients_make_no_product_for_a_right_hand_side_of_zero() -> None:
    product = Counted(spd(5, 10.0))
    assert math.isnan(conjugate_gradient(product, torch.zeros(5, dtype=torch.float64)).curvature)
    assert product.products == 0


@pytest.mark.parametrize("solve", [lambda A, b: conjugate_gradient(A, b, 100), dense_solve], ids=["cg", "dense"])
@pytest.mark.parametrize("seed", range(10))
def test_a_matrix_that_curves_downwards_anywhere_is_an_error_with_a_name(seed: int, solve: Callable) -> None:
    """The directions of conjugate gradients diagonalise A, so by Sylvester's law one of them curves as A does."""
    values = torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    values[seed % 12] *= -1.0
    A, b = with_eigenvalues(values, seed), randn(12, seed=seed + 50)
    with pytest.raises(CurvatureError, match="raise damping"):
        solve(lambda v: A @ v, b)
    assert (
        relative(
            solve(damped(lambda v: A @ v, 2.5), b).x,
            torch.linalg.solve(A + 2.5 * eye(12), b),
        )
        <= EXACT
    )


@pytest.mark.parametrize("solve", [conjugate_gradient, dense_solve])
def test_a_matrix_that_is_minus_the_identity_is_an_error_with_a_name(solve: Callable) -> None:
    with pytest.raises(CurvatureError, match="raise damping"):
        solve(lambda v: -v, randn(4))
    assert issubclass(CurvatureError, FloatingPointError)


@pytest.mark.parametrize("solve", [conjugate_gradient, dense_solve])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_an_error_with_a_name_and_never_a_silent_nan(bad: float, solve: Callable) -> None:
    A, b = spd(5, 10.0), randn(5)
    poisoned = b.clone()
    poisoned[2] = bad
    with pytest.raises(FloatingPointError):
        solve(lambda v: A @ v, poisoned)
    broken = A.clone()
    broken[1, 1] = bad
    with pytest.raises(FloatingPointError):
        solve(lambda v: broken @ v, b)
    assert torch.isfinite(solve(lambda v: A @ v, b).x).all()


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_singular_matrix_gives_the_solution_of_least_norm(rank: int) -> None:
    """By conjugate gradients where the right-hand side is in its range, as a gradient is in F's; by the dense solver always."""
    values = torch.cat(
        [torch.zeros(8 - rank, dtype=torch.float64), torch.linspace(0.1, 2.0, rank, dtype=torch.float64)]
    )
    A = with_eigenvalues(values, seed=rank)
    inverse, b = torch.linalg.pinv(A, rtol=1e-10, hermitian=True), randn(8, seed=1)
    assert relative(dense_solve(lambda v: A @ v, b).x, inverse @ b) <= EXACT
    assert relative(conjugate_gradient(lambda v: A @ v, A @ b, 100).x, inverse @ (A @ b)) <= EXACT


def test_a_matrix_of_zeros_gives_no_step() -> None:
    for solve in (conjugate_gradient, dense_solve):
        solution = solve(lambda v: 0.0 * v, randn(4))
        assert torch.equal(solution.x, torch.zeros(4, dtype=torch.float64))
        assert solution.residual == 1.0
        assert torch.equal(scale_to_kl(solution, 0.01), solution.x)


@pytest.mark.parametrize("solve", [conjugate_gradient, dense_solve])
def test_a_solution_scales_with_its_right_hand_side_and_has_its_type(solve: Callable) -> None:
    A, b = spd(6, 10.0), randn(6)
    once, twice = solve(lambda v: A @ v, b), solve(lambda v: A @ v, 2.0**40 * b)
    torch.testing.assert_close(twice.x, 2.0**40 * once.x, rtol=1e-14, atol=0)
    assert twice.iterations == once.iterations
    single = solve(lambda v: A.float() @ v, b.float())
    assert single.x.dtype == torch.float32
    assert relative(single.x.double(), once.x) <= 1e-5


def test_solving_leaves_its_arguments_and_the_global_generators_as_they_were() -> None:
    A, b = spd(6, 10.0), randn(6)
    before = A.clone(), b.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for solve in (conjugate_gradient, dense_solve):
        scale_to_kl(solve(damped(lambda v: A @ v, 0.1), b), 0.01)
    after = A, b, torch.get_rng_state()
    assert all(map(torch.equal, before[:3], after))
    np.testing.assert_array_equal(before[3], np.random.get_state()[1])  # noqa: NPY002


def test_damping_adds_a_multiple_of_the_identity() -> None:
    A = spd(6, 10.0)
    torch.testing.assert_close(dense(damped(lambda v: A @ v, 0.3), A[0]), A + 0.3 * eye(6), rtol=0, atol=1e-15)
    torch.testing.assert_close(dense(damped(lambda v: A @ v, 0.0), A[0]), A, rtol=0, atol=1e-15)


def test_the_dense_matrix_has_the_products_as_its_columns_even_from_one_buffer_and_has_its_limit() -> None:
    A, buffer = randn(5, 5), torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(dense(lambda v: torch.mv(A, v, out=buffer), buffer), A, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"at most 1,500 parameters, this policy has 1,501: use cg"):
        dense(lambda v: v, torch.zeros(MAX_DENSE + 1))


@pytest.mark.parametrize("iterations", [10, 100])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_singular_matrix_in_float32_is_solved_to_its_precision_and_not_called_negative(rank, iterations) -> None:
    """Once what is left is rounding, a direction's curvature is noise of either sign."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        B = torch.randn(8, rank, generator=generator)
        A, b = B @ B.T, B @ torch.randn(rank, generator=generator)
        found = conjugate_gradient(lambda v: A @ v, b, iterations)  # noqa: B023
        assert float((A.double() @ found.x.double() - b.double()).norm() / b.norm()) < 1e-3
        with pytest.raises(CurvatureError):
            conjugate_gradient(lambda v: -(A @ v), b, iterations)  # noqa: B023


@pytest.mark.parametrize("max_kl", [1e-6, 0.01, 3.0])
def test_the_boundary_is_where_the_quadratic_model_meets_the_budget(max_kl: float) -> None:
    A, b = spd(6, 100.0), randn(6)
    for iterations in (2, 100):  # a rough solution is brought there just as well
        step = scale_to_kl(conjugate_gradient(lambda v: A @ v, b, iterations), max_kl)
        assert float(0.5 * step @ A @ step) == pytest.approx(max_kl, rel=1e-8)
        assert float(step @ b) > 0.0


def test_no_step_within_the_budget_promises_more_than_the_natural_one() -> None:
    """S = √(2δ/gᵀF⁻¹g) · F⁻¹g maximises gᵀs subject to ½ sᵀFs ≤ δ: 1,000 others, on the boundary too, do worse."""
    F, g = spd(6, 100.0), randn(6)
    best = float(g @ scale_to_kl(conjugate_gradient(lambda v: F @ v, g, 100), 0.01))
    assert best == pytest.approx(math.sqrt(0.02 * float(g @ torch.linalg.solve(F, g))), rel=1e-8)
    others = randn(1_000, 6, seed=1)
    others *= (0.02 / torch.einsum("ni,ij,nj->n", others, F, others)).sqrt()[:, None]
    assert float((others @ g).max()) < best
    plain = g * math.sqrt(0.02 / float(g @ F @ g))  # the plain gradient, at the same length in policy space
    assert float(g @ plain) < 0.9 * best


# the Fisher matrix

NETWORKS = [((), "tanh"), ((4,), "tanh"), ((4, 3), "silu")]
MORE_NETWORKS = [((4,), "relu"), ((4,), "silu"), ((4, 3), "relu"), ((4, 3), "tanh")]
MLPS = [(head, *network) for head in HEADS for network in NETWORKS]
MLPS += [(head, *network) for head in ("categorical", "gaussian") for network in MORE_NETWORKS]
KERNELS = ("closed_form", "autograd")


def products(policy: Policy, batch: Batch, share: Tensor) -> tuple[Tensor, PolicyEvaluation]:
    """F, column by column of its products."""
    evaluation = policy.evaluate(batch)
    return dense(lambda v: evaluation.fisher_product(v, share), policy.flat), evaluation


def assert_is_the_fisher_matrix(policy: Policy, batch: Batch, twin: Policy | None = None) -> Tensor:
    """Of the policy, and of its twin with another kernel."""
    share = share_of(batch)
    by_kl, by_scores = (
        fisher_by_kl(policy, batch.obs, share, batch.extra),
        fisher_by_scores(policy, batch.obs, share, batch.extra),
    )
    assert float(by_kl.abs().max()) > 1e-2
    for p in (policy, twin) if twin is not None else (policy,):
        F, evaluation = products(p, batch, share)
        torch.testing.assert_close(F, by_kl, rtol=0, atol=EXACT)
        torch.testing.assert_close(F, by_scores, rtol=0, atol=EXACT)
        assert float((F - F.T).abs().max()) <= 1e-12
        for v in randn(200 if p is policy else 10, len(F), seed=7):
            norm = evaluation.fisher_norm(v, share)
            assert norm >= -1e-12
            assert norm == pytest.approx(float(v @ F @ v), rel=1e-10)
    return F


@pytest.mark.parametrize(("head", "hidden", "activation"), MLPS, ids=str)
def test_the_product_is_with_the_hessian_of_kl_and_with_the_mean_square_of_the_scores(
    head: str, hidden: tuple[int, ...], activation: str
) -> None:
    """With both kernels, and with either half in closed form or by autograd: a Beta's is the default of `Head`."""
    policy, twin = (make(head, hidden, activation, kernel) for kernel in KERNELS)
    assert (policy.kernel.name, twin.kernel.name) == KERNELS
    assert torch.equal(policy.flat, twin.flat)
    assert_is_the_fisher_matrix(policy, batch_for(policy, rows=4), twin)


@pytest.mark.parametrize("body", BODIES)
def test_and_so_it_is_for_tables_and_bodies_of_ones_own(body: str) -> None:
    space, policy = BODIES[body]()
    policy = moved(policy)
    batch = batch_for(policy, rows=4, space=space)
    if policy.normalizer is not None:
        policy.normalizer.count.fill_(50.0)
        policy.normalizer.mean.fill_(0.4)
        assert not torch.equal(policy.features(batch.obs), batch.obs)
    F = assert_is_the_fisher_matrix(policy, batch)
    if body.startswith("recurrence"):
        spare = [i for i, name in enumerate(policy.network.state_dict()) if "spare" in name]
        assert spare == [0]
        assert (F[:2] == 0.0).all()  # the parameter that does nothing comes first
        assert (F[:, :2] == 0.0).all()
        assert "body.scale" in policy.network.state_dict()
        assert len(F) == sum(p.numel() for p in policy.network.parameters()) - 3  # the frozen one is not in it


def test_what_the_sampled_actions_say_is_another_matrix() -> None:
    """Negative control: the "empirical Fisher" of the actions taken, and a sum over them without their probabilities."""
    policy = make("categorical")
    batch = batch_for(policy, rows=4)
    share = share_of(batch)
    F, _ = products(policy, batch, share)
    score, _ = scores(policy, batch.obs, batch.extra)
    taken = score[torch.arange(4), batch.act]
    assert float((F - torch.einsum("b,bp,bq->pq", share, taken, taken)).abs().max()) > 0.01
    assert float((F - torch.einsum("b,bap,baq->pq", share, score, score)).abs().max()) > 0.01


@pytest.mark.parametrize("head", HEADS)
def test_the_matrix_is_linear_in_the_rows_weights(head: str) -> None:
    policy = make(head)
    batch = batch_for(policy, rows=4)
    v, (first, second) = randn(len(policy.flat)), torch.rand(2, 4, generator=generator(), dtype=torch.float64)
    evaluation = policy.evaluate(batch)
    parts = evaluation.fisher_product(v, first) + 2.0 * evaluation.fisher_product(v, second)
    torch.testing.assert_close(evaluation.fisher_product(v, first + 2.0 * second), parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_products_are_independent_of_each_other_and_of_gradients_taken_between(kernel: str) -> None:
    policy = make("gaussian", kernel=kernel)
    batch = batch_for(policy, rows=4)
    share, v, u = share_of(batch), randn(len(policy.flat)), randn(len(policy.flat), seed=1)
    evaluation = policy.evaluate(batch)
    first = evaluation.fisher_product(v, share)
    kept, gradient = first.clone(), evaluation.gradient(batch.weight).clone()
    evaluation.fisher_product(u, share)
    assert torch.equal(first, kept)
    assert torch.equal(evaluation.gradient(batch.weight), gradient)
    assert torch.equal(evaluation.fisher_product(v, share), kept)


@pytest.mark.parametrize("kernel", KERNELS)
def test_after_another_forward_pass_the_matrix_cannot_be_had(kernel: str) -> None:
    policy = make(kernel=kernel)
    batch = batch_for(policy)
    share, v = share_of(batch), randn(len(policy.flat))
    evaluation = policy.evaluate(batch)
    evaluation.fisher_product(v, share)
    policy.dist(batch.obs, batch.extra)
    for use in (evaluation.fisher_product, evaluation.fisher_norm):
        with pytest.raises(RuntimeError, match="another forward pass since: evaluate again"):
            use(v, share)


@pytest.mark.parametrize("head", HEADS)
def test_the_kl_of_a_step_is_half_its_square_in_the_fisher_norm_to_second_order(head: str) -> None:
    """KL(π_θ ‖ π_θ+s) − ½ sᵀFs is of third order: halving s divides it by 8."""
    policy = make(head, (4, 3), "silu")
    batch = batch_for(policy)
    share, theta, step = share_of(batch), policy.flat.clone(), randn(len(policy.flat), seed=3)
    evaluation, errors = policy.evaluate(batch), []
    quadratic = 0.5 * evaluation.fisher_norm(step, share)
    sizes = [2.0**-k for k in range(7, 11)]
    for t in sizes:
        policy.flat.copy_(theta + t * step)
        kl = float((share * policy.head.kl(evaluation.dist, policy.dist(batch.obs, batch.extra))).sum())
        errors.append(abs(kl - t * t * quadratic))
    slopes = np.diff(np.log(errors)) / np.diff(np.log(sizes))
    assert np.abs(slopes - 3.0).max() <= 0.3
    assert errors[-1] <= 0.05 * sizes[-1] ** 2 * quadratic
