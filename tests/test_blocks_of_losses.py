"""By `checkpointed` the loss is made and differentiated block by block: the same F, and no array over all of T."""

import math

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from tests.cases import CELLS, assert_close, in_turn, normal, problem
from tests.jaxprs import equations

GRU, LSTM = (next(case for case in CELLS if case.name == name) for name in ("gru", "lstm"))
CHOICES = {
    "two-level": {},
    "one-slot": {"slots": 1},
    "one-step-blocks": {"slots": 3, "block": 1},
    "a-rest": {"slots": 4, "block": 3},  # T = 7 in blocks of 3, 3 and 1
    "states": {"slots": 4, "block": 2, "residuals": "states"},
    "everything": {"slots": 7},
}


@pytest.mark.parametrize(("choice", "reduction"), in_turn(CHOICES, ["mean", "sum", "sequences", "none"], times=2))
def test_the_same_objective_as_by_full(choice, reduction):
    """With respect to every argument: θ, xs, ys, h_0 and the weights; half of the choices with lengths."""
    case = GRU if choice.get("block") else LSTM
    given = problem(case, T=7, batch=(3,), seed=4)
    weights = normal(jax.random.key(2), (7, 3)) ** 2 + 0.1
    lengths = {"lengths": jnp.array([7, 3, 5])} if reduction in ("mean", "none") else {}

    def by(adjoint):
        F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, reduction=reduction)

        def total(theta, xs, ys, h_0, weights):
            value = F(theta, xs, ys, h_0, mask=weights, **lengths)
            return jnp.sum(value * jnp.arange(1.0, 1.0 + value.size).reshape(value.shape))

        return jax.jit(jax.value_and_grad(total, (0, 1, 2, 3, 4)))(given.theta, given.xs, given.ys, given.h_0, weights)

    assert_close(by(jb.adjoints.checkpointed(**choice)), by(jb.adjoints.full()), 1e-11)


def test_targets_and_inputs_of_any_tree():
    """A loss of a pair, one of them integers, and a mean that nobody weighs: T = 7 in blocks of 3."""
    given = problem(LSTM, T=7, batch=(3,), m=4, seed=4)
    labels = jnp.arange(21).reshape(7, 3) % 4

    def loss(y_hat_t, y_t):
        target, label = y_t
        return jb.losses.l2_loss(y_hat_t, target) + jb.losses.softmax_cross_entropy(y_hat_t, label)

    found, wanted = (
        jax.jit(jax.value_and_grad(jb.objective(given.model, loss, adjoint=adjoint), (0, 2, 3), allow_int=True))(
            given.theta, given.xs, (given.ys, labels), given.h_0
        )
        for adjoint in (jb.adjoints.checkpointed(3, block=3), jb.adjoints.full())
    )
    keep = [[leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0] for tree in (found, wanted)]
    assert_close(*keep, 1e-11)


def test_a_nan_behind_the_last_block_or_at_its_end():
    """The last step is copied where T is no multiple of the block: a NaN of it that doesn't count stays out."""
    given = problem(GRU, T=7, batch=(3,), seed=4)
    mask = jnp.ones((7, 3), bool).at[6, 1].set(False)
    ys = given.ys.at[6, 1].set(jnp.nan)
    found, wanted = (
        jax.jit(jax.value_and_grad(jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)))(
            given.theta, given.xs, targets, given.h_0, mask=mask
        )
        for adjoint, targets in ((jb.adjoints.checkpointed(4, block=3), ys), (jb.adjoints.full(), given.ys))
    )
    assert_close(found, wanted, 1e-11)


def test_single_precision_is_no_worse_than_that_of_full():
    given = problem(GRU, T=4001, batch=(2,), dtype=jnp.float32)
    single = given.theta, given.xs, given.ys, given.h_0
    exact = jb.objective(given.model, jb.losses.l2_loss)(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single))
    errors = [
        abs(float(jax.jit(jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint))(*single)) / float(exact) - 1)
        for adjoint in (jb.adjoints.checkpointed(), jb.adjoints.full())
    ]
    assert errors[0] <= max(errors[1], 2 * jnp.finfo(jnp.float32).eps)


def long(T=20_000, B=4, n=16, d=2, m=2):
    """Shapes alone: of θ, xs, ys and lengths."""
    model = jb.rnn(LSTM.cell, jb.readouts.linear())
    theta = jax.eval_shape(
        lambda: model.init(jax.random.key(0), input_size=d, hidden_size=n, output_size=m, dtype=jnp.float32)
    )
    xs, ys = (jax.ShapeDtypeStruct((T, B, size), jnp.float32) for size in (d, m))
    return model, (theta, xs, ys), jax.ShapeDtypeStruct((B,), jnp.int32)


@pytest.mark.parametrize("with_lengths", [False, True], ids=["all", "lengths"])
def test_no_array_of_all_outputs_is_made(with_lengths):
    """n and m beyond d: what has T·B·n numbers is an array of states, outputs, predictions or their cotangents."""
    T, B, n = 5_000, 4, 16
    model, arguments, lengths = long(T, B, n, d=2, m=n)
    arguments = (*arguments[:2], jax.ShapeDtypeStruct((T, B, 1), jnp.float32))
    more = {"lengths": lengths} if with_lengths else {}

    def loss(y_hat_t, y_t):
        return jnp.sum((y_hat_t - jnp.broadcast_to(y_t, y_hat_t.shape)) ** 2, axis=-1)

    def largest(adjoint):
        F = jb.objective(model, loss, adjoint=adjoint)
        jaxpr = jax.make_jaxpr(jax.value_and_grad(F))(*arguments, **more)
        return max(
            math.prod(var.aval.shape)
            for equation in equations(jaxpr.jaxpr)
            for var in equation.outvars
            if hasattr(var.aval, "shape")
        )

    assert largest(jb.adjoints.full()) >= T * B * n
    assert largest(jb.adjoints.checkpointed()) <= T * B * n // 4


def test_temporaries_of_a_long_sequence():
    model, arguments, _ = long()

    def temporaries(adjoint):
        gradient = jax.jit(jax.grad(jb.objective(model, jb.losses.l2_loss, adjoint=adjoint)))
        return gradient.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(jb.adjoints.checkpointed()) < 0.1 * temporaries(jb.adjoints.full())


def test_forward_over_reverse_through_a_readout_and_a_loss_with_rules():
    """Their rules are for reverse mode alone, and are no hindrance: by differences of the gradient."""

    @jax.custom_vjp
    def square(e):
        return jnp.sum(e**2, axis=-1)

    square.defvjp(lambda e: (jnp.sum(e**2, axis=-1), e), lambda e, bar: (2 * e * bar[..., None],))
    given = problem(GRU, T=5, batch=(2,))

    F = jb.objective(given.model, lambda y_hat_t, y_t: square(y_hat_t - y_t), adjoint=jb.adjoints.checkpointed(2))
    value_and_slope = jax.value_and_grad(lambda theta: F(theta, given.xs, given.ys, given.h_0))
    _, found = jax.jit(lambda theta: jax.jvp(value_and_slope, (theta,), (theta,)))(given.theta)
    above, below = (
        jax.jit(value_and_slope)(jax.tree.map(lambda leaf, s=s: (1 + s) * leaf, given.theta)) for s in (1e-5, -1e-5)
    )
    assert_close(found, jax.tree.map(lambda a, b: (a - b) / 2e-5, above, below), 1e-7)
