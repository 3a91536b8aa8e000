"""Where h_0 is made, it is of the batch of the inputs, whatever these are."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from jaxbptt.plan import extra_steps
from tests.cases import assert_close, in_turn, pairwise


def bag_of_words(theta_h, tokens_t, h_tm1):
    return jnp.tanh(h_tm1 @ theta_h["W"].T + jnp.sum(theta_h["embedding"][tokens_t], axis=-2))


def spikes(theta_h, x_t, h_tm1):
    return jnp.tanh(h_tm1 @ theta_h["W"].T + x_t.astype(h_tm1.dtype) @ theta_h["embedding"][:3])


def one_token(theta_h, token_t, h_tm1):
    return jnp.tanh(h_tm1 @ theta_h["W"].T + theta_h["embedding"][token_t])


def dropped(theta_h, x_t, h_tm1):
    kept = jnp.where(x_t["kept"], x_t["x"], jnp.zeros_like(x_t["x"]))
    return jnp.tanh(h_tm1 @ theta_h["W"].T + kept @ theta_h["embedding"][:3])


RANKS = ["raise", "allow"]  # the second as JAX has it: arrays of fewer axes meet others in silence


@pytest.fixture
def ranks(request):
    with jax.numpy_rank_promotion(request.param):
        yield


def with_ranks(names, rows):
    return pytest.mark.parametrize(("ranks", *names), rows, indirect=["ranks"])


@pytest.mark.usefixtures("ranks")
@with_ranks(
    ("batch", "step"), pairwise(RANKS, [(), (2,), (3,), (4,), (2, 3)], [bag_of_words, spikes, one_token, dropped])
)
def test_the_batch_of_inputs_without_floating_point(step, batch):
    """h_0 is made for it. A batch may have the size of the d = 3 features, or of the n = 4 units."""
    keys = jax.random.split(jax.random.key(4), 4)
    axes = batch if step is one_token else (*batch, 3)
    xs = jax.random.randint(keys[0], (3, *axes), 0, 2 if step is spikes else 7)
    if step is spikes:
        xs = xs.astype(bool)
    if step is dropped:
        xs = {"x": jax.random.normal(keys[3], (3, *axes)), "kept": xs > 2}
    theta_h = {"W": jax.random.normal(keys[1], (4, 4)) / 2, "embedding": jax.random.normal(keys[2], (7, 4))}
    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch_shape: jnp.full((*batch_shape, 4), 0.1))
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta(theta_h, ())
    ys = jnp.zeros((3, *batch, 4))

    def by_hand(theta_h):
        h, F = jnp.full((*batch, 4), 0.1), 0.0
        for t in range(3):
            h = step(theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), h)
            F = F + jnp.sum(h**2)
        return F

    F = jb.objective(model, lambda y_hat_t, y_t: jnp.sum((y_hat_t - y_t) ** 2, -1), reduction="sum")
    found = jax.jit(jax.value_and_grad(F))(theta, xs, ys)
    wanted = jax.jit(jax.value_and_grad(by_hand))(theta_h)
    assert_close(found[0], wanted[0], 1e-12)
    assert_close(found[1].h, wanted[1], 1e-11)
    assert jax.jit(model.apply)(theta, xs).shape == (3, *batch, 4)
    assert extra_steps(jb.adjoints.checkpointed(1), model, theta, xs) > 0


class Observed(NamedTuple):
    """A user's own, with the field names of `MaskedInput`, and a mask of features."""

    x: jax.Array
    mask: jax.Array


def observed(theta_h, x_t, h_tm1):
    seen = jnp.where(x_t.mask, x_t.x, jnp.zeros_like(x_t.x)).astype(h_tm1.dtype)
    return jnp.tanh(h_tm1 @ theta_h["W"].T + seen @ theta_h["embedding"][:3])


@pytest.mark.usefixtures("ranks")
@with_ranks(("batch",), in_turn(RANKS, [(), (1,), (3,), (4,), (2, 3)]))
def test_a_mask_of_features_is_no_mask_of_the_batch(batch):
    x = jnp.arange(5 * math.prod(batch) * 3).reshape(5, *batch, 3)
    theta_h = {"W": jnp.eye(4), "embedding": jnp.ones((7, 4))}
    cell = jb.cells.from_step(observed, initial_state=lambda theta_h, batch_shape: jnp.zeros((*batch_shape, 4)))
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta(theta_h, ())
    assert jax.eval_shape(model.apply, theta, Observed(x, x > 2)).shape == (5, *batch, 4)


def asserting(theta_h, token_t, h_tm1):
    assert token_t.shape == h_tm1.shape[:-1]
    return one_token(theta_h, token_t, h_tm1)


def unread(theta_h, x_t, h_tm1):
    return jnp.tanh(h_tm1 @ theta_h["W"].T)


@jax.tree_util.register_pytree_node_class
class Box:
    """A state without an `==` of its own."""

    def __init__(self, h):
        self.h = h

    def tree_flatten(self):
        return (self.h,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def boxed(theta_h, x_t, h_tm1):
    return Box(spikes(theta_h, x_t, h_tm1.h))


PARTICULAR = {
    "asserting": (asserting, (), "none"),
    "unread": (unread, (), "none"),
    "token-masked": (one_token, (), "masked"),
    "spikes-masked": (spikes, (3,), "masked"),
    "spikes-reset": (spikes, (3,), "resettable"),
    "no-inputs": (unread, None, "masked"),
    "boxed": (boxed, (3,), "none"),
}


@pytest.mark.usefixtures("ranks")
@with_ranks(("of", "B"), in_turn(RANKS, PARTICULAR, [1, 4, 6], times=2))
def test_the_batch_where_f_is_particular(of, B):
    """It asserts, doesn't read x, has no inputs, stands still or begins anew, or has a state of its own kind."""
    step, features, wrap = of
    theta_h = {"W": jnp.eye(4) / 2, "embedding": jnp.ones((7, 4))}

    def initial_state(theta_h, batch_shape):
        h_0 = jnp.zeros((*batch_shape, 4))
        return Box(h_0) if step is boxed else h_0

    output = (lambda h_t: h_t.h) if step is boxed else None
    cell = jb.cells.from_step(step, initial_state=initial_state, output=output)
    xs = () if features is None else jnp.ones((5, B, *features), int)
    if wrap == "masked":
        cell, xs = jb.cells.masked(cell), jb.cells.MaskedInput(xs, jnp.ones((5, B), bool))
    if wrap == "resettable":
        cell, xs = jb.cells.resettable(cell), jb.cells.ResetInput(xs, jnp.zeros((5, B), bool))
    model = jb.rnn(cell, jb.readouts.identity())
    assert model.apply(jb.Theta(theta_h, ()), xs).shape == (5, B, 4)
