"""Spectra of c_t and of long products against factors whose product is known, LAPACK on short ones, and the bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import diagnostics, jacobians
from tests import cases
from tests.cases import CELLS, problem


def matrices(N):
    """The cell h_t = x_t h_{t-1} whose inputs are its Jacobians."""
    return jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: jnp.einsum("...ij,...j->...i", x_t, h_tm1),
        initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, N)),
    )


def known_product(N, T, seed=0):
    """c_t = O_t Σ_t O_{t-1}ᵀ, whose products have the singular values Π Σ, here over hundreds of powers of ten."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(T + 1, N, N)))[0]
    logs = np.linspace(-3, 3, N) + 0.3 * rng.normal(size=(T, N))
    cs = np.einsum("tij,tj,tkj->tik", basis[1:], np.exp(logs), basis[:-1])
    return cs, -np.sort(-np.cumsum(logs, axis=0), axis=1)


@pytest.mark.parametrize("N", [1, 7])
def test_singular_values_of_a_product_beyond_every_float(N):
    cs, log_sigma = known_product(N, 300)
    spectrum = jax.jit(lambda cs: diagnostics.jacobian_spectrum(matrices(N), (), cs, jnp.ones(N)))(cs)
    assert np.ptp(log_sigma[-1]) > 1000 or N == 1
    np.testing.assert_allclose(spectrum.product_log_singular_values, log_sigma, rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(spectrum.singular_values, np.linalg.svd(cs, compute_uv=False), rtol=1e-10)
    modulus = -np.sort(-np.abs(np.linalg.eigvals(cs)), axis=1)
    np.testing.assert_allclose(np.abs(spectrum.eigenvalues), modulus, rtol=1e-9)
    norm = jax.jit(lambda cs: diagnostics.product_power_iteration(matrices(N), (), cs, jnp.ones(N)).log_norm)(cs)
    np.testing.assert_allclose(norm, log_sigma[-1, 0], rtol=1e-11)


def test_close_singular_values_and_their_determinant():
    """Gaussian matrices: neighbours are close, and Σ log σ = log |det|."""
    cs = np.random.default_rng(0).normal(size=(30, 20, 20)) / np.sqrt(20)
    spectrum = jax.jit(lambda cs: diagnostics.jacobian_spectrum(matrices(20), (), cs, jnp.ones(20)))(cs)
    log_det = np.cumsum(np.linalg.slogdet(cs)[1])
    np.testing.assert_allclose(np.sum(spectrum.product_log_singular_values, axis=1), log_det, rtol=1e-11)
    np.testing.assert_allclose(
        spectrum.product_log_singular_values[0], np.log(np.linalg.svd(cs[0], compute_uv=False)), atol=1e-12
    )
    product = np.eye(20)
    for c in cs:
        product = c @ product
    mu = np.linalg.eigvals(product)
    mu = np.log(mu[np.argsort(-np.abs(mu))][:6])
    np.testing.assert_allclose(np.exp(spectrum.product_log_eigenvalues[-1, :6]).sum(), np.exp(mu).sum(), rtol=1e-9)
    np.testing.assert_allclose(np.real(spectrum.product_log_eigenvalues[-1, :6]), np.real(mu), atol=1e-8)


@pytest.mark.parametrize("rho", [0.5, 1.1])
def test_orthogonal_times_rho(rho):
    """Where W_h = ρQ every singular value of a product of t is ρ^t, at horizons where float64 underflows too."""
    cell = jb.cells.linear(W_h_init=jb.initializers.orthogonal(rho))
    theta_h = cell.init(jax.random.key(0), 1, 5, jnp.float64)
    given = (cell, theta_h, jnp.ones((1200, 1)), jnp.ones(5))
    spectrum = jax.jit(lambda xs: diagnostics.jacobian_spectrum(cell, theta_h, xs, jnp.ones(5)))(given[2])
    t = np.arange(1, 1201)[:, None]
    np.testing.assert_allclose(spectrum.product_log_singular_values, t * np.log(rho) * np.ones(5), rtol=1e-11)
    np.testing.assert_allclose(np.real(spectrum.product_log_eigenvalues), t * np.log(rho) * np.ones(5), rtol=1e-11)
    verdict = jax.jit(functools.partial(diagnostics.verdict, cell))(*given[1:])
    assert verdict.words == ("vanishing" if rho < 1 else "exploding")
    np.testing.assert_allclose(verdict.rate, np.log(rho), rtol=1e-12)
    limit = np.log(float(np.finfo(np.float32).tiny if rho < 1 else np.finfo(np.float32).max))
    np.testing.assert_allclose(verdict.float32_horizon, limit / np.log(rho), rtol=1e-12)
    with np.errstate(over="ignore", under="ignore"):  # the horizon is where float32 itself gives up
        steps = int(verdict.float32_horizon)
        inside, outside = np.float32(rho**steps), np.float32(rho ** (steps + 1))
    tiny, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    assert tiny <= inside <= largest
    assert outside < tiny or outside > largest


def test_stable_over_this_horizon():
    cell = jb.cells.linear(W_h_init=jb.initializers.orthogonal(0.99))
    theta_h = cell.init(jax.random.key(0), 1, 4, jnp.float64)
    verdict = jax.jit(functools.partial(diagnostics.verdict, cell), static_argnames="factor")
    words = [
        str(verdict(theta_h, jnp.ones((T, 1)), jnp.ones(4), factor=factor).words)
        for T, factor in ((200, 10.0), (200, 5.0), (300, 10.0))  # 0.99²⁰⁰ = 0.134, 0.99³⁰⁰ = 0.049
    ]
    assert words == ["stable", "vanishing", "vanishing"]
    stable = verdict(theta_h, jnp.ones((200, 1)), jnp.ones(4), factor=10.0)
    assert np.isinf(stable.float32_horizon)
    assert np.isinf(stable.float32_sum_horizon)


def test_eigenvalues_of_a_linear_map():
    W_h = np.array([[0.5, 2.0, 0.0], [-2.0, 0.5, 0.0], [0.3, -0.7, 0.9]])  # 0.5 ± 2i and 0.9, by blocks
    theta_h = jb.cells.LinearParams(W_x=jnp.ones((3, 1)), W_h=jnp.asarray(W_h))
    given = (theta_h, jnp.ones((30, 1)), jnp.zeros(3))
    spectrum, without, power = jax.jit(
        lambda *given: (
            diagnostics.jacobian_spectrum(jb.cells.linear(), *given),
            diagnostics.jacobian_spectrum(jb.cells.linear(), *given, eigenvalues=False),
            diagnostics.power_iteration(jb.cells.linear(), *given),
        )
    )(*given)
    largest = np.hypot(0.5, 2.0)
    np.testing.assert_allclose(np.abs(spectrum.eigenvalues), np.ones((30, 1)) * [largest, largest, 0.9], rtol=1e-12)
    np.testing.assert_allclose(np.real(spectrum.eigenvalues[:, 0]), 0.5, rtol=1e-12)
    t = np.arange(1, 31)[:, None]
    logs = np.real(spectrum.product_log_eigenvalues)
    np.testing.assert_allclose(logs, t * np.log([largest, largest, 0.9]), rtol=1e-8)
    np.testing.assert_allclose(power.radii, largest, rtol=1e-5)  # a complex pair
    np.testing.assert_allclose(power.norms, np.linalg.norm(W_h, 2), rtol=1e-10)
    assert without.eigenvalues is None
    np.testing.assert_array_equal(without.singular_values, spectrum.singular_values)


@pytest.mark.parametrize("name", ["lstm", "masked"])
def test_any_cell_with_a_batch(name):
    """Against LAPACK on c_t and on short products, member by member; and the batch is that of a loop."""
    case = next(case for case in CELLS if case.name == name)
    given = problem(case, T=4, batch=(2,), n=3)
    spectrum, power, product = jax.jit(
        lambda theta_h, xs, h_0: (
            diagnostics.jacobian_spectrum(case.cell, theta_h, xs, h_0),
            diagnostics.power_iteration(case.cell, theta_h, xs, h_0, iterations=400),
            diagnostics.product_power_iteration(case.cell, theta_h, xs, h_0, iterations=200),
        )
    )(given.theta.h, given.xs, given.h_0)
    for b in range(2):
        xs = jax.tree.map(lambda leaf, b=b: leaf[:, b], given.xs)
        h_0 = jax.tree.map(lambda leaf, b=b: leaf[b], given.h_0)
        _, cs = jacobians.along(case.cell, given.theta.h, xs, h_0)
        products = jacobians.product(case.cell, given.theta.h, xs, h_0)
        np.testing.assert_allclose(
            spectrum.singular_values[:, b], np.linalg.svd(cs, compute_uv=False), rtol=1e-9, atol=1e-13
        )
        wanted = np.linalg.svd(products, compute_uv=False)
        got = np.exp(spectrum.product_log_singular_values[:, b])
        np.testing.assert_allclose(got / wanted[:, :1], wanted / wanted[:, :1], atol=1e-12)
        np.testing.assert_allclose(power.norms[:, b], np.linalg.norm(cs, 2, (1, 2)), rtol=1e-6)
        np.testing.assert_allclose(np.exp(product.log_norm[b]), wanted[-1, 0], rtol=1e-8)
        mu = np.linalg.eigvals(products[-1])
        got = np.exp(spectrum.product_log_eigenvalues[-1, b])
        np.testing.assert_allclose(got.sum(), mu.sum(), rtol=1e-9)
        np.testing.assert_allclose(np.prod(got), np.prod(mu), rtol=1e-6, atol=1e-15)


def test_a_singular_step_is_a_product_of_rank_less():
    cs, _ = known_product(3, 4)
    cs[1] = cs[1] @ np.diag([1.0, 0.0, 1.0])
    spectrum_of = jax.jit(lambda cs: diagnostics.jacobian_spectrum(matrices(3), (), cs, jnp.ones(3)))
    spectrum = spectrum_of(cs)
    assert np.isfinite(spectrum.product_log_singular_values[0]).all()
    assert (spectrum.product_log_singular_values[1:, 2] < -30).all()
    product = cs[3] @ cs[2] @ cs[1] @ cs[0]
    wanted = np.log(np.linalg.svd(product, compute_uv=False)[:2])
    np.testing.assert_allclose(spectrum.product_log_singular_values[3, :2], wanted, rtol=1e-9)
    nothing = spectrum_of(np.zeros((4, 3, 3)))
    assert (nothing.product_log_singular_values == -np.inf).all()


@pytest.mark.parametrize(("phi", "gamma", "s"), [("tanh", 1.0, 0.9), ("relu", 1.0, 1.1)])
def test_the_bound_holds_on_every_trajectory(phi, gamma, s):
    """σ_1(W_h) = s/γ: no product of t - k steps is longer than s^(t-k), and below s = 1 vanishing is certain."""
    cell = jb.cells.elman(phi)
    theta_h = cases.randomised(cell.init(jax.random.key(0), 2, 8, jnp.float64), jax.random.key(1), 1.0)
    theta_h = theta_h._replace(W_h=theta_h.W_h * (s / gamma) / np.linalg.norm(theta_h.W_h, 2))
    bound = diagnostics.jacobian_bound(theta_h.W_h, gamma)
    np.testing.assert_allclose(bound.eta, s, rtol=1e-12)
    assert bool(bound.vanishing_is_certain) == (s < 1)
    assert bool(bound.exploding_is_possible) == (s > 1)
    assert bool(np.isfinite(bound.float32_horizon)) == (s < 1)
    xs = 0.1 * jax.random.normal(jax.random.key(2), (60, 3, 2))
    spectrum = jax.jit(lambda *given: diagnostics.jacobian_spectrum(cell, *given, eigenvalues=False))(
        theta_h, xs, jnp.zeros((3, 8))
    )
    t = np.arange(1, 61)[:, None]
    assert (spectrum.product_log_singular_values[..., 0] <= t * np.log(s) + 1e-12).all()
    assert (spectrum.singular_values[..., 0] <= s + 1e-12).all()


def test_precision_and_transformations():
    cell = jb.cells.gru()
    both = jax.jit(
        lambda *given: (
            diagnostics.jacobian_spectrum(cell, *given, eigenvalues=False),
            diagnostics.verdict(cell, *given),
        )
    )
    for dtype in (jnp.float32, jnp.bfloat16):
        theta_h = cell.init(jax.random.key(0), 2, 3, dtype)
        spectrum, verdict = both(theta_h, jnp.ones((5, 2), dtype), jnp.zeros(3, dtype))
        assert spectrum.singular_values.dtype == verdict.rate.dtype == jnp.float32  # half has no factorisations
        np.testing.assert_allclose(
            verdict.log_norm, spectrum.product_log_singular_values[-1, 0], atol=1e-4 if dtype == jnp.float32 else 0.02
        )
    theta_h = cell.init(jax.random.key(0), 2, 3, jnp.float64)
    xs, h_0 = jax.random.normal(jax.random.key(1), (5, 4, 2)), jnp.zeros((4, 3))
    batched, _ = both(theta_h, xs, h_0)
    mapped, _ = jax.jit(jax.vmap(lambda xs, h_0: both(theta_h, xs, h_0), (1, 0), 0))(xs, h_0)
    cases.assert_close(
        jnp.moveaxis(mapped.product_log_singular_values, 0, 1), batched.product_log_singular_values, 1e-9
    )


@pytest.mark.parametrize("W_h", [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], ids=["nilpotent", "zero"])
@pytest.mark.parametrize("iterations", [100, 1500])
def test_a_radius_of_zero_is_zero(W_h, iterations):
    """log 0 is -inf, and the smooth weight of the ends is 0."""
    for dtype in (jnp.float32, jnp.float64):
        theta_h = jb.cells.LinearParams(jnp.ones((2, 1), dtype), jnp.array(W_h, dtype))
        given = (jb.cells.linear(), theta_h, jnp.ones((1, 1), dtype), jnp.zeros(2, dtype))
        power = diagnostics.power_iteration(*given, iterations=iterations)
        assert power.radii.tolist() == [0.0]
        assert diagnostics.product_power_iteration(*given, iterations=iterations).log_radius == -jnp.inf
