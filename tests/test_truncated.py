"""The double sum cut at a lag, against a loop in NumPy that holds the state before each window constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.cases import CELLS, assert_close, normal, oracle, problem

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
