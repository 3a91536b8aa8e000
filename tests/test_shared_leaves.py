"""Leaves that all members of a batch share: time stamps ``[T]`` among the inputs, a counter in the state."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from tests.cases import ADJOINTS, assert_close, normal

T, B, N = 4, 4, 3


def step(theta_h, x_t, h_tm1):
    h_t = h_tm1["h"] * jnp.exp(-x_t["dt"]) + jnp.tanh(x_t["x"] @ theta_h) / (1 + h_tm1["k"].astype(h_tm1["h"].dtype))
    return {"h": h_t, "k": h_tm1["k"] + 1}


def begin(theta_h, batch_shape=()):
    return {"h": jnp.zeros((*batch_shape, N)), "k": jnp.zeros((), jnp.int32)}


def read(h_t):
    return h_t["h"]


model = jb.rnn(jb.cells.from_step(step, initial_state=begin, output=read), jb.readouts.identity())
of_x = jb.rnn(
    jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: h_tm1 * jnp.exp(-x_t["dt"]) + jnp.tanh(x_t["x"] @ theta_h),
        initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, N)),
    ),
    jb.readouts.identity(),
)
keys = jax.random.split(jax.random.key(0), 3)
theta = jb.Theta(normal(keys[0], (N, N)), ())
xs = {"x": normal(keys[1], (T, B, N)), "dt": jnp.linspace(0.1, 1.0, T)}
ys = normal(keys[2], (T, B, N))
SOME = ("full", "full-blocks-states", "checkpointed", "tangent", "autodiff")


def by_hand(theta, xs, ys, counted=False, lengths=(T,) * B):
    """F, member by member and step by step."""
    total = 0.0
    for b, length in enumerate(lengths):
        h = jnp.zeros(N)
        for t in range(length):
            h = h * jnp.exp(-xs["dt"][t]) + jnp.tanh(xs["x"][t, b] @ theta.h) / (1 + t * counted)
            total += 0.5 * jnp.sum((h - ys[t, b]) ** 2)
    return total / sum(lengths)


def both(F, *arguments, **given):
    value, (theta_bar, xs_bar) = jax.jit(jax.value_and_grad(F, (0, 1)))(*arguments, **given)
    return value, theta_bar, xs_bar


def test_time_stamps_and_a_counter():
    """Their batch is read from what has one; ∂F/∂dt_t is the sum over the members."""
    wanted = both(lambda *given: by_hand(*given, counted=True), theta, xs, ys)
    for name in SOME:
        F = jb.objective(model, jb.losses.l2_loss, adjoint=ADJOINTS[name])
        assert_close(both(F, theta, xs, ys), wanted, 1e-11)


def test_time_stamps_of_padded_sequences():
    lengths = (3, 0, 4, 1)
    wanted = both(lambda *given: by_hand(*given, lengths=lengths), theta, xs, ys)
    for name in SOME:
        F = jb.objective(of_x, jb.losses.l2_loss, adjoint=ADJOINTS[name])
        assert_close(both(F, theta, xs, ys, lengths=jnp.array(lengths)), wanted, 1e-11)


def test_an_end_that_nobody_reaches_may_have_no_time():
    """A time stamp of NaN, where no member has a step."""
    stamped = xs | {"dt": xs["dt"].at[3].set(jnp.nan)}
    found, wanted = (
        both(jb.objective(of_x, jb.losses.l2_loss), theta, one, ys, lengths=jnp.array([3, 0, 2, 1]))
        for one in (stamped, xs)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def test_over_devices():
    """∂F/∂dt_t, and the counter of the last state, too."""
    for has_aux, h_0 in ((False, None), (True, None), (False, begin(theta.h, (B,))), (True, begin(theta.h, (B,)))):
        F = jb.objective(model, jb.losses.l2_loss, has_aux=has_aux)
        one, two = (
            jax.jit(jax.value_and_grad(f, (0, 1), has_aux=has_aux))(theta, xs, ys, h_0)
            for f in (F, jb.data_parallel(F))
        )
        assert jax.tree.structure(one) == jax.tree.structure(two)
        assert_close(one, two, 1e-12)
        assert np.all(np.asarray(two[1][1]["dt"])[1:] != 0)
