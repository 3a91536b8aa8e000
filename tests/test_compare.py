"""`compare` beside estimators whose bias and noise are made to measure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from jaxbptt.estimators.compare import agreement
from tests.cases import CELLS, oracle, problem

GIVEN = problem(CELLS[1], T=4, batch=(2,), d=2, n=3)
LOSS = jb.losses.l2_loss
compared = functools.partial(jb.estimators.compare, GIVEN.model, LOSS, GIVEN.theta, GIVEN.xs, GIVEN.ys)


def made(change):
    """BPTT whose gradient is changed: ``(grads, key) -> grads``."""
    exact = jb.estimators.bptt(GIVEN.model, LOSS)

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        estimate, state = exact.update(theta, state, xs, ys, mask=mask, lengths=lengths)
        return estimate._replace(grads=change(estimate.grads, key)), state

    return jb.GradientEstimator(exact.init, update)


def scaled(grads, key):
    return jax.tree.map(lambda bar: 1.1 * bar, grads)


def without_the_readout(grads, key):
    return grads._replace(o=jax.tree.map(jnp.zeros_like, grads.o))


def noisy(grads, key):
    return jax.tree.map(lambda bar: (1 + 0.3 * jax.random.normal(key, (), jnp.float64)) * bar, grads)


def test_bias_noise_and_direction_of_estimators_that_are_made_to_measure():
    exact = jb.estimators.bptt(GIVEN.model, LOSS)
    each = {"exact": exact, "scaled": made(scaled), "half": made(without_the_readout), "noisy": made(noisy)}
    table = compared(each, h_0=GIVEN.h_0, samples=400, key=jax.random.key(0))
    rows = {row.name: row for row in table.rows}
    assert [row.samples for row in table.rows] == [1, 1, 1, 400]
    np.testing.assert_allclose(rows["exact"].whole, [1, 0, 0, 0, 0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rows["scaled"].whole, [1, 0, 0.1, 0, 0, 0, 1.1, 0], atol=1e-12)
    g = oracle(GIVEN)[1][0]
    size_h, size_o = (np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(part))) for part in g)
    share = size_h / np.hypot(size_h, size_o)  # what is left of g without θ_o
    half = rows["half"].whole
    np.testing.assert_allclose(
        [half.cosine, half.bias, half.norm_ratio], [share, np.sqrt(1 - share**2), share], rtol=1e-10
    )
    assert rows["half"].leaves[".o.W_o"].norm_ratio == 0
    np.testing.assert_allclose(rows["half"].leaves[".h.W_h"].cosine, 1, rtol=1e-12)
    np.testing.assert_allclose(table.alignment[0], [1, 1, share, 1], rtol=1e-10)
    whole = rows["noisy"].whole
    np.testing.assert_allclose(whole.bias_error, 0.3 / 20, rtol=0.15)  # √(v/S)
    assert whole.bias < 4 * whole.bias_error
    assert abs(whole.variance - 0.09) < 4 * whole.variance_error < 0.09
    assert abs(whole.norm_ratio - 1) < 4 * whole.norm_ratio_error
    np.testing.assert_allclose(whole.norm_ratio_error, whole.bias_error, rtol=1e-6)  # all of the noise is along g
    assert rows["exact"].flops is None or rows["exact"].flops > 0
    lines = str(table).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1


def test_the_noise_of_a_mean_is_no_bias():
    """Two draws at g + d ± e: the mean is off by d, and |e|² of |d|² is what two such draws differ by."""
    g, d, e = np.array([3.0, 4.0, 0.0]), np.array([0.0, 0.0, 2.0]), np.array([1.0, 0.0, 0.0])
    found = agreement(np.stack([g + d + e, g + d - e]), g)
    np.testing.assert_allclose(found.bias, np.sqrt(4 - 1) / 5, rtol=1e-14)
    np.testing.assert_allclose([found.bias_error, found.variance], [1 / 5, 2 / 25], rtol=1e-14)


def test_a_mask_lengths_and_a_gradient_of_zero():
    """Steps that don't count change nothing; a leaf whose gradient is zero has nothing to compare."""
    loss = jb.losses.l2_loss
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = jb.Theta(GIVEN.theta.h, jax.tree.map(jnp.zeros_like, GIVEN.theta.o))  # W_o = 0: θ_h reaches nothing
    mask = jnp.ones((4, 2), bool).at[3].set(False)
    ys = GIVEN.ys.at[3].set(jnp.nan).at[2, 0].set(jnp.nan)
    options = {"mask": mask, "lengths": jnp.array([2, 4])}
    each = {"rtrl": jb.estimators.rtrl(model, loss)}
    (row,) = jb.estimators.compare(model, loss, theta, GIVEN.xs, ys, each, h_0=GIVEN.h_0, **options).rows
    assert np.isnan(row.leaves[".h.W_h"].cosine)
    np.testing.assert_allclose(row.whole, [1, 0, 0, 0, 0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(row.leaves[".o.b"].cosine, 1, rtol=1e-12)


def test_an_unbiased_estimator_shows_no_bias():
    each = {"uoro": jb.estimators.uoro(GIVEN.model, LOSS)}
    (row,) = compared(each, samples=500, key=jax.random.key(1)).rows
    assert row.whole.variance > 0
    assert row.whole.bias < 5 * row.whole.bias_error
    assert row.leaves[".o.W_o"].variance < 1e-25 < row.leaves[".h.W_x"].variance
