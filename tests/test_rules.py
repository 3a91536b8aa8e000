"""Every hand-written pullback is the transpose of the derivative, in every dtype."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import readouts
from tests import cases
from tests.cases import BUILT_IN, CELLS, assert_close

cell_cases = pytest.mark.parametrize("case", CELLS, ids=cases.name)


def one_step(case, seed, batch, dtype=jnp.float64, d=3, n=4):
    keys = jax.random.split(jax.random.key(seed), 5)
    init = functools.partial(case.cell.init, input_size=d, hidden_size=n, dtype=dtype)
    theta_h = cases.randomised(jax.eval_shape(init, keys[0]), keys[1], 0.7)
    x_t = cases.inputs(case, keys[2], batch, d, dtype)
    h_tm1 = cases.randomised(case.cell.initial_state(theta_h, batch), keys[3], 0.7)
    h_t = case.cell.apply(theta_h, x_t, h_tm1)
    return theta_h, x_t, h_tm1, h_t, cases.randomised(h_t, keys[4], 1.0)


def without_flags(bar):
    """float0 and None alike: a flag has no cotangent."""
    return jax.tree.map(lambda leaf: None if leaf.dtype == jax.dtypes.float0 else leaf, bar)


@functools.cache
def pullbacks(cell):
    """Ours and JAX's, each one program."""

    def ours(theta_h, x_t, h_tm1, h_t, h_bar_t):
        return without_flags(cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t))

    def by_jax(theta_h, x_t, h_tm1, h_t, h_bar_t):
        return without_flags(jax.vjp(cell.apply, theta_h, x_t, h_tm1)[1](h_bar_t))

    return jax.jit(ours), jax.jit(by_jax)


BATCHES = [(), (3,), (2, 3)]


@pytest.mark.parametrize(("case", "batch"), cases.in_turn(CELLS, BATCHES, times=2))
def test_a_cells_pullback_is_the_vjp_of_its_step(case, batch):
    for seed in range(3):
        given = one_step(case, seed, batch, n=5)
        got, wanted = (pullback(*given) for pullback in pullbacks(case.cell))
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("case", [case for case in CELLS if case.inputs], ids=cases.name)
def test_flags_are_true_and_false_among_the_seeds(case):
    for batch in BATCHES:
        flags = [np.asarray(one_step(case, seed, batch, n=5)[1][1]) for seed in range(3)]
        assert {bool(flag) for drawn in flags for flag in drawn.flat} == {True, False}
        if batch:
            assert len({drawn.tobytes() for drawn in flags}) > 1


@cell_cases
def test_the_pullback_is_the_transpose_of_the_pushforward(case):
    """⟨u, c v⟩ = ⟨cᵀu, v⟩, and the same for b: the two sides are computed in opposite directions."""
    theta_h, x_t, h_tm1, h_t, u = one_step(case, 0, (6,))  # enough that some are not masked
    theta_bar, _, h_bar = case.cell.vjp(theta_h, x_t, h_tm1, h_t, u)
    keys = jax.random.split(jax.random.key(100))
    for primal, bar, push, key in [
        (h_tm1, h_bar, lambda h: case.cell.apply(theta_h, x_t, h), keys[0]),
        (theta_h, theta_bar, lambda theta: case.cell.apply(theta, x_t, h_tm1), keys[1]),
    ]:
        v = cases.randomised(primal, key, 1.0)
        _, pushed = jax.jvp(push, (primal,), (v,))
        np.testing.assert_allclose(dot(u, pushed), dot(bar, v), rtol=1e-11)
        assert abs(dot(bar, v)) > 1e-3


LOW = [jnp.float32, jnp.bfloat16, jnp.float16]


def dot(a, b):
    return float(sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


@pytest.mark.parametrize(("case", "dtype"), cases.in_turn(BUILT_IN, LOW, times=2))
def test_rules_in_low_precision(case, dtype):
    """Against float64 on the same numbers. A step is a handful of roundings, each of relative size ε, in sums of
    fewer than 20 terms: 30 ε of the largest element bounds it."""
    given = one_step(case, 0, (3,), dtype)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), given)
    pullback, _ = pullbacks(case.cell)
    got, wanted = pullback(*given), pullback(*exact)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
    assert_close(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), got), wanted, 30 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(("case", "dtype"), cases.in_turn(BUILT_IN, [jnp.float64, *LOW]))
def test_dtypes_are_kept_from_parameters_to_gradients(case, dtype):
    given = cases.problem(case, T=5, dtype=dtype)
    for make in (*cases.EXACT_ESTIMATORS.values(),):
        estimator = make(given.model, jb.losses.l2_loss)
        begun = estimator.init(given.theta, given.h_0)
        estimate, state = jax.jit(estimator.update)(given.theta, begun, given.xs, given.ys)
        assert {leaf.dtype for leaf in jax.tree.leaves((estimate.loss, estimate.grads, state.h))} == {jnp.dtype(dtype)}
    F = jb.objective(given.model, jb.losses.l2_loss)
    bars = jax.jit(jax.grad(F, argnums=(0, 1, 3)))(given.theta, given.xs, given.ys, given.h_0)
    assert {leaf.dtype for leaf in jax.tree.leaves(bars)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(("case", "dtype"), cases.in_turn(BUILT_IN, LOW))
def test_gradients_in_low_precision(case, dtype):
    """Roundings of T steps are independent, so they add up like √T; a step makes a handful: 5 √T ε."""
    T = 8
    given = cases.problem(case, T=T, dtype=dtype)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (given.theta, given.xs, given.ys, given.h_0))
    gradient = jax.jit(jax.grad(jb.objective(given.model, jb.losses.l2_loss), argnums=(0, 1, 3)))
    got, wanted = gradient(given.theta, given.xs, given.ys, given.h_0), gradient(*exact)
    tolerance = 5 * T**0.5 * float(jnp.finfo(dtype).eps)
    assert_close(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), got), wanted, tolerance)


def test_sums_over_a_long_time_in_half_precision():
    """RTRL's sums run over T in its carry: in bfloat16 they would stop growing after some hundred steps."""
    given = cases.problem(CELLS[1], T=1500, dtype=jnp.bfloat16, batch=())
    estimator = jb.estimators.rtrl(given.model, jb.losses.l2_loss, reduction="sum")

    def run(dtype):
        theta, xs, ys, h_0 = jax.tree.map(lambda leaf: leaf.astype(dtype), (given.theta, given.xs, given.ys, given.h_0))
        return jax.jit(estimator.update)(theta, estimator.init(theta, h_0), xs, ys)[0]

    half, wide = run(jnp.bfloat16), run(jnp.float32)
    np.testing.assert_allclose(float(half.loss), float(wide.loss), rtol=0.02)
    assert_close(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half.grads), wide.grads, 0.05)


READOUTS: dict[str, Any] = {
    "linear": jb.readouts.linear(),
    "linear-no-bias": jb.readouts.linear(bias=False),
    "identity": jb.readouts.identity(),
    "from_apply": jb.readouts.from_apply(
        lambda theta_o, h_t: jnp.tanh(h_t @ theta_o["W"].T) @ theta_o["V"].T,
        init=lambda key, n, m, dtype=jnp.float64: {
            "W": jax.random.normal(key, (7, n), dtype),
            "V": jax.random.normal(jax.random.fold_in(key, 1), (m, 7), dtype),
        },
    ),
}
READOUTS["several"] = jb.readouts.several(READOUTS["linear"], READOUTS["from_apply"])
READOUTS["several-named"] = jb.readouts.several(
    value=READOUTS["linear"], pair=READOUTS["several"], policy=READOUTS["linear-no-bias"]
)


@pytest.mark.parametrize(("readout", "batch"), cases.in_turn(READOUTS, BATCHES))
def test_a_readouts_pullback_is_the_vjp_of_its_apply(readout, batch):
    T, n = 4, 5
    m = n if readout is READOUTS["identity"] else 2
    keys = jax.random.split(jax.random.key(0), 4)
    theta_o = cases.randomised(readout.init(keys[0], n, m, jnp.float64), keys[1], 1.0)
    hs = jax.random.normal(keys[2], (T, *batch, n))
    y_hats, pull = jax.vjp(lambda *a: readouts.by_jax(readout, *a), theta_o, hs)
    bars = cases.randomised(y_hats, keys[3], 1.0)
    got, wanted = readouts.vjp_over_time(readout, theta_o, hs, bars), pull(bars)
    assert_close(got, wanted, 1e-12)
    ruled = jax.vjp(lambda *a: readouts.over_time(readout, *a), theta_o, hs)[1](bars)
    assert_close(ruled, wanted, 1e-12)
    bar_t = jax.tree.map(lambda bar: bar[1], bars)
    assert_close(readout.vjp(theta_o, hs[1], bar_t), jax.vjp(readout.apply, theta_o, hs[1])[1](bar_t), 1e-12)


def test_a_readout_written_for_one_step_works_over_time():
    """It would confuse time with batch if it were handed both."""
    readout = jb.readouts.from_apply(lambda theta_o, h_t: jnp.einsum("bn,mn->bm", h_t, theta_o))
    model = jb.rnn(jb.cells.elman(), readout)
    key = jax.random.key(0)
    theta = jb.Theta(jb.cells.elman().init(key, 3, 4, jnp.float64), jax.random.normal(key, (2, 4)))
    xs, ys = jax.random.normal(key, (5, 6, 3)), jnp.ones((5, 6, 2))
    full, plain = (
        jax.jit(jax.grad(jb.objective(model, jb.losses.l2_loss, adjoint=cases.ADJOINTS[name])))(theta, xs, ys)
        for name in ("full", "autodiff")
    )
    assert_close(full, plain, 1e-12)


def test_a_readouts_own_rule_is_the_one_that_runs():
    """A rule that is wrong on purpose must show, or the hand-written one is not in use."""
    right = jb.readouts.linear()
    wrong = right._replace(vjp=lambda *a: jax.tree.map(lambda leaf: 2 * leaf, right.vjp(*a)))
    given = cases.problem(CELLS[1])
    grads = []
    for readout in (right, wrong):
        model = jb.rnn(given.case.cell, readout)
        F = jb.objective(model, jb.losses.l2_loss)
        estimator = jb.estimators.bptt(model, jb.losses.l2_loss)
        by_grad = jax.jit(jax.grad(F))(given.theta, given.xs, given.ys)
        by_estimator, _ = jax.jit(estimator.update)(given.theta, estimator.init(given.theta), given.xs, given.ys)
        grads.append((by_grad, by_estimator.grads))
    assert_close(grads[1], jax.tree.map(lambda leaf: 2 * leaf, grads[0]), 1e-12)
