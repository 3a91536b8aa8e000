"""The double sum cut at a lag, against a loop in NumPy that holds the state before each window constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.cases import CELLS, assert_close, oracle, problem

CASES = {case.name: case for case in CELLS}


def cut(given, sees, mask=None):
    """Σ_t ∂L_t/∂θ in NumPy, L_t with the state `sees(t)` steps before t + 1 held constant (t from 0)."""
    theta, xs, h_0 = jax.tree.map(np.asarray, (given.theta, given.xs, given.h_0))
    ys, case = np.asarray(given.ys), given.case
    steps = [jax.tree.map(lambda leaf, t=t: leaf[t], xs) for t in range(len(ys))]
    states = oracles.states(case.step, theta.h, steps, h_0)
    leaves, structure = jax.tree.flatten(theta)

    def F(arrays):
        theta, total = structure.unflatten(arrays), 0.0
        for t in range(len(ys)):
            first = max(t + 1 - sees(t), 0)
            h = oracles.states(case.step, theta.h, steps[first : t + 1], states[first])[-1]
            y_hat = np.einsum("mn,...n->...m", theta.o.W_o, case.output(h)) + theta.o.b
            L = oracles.half_square(y_hat, ys[t])
            total = total + np.sum(L if mask is None else np.where(mask[t], L, 0))
        return total

    return structure.unflatten(oracles.gradient(F, leaves))


def fed(estimator, given, chunk, **options):
    """The sum over chunks, by one ``lax.scan``: what is carried keeps its structure."""

    def step(state, part):
        estimate, state = estimator.update(given.theta, state, *part)
        return state, estimate.grads

    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), (given.xs, given.ys))
    _, grads = jax.jit(lambda state: jax.lax.scan(step, state, parts))(estimator.init(given.theta, given.h_0))
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), grads)


@pytest.mark.parametrize(
    ("name", "window", "stride", "batch"),
    [
        ("elman-tanh", 3, 1, (2,)),
        ("lstm", 4, 2, ()),
        ("stacked", 2, 1, (2,)),
        ("gru", 3, 3, (2, 1)),
        ("linear", 1, 1, (2,)),
    ],
)
def test_a_window_is_that_of_the_loop_in_chunks_of_any_size(name, window, stride, batch):
    given = problem(CASES[name], T=6, batch=batch, seed=2, n=3)
    wanted = cut(given, lambda t: window - (-(t + 1)) % stride)
    estimator = jb.estimators.windowed(given.model, jb.losses.l2_loss, window=window, stride=stride, reduction="sum")
    for chunk in (1, 3, 6):
        assert_close(fed(estimator, given, chunk), wanted, 1e-11)
    exact = oracle(given)[1][0]
    steps = 6 * int(np.prod(batch))
    W_bar, whole = (np.asarray(jax.tree.leaves(tree.h)[0]) for tree in (wanted, exact))
    assert np.max(np.abs(W_bar - steps * whole)) > 1e-3 * np.max(np.abs(W_bar))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_member_whose_chunks_end_early_has_the_window_of_its_own_steps(stride):
    """Two chunks of 3, of which the members have 2 and 3, then 3 and 1 steps; what pads them is NaN."""
    given, lengths = problem(CASES["elman-tanh"], T=6, batch=(2,), seed=6, n=3), np.array([[2, 3], [3, 1]])
    real = (np.arange(3)[None, :, None] < lengths[:, None]).reshape(6, 2)
    xs, ys = (jnp.where(real[..., None], leaf, jnp.nan).reshape(2, 3, 2, -1) for leaf in (given.xs, given.ys))
    make = jb.estimators.windowed
    estimator = make(given.model, jb.losses.l2_loss, window=3, stride=stride, reduction="sum")

    def step(state, part):
        estimate, state = estimator.update(given.theta, state, part[0], part[1], lengths=part[2])
        return state, estimate.grads

    start = estimator.init(given.theta, given.h_0)
    _, grads = jax.jit(lambda start: jax.lax.scan(step, start, (xs, ys, jnp.asarray(lengths))))(start)
    wanted = []
    for b in range(2):
        own = given._replace(xs=given.xs[real[:, b], b], ys=given.ys[real[:, b], b], h_0=given.h_0[b])
        wanted.append(cut(own, lambda t: 3 - (-(t + 1)) % stride))
    assert_close(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), grads), jax.tree.map(np.add, *wanted), 1e-11)


@pytest.mark.parametrize(("name", "tolerance"), [("lstm", 0.1), ("gru", 0.3)])
def test_adaptive_is_windowed_at_the_lag_it_reports_and_exact_without_tolerance(name, tolerance):
    given = problem(CASES[name], T=6, batch=(2,), seed=4, n=3)

    def of(make, **options):
        estimator = make(given.model, jb.losses.l2_loss, **options)
        update = jax.jit(estimator.update)
        return update(given.theta, estimator.init(given.theta, given.h_0), given.xs, given.ys)[0]

    loose = of(jb.estimators.adaptive, tolerance=tolerance)
    lag = int(loose.info.lag)
    assert 1 < lag < 6
    assert loose.info.bound <= tolerance
    assert_close(loose.grads, of(jb.estimators.windowed, window=lag).grads, 1e-12)
    tight = of(jb.estimators.adaptive, tolerance=1e-9)
    assert tight.info.lag == 6
    assert tight.info.bound == 0
    assert_close(tight.grads, oracle(given)[1][0], 1e-11)
    bounded = of(jb.estimators.adaptive, tolerance=1e-9, max_window=lag)
    assert (bounded.info.lag, bounded.info.bound > 1e-9) == (lag, True)
    assert_close(bounded.grads, loose.grads, 1e-12)


def scalar(decay, T):
    model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    theta = jb.Theta(jb.cells.LinearParams(jnp.ones((1, 1)), jnp.full((1, 1), decay)), ())
    rng = np.random.default_rng(3)
    return model, theta, jnp.asarray(rng.normal(size=(T, 2, 1))), jnp.asarray(rng.normal(size=(T, 2, 1)))


def test_the_rate_of_one_linear_unit_is_its_decay_in_a_stream_too():
    """φ_k = |λ|^k exactly: K = ⌈log tolerance / log |λ|⌉, and the bound is |λ|^K."""
    model, theta, xs, ys = scalar(-0.7, 24)
    estimator = jb.estimators.adaptive(model, jb.losses.l2_loss, tolerance=0.05, max_window=12)

    def step(state, part):
        estimate, state = estimator.update(theta, state, *part)
        return state, estimate.info

    parts = jax.tree.map(lambda leaf: leaf.reshape(12, 2, 2, 1), (xs, ys))
    _, info = jax.jit(lambda state: jax.lax.scan(step, state, parts))(estimator.init(theta, jnp.ones((2, 1))))
    np.testing.assert_allclose(info.decay[1:], 0.7, rtol=1e-12)
    assert info.lag.tolist() == [2, 4, 6, 8] + [9] * 8  # at the beginning, all there is
    np.testing.assert_allclose(info.bound[4:], 0.7**9, rtol=1e-12)
    assert np.all(np.asarray(info.bound[:4]) == 0)


@pytest.mark.parametrize(("seed", "keep"), [(0, 0), (1, 3)])
def test_the_mean_of_random_truncations_is_the_gradient_in_view(seed, keep):
    """Two chunks of 3. With nothing kept each is alone; with 3 steps kept the second sees all of the first."""
    given = problem(CASES["gru"], T=6, batch=(2,), seed=5, n=3)
    make = jb.estimators.randomised
    estimator = make(given.model, jb.losses.l2_loss, mean_window=2.5, keep=keep, reduction="sum")
    start = estimator.init(given.theta, given.h_0)

    def drawn(key):
        first, last = jax.random.split(key)
        one, state = estimator.update(given.theta, start, given.xs[:3], given.ys[:3], key=first)
        two, _ = estimator.update(given.theta, state, given.xs[3:], given.ys[3:], key=last)
        return jax.tree.map(jnp.add, one.grads, two.grads)

    keys = jax.random.split(jax.random.key(seed), 4001)
    draws = jax.jit(jax.vmap(drawn))(keys)
    wanted = cut(given, lambda t: t + 1 if keep else t % 3 + 1)
    for leaf, exact in zip(jax.tree.leaves(draws.h), jax.tree.leaves(wanted.h), strict=True):
        error = np.std(leaf, axis=0) / np.sqrt(len(keys))
        assert np.all(np.abs(np.mean(leaf, axis=0) - exact) < 5 * error)
        assert np.any(np.abs(leaf[0] - exact) > 0.1 * np.abs(exact))
    assert_close(jax.tree.map(lambda leaf: leaf[0], draws.o), wanted.o, 1e-11)
    again = jax.jit(jax.vmap(drawn))(keys)
    jax.tree.map(np.testing.assert_array_equal, draws, again)


def _embedded(theta_h, token_t, h_tm1):
    return jnp.tanh(theta_h["table"][token_t] + h_tm1 @ theta_h["W_h"])


def test_a_stream_of_tokens_is_told_what_an_input_is():
    """Without `inputs` the first chunk says it, and no ``lax.scan`` takes the state before that."""
    cell = jb.cells.from_step(_embedded, initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 4)))
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta({"table": jnp.ones((7, 4)), "W_h": jnp.eye(4)}, ())
    given = theta, jnp.zeros((2, 4)), jnp.zeros((3, 2), jnp.int32), jnp.ones((3, 2, 4))

    def states(**options):
        estimator = jb.estimators.windowed(model, jb.losses.l2_loss, window=5, **options)
        before = estimator.init(theta, given[1])
        return before, jax.eval_shape(estimator.update, theta, before, *given[2:])[1]

    before, after = states(inputs=jnp.zeros((), jnp.int32))
    assert jax.eval_shape(lambda: before) == after
    assert after.kept.xs.shape == (4, 2)
    unknown, later = states()
    assert (unknown.kept, later) == (None, after)
