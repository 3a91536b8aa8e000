"""Real-time recurrent learning: memory that does not grow with T, sensitivities that explode where F doesn't look."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from tests.cases import CELLS, problem


def test_rtrl_memory_does_not_grow_with_T():
    given = problem(CELLS[1], T=8)
    estimator = jb.estimators.rtrl(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)

    def temporaries(T):
        xs, ys = (jnp.ones((T, *array.shape[1:])) for array in (given.xs, given.ys))
        compiled = jax.jit(estimator.update).lower(given.theta, state, xs, ys).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(512) <= 1.01 * temporaries(64) + 64  # scan counters apart


def test_rtrl_is_not_spoilt_by_a_sensitivity_that_explodes_after_the_last_step_that_counts():
    """a_t is beyond float32 by step 90; F reads three steps. By hand: with x = h = 0, ∂h_t/∂b = 1 + 3 + … + 3^(t-1)."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.identity())
    zero = model.init(jax.random.key(0), input_size=1, hidden_size=2, output_size=2, dtype=jnp.float32)
    zero = jax.tree.map(jnp.zeros_like, zero)
    theta = zero._replace(h=zero.h._replace(W_h=3 * jnp.eye(2, dtype=jnp.float32)))
    xs, ys = jnp.zeros((120, 1), jnp.float32), jnp.ones((120, 2), jnp.float32)
    mask = jnp.arange(120) < 3
    estimator = jb.estimators.rtrl(model, jb.losses.l2_loss, reduction="sum")
    estimate, state = estimator.update(theta, estimator.init(theta), xs, ys, mask=mask)
    assert not all(jnp.all(jnp.isfinite(block)) for block in state.a)
    assert estimate.grads.h.b.tolist() == [-(1.0 + 4.0 + 13.0)] * 2

    def weighed(y_hat_t, y_t):  # the same by weights of 0 in the loss
        return y_t[..., 2] * jb.losses.l2_loss(y_hat_t, y_t[..., :2])

    estimator = jb.estimators.rtrl(model, weighed, reduction="sum")
    ys = jnp.concatenate([ys, mask[:, None].astype(jnp.float32)], axis=-1)
    estimate, _ = estimator.update(theta, estimator.init(theta), xs, ys)
    assert estimate.grads.h.b.tolist() == [-(1.0 + 4.0 + 13.0)] * 2


def test_parameters_may_be_plain_numbers():
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: jnp.tanh(theta_h["w"] * h_tm1 + x_t))
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta({"w": 0.5}, ())
    estimators = [make(model, jb.losses.l2_loss) for make in (jb.estimators.rtrl, jb.estimators.bptt)]
    xs, ys, h_0 = jnp.ones((4, 2)), jnp.zeros((4, 2)), jnp.full(2, 0.3)
    by_rtrl, by_bptt = (one.update(theta, one.init(theta, h_0), xs, ys)[0].grads.h["w"] for one in estimators)
    np.testing.assert_allclose(by_rtrl, by_bptt, rtol=1e-12)


def test_a_sensitivity_in_half_precision_is_carried_in_float32():
    """a_t = 1 + a_{t-1}: in bfloat16 256 + 1 is 256."""
    cell = jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: h_tm1 + theta_h * x_t,
        initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 1), jnp.bfloat16),
    )
    model, ones = jb.rnn(cell, jb.readouts.identity()), jnp.ones((1000, 1), jnp.bfloat16)
    estimator = jb.estimators.rtrl(model, lambda y_hat_t, y_t: jnp.sum(y_hat_t, axis=-1), reduction="sum")
    theta = jb.Theta(jnp.ones(1, jnp.bfloat16), ())
    estimate, _ = jax.jit(estimator.update)(theta, estimator.init(theta), ones, ones, mask=jnp.arange(1000) == 999)
    assert estimate.grads.h == 1000
