"""Estimators right on average: the mean of many draws is NumPy's gradient, and one step is the published formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.cases import CELLS, STOCHASTIC_ESTIMATORS, assert_close, oracle, problem

DRAWS = 3000
MAKES = {name: make for name, (make, _) in STOCHASTIC_ESTIMATORS.items()}
OF = {case.name: case for case in CELLS}
each = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
each_cell = pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, names in STOCHASTIC_ESTIMATORS.values() for name in names]
)


def drawn(estimator, given, h_0, **more):
    """``keys -> (Estimate, state)`` of many draws, one program."""

    def one(key):
        state = estimator.init(given.theta, h_0)
        return estimator.update(given.theta, state, given.xs, given.ys, key=key, **more)

    return jax.jit(jax.vmap(one))


def assert_mean(grads, wanted):
    """Each coordinate of ∂F/∂θ_h within 5 standard errors; a draw is not the mean. ∂F/∂θ_o is exact."""
    wanted_h = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(wanted.h)])
    found = np.concatenate([np.reshape(leaf, (DRAWS, -1)) for leaf in jax.tree.leaves(grads.h)], axis=1)
    assert np.max(np.abs(wanted_h)) > 1e-3
    # A coordinate without noise, such as of an input that is 0 since, is right to rounding.
    error = np.std(found, axis=0, ddof=1) / DRAWS**0.5
    np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - wanted_h), 5 * error + 1e-12)
    apart = np.linalg.norm(found - wanted_h, axis=1) / np.linalg.norm(wanted_h)
    assert np.median(apart) > 1e-2
    assert_close(jax.tree.map(lambda leaf: leaf[0], grads.o), wanted.o, 1e-11)


@each_cell
def test_the_mean_of_many_draws_is_the_gradient(make, name):
    given = problem(OF[name], T=4, batch=(2,), d=2, n=3, seed=1)
    draw = drawn(make(given.model, jb.losses.l2_loss), given, given.h_0)
    wanted = oracle(given)[1][0]
    for seed in (0, 1):
        assert_mean(draw(jax.random.split(jax.random.key(seed), DRAWS))[0].grads, wanted)


@each
def test_the_mean_with_padding_of_nan_and_a_mask(make):
    given = problem(OF["elman-tanh"], T=5, batch=(3,), d=2, n=3, seed=2)
    lengths, mask = np.array([5, 2, 3]), np.ones((5, 3), bool)
    mask[1] = False
    real = np.arange(5)[:, None] < lengths
    wanted = oracle(given, mask & real)[1][0]
    xs, ys = (jnp.where(real[..., None], leaf, jnp.nan) for leaf in (given.xs, given.ys))
    estimator = make(given.model, jb.losses.l2_loss)
    padded = {"lengths": jnp.asarray(lengths), "mask": jnp.asarray(mask)}
    draw = drawn(estimator, given._replace(xs=xs, ys=ys), given.h_0, **padded)
    estimate, state = draw(jax.random.split(jax.random.key(3), DRAWS))
    assert_mean(estimate.grads, wanted)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.a))


def test_the_mean_where_the_start_is_learned():
    given = problem(OF["learned_start"], T=3, batch=(2,), d=2, n=3, seed=3)
    given = given._replace(h_0=jnp.broadcast_to(given.theta.h.h_0, (2, 3)))
    wanted, _, h_0_bar = oracle(given)[1]
    wanted = wanted._replace(h=wanted.h._replace(h_0=wanted.h.h_0 + np.sum(h_0_bar, axis=0)))
    draw = drawn(jb.estimators.uoro(given.model, jb.losses.l2_loss, samples=2), given, None)
    assert_mean(draw(jax.random.split(jax.random.key(4), DRAWS))[0].grads, wanted)


@each
def test_samples_lower_the_variance(make):
    given = problem(OF["elman-tanh"], T=4, batch=(), d=2, n=4, seed=4)
    variances, keys = [], jax.random.split(jax.random.key(5), DRAWS)
    for samples in (1, 4):
        grads = drawn(make(given.model, jb.losses.l2_loss, samples=samples), given, given.h_0)(keys)[0].grads
        variances.append(sum(np.sum(np.var(leaf, axis=0)) for leaf in jax.tree.leaves(grads.h)))
        assert_mean(grads, oracle(given)[1][0])
    assert 0 < variances[1] < 0.3 * variances[0]


# One step from any influence, beside the published formula in NumPy


def jacobians(given):
    """b_1 ``[n, P]`` and c_1 ``[n, n]`` of the one step of `given`, by the complex step."""
    theta, x, h = map(np.asarray, (0, given.xs[0], given.h_0))
    theta = jax.tree.map(np.asarray, given.theta.h)

    def unit(i):
        return lambda arrays: given.case.step(type(theta)(*arrays[:-1]), x, arrays[-1])[i]

    rows = [oracles.gradient(unit(i), [*theta, h]) for i in range(h.size)]
    b = np.array([np.concatenate([np.ravel(part) for part in row[:-1]]) for row in rows])
    return b, np.array([row[-1] for row in rows])


def one_step(make, name, a, **options):
    """A step from a_0 = 0, a step from `a` with the same draw, and what the second makes of ∂L/∂h."""
    given = problem(OF[name], T=1, batch=(), d=2, n=3, seed=6)
    estimator = make(given.model, jb.losses.l2_loss, reduction="sum", **options)
    begun, key = estimator.init(given.theta, given.h_0), jax.random.key(7)
    update = jax.jit(functools.partial(estimator.update, key=key))
    first, second = (update(given.theta, state, given.xs, given.ys) for state in (begun, begun._replace(a=a(begun.a))))
    y_hat = np.asarray(given.model.readout.apply(given.theta.o, first[1].h))
    h_bar = np.asarray(given.theta.o.W_o).T @ (y_hat - np.asarray(given.ys[0]))
    return given, first, second, h_bar


def flat(theta_h):
    return np.concatenate([np.ravel(leaf) for leaf in theta_h])


def norm(array):
    return np.sqrt(np.sum(array**2))


def assert_newest_step(given, h_bar, b, c, a_0, first, second):
    """h̄ (b + c a_0), exact in the newest step."""
    np.testing.assert_allclose(flat(first.grads.h), h_bar @ b, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(flat(second.grads.h), h_bar @ (b + c @ a_0), rtol=1e-11, atol=1e-12)


def test_a_step_of_uoro_is_the_published_one():
    rng, eps = np.random.default_rng(0), (0.3, 0.2)  # large, so that either shows

    def some(a):
        return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), a)

    made = one_step(jb.estimators.uoro, "elman-tanh", some, samples=2, epsilon0=eps[0], epsilon1=eps[1])
    given, (estimate_1, state_1), (estimate_2, state_2), h_bar = made
    b, c = jacobians(given)
    rng = np.random.default_rng(0)
    h, *theta = (rng.standard_normal((2, *shape)) for shape in [(3,), (3, 2), (3, 3), (3,)])
    theta = np.concatenate([leaf.reshape(2, -1) for leaf in theta], axis=1)
    found = np.concatenate([leaf.reshape(2, -1) for leaf in state_2.a.theta], axis=1)
    nus = np.sign(state_1.a.h)
    assert not np.array_equal(nus[0], nus[1])
    for k, nu in enumerate(nus):
        rho_0 = np.sqrt(norm(theta[k]) / (norm(c @ h[k]) + eps[0])) + eps[0]
        rho_1 = np.sqrt(norm(nu @ b) / (norm(nu) + eps[1])) + eps[1]
        np.testing.assert_allclose(state_1.a.h[k], rho_1 * nu, rtol=1e-12)
        np.testing.assert_allclose(state_2.a.h[k], rho_0 * (c @ h[k]) + rho_1 * nu, rtol=1e-11)
        np.testing.assert_allclose(found[k], theta[k] / rho_0 + nu @ b / rho_1, rtol=1e-11, atol=1e-13)
    assert_newest_step(given, h_bar, b, c, np.einsum("kn,kp->np", h, theta) / 2, estimate_1, estimate_2)
    norms = [norm(state_2.a.h[k]) * norm(found[k]) for k in range(2)]
    np.testing.assert_allclose(estimate_2.info.a_norm, norms, rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "elman-tanh"])
def test_a_step_of_kf_rtrl_is_the_published_one(name):
    rng = np.random.default_rng(1)

    def some(a):
        return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), a)

    given, (estimate_1, state_1), (estimate_2, state_2), h_bar = one_step(jb.estimators.kf_rtrl, name, some)
    b, c = jacobians(given)
    columns = 2 + 3 + (name != "linear")
    rng = np.random.default_rng(1)
    u, A = rng.standard_normal(columns), rng.standard_normal((3, 3))
    v = np.concatenate([given.xs[0], given.h_0, np.ones(columns - 5)])
    D = np.diag([b[i, 2 * i] / v[0] for i in range(3)])  # ∂h_i/∂W_x[i, 0] = D_ii x_0
    sign = np.sign(state_1.a.u[0, 0] * v[0])  # s'
    p_1, p_2 = np.sqrt(norm(c @ A) / norm(u)), np.sqrt(norm(D) / norm(v))
    close = []
    for s in (-1, 1):
        wanted = s * p_1 * u + sign * p_2 * v, s * c @ A / p_1 + sign * D / p_2
        close.append([np.allclose(got[0], one, rtol=1e-11) for got, one in zip(state_2.a, wanted, strict=True)])
    assert [True, True] in close
    dense = np.einsum("c,in->inc", u, A)  # [n, row of W, column of W]
    parts = dense[..., :2], dense[..., 2:5], dense[..., 5:]
    a_0 = np.concatenate([part.reshape(3, -1) for part in parts], axis=1)
    assert_newest_step(given, h_bar, b, c, a_0, estimate_1, estimate_2)


# The stream and the batch


@each
def test_a_stream_scanned_interrupted_and_eager_is_the_same(make):
    given = problem(OF["elman-tanh"], T=6, batch=(2,), seed=8)
    estimator = make(given.model, jb.losses.l2_loss)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(3, 2, *leaf.shape[1:]), (given.xs, given.ys))
    keys = jax.random.split(jax.random.key(9), 3)

    def chunk(state, inputs):
        (xs, ys), key = inputs
        estimate, state = estimator.update(given.theta, state, xs, ys, key=key)
        return state, estimate.grads

    scan = jax.jit(lambda state, chunks, keys: jax.lax.scan(chunk, state, (chunks, keys)))
    begun = estimator.init(given.theta, given.h_0)
    whole, grads = scan(begun, chunks, keys)
    state, again = begun, []
    for k in range(3):  # handed over between programs
        state, one = scan(state, jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], chunks), keys[k : k + 1])
        again.append(one)
    for got, wanted in zip(jax.tree.leaves((state, again[2])), jax.tree.leaves((whole, grads)), strict=True):
        np.testing.assert_array_equal(got, wanted if got.shape == wanted.shape else wanted[2:])
    eager = chunk(begun, (jax.tree.map(lambda leaf: leaf[0], chunks), keys[0]))[1]
    assert_close(eager, jax.tree.map(lambda leaf: leaf[0], grads), 1e-11)
    late = estimator.init(given.theta)  # h_0 is the model's, in a first chunk
    _, late = jax.jit(estimator.update)(given.theta, late, given.xs, given.ys, key=keys[0])
    assert jax.tree.map(jnp.shape, late) == jax.tree.map(jnp.shape, whole)


@each
def test_nan_in_one_member_reaches_no_other(make):
    given = problem(OF["elman-tanh"], T=3, batch=(2,), seed=10)
    estimator = make(given.model, jb.losses.l2_loss)
    update = jax.jit(functools.partial(estimator.update, key=jax.random.key(11)))
    begun = estimator.init(given.theta, given.h_0)
    (_, clean), (spoilt, state) = (
        update(given.theta, begun, xs, given.ys) for xs in (given.xs, given.xs.at[1, 0].set(jnp.nan))
    )
    for got, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(got[1], wanted[1])
        assert not np.all(np.isfinite(got[0]))
    assert np.isnan(spoilt.loss)
    assert not np.array_equal(*map(np.abs, jax.tree.leaves(clean.a)[0]))  # each member has a draw of its own


@each
def test_an_influence_that_overflows_where_nothing_is_read_spoils_nothing(make):
    model = jb.rnn(jb.cells.elman(), jb.readouts.identity())
    theta = model.init(jax.random.key(0), input_size=1, hidden_size=2, output_size=2, dtype=jnp.float32)
    zero = jax.tree.map(jnp.zeros_like, theta)
    theta = zero._replace(h=zero.h._replace(W_h=9 * jnp.eye(2, dtype=jnp.float32)))
    xs, ys = jnp.zeros((120, 1), jnp.float32), jnp.ones((120, 2), jnp.float32)
    estimator = make(model, jb.losses.l2_loss, reduction="sum")
    estimate, state = estimator.update(
        theta, estimator.init(theta), xs, ys, mask=jnp.arange(120) < 1, key=jax.random.key(12)
    )
    assert not np.all(np.isfinite(estimate.info.a_norm))
    assert not all(np.all(np.isfinite(leaf)) for leaf in state.a)
    assert estimate.grads.h.b.tolist() == [-1.0, -1.0]
