"""A small model, batches for it, and optimisers, for every file here."""

import jax
import numpy as np
import optax
import pytest

import jaxbptt as jb
from tests.cases import CELLS, problem

ELMAN = next(case for case in CELLS if case.name == "elman-tanh")
l2 = jb.losses.l2_loss
ESTIMATORS = {"bptt": jb.estimators.bptt, "rtrl": jb.estimators.rtrl}
estimators = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)

GIVEN = problem(ELMAN, T=4, batch=(3,))
MODEL = GIVEN.model
BPTT = jb.estimators.bptt(MODEL, l2)
# One object each, as whoever makes a new optimiser compiles anew.
SGD = optax.sgd(0.1)
STILL = optax.sgd(0.0)
MOMENTUM = optax.sgd(0.1, momentum=0.9)  # an optimiser with a state


def batches(number, *, T=4, B=3, seed=0):
    """`number` batches of random numbers, all different, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, 2))) for _ in range(number)]


def with_nan(batch):
    xs, ys = batch
    return xs, np.where(np.arange(ys.size).reshape(ys.shape) == 5, np.nan, ys)


def arrays(tree):
    """Copies on the host: what a state held, whatever is donated later."""
    return jax.tree.map(np.array, tree)


def assert_equal(got, wanted):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(g, w)
