"""Ω and the clipping of delta against NumPy loops and the complex step; spectral clipping against LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import diagnostics
from tests import cases, oracles
from tests.cases import CELLS, assert_close, problem

l2 = jb.losses.l2_loss


def elman(T=5, batch=(2,)):
    case = next(case for case in CELLS if case.name == "elman-tanh")
    return problem(case, T=T, batch=batch, d=2, n=3, m=2)


def numpy_states(theta_h, given):
    h, hs = np.asarray(given.h_0, complex), []
    for x in np.asarray(given.xs):
        h = np.tanh(x @ theta_h.W_x.T + h @ theta_h.W_h.T + theta_h.b)
        hs.append(h)
    return hs


def numpy_deltas(theta, hs, given, mask, clip=lambda delta: delta):
    """δ_t of the sum over counted steps, by the formula of the tanh network: c_tᵀ δ = W_hᵀ ((1 - h_t²) ∘ δ)."""
    deltas, c_delta = [], 0
    for t in reversed(range(len(hs))):
        residual = hs[t] @ theta.o.W_o.T + theta.o.b - np.asarray(given.ys)[t]
        delta = clip(np.where(mask[t][:, None], residual @ theta.o.W_o, 0) + c_delta)
        deltas.insert(0, delta)
        c_delta = ((1 - hs[t] ** 2) * delta) @ theta.h.W_h
    return deltas


def numpy_omega(theta, given, mask, frozen=None):
    """Ω; with `frozen` states and δ's, as a function of the θ_h in c_t alone."""
    hs = numpy_states(theta.h, given) if frozen is None else frozen[0]
    deltas = numpy_deltas(theta, hs, given, mask) if frozen is None else frozen[1]
    total = 0
    for t, delta in enumerate(deltas):
        h_tm1 = np.asarray(given.h_0) if t == 0 else hs[t - 1]
        h_t = np.tanh(np.asarray(given.xs)[t] @ theta.h.W_x.T + h_tm1 @ theta.h.W_h.T + theta.h.b)
        passed = ((1 - h_t**2) * delta) @ theta.h.W_h
        length = np.sqrt(np.sum(delta**2, axis=-1))  # without abs: analytic, for the complex step
        ratio = np.sqrt(np.sum(passed**2, axis=-1)) / np.where(length == 0, 1, length)
        total = total + np.sum(np.where(length == 0, 0, (ratio - 1) ** 2))
    return total / 2  # the mean over a batch of two


@pytest.mark.parametrize("masked", [False, True])
def test_omega(masked):
    given = elman()
    mask = np.ones((5, 2), bool)
    if masked:
        mask[[0, 3], [1, 0]] = False
        mask[3:, 1] = False  # δ_4 = δ_5 = 0 there: no ratio
    theta = jax.tree.map(np.asarray, given.theta)
    leaves, treedef = jax.tree.flatten(theta)
    hs = [np.real(h) for h in numpy_states(theta.h, given)]
    frozen = hs, numpy_deltas(theta, hs, given, mask)

    def by_numpy(frozen=None):
        return oracles.gradient(lambda leaves: numpy_omega(treedef.unflatten(leaves), given, mask, frozen), leaves)

    def omega(theta, immediate):
        options = {"mask": jnp.asarray(mask) if masked else None, "immediate": immediate}
        return diagnostics.omega(given.model, l2, theta, given.xs, given.ys, given.h_0, **options)

    derivative = jax.jit(jax.value_and_grad(omega), static_argnums=1)
    value, bar = derivative(given.theta, False)
    np.testing.assert_allclose(value, np.real(numpy_omega(theta, given, mask)), rtol=1e-11)
    assert_close(bar, treedef.unflatten(by_numpy()), 1e-9)  # the total gradient, θ_o's among it
    value, bar = derivative(given.theta, True)
    np.testing.assert_allclose(value, np.real(numpy_omega(theta, given, mask)), rtol=1e-11)
    wanted = treedef.unflatten(by_numpy(frozen))
    assert_close(bar.h, wanted.h, 1e-9)
    assert not np.any(bar.o.W_o)


@pytest.mark.parametrize("name", ["lstm", "from_step"])
def test_omega_of_any_cell(name):
    """Its terms from the Jacobians themselves; and the total gradient by differences."""
    case = next(case for case in CELLS if case.name == name)
    given = problem(case, T=4, batch=(), n=3)
    cell, theta = case.cell, given.theta

    def h_bar(h_t, y_t):
        return jax.grad(lambda h_t: l2(given.model.readout.apply(theta.o, cell.output(h_t)), y_t))(h_t)

    identity = cell._replace(output=lambda h_t: h_t)
    _, hs = jb.unroll(identity, theta.h, given.xs, given.h_0, adjoint=jb.adjoints.autodiff())
    _, deltas = jb.jacobians.vjp(cell, theta.h, given.xs, given.h_0, jax.vmap(h_bar)(hs, given.ys))
    deltas = np.concatenate([np.reshape(leaf, (4, -1)) for leaf in jax.tree.leaves(deltas)], axis=1)
    _, cs = jb.jacobians.along(cell, theta.h, given.xs, given.h_0)
    ratios = np.linalg.norm(np.einsum("tij,ti->tj", cs, deltas), axis=1) / np.linalg.norm(deltas, axis=1)
    omega = jax.jit(
        lambda theta: diagnostics.omega(given.model, l2, theta, given.xs, given.ys, given.h_0, immediate=False)
    )
    np.testing.assert_allclose(omega(theta), np.sum((ratios - 1) ** 2), rtol=1e-11)
    bar = jax.tree.leaves(jax.grad(omega)(theta))
    leaves, treedef = jax.tree.flatten(theta)
    wanted = oracles.central_differences(
        lambda leaves: float(omega(treedef.unflatten([jnp.asarray(leaf) for leaf in leaves]))), leaves
    )
    for got, leaf in zip(bar, wanted, strict=True):
        np.testing.assert_allclose(got, leaf, atol=1e-6 * max(np.abs(leaf).max() for leaf in wanted))


def test_omega_is_zero_where_lengths_are_kept_and_sees_tiny_deltas():
    model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    for scale in (1.0, 1e-30):
        theta = jb.Theta(jb.cells.LinearParams(jnp.eye(3, dtype=jnp.float32), jnp.eye(3, dtype=jnp.float32)), ())
        xs = scale * jnp.ones((4, 3), jnp.float32)

        def F(theta, xs=xs):
            return diagnostics.omega(model, l2, theta, xs, 0 * xs)

        np.testing.assert_allclose(F(theta), 0, atol=1e-10)
        theta = theta._replace(h=theta.h._replace(W_h=0.5 * theta.h.W_h))
        np.testing.assert_allclose(F(theta), 4 * 0.25, rtol=1e-5)


@pytest.mark.parametrize("option", ["norm", "value"])
def test_clipped_delta_is_the_numpy_loop(option):
    given = elman()
    limit = 0.06
    mask = np.ones((5, 2), bool)
    theta = jax.tree.map(np.asarray, given.theta)

    def clip(delta):  # F is a mean over ten, and so is what is clipped
        if option == "value":
            return 10 * np.clip(delta / 10, -limit, limit)
        length = np.linalg.norm(delta / 10, axis=1, keepdims=True)
        return delta * np.minimum(1, limit / length)

    hs = [np.real(h) for h in numpy_states(theta.h, given)]
    deltas = [delta / 10 for delta in numpy_deltas(theta, hs, given, mask, clip)]
    unclipped = [delta / 10 for delta in numpy_deltas(theta, hs, given, mask)]
    changed = sum(not np.allclose(a, b) for a, b in zip(deltas, unclipped, strict=True))
    assert changed > 0
    wanted = [np.zeros_like(leaf) for leaf in theta.h]
    for t, delta in enumerate(deltas):
        z_bar = (1 - hs[t] ** 2) * delta
        h_tm1 = np.asarray(given.h_0) if t == 0 else hs[t - 1]
        for leaf, term in zip(wanted, (z_bar.T @ np.asarray(given.xs)[t], z_bar.T @ h_tm1, z_bar.sum(0)), strict=True):
            leaf += term
    F = jb.objective(given.model, l2, adjoint=diagnostics.clipped_delta(**{option: limit}))
    bar, h_0_bar = jax.jit(jax.grad(F, argnums=(0, 3)))(given.theta, given.xs, given.ys, given.h_0)
    assert_close(bar.h, type(theta.h)(*wanted))
    assert_close(h_0_bar, ((1 - hs[0] ** 2) * deltas[0]) @ theta.h.W_h)
    full = jax.grad(jb.objective(given.model, l2))(given.theta, given.xs, given.ys, given.h_0)
    assert_close(bar.o, full.o)  # the readout's gradient has no recursion in it
    assert np.abs(bar.h.W_h - full.h.W_h).max() > 0.01 * np.abs(full.h.W_h).max()


@pytest.mark.parametrize("name", [case.name for case in CELLS if case.name in ("from_step", "masked")])
def test_a_threshold_out_of_reach_clips_nothing(name):
    case = next(case for case in CELLS if case.name == name)
    given = problem(case, T=4, batch=(2,), n=3)
    _, (theta_bar, _, _) = cases.oracle(given)
    for options in ({"norm": 1e6}, {"value": 1e6}):
        F = jb.objective(given.model, l2, adjoint=diagnostics.clipped_delta(**options))
        assert_close(jax.jit(jax.grad(F))(given.theta, given.xs, given.ys, given.h_0), theta_bar)
    assert diagnostics.clipped_delta(norm=1.0) is diagnostics.clipped_delta(norm=1.0)


def test_no_clipped_delta_is_longer_than_the_threshold():
    """A linear network that explodes by 3⁴⁰: delta_1 stays within the threshold, whatever the horizon."""
    cell = jb.cells.linear()
    theta_h = jb.cells.LinearParams(jnp.ones((3, 1)), 3.0 * jnp.eye(3))
    for adjoint, longest in ((diagnostics.clipped_delta(norm=0.5), 1.5), (jb.adjoints.full(), np.inf)):

        def loss(h_0, adjoint=adjoint):
            return jnp.sum(jb.unroll(cell, theta_h, jnp.ones((40, 1)), h_0, adjoint=adjoint)[0])

        length = np.linalg.norm(jax.grad(loss)(jnp.zeros(3)))
        assert length <= longest * (1 + 1e-12)
        np.testing.assert_allclose(length, 1.5 if np.isfinite(longest) else np.sqrt(3) * 3.0**40, rtol=1e-12)


@pytest.mark.parametrize("gates", [1, 3])
def test_spectral_clipping(gates):
    W = jax.random.normal(jax.random.key(0), (gates * 4, 4))
    got = jax.jit(lambda W: diagnostics.spectral_clipping(W, 1.2, gates=gates))(W)
    for before, after in zip(np.split(np.asarray(W), gates), np.split(np.asarray(got), gates), strict=True):
        U, values, Vh = np.linalg.svd(before)
        assert values[0] > 1.2 > values[-1]
        np.testing.assert_allclose(after, U @ np.diag(np.minimum(values, 1.2)) @ Vh, atol=1e-13)
    assert diagnostics.spectral_clipping(W.astype(jnp.bfloat16), 1.0, gates=gates).dtype == jnp.bfloat16
    once = diagnostics.spectral_clipping(got, 1.2, gates=gates)
    np.testing.assert_allclose(once, got, atol=1e-13)
