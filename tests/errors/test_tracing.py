"""Under a transformation: shapes raise the same messages, and what only values tell shows as NaN."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import in_turn
from tests.errors.rows import CELLS, ESTIMATORS, THETA, THETA_O, B, T, d, flags, l2, m, n, objective, ones, update

TRANSFORMATIONS: dict[str, Callable] = {
    "jit": jax.jit,
    "grad": jax.grad,
    "vmap": lambda F: jax.vmap(F, axis_size=2, in_axes=None),
    "jit-grad": lambda F: jax.jit(jax.grad(F)),
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_messages_when_traced(transform):
    """Shapes are known under a transformation, so the message is the same, not one about tracers."""
    for changed, pattern in (
        ({"xs": ones(T, B, d + 1)}, r"`xs` must have shape .*d=3 .*got xs.shape=\(5, 6, 4\)"),
        ({"ys": ones(T - 1, B, m)}, r"`xs` and `ys` must share their time axis"),
        ({"h_0": ones(n)}, r"`h_0` must have shape \[\*batch, n\] = \(6, 4\).*got \(4,\)"),
    ):
        with pytest.raises(ValueError, match=pattern):
            transform(lambda theta, changed=changed: objective(theta=theta, **changed))(THETA)


# What is not known when tracing: no exception, but it shows


@pytest.mark.parametrize(("name", "where"), in_turn(["linear", "elman", "gru", "lstm"], ["xs", "ys", "h_0", "theta"]))
def test_nan_in_the_data_shows_in_the_loss(name, where):
    cell, theta_h, h_0 = CELLS[name]
    given: dict[str, Any] = {
        "theta": jb.Theta(theta_h, THETA_O),
        "xs": ones(T, B, d),
        "ys": ones(T, B, m),
        "h_0": h_0,
    }
    F = jax.jit(jb.objective(jb.rnn(cell, jb.readouts.linear()), l2))
    assert np.isfinite(F(*given.values()))
    leaves, treedef = jax.tree.flatten(given[where])
    leaves[0] = np.array(leaves[0])
    leaves[0].flat[-1] = np.nan
    value, grads = jax.value_and_grad(F)(*(given | {where: treedef.unflatten(leaves)}).values())
    assert np.isnan(value)
    assert np.isnan(grads.o.W_o).any()


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_nan_in_the_data_shows_in_an_estimate(make):
    xs = ones(T, B, d)
    xs[2, 3, 1] = np.nan
    estimate, state = update(make, xs=xs)
    assert np.isnan(estimate.loss)
    assert np.isnan(estimate.grads.h.W_h).any()
    # ... of the one sequence that it stands in: the others go on as they were
    others = np.arange(B) != 3
    assert np.isnan(np.asarray(state.h)[3]).all()
    assert np.isfinite(np.asarray(state.h)[others]).all()


def test_a_label_out_of_range_gives_nan():
    logits = np.arange(B * m, dtype=float).reshape(B, m)
    labels = np.zeros(B, np.int32)
    labels[[0, 2, 4]] = -1, m, 100
    for loss in (jb.losses.softmax_cross_entropy, jax.jit(jb.losses.softmax_cross_entropy)):
        np.testing.assert_array_equal(np.isnan(loss(logits, labels)), np.arange(B) % 2 == 0)


def test_a_label_out_of_range_shows_in_F_unless_masked():
    labels = np.zeros((T, B), np.int32)
    labels[1, 2] = m
    given = {"loss": jb.losses.softmax_cross_entropy, "ys": labels}
    assert np.isnan(objective(**given))
    mask = flags(T, B)
    mask[1, 2] = False
    assert np.isfinite(objective(**given, mask=mask))
