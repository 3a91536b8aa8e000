"""Transformations: jit, vmap, batch axes, higher derivatives; and nothing is traced twice."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxbptt as jb
from tests import cases
from tests.cases import ADJOINTS, CELLS, assert_close, problem

cell_cases = pytest.mark.parametrize("case", CELLS, ids=cases.name)
LSTM = next(case for case in CELLS if case.name == "lstm")
GRU = next(case for case in CELLS if case.name == "gru")


@functools.cache
def compiled(F):
    """One function for each F, so that its programs are compiled once."""
    return jax.jit(jax.value_and_grad(F))


def grads(given, adjoint=None):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    return compiled(F)(given.theta, given.xs, given.ys, given.h_0)


@pytest.mark.parametrize("case", [CELLS[1], LSTM], ids=cases.name)
def test_jit_is_eager(case):
    given = problem(case, T=4)
    F = jb.objective(given.model, jb.losses.l2_loss)
    assert_close(grads(given), jax.value_and_grad(F)(given.theta, given.xs, given.ys, given.h_0), 1e-12)


@cell_cases
def test_batch_axes_are_a_loop(case):
    """Each member alone, in a Python loop, then averaged."""
    given = problem(case, T=4, batch=(2, 2), seed=1)
    value, bar = grads(given)
    members = []
    for i, j in np.ndindex(2, 2):
        member = given._replace(
            xs=jax.tree.map(lambda leaf, i=i, j=j: leaf[:, i, j], given.xs),
            ys=given.ys[:, i, j],
            h_0=jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], given.h_0),
        )
        members.append(grads(member))
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *members)
    np.testing.assert_allclose(value, mean[0], rtol=1e-12)
    assert_close(bar, mean[1], 1e-11)


@pytest.mark.parametrize(("case", "adjoint"), cases.in_turn([CELLS[1], GRU, LSTM, CELLS[-2]], cases.EACH_ADJOINT))
def test_vmap_is_a_loop(case, adjoint):
    """Over problems, parameters included: what a study over seeds does."""
    several = [problem(case, T=3, seed=seed) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(p.theta, p.xs, p.ys, p.h_0) for p in several])
    F = jb.objective(several[0].model, jb.losses.l2_loss, adjoint=adjoint)
    mapped = jax.jit(jax.vmap(jax.grad(F)))(*stack)
    for k, given in enumerate(several):
        assert_close(jax.tree.map(lambda leaf, k=k: leaf[k], mapped), grads(given, adjoint)[1], 1e-11)


@pytest.mark.parametrize("make", cases.EXACT_ESTIMATORS.values(), ids=cases.EXACT_ESTIMATORS)
def test_estimators_under_vmap_and_scan(make):
    several = [problem(GRU, T=3, seed=seed) for seed in range(2)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(p.theta, p.xs, p.ys, p.h_0) for p in several])
    estimator = make(several[0].model, jb.losses.l2_loss)

    def one(theta, xs, ys, h_0):
        return estimator.update(theta, estimator.init(theta, h_0), xs, ys)[0].grads

    mapped = jax.jit(jax.vmap(one))(*stack)
    scanned = jax.jit(lambda stack: lax.scan(lambda carry, given: (carry, one(*given)), None, stack)[1])(stack)
    assert_close(scanned, mapped, 1e-11)
    assert_close(jax.tree.map(lambda leaf: leaf[1], mapped), grads(several[1])[1], 1e-11)


def gradient(given, adjoint):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    return jax.grad(lambda theta: F(theta, given.xs, given.ys, given.h_0))


def forward_over_reverse(given, adjoint, direction):
    """The Hessian times a direction."""
    return jax.jit(lambda theta: jax.jvp(gradient(given, adjoint), (theta,), (direction,))[1])(given.theta)


def reverse_over_reverse(given, adjoint, direction):
    """The same, the Hessian being symmetric: the gradient of ⟨∂F/∂θ, direction⟩."""

    def slope(theta):
        bar = gradient(given, adjoint)(theta)
        return sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(bar), jax.tree.leaves(direction), strict=True))

    return jax.jit(jax.grad(slope))(given.theta)


BY_FULL = {
    "full": jb.adjoints.full(),
    "blocks": jb.adjoints.full(block=2),
    "blocks-states": jb.adjoints.full(block=2, residuals="states"),
}
BY_TANGENT = {
    "forward": (forward_over_reverse, jb.adjoints.tangent()),
    "reverse": (reverse_over_reverse, jb.adjoints.tangent()),
    "forward-blocks": (forward_over_reverse, jb.adjoints.tangent(block=2)),
    "reverse-blocks": (reverse_over_reverse, jb.adjoints.tangent(block=2)),
}


@pytest.mark.parametrize(
    ("case", "by_full", "by_tangent"),
    cases.in_turn([case for case in CELLS if case.name != "by_hand"], BY_FULL, BY_TANGENT),
)
def test_second_derivatives(case, by_full, by_tangent):
    """Reverse over reverse through the hand-written rule, and both orders through the tangent, are JAX's own."""
    given = problem(case, T=3, n=3)
    direction = cases.randomised(given.theta, jax.random.key(9), 1.0)
    wanted = forward_over_reverse(given, jb.adjoints.autodiff(), direction)
    for order, adjoint in (reverse_over_reverse, by_full), by_tangent:
        assert_close(order(given, adjoint, direction), wanted, 1e-10)


@pytest.mark.parametrize(("case", "adjoint"), cases.in_turn([GRU, LSTM], cases.EACH_ADJOINT))
def test_the_hessian_is_there_with_every_adjoint(case, adjoint):
    """Forward over reverse: the reverse pass is differentiated, not the rule. By differences of the gradient."""
    given = problem(case, T=4, n=3)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)

    def of_b_o(b):
        theta_o = given.theta.o._replace(b=b)
        return F(given.theta._replace(o=theta_o), given.xs, given.ys, given.h_0)

    def of_h_0(h_0):
        return F(given.theta, given.xs, given.ys, jax.tree.map(lambda leaf: leaf.at[0, 0].add(h_0), given.h_0))

    point = jnp.array(0.0)
    second = jax.jit(jax.hessian(of_h_0))(point)
    step = 1e-5
    slope = jax.jit(jax.grad(of_h_0))
    wanted = (slope(point + step) - slope(point - step)) / (2 * step)
    np.testing.assert_allclose(second, wanted, rtol=1e-7)
    of_a_mean = np.eye(len(given.theta.o.b))  # ∂²F/∂b_o² of the mean of ½‖ŷ - y‖²
    np.testing.assert_allclose(jax.jit(jax.hessian(of_b_o))(given.theta.o.b), of_a_mean, rtol=1e-12, atol=1e-12)


FORWARD = {"autodiff": jb.adjoints.autodiff(), "tangent": jb.adjoints.tangent(), "blocks": jb.adjoints.tangent(block=3)}


@pytest.mark.parametrize(("case", "adjoint"), cases.in_turn(CELLS, FORWARD))
def test_forward_mode(case, adjoint):
    """⟨∂F/∂(θ, h_0), v⟩ by jvp and by linearize; the gradient is a reverse pass, so two directions agree."""
    given = problem(case, T=4)
    point = (given.theta, given.h_0)
    v = cases.randomised(point, jax.random.key(3), 1.0)

    def F(adjoint):
        objective = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
        return lambda theta, h_0: objective(theta, given.xs, given.ys, h_0)

    bar = jax.jit(jax.grad(F(jb.adjoints.full()), argnums=(0, 1)))(*point)
    wanted = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(bar), jax.tree.leaves(v), strict=True))
    pushforward = jax.jit(lambda point, v: jax.jvp(F(adjoint), point, v)[1])
    np.testing.assert_allclose(pushforward(point, v), wanted, rtol=1e-11)
    linear = jax.jit(lambda point, v: jax.linearize(F(adjoint), *point)[1](*v))
    np.testing.assert_allclose(linear(point, v), wanted, rtol=1e-11)


@pytest.mark.parametrize("name", ["full", "parallel"])
def test_forward_mode_is_refused_elsewhere(name):
    given = problem(LSTM, T=4)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=ADJOINTS[name])
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda theta: F(theta, given.xs, given.ys), (given.theta,), (given.theta,))


@pytest.mark.parametrize(
    ("case", "adjoint", "is_given"),
    cases.in_turn([CELLS[1], LSTM, CELLS[-2]], ADJOINTS, {"with h_0": True, "without": False}),
)
def test_a_gradient_is_exported_for_any_batch(case, adjoint, is_given):
    """One program for every batch, at its own batch the gradient of the definition."""
    given = problem(case, T=5, batch=(3,))
    (B,) = jax.export.symbolic_shape("b")
    F, plain = (jb.objective(given.model, jb.losses.l2_loss, adjoint=one) for one in (adjoint, jb.adjoints.autodiff()))

    def of_any(axis):
        def spec(leaf):
            return jax.ShapeDtypeStruct((*leaf.shape[:axis], B, *leaf.shape[axis + 1 :]), leaf.dtype)

        return lambda tree: jax.tree.map(spec, tree)

    arguments, of_any_batch = (given.theta, given.xs, given.ys), (given.theta, *map(of_any(1), (given.xs, given.ys)))
    if is_given:
        arguments, of_any_batch = (*arguments, given.h_0), (*of_any_batch, of_any(0)(given.h_0))
    program = jax.export.export(jax.jit(jax.grad(F)))(*of_any_batch)
    assert_close(program.call(*arguments), jax.jit(jax.grad(plain))(*arguments), 1e-10)


def _counting(theta_h, x_t, h_tm1):
    return {"h": jnp.tanh(h_tm1["h"] * theta_h + x_t / h_tm1["k"].astype(x_t.dtype)[..., None]), "k": h_tm1["k"] + 1}


def test_a_counter_of_each_member_is_exported_for_any_batch():
    cell = jb.cells.from_step(
        _counting,
        initial_state=lambda theta_h, batch_shape=(): {
            "h": jnp.zeros((*batch_shape, 2)),
            "k": jnp.ones(batch_shape, jnp.int32),
        },
        output=lambda h_t: h_t["h"],
    )
    theta, xs, ys = jb.Theta(jnp.array(0.5), ()), cases.normal(jax.random.key(0), (5, 3, 2)), jnp.ones((5, 3, 2))
    (B,) = jax.export.symbolic_shape("b")
    of_any = jax.ShapeDtypeStruct((5, B, 2), xs.dtype)
    by_jax = jb.objective(jb.rnn(cell, jb.readouts.identity()), jb.losses.l2_loss, adjoint=jb.adjoints.autodiff())
    wanted = jax.grad(by_jax)(theta, xs, ys)
    for adjoint in cases.EACH_ADJOINT.values():
        F = jb.objective(by_jax.model, by_jax.loss, adjoint=adjoint)
        program = jax.export.export(jax.jit(jax.grad(F)))(theta, of_any, of_any)
        assert_close(program.call(theta, xs, ys), wanted, 1e-12)


def test_what_is_exported_for_any_number_of_steps():
    """A gradient by `autodiff`, ŷ by `parallel` as well."""
    given = problem(LSTM, T=5, batch=(3,))
    (T,) = jax.export.symbolic_shape("t")
    xs, ys = (jax.ShapeDtypeStruct((T, *leaf.shape[1:]), leaf.dtype) for leaf in (given.xs, given.ys))
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=jb.adjoints.autodiff())
    program = jax.export.export(jax.jit(jax.grad(F)))(given.theta, xs, ys)
    assert_close(
        program.call(given.theta, given.xs, given.ys), jax.jit(jax.grad(F))(given.theta, given.xs, given.ys), 1e-12
    )
    for adjoint in (jb.adjoints.autodiff(), jb.adjoints.parallel()):
        apply = jax.jit(lambda theta, xs, adjoint=adjoint: given.model.apply(theta, xs, adjoint=adjoint))
        y_hats = jax.export.export(apply)(given.theta, xs).call(given.theta, given.xs)
        assert_close(y_hats, given.model.apply(given.theta, given.xs), 1e-12)


def test_gradients_with_respect_to_a_subset():
    given = problem(GRU, T=4)
    F = jb.objective(given.model, jb.losses.l2_loss)
    whole = jax.jit(jax.grad(F, argnums=(0, 1, 3)))(given.theta, given.xs, given.ys, given.h_0)
    for k, argnum in enumerate((0, 1, 3)):
        part = jax.jit(jax.grad(F, argnums=argnum))(given.theta, given.xs, given.ys, given.h_0)
        assert_close(part, whole[k], 1e-12)


def test_remat_and_loops_around_the_recursion():
    given = problem(LSTM, T=4)
    F = jb.objective(given.model, jb.losses.l2_loss)
    checkpointed = jax.checkpoint(lambda theta: F(theta, given.xs, given.ys, given.h_0))
    wrapped = jax.jit(jax.grad(checkpointed))(given.theta)
    assert_close(wrapped, grads(given)[1], 1e-12)


def test_the_cotangent_of_the_last_state_counts():
    """A loss on h_T as well as on the outputs: both reach the gradient."""
    given = problem(LSTM, T=4)

    def loss(theta_h, adjoint):
        h_T, hs = jb.unroll(given.case.cell, theta_h, given.xs, given.h_0, adjoint=adjoint)
        return jnp.sum(jnp.sin(h_T.c)) + jnp.sum(h_T.h**2) + jnp.sum(jnp.cos(hs))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain = gradient(given.theta.h, jb.adjoints.autodiff())
    for adjoint in cases.EACH_ADJOINT.values():
        assert_close(gradient(given.theta.h, adjoint), plain, 1e-11)


@pytest.mark.parametrize("make", cases.EXACT_ESTIMATORS.values(), ids=cases.EXACT_ESTIMATORS)
def test_nothing_is_traced_twice(make):
    traces = []
    plain = LSTM.cell.apply

    def step(theta_h, x_t, h_tm1):
        traces.append(1)
        return plain(theta_h, x_t, h_tm1)

    cell = jb.cells.from_step(step, init=LSTM.cell.init, initial_state=LSTM.cell.initial_state, output=LSTM.cell.output)
    given = problem(LSTM._replace(cell=cell), T=4)
    for again in (False, True):  # the factories give the same objects again, so jit finds what it compiled
        traces.clear()
        model = jb.rnn(cell, jb.readouts.linear())
        estimator = make(model, jb.losses.l2_loss)
        update = jax.jit(estimator.update)
        update(given.theta, estimator.init(given.theta, given.h_0), given.xs, given.ys)
        assert bool(traces) != again
        traces.clear()
        update(given.theta, estimator.init(given.theta, given.h_0), given.xs + 1, given.ys)
        assert not traces


def test_factories_give_the_same_object():
    loss = jb.losses.l2_loss
    assert jb.cells.lstm() is jb.cells.lstm(forget_bias=1.0)
    assert jb.cells.elman("tanh") is jb.cells.elman(activation="tanh") is jb.cells.elman()
    assert jb.cells.stacked(jb.cells.gru(), jb.cells.gru()) is jb.cells.stacked(jb.cells.gru(), jb.cells.gru())
    assert jb.cells.masked(jb.cells.gru()) is jb.cells.masked(jb.cells.gru())
    assert jb.readouts.linear() is jb.readouts.linear(bias=True)
    model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    assert model is jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    assert jb.objective(model, loss) is jb.objective(model, loss, adjoint=None, reduction="mean")
    assert jb.estimators.bptt(model, loss) is jb.estimators.bptt(model, loss)
    assert jb.estimators.rtrl(model, loss) is jb.estimators.rtrl(model, loss, reduction="mean")
    assert jb.adjoints.full() is jb.adjoints.full()
    assert jb.cells.lstm() is not jb.cells.lstm(forget_bias=2.0)
