"""E-prop and RFLO: beside matrices of NumPy, in which c_t leaves the recurrent weights out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import CELLS, LOCAL_ESTIMATORS, assert_close, oracle, problem
from tests.matrices import flat, jacobian

EACH = [(make, name) for make, names in LOCAL_ESTIMATORS.values() for name in names]


def given_of(name, **options):
    (case,) = (case for case in CELLS if case.name == name)
    return problem(case, **{"T": 4, "batch": (2,), "d": 2, "n": 3} | options)


def by_hand(given, feedback=None):
    """∂F/∂θ_h of a linear readout and the squared error, with d_t in the place of c_t and B in that of W_o."""
    theta = jax.tree.map(np.asarray, given.theta)
    W_o, b_o, step, output = theta.o.W_o, theta.o.b, given.case.step, given.case.output
    bias, total, (T, B) = "b_h" if hasattr(theta.h, "b_h") else "b", 0.0, given.ys.shape[:2]
    for member in range(B):
        h, a = jax.tree.map(lambda leaf, member=member: np.asarray(leaf[member]), given.h_0), 0.0
        for x, y in zip(np.asarray(given.xs)[:, member], np.asarray(given.ys)[:, member], strict=True):
            through = getattr(theta.h, bias) + theta.h.W_h @ output(h)
            alone = theta.h._replace(**{"W_h": 0 * theta.h.W_h, bias: through})
            d = jacobian(lambda h, x=x, alone=alone: step(alone, x, h), h)
            a = jacobian(lambda theta_h, x=x, h=h: step(theta_h, x, h), theta.h) + d @ (a + np.zeros((len(d), 1)))
            h = step(theta.h, x, h)
            error = W_o @ output(h) + b_o - y
            total = total + error @ (W_o if feedback is None else feedback) @ jacobian(output, h) @ a
    return total / (T * B)


@pytest.mark.parametrize(("make", "name"), EACH)
def test_local_rules_are_the_matrices_without_the_recurrent_weights(make, name):
    given = given_of(name)
    exact = oracle(given)[1][0]
    estimator = make(given.model, jb.losses.l2_loss)
    estimate, _ = jax.jit(estimator.update)(
        given.theta, estimator.init(given.theta, given.h_0), given.xs, given.ys, key=jax.random.key(0)
    )
    assert_close(flat(estimate.grads.h), by_hand(given), 1e-11)
    assert_close(estimate.grads.o, exact.o, 1e-11)
    assert np.max(np.abs(flat(estimate.grads.h) - flat(exact.h))) > 1e-3 * np.max(np.abs(flat(exact.h)))
    # The same with a matrix in the place of W_o; ∂F/∂θ_o stays exact.
    estimator = make(given.model, jb.losses.l2_loss, feedback="random")
    state = estimator.init(given.theta, given.h_0, key=jax.random.key(1))
    update = jax.jit(estimator.update)
    estimate, _ = update(given.theta, state, given.xs, given.ys)
    assert_close(flat(estimate.grads.h), by_hand(given, np.asarray(state.feedback)), 1e-11)
    assert_close(estimate.grads.o, exact.o, 1e-11)
    # As is what pads a sequence, and the state goes on.
    xs, ys = (jnp.concatenate([leaf, jnp.full_like(leaf, jnp.nan)]) for leaf in (given.xs, given.ys))
    padded, after = update(given.theta, state, xs, ys, lengths=jnp.array([4, 4]))
    assert_close(padded.grads, estimate.grads, 1e-12)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize(("make", "name"), [row for row in EACH if row[1] in ("leaky", "lstm")])
def test_local_rules_are_exact_without_recurrent_weights_and_in_a_stream(make, name):
    given = given_of(name)
    theta_h = given.theta.h._replace(W_h=jnp.zeros_like(given.theta.h.W_h))
    given = given._replace(theta=given.theta._replace(h=theta_h))
    estimator = make(given.model, jb.losses.l2_loss, reduction="sum")

    def one(state, chunk):
        estimate, state = estimator.update(given.theta, state, *chunk)
        return state, estimate.grads

    chunks = jax.tree.map(lambda leaf: leaf[:, None], (given.xs, given.ys))
    begun = estimator.init(given.theta, given.h_0)
    _, grads = jax.jit(lambda state: jax.lax.scan(one, state, chunks))(begun)
    total, exact = jax.tree.map(lambda leaf: leaf.sum(axis=0) / 8, grads), oracle(given)[1][0]
    assert_close(total.h.W_x, exact.h.W_x, 1e-11)
    assert_close(total.h.b, exact.h.b, 1e-11)


def test_on_a_leaky_network_the_two_are_one():
    given = given_of("leaky")
    rules = [make(given.model, jb.losses.l2_loss) for make in (jb.estimators.eprop, jb.estimators.rflo)]
    one, other = (rule.update(given.theta, rule.init(given.theta), given.xs, given.ys)[0] for rule in rules)
    assert_close(one, other, 1e-15)
