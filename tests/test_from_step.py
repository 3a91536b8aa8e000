"""Cells of a user: any pytree of state, input and parameters, with leaves that have no derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import ADJOINTS, EACH_ADJOINT, assert_close


def python_loop(cell, theta_h, xs, h_0, T):
    h, outputs = h_0, []
    for t in range(T):
        h = cell.apply(theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), h)
        outputs.append(cell.output(h))
    return h, outputs


def differ(cell, theta_h, xs, h_0, T, loss, argnums=(0,), names=tuple(EACH_ADJOINT), compiled=jax.jit):
    """The gradient by each adjoint, and by a Python loop with jax.grad."""

    def by(adjoint):
        def F(theta_h, xs, h_0):
            _, hs = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
            return loss(hs)

        return compiled(jax.grad(F, argnums=argnums, allow_int=True))(theta_h, xs, h_0)

    def loop(theta_h, xs, h_0):
        _, outputs = python_loop(cell, theta_h, xs, h_0, T)
        return loss(jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs))

    wanted = jax.jit(jax.grad(loop, argnums=argnums, allow_int=True))(theta_h, xs, h_0)
    return [by(ADJOINTS[name]) for name in names], wanted


@pytest.mark.parametrize(
    "how",
    [{}, {"names": ("full", "checkpointed", "autodiff"), "compiled": lambda function: function}],
    ids=["jit", "eager"],
)
def test_token_ids_get_no_cotangent(how):
    def step(theta_h, token_t, h_tm1):
        return jnp.tanh(theta_h["embedding"][token_t] + h_tm1 @ theta_h["W_h"].T)

    cell = jb.cells.from_step(step)
    keys = jax.random.split(jax.random.key(0), 3)
    theta_h = {"embedding": jax.random.normal(keys[0], (7, 4)), "W_h": jax.random.normal(keys[1], (4, 4))}
    tokens = jax.random.randint(keys[2], (6, 3), 0, 7)
    got, wanted = differ(cell, theta_h, tokens, jnp.zeros((3, 4)), 6, lambda hs: jnp.sum(hs**2), argnums=(0, 1), **how)
    for theta_bar, tokens_bar in got:
        assert_close(theta_bar, wanted[0], 1e-11)
        assert tokens_bar.dtype == jax.dtypes.float0


_TOKENS = jb.cells.from_step(
    lambda theta_h, token_t, h_tm1: jnp.tanh(theta_h["embedding"][token_t] + theta_h["leak"] * h_tm1),
    initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 2)),
)
_MODEL = jb.rnn(_TOKENS, jb.readouts.identity())


def _update(estimator, theta_h, tokens, ys):
    theta = jb.Theta(theta_h, ())
    return estimator.update(theta, estimator.init(theta), tokens, ys)[0].grads


_BY_EVERYONE = {
    **{
        name: lambda *a, adjoint=adjoint: jb.unroll(_TOKENS, *a[:2], jnp.zeros(2), adjoint=adjoint)
        for name, adjoint in EACH_ADJOINT.items()
    },
    "grad": lambda *a: jax.grad(lambda h_0: jnp.sum(jb.unroll(_TOKENS, *a[:2], h_0)[1]))(jnp.zeros(2)),
    "vjp": lambda *a: jb.jacobians.vjp(_TOKENS, *a[:2], jnp.zeros(2), a[2]),
    "jvp": lambda *a: jb.jacobians.jvp(_TOKENS, *a[:2], jnp.zeros(2), jnp.ones(2)),
    "lyapunov_spectrum": lambda *a: jb.diagnostics.lyapunov_spectrum(_TOKENS, *a[:2], jnp.zeros(2)).exponents,
    "jacobian_spectrum": lambda *a: jb.diagnostics.jacobian_spectrum(_TOKENS, *a[:2], jnp.zeros(2)),
    "gradient_flow": lambda *a: (
        jb.diagnostics.gradient_flow(_MODEL, jb.losses.l2_loss, jb.Theta(a[0], ()), *a[1:]).gradients
    ),
    "omega": lambda *a: jb.diagnostics.omega(_MODEL, jb.losses.l2_loss, jb.Theta(a[0], ()), *a[1:]),
    "rtrl": lambda *a: _update(jb.estimators.rtrl(_MODEL, jb.losses.l2_loss), *a),
    "bptt": lambda *a: _update(jb.estimators.bptt(_MODEL, jb.losses.l2_loss), *a),
}


@pytest.mark.parametrize("function", _BY_EVERYONE.values(), ids=_BY_EVERYONE)
def test_parameters_of_numpy_are_indexed_by_a_token(function):
    theta_h = {"embedding": np.linspace(0, 1, 10).reshape(5, 2), "leak": np.array([0.5, 0.9])}
    of_numpy = (theta_h, np.array([0, 3, 2]), np.ones((3, 2)))
    found, wanted = function(*of_numpy), function(*jax.tree.map(jnp.asarray, of_numpy))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def test_none_leaves_integer_state_and_keys():
    """A counter and a key in the state, None in input and parameters: only the float leaf has a gradient."""

    def step(theta_h, x_t, h_tm1):
        W, nothing, scale = theta_h["W"], theta_h["nothing"], theta_h["scale"]
        assert nothing is None
        assert x_t["missing"] is None
        key, draw = jax.random.split(h_tm1["key"])
        noise = jax.random.normal(draw, h_tm1["h"].shape)
        h = jnp.tanh(x_t["x"] + h_tm1["h"] @ W.T) * scale + 0.1 * noise / (1 + h_tm1["t"]).astype(float)
        return {"h": h, "t": h_tm1["t"] + 1, "key": key}

    cell = jb.cells.from_step(step, output=lambda h_t: h_t["h"])
    keys = jax.random.split(jax.random.key(1), 3)
    theta_h = {"W": jax.random.normal(keys[0], (4, 4)), "nothing": None, "scale": jnp.array(0.7)}
    xs = {"x": jax.random.normal(keys[1], (5, 2, 4)), "missing": None}
    h_0 = {"h": jax.random.normal(keys[2], (2, 4)), "t": jnp.array(0), "key": jax.random.key(3)}

    def loss(hs):
        return jnp.sum(hs**3)

    def F(theta_h, xs, h, adjoint):
        _, hs = jb.unroll(cell, theta_h, xs, h_0 | {"h": h}, adjoint=adjoint)
        return loss(hs)

    def loop(theta_h, xs, h):
        return loss(jnp.stack(python_loop(cell, theta_h, xs, h_0 | {"h": h}, 5)[1]))

    wanted = jax.jit(jax.grad(loop, argnums=(0, 1, 2)))(theta_h, xs, h_0["h"])
    for adjoint in EACH_ADJOINT.values():
        got = jax.jit(jax.grad(lambda *a, adjoint=adjoint: F(*a, adjoint), argnums=(0, 1, 2)))(theta_h, xs, h_0["h"])
        assert_close(got, wanted, 1e-11)
    h_T, _ = jb.unroll(cell, theta_h, xs, h_0)
    assert int(h_T["t"]) == 5


def test_complex_states_and_parameters():
    """A diagonal recurrence with complex eigenvalues, as in linear recurrent units."""

    def step(theta_h, x_t, h_tm1):
        return jnp.broadcast_to(theta_h["nu"], h_tm1.shape) * h_tm1 + x_t.astype(complex) @ theta_h["B"].T

    cell = jb.cells.from_step(
        step,
        initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 4), complex),
        output=lambda h_t: jnp.concatenate([h_t.real, h_t.imag], axis=-1),
    )
    keys = jax.random.split(jax.random.key(2), 6)
    theta_h = {
        "nu": jax.random.normal(keys[0], (4,), complex),
        "B": jax.random.normal(keys[1], (4, 3), complex),
    }
    xs = jax.random.normal(keys[2], (6, 2, 3))
    h_0 = jax.random.normal(keys[3], (2, 4), complex)
    got, wanted = differ(cell, theta_h, xs, h_0, 6, lambda hs: jnp.sum(jnp.sin(hs) * hs), argnums=(0, 1, 2))
    for bars in got:
        assert_close(bars, wanted, 1e-11)


@pytest.mark.parametrize("name", ["bptt", "rtrl"])
def test_estimators_with_complex_parameters(name):
    def step(theta_h, x_t, h_tm1):
        return theta_h["nu"] * jnp.tanh(h_tm1) + (x_t @ theta_h["B"].T).astype(complex) * theta_h["phase"]

    cell = jb.cells.from_step(
        step,
        initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 4), complex),
        output=lambda h_t: h_t.real,
    )
    keys = jax.random.split(jax.random.key(4), 6)
    theta = jb.Theta(
        {
            "nu": 0.5 * jax.random.normal(keys[0], (4,), complex),
            "B": jax.random.normal(keys[1], (4, 3)),
            "phase": jax.random.normal(keys[2], (4,), complex),
        },
        (),
    )
    xs, ys = jax.random.normal(keys[3], (5, 3)), jax.random.normal(keys[4], (5, 4))
    with jax.numpy_rank_promotion("allow"):
        model = jb.rnn(cell, jb.readouts.identity())
        estimator = getattr(jb.estimators, name)(model, jb.losses.l2_loss)
        estimate, _ = estimator.update(theta, estimator.init(theta), xs, ys)

        def loop(theta):
            h, total = jnp.zeros(4, complex), 0.0
            for t in range(5):
                h = step(theta.h, xs[t], h)
                total = total + 0.5 * jnp.sum((h.real - ys[t]) ** 2)
            return total / 5

        wanted = jax.grad(loop)(theta)
    assert_close(estimate.grads, wanted, 1e-11)
    assert jax.tree.map(lambda a: a.dtype, estimate.grads) == jax.tree.map(lambda a: a.dtype, wanted)


def test_a_step_for_one_example_and_rank_free_states():
    """States that are scalars and matrices at once, no batch axes."""

    def step(theta_h, x_t, h_tm1):
        memory = 0.9 * h_tm1["memory"] + jnp.outer(x_t, x_t)
        return {"memory": memory, "energy": 0.5 * h_tm1["energy"] + x_t @ (theta_h @ memory) @ x_t}

    cell = jb.cells.from_step(step, output=lambda h_t: h_t["energy"])
    keys = jax.random.split(jax.random.key(5), 3)
    theta_h, xs = jax.random.normal(keys[0], (3, 3)), jax.random.normal(keys[1], (4, 3))
    h_0 = {"memory": jax.random.normal(keys[2], (3, 3)), "energy": jnp.array(0.3)}
    got, wanted = differ(cell, theta_h, xs, h_0, 4, lambda hs: jnp.sum(hs**2), argnums=(0, 1, 2))
    for bars in got:
        assert_close(bars, wanted, 1e-11)


def test_only_what_was_given_is_asked_for():
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: jnp.tanh(theta_h * h_tm1 + x_t))
    h_T, _ = jb.unroll(cell, jnp.array(0.5), jnp.ones((3, 2)), jnp.zeros(2))
    np.testing.assert_allclose(h_T, np.tanh(0.5 * np.tanh(0.5 * np.tanh(1.0) + 1) + 1))
    with pytest.raises(NotImplementedError, match=r"`init`.*pass `init="):
        cell.init(jax.random.key(0), 1, 2)


def shared_leaf_cell(n):
    """A clock without batch axes beside a state with them; it acts through f and through the output."""

    def step(theta_h, x_t, state):
        h, clock = state
        return jnp.tanh(h @ theta_h["W_h"].T + x_t[None]) * jnp.cos(clock), clock + theta_h["rate"]

    def initial_state(theta_h, batch_shape=()):
        return jnp.zeros((*batch_shape, n)), jnp.zeros(())

    cell = jb.cells.from_step(step, initial_state=initial_state, output=lambda state: state[0] * state[1])
    return cell, {"W_h": jax.random.normal(jax.random.key(0), (n, n)), "rate": jnp.array(0.3)}


@pytest.mark.parametrize("B", [3, 4])
@pytest.mark.parametrize("given_state", [False, True])
def test_inputs_and_states_that_a_batch_shares(B, given_state):
    """x_t [n] for all members, also where n is the size of the batch; a floating-point leaf of the state likewise."""
    n = 4
    cell, theta_h = shared_leaf_cell(n)
    h_0 = cell.initial_state(theta_h, (B,)) if given_state else (jnp.ones((B, n)), jnp.array(0.1))
    xs = jax.random.normal(jax.random.key(1), (5, n))
    weights = jax.random.normal(jax.random.key(2), (5, B, n))

    def loss(hs):
        return jnp.sum(weights * hs)

    got, wanted = differ(cell, theta_h, xs, h_0, 5, loss, argnums=(0, 1, 2))
    for bars in got:
        assert_close(bars, wanted, 1e-11)


def test_an_input_that_a_batch_of_its_size_shares():
    """Where every leaf of the state has the batch axes, too."""
    cell = jb.cells.from_step(
        lambda W, x_t, h: jnp.tanh(h @ W.T + x_t[None]),
        initial_state=lambda W, batch=(): jnp.zeros((*batch, W.shape[0])),
    )
    W, h_0 = jax.random.normal(jax.random.key(0), (4, 4)), jax.random.normal(jax.random.key(3), (4, 4))
    xs, weights = jax.random.normal(jax.random.key(1), (5, 4)), jax.random.normal(jax.random.key(2), (5, 4, 4))
    got, wanted = differ(cell, W, xs, h_0, 5, lambda hs: jnp.sum(weights * hs), argnums=(0, 1, 2))
    for bars in got:
        assert_close(bars, wanted, 1e-11)


def test_weakly_typed_inputs_widen_no_state():
    """As in a `lax.scan` of the step: 0.5 of Python is of whatever dtype it meets."""
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: jnp.tanh(h_tm1 * theta_h + x_t))
    xs, half = jnp.full((5, 4), 0.5), jnp.bfloat16
    assert xs.weak_type
    for adjoint in ADJOINTS.values():
        h_T, _ = jb.unroll(cell, half(0.5), xs, jnp.zeros(4, half), adjoint=adjoint)
        assert h_T.dtype == half
    model = jb.rnn(cell, jb.readouts.from_apply(lambda theta_o, h_t: h_t))
    F = jb.objective(model, lambda y_hat_t, y_t: jnp.sum(y_hat_t * y_t))
    assert F(jb.Theta(half(0.5), ()), xs, jnp.full((5, 4), 1.0), jnp.zeros(4, half)).dtype == half


def test_a_step_is_traced_at_most_three_times():
    """For F and its gradient, by every adjoint, where lengths pad the sequences too."""
    traced = []

    def step(theta_h, x_t, h_tm1):
        traced.append(None)
        return jnp.tanh(x_t + theta_h * h_tm1)

    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 3)))
    xs, theta = jnp.ones((7, 4, 3)), jb.Theta(jnp.array(0.5), ())
    for name, adjoint in ADJOINTS.items():
        traced.clear()
        jax.clear_caches()
        F = jb.objective(jb.rnn(cell, jb.readouts.identity()), jb.losses.l2_loss, adjoint=adjoint)
        jax.make_jaxpr(jax.grad(F))(theta, xs, xs, lengths=jnp.array([7, 3, 0, 1]))
        assert 1 <= len(traced) <= 3, name
