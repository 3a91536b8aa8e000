"""`gradient_flow` against the complex step: each loss, each lag, each copy of θ_h for itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.diagnostics import gradient_flow
from tests import cases, oracles
from tests.cases import CELLS, assert_close, problem

l2 = jb.losses.l2_loss
T = 5


def case(name):
    return next(case for case in CELLS if case.name == name)


def measured(given, mask=None, **options):
    flow = jax.jit(lambda theta, xs, ys, h_0: gradient_flow(given.model, l2, theta, xs, ys, h_0, mask=mask, **options))
    return flow(given.theta, given.xs, given.ys, given.h_0)


def each_loss(given, theta_hs, bumps):
    """L_1 … L_T, ``[T, B]``, with a copy of θ_h for each step and h_t displaced by a bump."""
    h, found = jax.tree.map(np.asarray, given.h_0), []
    theta_o = jax.tree.map(np.asarray, given.theta.o)
    for t, (theta_h, bump) in enumerate(zip(theta_hs, bumps, strict=True)):
        x = jax.tree.map(lambda leaf, t=t: np.asarray(leaf[t]), given.xs)
        h = jax.tree.map(np.add, given.case.step(theta_h, x, h), bump)
        y_hat = np.einsum("mn,...n->...m", theta_o.W_o, given.case.output(h)) + theta_o.b
        found.append(oracles.half_square(y_hat, np.asarray(given.ys[t])))
    return np.stack(found)


def by_complex_step(given):
    """∂L_s/∂θ_h of step t, summed over the batch, as ``[s][t]`` trees; ∂L_s/∂h_t as ``[s][t]`` trees."""
    theta_h = jax.tree.map(lambda leaf: np.asarray(leaf, complex), given.theta.h)
    zero = jax.tree.map(lambda leaf: np.zeros(leaf.shape, complex), given.h_0)

    def gradient(s, t, tree, of_theta):
        leaves, treedef = jax.tree.flatten(tree)

        def L_s(leaves):
            changed = treedef.unflatten(leaves)
            theta_hs = [changed if of_theta and step == t else theta_h for step in range(T)]
            bumps = [changed if not of_theta and step == t else zero for step in range(T)]
            return np.sum(each_loss(given, theta_hs, bumps)[s])

        return treedef.unflatten(oracles.gradient(L_s, [leaf.copy() for leaf in leaves]))  # it perturbs in place

    thetas = [[gradient(s, t, theta_h, True) for t in range(T)] for s in range(T)]
    states = [[gradient(s, t, zero, False) for t in range(T)] for s in range(T)]
    return thetas, states


def member_norms(tree):
    return np.sqrt(sum(np.sum(np.abs(leaf) ** 2, axis=-1) for leaf in jax.tree.leaves(tree)))


def add(*trees):
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


@pytest.mark.parametrize("name", ["elman-tanh", "lstm", "from_step"])
def test_every_lag_is_that_of_the_complex_step(name):
    given = problem(case(name), T=T, batch=(2,), d=2, n=3)
    flow, (thetas, states) = measured(given), by_complex_step(given)
    for k in range(T):
        part = add(*(thetas[s][s - k] for s in range(k, T)))
        got = jax.tree.map(lambda leaf, k=k: leaf[k], flow.gradients)
        for got_leaf, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(part), strict=True):
            np.testing.assert_allclose(got_leaf, wanted / (2 * T), rtol=1e-10, atol=1e-14)
    for s in range(T):
        for k in range(T):
            wanted = member_norms(states[s][s - k]) if k <= s else np.zeros(2)
            np.testing.assert_allclose(flow.lag_norms[s, k], wanted, rtol=1e-10)
    for t in range(T):
        wanted = member_norms(add(*(states[s][t] for s in range(T)))) / (2 * T)
        np.testing.assert_allclose(flow.delta_norms[t + 1], wanted, rtol=1e-10)
    assert not np.any(jax.tree.leaves(flow.gradients)[0][T])  # no lag is as long as T


@pytest.mark.parametrize(
    ("name", "lags"),
    [("gru", 2), ("stacked", None), ("masked", 3), ("from_step", 1), ("by_hand", 2)],
)
def test_the_lags_add_up_to_the_gradient(name, lags):
    given = problem(case(name), T=T, batch=(2,), n=3)
    mask = jnp.ones((T, 2), bool).at[1, 0].set(False).at[4, 1].set(False)
    F, (theta_bar, _, h_0_bar) = cases.oracle(given, np.asarray(mask))
    flow = measured(given, mask, lags=lags)
    np.testing.assert_allclose(flow.loss, F, rtol=1e-12)
    assert_close(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), flow.gradients), theta_bar.h)
    np.testing.assert_allclose(flow.delta_norms[0], member_norms(h_0_bar), rtol=1e-10)
    for share, part in zip(jax.tree.leaves(flow.shares), jax.tree.leaves(flow.gradients), strict=True):
        assert share.shape == ((T if lags is None else lags) + 1,)
        np.testing.assert_allclose(np.sum(share), 1, rtol=1e-12)
        G = np.sum(part, axis=0)
        np.testing.assert_allclose(share[1], np.sum(G * part[1]) / np.sum(G * G), rtol=1e-9, atol=1e-14)
    assert not np.any(flow.lag_norms[1, 0, 0])  # masked: L_2 of the first sequence doesn't count


@pytest.mark.parametrize("rho", [0.5, 1.1])
def test_orthogonal_times_rho(rho):
    """Where W_h = ρQ: ‖∂L_T/∂h_t‖ = ρ^(T-t) ‖∂L_T/∂h_T‖."""
    model = jb.rnn(jb.cells.linear(W_h_init=jb.initializers.orthogonal(rho)), jb.readouts.identity())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=6, output_size=6, dtype=jnp.float64)
    xs, ys = jax.random.normal(jax.random.key(1), (40, 2)), jnp.ones((40, 6))
    last = jnp.arange(40) == 39
    flow = jax.jit(lambda theta: gradient_flow(model, l2, theta, xs, ys, mask=last, lags=40))(theta)
    np.testing.assert_allclose(flow.delta_norms / flow.delta_norms[-1], rho ** np.arange(40, -1, -1.0), rtol=1e-11)
    np.testing.assert_allclose(flow.lag_norms[-1], flow.delta_norms[:0:-1], rtol=1e-11)


def test_a_learned_initial_state_is_one_more_use_of_theta():
    def initial_state(theta_h, batch_shape=()):
        return jnp.broadcast_to(theta_h["h_0"], (*batch_shape, 3))

    def step(theta_h, x_t, h_tm1):
        return jnp.tanh(h_tm1 @ theta_h["W"].T + x_t)

    model = jb.rnn(jb.cells.from_step(step, initial_state=initial_state), jb.readouts.identity())
    keys = jax.random.split(jax.random.key(0), 4)
    theta = jb.Theta({"W": jax.random.normal(keys[0], (3, 3)), "h_0": jax.random.normal(keys[1], (3,))}, ())
    xs, ys = jax.random.normal(keys[2], (4, 2, 3)), jax.random.normal(keys[3], (4, 2, 3))
    wanted = jax.jit(jax.grad(jb.objective(model, l2, adjoint=jb.adjoints.autodiff())))(theta, xs, ys).h
    for lags in (1, None):
        flow = jax.jit(lambda theta, lags=lags: gradient_flow(model, l2, theta, xs, ys, lags=lags))(theta)
        assert_close(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), flow.gradients), wanted)
    assert not np.any(flow.gradients["h_0"][0])  # L_1 reaches h_0 at lag 1
    assert np.all(flow.gradients["h_0"][1:5] != 0)


def test_sum_and_mean():
    given = problem(case("gru"), T=T, batch=(2,), n=3)
    mean, total = measured(given), measured(given, reduction="sum")
    assert_close((total.gradients, total.delta_norms, total.loss), jax.tree.map(lambda leaf: 2 * T * leaf, (
        mean.gradients, mean.delta_norms, mean.loss)))  # fmt: skip
    np.testing.assert_array_equal(total.lag_norms, mean.lag_norms)
    assert_close(total.shares, mean.shares)


def test_a_vanishing_gradient_is_seen_in_float32():
    """The square of 1e-30 is 0 in float32; its norm is not."""
    model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    theta = jb.Theta(jb.cells.LinearParams(jnp.ones((2, 1), jnp.float32), 1e-3 * jnp.eye(2, dtype=jnp.float32)), ())
    xs, ys = jnp.ones((11, 1), jnp.float32), jnp.zeros((11, 2), jnp.float32)
    last = jnp.arange(11) == 10
    flow = jax.jit(lambda theta: gradient_flow(model, l2, theta, xs, ys, mask=last))(theta)
    assert flow.delta_norms.dtype == flow.gradients.W_h.dtype == jnp.float32
    np.testing.assert_allclose(flow.delta_norms[1:], np.sqrt(2) * 1e-3 ** np.arange(10, -1, -1.0), rtol=3e-3)


def test_vmap_is_the_batch_and_grad_goes_through():
    given = problem(case("lstm"), T=4, batch=(2,), n=3)

    def one(xs, ys, h_0):
        return gradient_flow(given.model, l2, given.theta, xs, ys, h_0)

    mapped = jax.jit(jax.vmap(one, (1, 1, 0)))(given.xs, given.ys, given.h_0)
    whole = measured(given)
    assert_close(mapped.lag_norms, jnp.moveaxis(whole.lag_norms, 2, 0))
    assert_close(mapped.delta_norms, 2 * whole.delta_norms.T)  # a mean over half as many

    def share(W_h):
        theta = given.theta._replace(h=given.theta.h._replace(W_h=W_h))
        flow = gradient_flow(given.model, l2, theta, given.xs, given.ys, given.h_0)
        return flow.shares.W_h[2] + jnp.sum(jnp.log(flow.delta_norms))

    W_h = given.theta.h.W_h
    share = jax.jit(share)
    bar = jax.grad(share)(W_h)
    (wanted,) = oracles.central_differences(lambda arrays: float(share(jnp.asarray(arrays[0]))), [W_h])
    np.testing.assert_allclose(bar, wanted, rtol=1e-6, atol=1e-8)


def test_a_mean_over_more_steps_than_half_precision_can_count():
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2, dtype=jnp.float16)
    xs, ys = jnp.ones((100, 800, 3), jnp.float16), 2 * jnp.ones((100, 800, 2), jnp.float16)
    for mask in (None, jnp.ones((100, 800), bool)):
        flow = gradient_flow(model, l2, theta, xs, ys, mask=mask, lags=2)
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (theta, xs, ys))
        F, wanted = jax.value_and_grad(jb.objective(model, l2))(*wide)
        np.testing.assert_allclose(flow.loss, F, rtol=2e-3)
        for found, whole in zip(jax.tree.leaves(flow.gradients), jax.tree.leaves(wanted.h), strict=True):
            np.testing.assert_allclose(jnp.sum(found.astype(jnp.float32), axis=0), whole, rtol=0.02, atol=2e-3)
