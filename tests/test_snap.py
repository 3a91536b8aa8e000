"""SnAp-n and the pattern that it and RTRL store: beside matrices of NumPy, masked as the paper says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.estimators import _pattern
from tests import cases
from tests.cases import CELLS, assert_close, oracle, problem
from tests.matrices import flat, jacobian


def influence(case, theta_h, xs, h, order):
    """a_1 … a_T of one member, each kept where the pattern after `order` steps is; and the states."""
    a, patterns, hs = None, [], []
    for x in xs:
        b = jacobian(lambda theta, x=x, h=h: case.step(theta, x, h), theta_h)
        c = jacobian(lambda h, x=x: case.step(theta_h, x, h), h)
        patterns.append((b != 0, c != 0))
        hs.append((h, b, c))
        h = case.step(theta_h, x, h)
    b_is, c_is = (functools.reduce(np.logical_or, parts) for parts in zip(*patterns, strict=True))
    kept = b_is
    for _ in range(order - 1):
        kept = b_is | (c_is.astype(int) @ kept.astype(int) > 0)
    a, out = np.zeros(kept.shape), []
    for _, b, c in hs:
        a = kept * (b + c @ a)
        out.append(a)
    return out


def by_hand(given, order):
    """∂F/∂θ_h of a linear readout and the squared error."""
    theta, total, (T, B) = given.theta, 0.0, given.ys.shape[:2]
    for member in range(B):
        xs = [np.asarray(x[member]) for x in given.xs]
        h = jax.tree.map(lambda leaf, member=member: np.asarray(leaf[member]), given.h_0)
        theta_h = jax.tree.map(np.asarray, theta.h)
        for x, y, a in zip(xs, given.ys[:, member], influence(given.case, theta_h, xs, h, order), strict=True):
            h = given.case.step(theta_h, x, h)
            output = np.asarray(given.case.output(h))
            error = np.asarray(theta.o.W_o) @ output + np.asarray(theta.o.b) - np.asarray(y)
            reads = jacobian(given.case.output, h)
            total = total + (error @ np.asarray(theta.o.W_o)) @ reads @ a
    return total / (T * B)


def updated(make, given, **options):
    estimator = make(given.model, jb.losses.l2_loss, **options)
    state = estimator.init(given.theta, given.h_0)
    return jax.jit(estimator.update)(given.theta, state, given.xs, given.ys)


def numbers(state):
    return sum(block.size for block in state.a)


W_MASK = (np.random.default_rng(3).random((6, 6)) < 0.25).astype(float)
SPARSE = cases.CellCase(
    "sparse",
    jb.cells.from_step(
        lambda theta, x_t, h_tm1: jnp.tanh(x_t @ theta["W_x"].T + h_tm1 @ (W_MASK * theta["W_h"]).T),
        initial_state=lambda theta, batch=(): jnp.zeros((*batch, 6)),
    ),
    lambda theta, x, h: np.tanh(x @ theta["W_x"].T + h @ (W_MASK * theta["W_h"]).T),
)
DIAGONAL = cases.CellCase(
    "diagonal",
    jb.cells.from_step(
        lambda theta, x_t, h_tm1: jnp.tanh(x_t @ theta["W_x"].T + h_tm1 * theta["d"][(None,) * (h_tm1.ndim - 1)]),
        initial_state=lambda theta, batch=(): jnp.zeros((*batch, 6)),
    ),
    lambda theta, x, h: np.tanh(x @ theta["W_x"].T + theta["d"] * h),
)


def of(case, theta_h, n=6, d=3):
    """A problem of a cell that has no `init`."""
    given = problem(CELLS[1], T=5, batch=(2,), d=d, n=n)
    model = jb.rnn(case.cell, jb.readouts.linear())
    return given._replace(case=case, model=model, theta=given.theta._replace(h=theta_h))


def sparse_problem():
    return of(SPARSE, {"W_x": cases.normal(jax.random.key(1), (6, 3)), "W_h": cases.normal(jax.random.key(2), (6, 6))})


def diagonal_problem():
    return of(DIAGONAL, {"W_x": cases.normal(jax.random.key(1), (6, 3)), "d": cases.normal(jax.random.key(2), (6,))})


def case_of(name):
    (case,) = (case for case in CELLS if case.name == name)
    return problem(case, T=4, batch=(2,), d=2, n=3)


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (case_of("elman-tanh"), 1),
        (case_of("gru"), 1),
        (case_of("lstm"), 1),
        (case_of("from_step"), 1),
        (sparse_problem(), 1),
        (sparse_problem(), 2),
        (sparse_problem(), 3),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else value.case.name,
)
def test_snap_is_the_masked_matrix_of_the_paper(given, order):
    estimate, _ = updated(jb.estimators.snap, given, order=order)
    assert_close(flat(estimate.grads.h), by_hand(given, order), 1e-11)
    exact = oracle(given)[1][0]
    assert_close(estimate.grads.o, exact.o, 1e-11)
    assert np.max(np.abs(flat(estimate.grads.h) - flat(exact.h))) > 1e-4 * np.max(np.abs(flat(exact.h)))


@pytest.mark.parametrize("given", [sparse_problem(), case_of("lstm")], ids=lambda given: given.case.name)
def test_snap_of_a_large_order_is_exact(given):
    estimate, _ = updated(jb.estimators.snap, given, order=6)
    assert_close(estimate.grads, oracle(given)[1][0], 1e-11)


def test_a_diagonal_recurrence_costs_a_number_a_parameter_and_is_exact():
    given, inputs = diagonal_problem(), jax.ShapeDtypeStruct((3,), jnp.float64)
    exact = oracle(given)[1][0]
    for make in (jb.estimators.rtrl, functools.partial(jb.estimators.snap, order=1)):
        estimate, state = updated(make, given, inputs=inputs)
        assert_close(estimate.grads, exact, 1e-11)
        assert numbers(state) == 2 * (6 * 3 + 6)


def test_what_is_stored_falls_with_the_sparsity():
    given, inputs = sparse_problem(), jax.ShapeDtypeStruct((3,), jnp.float64)
    first, second = (updated(jb.estimators.snap, given, order=order, inputs=inputs)[1] for order in (1, 2))
    P = 6 * 3 + int(W_MASK.sum())  # an absent weight is not stored at all
    assert 2 * P <= numbers(first) < numbers(second) < 2 * 6 * P
    # of SnAp-1 the columns of units with fewer weights are padded to the longest
    assert numbers(first) == 2 * 6 * (3 + int(W_MASK.sum(axis=1).max()))


def test_every_row_of_a_table_of_tokens_is_found():
    def step(theta_h, token, h_tm1):
        return jnp.tanh(theta_h["table"][token] + h_tm1 * theta_h["d"][(None,) * (h_tm1.ndim - 1)])

    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch=(): jnp.zeros((*batch, 3)))
    model = jb.rnn(cell, jb.readouts.identity())
    theta = jb.Theta(
        {"table": cases.normal(jax.random.key(0), (90, 3)), "d": cases.normal(jax.random.key(1), (3,))}, ()
    )
    tokens = jnp.asarray(np.random.default_rng(0).permutation(90).reshape(45, 2))
    ys = cases.normal(jax.random.key(2), (45, 2, 3))

    def F(theta):
        def one(h, inputs):
            h = step(theta.h, inputs[0], h)
            return h, 0.5 * jnp.sum((h - inputs[1]) ** 2)

        return jnp.sum(jax.lax.scan(one, jnp.zeros((2, 3)), (tokens, ys))[1])

    wanted = jax.jit(jax.grad(F))(theta)
    estimator = jb.estimators.rtrl(
        model, jb.losses.l2_loss, reduction="sum", inputs=jax.ShapeDtypeStruct((), tokens.dtype)
    )
    estimate, state = jax.jit(estimator.update)(theta, estimator.init(theta, jnp.zeros((2, 3))), tokens, ys)
    assert_close(estimate.grads.h, wanted.h, 1e-11)
    assert numbers(state) == 2 * (90 * 3 + 3)


def test_a_unit_of_relu_that_half_of_all_inputs_switch_off_is_found():
    cell = jb.cells.elman("relu")
    theta_h = jax.eval_shape(lambda key: cell.init(key, 3, 40), jax.random.key(0))
    x, h = (jax.ShapeDtypeStruct((size,), jnp.float32) for size in (3, 40))
    found = _pattern.pattern(cell, theta_h, x, h, 1)
    assert found.c[:40, :40].all()
    assert [(block.rows.shape, block.cols.shape) for block in found.blocks] == [((40, 1), (40, 44))]
    assert found.b_colours.max() == 0  # one pullback gives all of b_t


def test_a_stream_goes_on_from_its_state_in_blocks():
    given, inputs = sparse_problem(), jax.ShapeDtypeStruct((3,), jnp.float64)
    estimator = jb.estimators.snap(given.model, jb.losses.l2_loss, order=2, reduction="sum", inputs=inputs)
    state = estimator.init(given.theta, given.h_0)

    def one(state, chunk):
        estimate, state = estimator.update(given.theta, state, *chunk)
        return state, estimate.grads

    steps = jax.tree.map(lambda leaf: leaf[:, None], (given.xs, given.ys))  # chunks of one step
    last, grads = jax.jit(lambda state: jax.lax.scan(one, state, steps))(state)
    total = jax.tree.map(lambda leaf: leaf.sum(axis=0) / 10, grads)
    assert_close(flat(total.h), by_hand(given, 2), 1e-11)
    whole, end = jax.jit(estimator.update)(given.theta, state, given.xs, given.ys)
    assert_close(last, end, 1e-13)
    # What pads a sequence reaches nothing, and a_t waits with the state.
    padded = jnp.concatenate([given.xs, jnp.full((2, 2, 3), jnp.nan)])
    ys = jnp.concatenate([given.ys, jnp.full((2, 2, 2), jnp.nan)])
    longer, waiting = jax.jit(estimator.update)(given.theta, state, padded, ys, lengths=jnp.array([5, 5]))
    assert_close((longer.grads, waiting), (whole.grads, end), 1e-13)
