"""Several heads read one state, and each is differentiated by its own rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import EACH_ADJOINT, assert_close

LINEAR, NO_BIAS = jb.readouts.linear(), jb.readouts.linear(bias=False)
TANH = jb.readouts.from_apply(
    lambda theta_o, h_t: jnp.tanh(h_t @ theta_o),
    init=lambda key, n, m, dtype: jax.random.normal(key, (n, m), dtype),
)
KEYS = jax.random.split(jax.random.key(0), 4)


def test_heads_by_name_give_a_dict_and_heads_by_position_a_tuple():
    named, placed = jb.readouts.several(value=LINEAR, policy=TANH), jb.readouts.several(LINEAR, TANH)
    theta_o = named.init(KEYS[0], 4, {"policy": 3, "value": 1}, jnp.float64)
    assert jax.tree.map(jnp.shape, theta_o) == {
        "policy": (4, 3),
        "value": jb.readouts.LinearReadoutParams((1, 4), (1,)),
    }
    assert jax.tree.map(jnp.shape, named.apply(theta_o, jnp.ones((2, 4)))) == {"policy": (2, 3), "value": (2, 1)}
    theta_o = placed.init(KEYS[0], 4, (1, 3), jnp.float64)
    assert [y_hat.shape for y_hat in placed.apply(theta_o, jnp.ones(4))] == [(1,), (3,)]
    assert not np.array_equal(*(jb.readouts.several(TANH, TANH).init(KEYS[0], 4, 3, jnp.float64)))


def test_equal_heads_give_the_same_object_in_any_order_of_their_names():
    several = jb.readouts.several
    assert several(a=LINEAR, b=TANH) is several(b=TANH, a=LINEAR)
    assert several(LINEAR, TANH) is several(LINEAR, TANH)
    assert several(LINEAR, TANH) != several(TANH, LINEAR)


def test_heads_within_heads():
    readout = jb.readouts.several(pair=jb.readouts.several(LINEAR, TANH), one=NO_BIAS)
    theta_o = readout.init(KEYS[0], 4, {"pair": (1, 2), "one": 3}, jnp.float64)
    y_hat_t = readout.apply(theta_o, jnp.ones(4))
    assert jax.tree.map(jnp.shape, y_hat_t) == {"one": (3,), "pair": ((1,), (2,))}


def two_losses(y_hat_t, y_t):
    regression = jb.losses.l2_loss(y_hat_t["value"], y_t["value"])
    return regression + 0.3 * jb.losses.softmax_cross_entropy(y_hat_t["policy"], y_t["action"])


@pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)
def test_two_losses_of_one_state(adjoint):
    """Beside a plain loop that ``jax.grad`` differentiates."""
    cell = jb.cells.elman()
    model = jb.rnn(cell, jb.readouts.several(value=LINEAR, policy=TANH))
    theta = model.init(KEYS[0], input_size=3, hidden_size=4, output_size={"value": 2, "policy": 5}, dtype=jnp.float64)
    theta = cases.randomised(theta, KEYS[1], 0.5)
    xs = cases.normal(KEYS[2], (6, 2, 3))
    ys = {"value": cases.normal(KEYS[3], (6, 2, 2)), "action": jnp.arange(12).reshape(6, 2) % 5}
    mask = jnp.ones((6, 2), bool).at[4:, 1].set(False)

    def loop(theta):
        h, total = jnp.zeros((2, 4)), 0.0
        for t in range(6):
            W_x, W_h, b = theta.h
            h = jnp.tanh(xs[t] @ W_x.T + h @ W_h.T + b[None])
            value = h @ theta.o["value"].W_o.T + theta.o["value"].b[None]
            logits = jax.nn.log_softmax(jnp.tanh(h @ theta.o["policy"]))
            picked = jnp.take_along_axis(logits, ys["action"][t][:, None], -1)[:, 0]
            L = 0.5 * jnp.sum((value - ys["value"][t]) ** 2, -1) - 0.3 * picked
            total = total + jnp.sum(jnp.where(mask[t], L, 0.0))
        return total / jnp.sum(mask, dtype=jnp.float64)

    F = jb.objective(model, two_losses, adjoint=adjoint)
    got = jax.jit(jax.value_and_grad(F))(theta, xs, ys, mask=mask)
    assert_close(got, jax.jit(jax.value_and_grad(loop))(theta), 1e-11)


def test_each_head_is_differentiated_by_its_own_rule():
    def doubled(theta_o, h_t, y_hat_bar_t):
        return jax.tree.map(lambda bar: 2 * bar, NO_BIAS.vjp(theta_o, h_t, y_hat_bar_t))

    readout = jb.readouts.several(right=NO_BIAS, wrong=NO_BIAS._replace(vjp=doubled))
    theta_o = readout.init(KEYS[0], 4, 2, jnp.float64)
    bars, h_bar = readout.vjp(theta_o, jnp.ones(4), {"right": jnp.ones(2), "wrong": jnp.ones(2)})
    np.testing.assert_array_equal(bars["wrong"].W_o, 2 * bars["right"].W_o)
    wanted = jnp.sum(theta_o["right"].W_o, 0) + 2 * jnp.sum(theta_o["wrong"].W_o, 0)
    np.testing.assert_allclose(h_bar, wanted, rtol=1e-12)


def test_mixed_precision_is_that_of_the_heads():
    heads = {"a": LINEAR, "b": TANH}
    readout = jb.readouts.several(**heads)
    mixed = jb.readouts.mixed_precision(readout)
    theta_o = readout.init(KEYS[0], 4, 2, jnp.float32)
    h_t = cases.normal(KEYS[1], (3, 4), jnp.float32)
    for name, head in heads.items():
        wanted = jb.readouts.mixed_precision(head).apply(theta_o[name], h_t)
        np.testing.assert_array_equal(mixed.apply(theta_o, h_t)[name], wanted)
    assert not np.array_equal(mixed.apply(theta_o, h_t)["a"], readout.apply(theta_o, h_t)["a"])
    assert jb.readouts.mixed_precision(mixed) is mixed


def test_mixed_precision_keeps_what_a_user_replaced():
    def init(key, hidden_size, output_size, dtype=jnp.float32):
        return {"a": jnp.ones((output_size, hidden_size), dtype)}

    replaced = jb.readouts.several(a=TANH)._replace(init=init)
    assert jb.readouts.mixed_precision(replaced).init is init
    doubled = jb.readouts.several(a=NO_BIAS)
    doubled = doubled._replace(apply=lambda theta_o, h_t: {"a": 2 * theta_o["a"].W_o @ h_t})
    theta_o = doubled.init(KEYS[0], 4, 2, jnp.float32)
    one, two = (readout.apply(theta_o, jnp.ones(4, jnp.float32))["a"] for readout in (
        jb.readouts.mixed_precision(jb.readouts.several(a=NO_BIAS)), jb.readouts.mixed_precision(doubled)
    ))  # fmt: skip
    np.testing.assert_allclose(two, 2 * one, rtol=0.02)
