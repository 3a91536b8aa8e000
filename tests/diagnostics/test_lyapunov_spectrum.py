"""Lyapunov exponents against closed forms: determinants, Ginibre, mean field, the logistic and the Hénon map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

import jaxbptt as jb
from jaxbptt import diagnostics
from jaxbptt.diagnostics import flossing, kaplan_yorke_dimension, largest_exponent, lyapunov_spectrum
from tests import oracles
from tests.cases import CELLS, assert_close, problem
from tests.diagnostics.test_jacobian_spectrum import matrices

# One map a name, as ``h_t = f(h_{t-1})`` with an input that isn't read
MAPS = {
    "logistic": lambda r, x_t, h: r * h * (1 - h),
    "henon": lambda ab, x_t, h: jnp.stack([1 - ab[0] * h[..., 0] ** 2 + h[..., 1], ab[1] * h[..., 0]], axis=-1),
    "mean field": lambda J, x_t, h: jnp.tanh(h) @ J.T,
}


def a_map(name, n):
    return jb.cells.from_step(MAPS[name], initial_state=functools.partial(_zero, n))


def _zero(n, theta_h, batch_shape=()):
    return jnp.zeros((*batch_shape, n))


def test_the_logistic_map():
    """λ = ln 2 at r = 4, by its conjugacy with the tent map."""
    h_0 = jax.random.uniform(jax.random.key(0), (16, 1), minval=0.1, maxval=0.9)
    spectrum = jax.jit(
        lambda h_0: lyapunov_spectrum(a_map("logistic", 1), 4.0, _no_input(6000, 16), h_0, transient=100)
    )
    found = spectrum(h_0)
    assert 0 < found.standard_errors[0] < 2e-3
    np.testing.assert_allclose(found.exponents[0], np.log(2), atol=4 * found.standard_errors[0])
    np.testing.assert_allclose(found.standard_errors, np.std(found.per_sequence, axis=0, ddof=1) / 4, rtol=1e-12)


def test_the_henon_map():
    """The sum is log b exactly; λ_1 = 0.419 (the classical value); D = 1 + λ_1/|λ_2|."""
    h_0 = 0.1 * jax.random.normal(jax.random.key(0), (8, 2))
    spectrum = jax.jit(
        lambda h_0: lyapunov_spectrum(a_map("henon", 2), jnp.array([1.4, 0.3]), _no_input(4000, 8), h_0, transient=100)
    )
    found = spectrum(h_0)
    np.testing.assert_allclose(np.sum(found.exponents), np.log(0.3), rtol=1e-12)
    np.testing.assert_allclose(found.exponents[0], 0.419, atol=0.008)
    D = kaplan_yorke_dimension(found.exponents)
    np.testing.assert_allclose(D, 1 + found.exponents[0] / -found.exponents[1], rtol=1e-12)


def _no_input(T, *batch):
    return jnp.zeros((T, *batch, 0))


def test_products_of_ginibre_matrices():
    """Newman (1986): λ_i = ½ [ln(2/N) + ψ((N-i+1)/2)] for J_ij ~ N(0, 1/N), fresh at each step."""
    N, T = 6, 4000
    cs = np.random.default_rng(0).normal(size=(T, N, N)) / np.sqrt(N)
    found = jax.jit(lambda cs: lyapunov_spectrum(matrices(N), (), cs, jnp.ones(N)))(cs)
    wanted = 0.5 * (np.log(2 / N) + digamma((N - np.arange(N)) / 2))
    assert np.all(found.standard_errors < 0.03)
    assert np.all(np.abs(found.exponents - wanted) < 4 * found.standard_errors)
    np.testing.assert_allclose(np.sum(found.exponents), np.mean(np.linalg.slogdet(cs)[1]), rtol=1e-11)
    batched = jax.jit(lambda cs: lyapunov_spectrum(matrices(N), (), cs, jnp.ones((20, N)), k=3))
    found = batched(cs.reshape(T // 20, 20, N, N))
    assert found.per_sequence.shape == (20, 3)
    assert np.all(np.abs(found.exponents - wanted[:3]) < 4 * found.standard_errors)


@pytest.mark.parametrize(("g", "wanted"), [(0.5, -0.6931), (2.0, 0.1547)])
def test_the_mean_field_curve(g, wanted):
    """λ_1(g) of x ← J tanh(x), J_ij ~ N(0, g²/N), N → ∞; here N = 200 and four seeds."""
    N, T = 200, 500

    @jax.jit
    @jax.vmap
    def one(key):
        J = g / np.sqrt(N) * jax.random.normal(key, (N, N))
        h_0 = jax.random.normal(key, (N,))
        return largest_exponent(a_map("mean field", N), J, _no_input(T), h_0, transient=100).exponents

    np.testing.assert_allclose(np.mean(one(jax.random.split(jax.random.key(1), 4))), wanted, atol=0.04)


@pytest.mark.parametrize("name", ["lstm", "from_step"])
def test_the_sum_is_the_mean_log_determinant(name):
    """For any cell; the Jacobians by the complex step of the NumPy step."""
    case = next(case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(2,), n=3)
    found = jax.jit(lambda xs, h_0: lyapunov_spectrum(case.cell, given.theta.h, xs, h_0, transient=2))(
        given.xs, given.h_0
    )
    log_dets = np.zeros((6, 2))
    for b in range(2):
        h = jax.tree.map(lambda leaf, b=b: np.asarray(leaf[b], complex), given.h_0)
        for t in range(6):
            x = jax.tree.map(lambda leaf, t=t, b=b: np.asarray(leaf[t, b]), given.xs)
            log_dets[t, b] = np.linalg.slogdet(_jacobian(case.step, given.theta.h, x, h))[1]
            h = case.step(jax.tree.map(np.asarray, given.theta.h), x, h)
    np.testing.assert_allclose(np.sum(found.per_sequence, axis=1), log_dets[2:].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.sum(found.exponents), log_dets[2:].mean(), rtol=1e-9)


def _jacobian(step, theta_h, x, h):
    leaves, treedef = jax.tree.flatten(h)
    theta_h = jax.tree.map(np.asarray, theta_h)
    columns = []
    for k, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            bumped = [other.copy() for other in leaves]
            bumped[k][index] += 1j * oracles.EPSILON
            after = jax.tree.leaves(step(theta_h, x, treedef.unflatten(bumped)))
            columns.append(np.concatenate([np.imag(part).ravel() / oracles.EPSILON for part in after]))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("every", [1, 5])
def test_a_linear_map(every):
    """λ_i = log |μ_i|, for a W_h far from normal; largest_exponent alone agrees with the first."""
    mu = np.array([1.3, -0.9, 0.4, 0.1])
    basis = np.random.default_rng(0).normal(size=(4, 4))
    W_h = basis @ np.diag(mu) @ np.linalg.inv(basis)
    theta_h = jb.cells.LinearParams(W_x=jnp.ones((4, 1)), W_h=jnp.asarray(W_h))
    given = (jb.cells.linear(), theta_h, jnp.ones((300, 1)), jnp.zeros(4))
    spectrum = jax.jit(functools.partial(lyapunov_spectrum, given[0]), static_argnames=("transient", "every", "k"))
    found = spectrum(*given[1:], transient=200, every=every)
    np.testing.assert_allclose(found.exponents, np.log(np.abs(mu)), rtol=1e-9)
    first = largest_exponent(*given, transient=200, every=every)
    np.testing.assert_allclose(first.exponents, np.log(1.3), rtol=1e-9)
    assert first.exponents.shape == first.standard_errors.shape == first.per_sequence.shape == ()
    two = spectrum(*given[1:], transient=200, every=every, k=2, key=jax.random.key(7))
    np.testing.assert_allclose(two.exponents, np.log(np.abs(mu[:2])), rtol=1e-9)


def test_the_transient_is_dropped():
    theta_h = jb.cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.diag(jnp.array([1.0, 0.5])))
    given = (jb.cells.linear(), theta_h, jnp.ones((60, 1)), jnp.zeros(2))
    with_it, without = lyapunov_spectrum(*given), lyapunov_spectrum(*given, transient=50)
    assert np.abs(with_it.exponents[0]) > 1e-4
    np.testing.assert_allclose(without.exponents, np.log([1.0, 0.5]), atol=1e-12)


def test_orthogonal_times_rho_in_float32():
    cell = jb.cells.linear(W_h_init=jb.initializers.orthogonal(0.5))
    theta_h = cell.init(jax.random.key(0), 1, 4, jnp.float32)
    found = lyapunov_spectrum(cell, theta_h, jnp.ones((400, 1), jnp.float32), jnp.zeros(4, jnp.float32))
    assert found.exponents.dtype == jnp.float32
    np.testing.assert_allclose(found.exponents, np.log(0.5), rtol=1e-5)  # 0.5⁴⁰⁰ is far below float32
    half = lyapunov_spectrum(
        cell,
        cell.init(jax.random.key(0), 1, 4, jnp.bfloat16),
        jnp.ones((9, 1), jnp.bfloat16),
        jnp.zeros(4, jnp.bfloat16),
    )
    np.testing.assert_allclose(half.exponents, np.log(0.5), atol=0.02)


def test_singular_steps_are_minus_infinity_and_one_number_has_no_error():
    given = (jb.cells.linear(), jb.cells.LinearParams(jnp.ones((2, 1)), jnp.diag(jnp.array([1.0, 0.0]))))
    found = lyapunov_spectrum(*given, jnp.ones((4, 1)), jnp.zeros(2))
    assert found.exponents[1] < -30
    assert np.isnan(lyapunov_spectrum(*given, jnp.ones((1, 1)), jnp.zeros(2)).standard_errors[0])


def test_vmap_is_the_batch():
    case = next(case for case in CELLS if case.name == "lstm")
    given = problem(case, T=6, batch=(3,), n=2)
    Q = jax.random.key(3)
    one = jax.jit(jax.vmap(lambda xs, h_0: lyapunov_spectrum(case.cell, given.theta.h, xs, h_0, key=Q), (1, 0)))
    mapped = one(given.xs, given.h_0).exponents
    batched = lyapunov_spectrum(case.cell, given.theta.h, given.xs, given.h_0, key=Q)
    np.testing.assert_allclose(np.sum(mapped, axis=1), np.sum(batched.per_sequence, axis=1), rtol=1e-10)


def test_kaplan_yorke():
    for exponents, D in (
        ([-0.1, -0.2], 0.0),
        ([0.5, 0.0, -2.0], 2.25),
        ([-2.0, 0.0, 0.5], 2.25),
        ([0.3, 0.1], 2.0),
        ([0.0, -1.0], 1.0),
        ([0.1, -np.inf], 1.0),
        ([0.4], 1.0),
        ([0.906, 0.0, -14.572], 2 + 0.906 / 14.572),
    ):
        found = kaplan_yorke_dimension(jnp.array([exponents] * 2))
        np.testing.assert_allclose(found, [D, D], rtol=1e-12, err_msg=str(exponents))
        np.testing.assert_array_equal(kaplan_yorke_dimension(jnp.array(exponents)), found[0])


# Flossing


def test_the_gradient_of_all_exponents_is_that_of_the_determinant():
    """Σ λ_i = log |det W_h| of the linear unit, whose gradient is W_h⁻ᵀ, whatever the QRs in between."""
    W_h = np.random.default_rng(1).normal(size=(4, 4))

    def total(W_h):
        theta_h = jb.cells.LinearParams(jnp.ones((4, 1)), W_h)
        return jnp.sum(lyapunov_spectrum(jb.cells.linear(), theta_h, jnp.ones((7, 1)), jnp.zeros(4)).exponents)

    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(W_h)), np.linalg.inv(W_h).T, rtol=1e-9)


def test_flossing_is_the_square_of_numpys_exponents_and_so_is_its_gradient():
    case = next(case for case in CELLS if case.name == "gru")
    given = problem(case, T=4, batch=(2,), n=3)
    key = jax.random.key(0)
    Q_0 = np.asarray(jnp.linalg.qr(jax.random.normal(key, (2, 3, 2)))[0])

    def by_numpy(leaves):
        theta_h = type(given.theta.h)(*leaves)
        squares = []
        for b in range(2):
            h, Q, logs = np.asarray(given.h_0[b], complex), Q_0[b], []
            for t in range(4):
                c = _jacobian(case.step, theta_h, np.asarray(given.xs[t, b]), h)
                h = case.step(theta_h, np.asarray(given.xs[t, b]), h).real.astype(complex)
                Q, R = np.linalg.qr(c @ Q)
                logs.append(np.log(np.abs(np.diag(R))))
            squares.append(np.mean((np.mean(logs, axis=0) - 0.1) ** 2))
        return np.mean(squares)

    def floss(theta_h):
        return flossing(case.cell, theta_h, given.xs, given.h_0, k=2, target=0.1, key=key)

    value, bar = jax.jit(jax.value_and_grad(floss))(given.theta.h)
    np.testing.assert_allclose(value, by_numpy([np.asarray(leaf) for leaf in given.theta.h]), rtol=1e-9)
    wanted = oracles.central_differences(by_numpy, list(given.theta.h))
    assert_close(bar, type(given.theta.h)(*wanted), 1e-6)


def test_flossing_floats_the_exponents():
    """A few steps down its gradient bring the exponents to the target."""
    cell = jb.cells.elman()
    theta_h = cell.init(jax.random.key(0), 1, 6, jnp.float64)
    theta_h = theta_h._replace(W_h=0.5 * theta_h.W_h)
    xs = 0.1 * jax.random.normal(jax.random.key(1), (20, 4, 1))
    F = jax.jit(jax.value_and_grad(lambda theta_h: flossing(cell, theta_h, xs, jnp.zeros((4, 6)), k=3)))
    first = F(theta_h)[0]
    for _ in range(60):
        theta_h = jax.tree.map(lambda leaf, bar: leaf - 0.2 * bar, theta_h, F(theta_h)[1])
    assert first > 0.3
    assert F(theta_h)[0] < 0.01 * first
    found = diagnostics.lyapunov_spectrum(cell, theta_h, xs, jnp.zeros((4, 6)), k=3)
    assert np.all(np.abs(found.exponents) < 0.1)


@pytest.mark.parametrize("T", [10, 19, 20, 199])
def test_the_standard_error_of_one_sequence_is_of_all_of_it(T):
    """Growth by white noise: the scatter of the exponent over many sequences is what each of them reports of itself."""
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: jnp.exp(x_t) * h_tm1 * theta_h, initial_state=_one)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(3000, T, 1)))
    found = jax.jit(jax.vmap(lambda xs: lyapunov_spectrum(cell, 1.0, xs, jnp.ones(1))))(xs)
    reported = np.sqrt(np.mean(np.asarray(found.standard_errors) ** 2))
    np.testing.assert_allclose(reported, np.std(found.exponents), rtol=0.06)  # 0.013 is the error of a scatter of 3000
    late = jnp.where(jnp.arange(T) < T - 1, 0.0, 5.0)[:, None]  # all of the growth is in the last step
    assert lyapunov_spectrum(cell, 1.0, late, jnp.ones(1)).standard_errors[0] > 0


def _one(theta_h, batch_shape=()):
    return jnp.ones((*batch_shape, 1))


def test_what_is_no_number_stays_none():
    nan, given = jnp.nan, jnp.array([[jnp.nan, -1.0], [0.5, jnp.nan], [0.5, -1.0]])
    np.testing.assert_array_equal(kaplan_yorke_dimension(given), [nan, nan, 1.5])
    bound = diagnostics.jacobian_bound(jnp.full((2, 2), nan))
    assert np.isnan(bound.float32_horizon)
    assert not bound.vanishing_is_certain
