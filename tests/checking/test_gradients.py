"""The check of the gradient of a whole model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.checking import report
from tests.cases import CELLS, problem
from tests.checking.given import WRONG
from tests.checking.mutations import MUTATIONS
from tests.checking.readouts import READOUTS, WRONG_READOUTS


def _truncated(cell, theta_h, xs, h_0):
    """Right values, and a gradient that does not flow from step 4 to step 3."""
    plain = jb.adjoints.autodiff()
    h_3, early = plain(cell, theta_h, xs[:3], h_0)
    h_T, late = plain(cell, theta_h, xs[3:], jax.lax.stop_gradient(h_3))
    return h_T, jnp.concatenate([early, late])


def _deaf(cell, theta_h, xs, h_0):
    """Wrong in θ alone."""
    frozen = jax.tree.map(jax.lax.stop_gradient, theta_h)
    return jb.adjoints.autodiff()(cell, frozen, xs, h_0)


def given(name="elman-tanh", dtype=jnp.float64):
    (case,) = (case for case in CELLS if case.name == name)
    return problem(case, T=6, batch=(3,), dtype=dtype)


MASK = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1]], bool)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["gru", "stacked", "from_step", "masked"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["", "mask"])
def test_right_gradients_pass(name, mask):
    p = given(name)
    report = jb.check_gradients(p.model, jb.losses.l2_loss, p.theta, p.xs, p.ys, p.h_0, mask)
    assert report.tolerance < 1e-11
    leaves = [row.leaf for row in report.rows]
    assert sum(leaf.startswith("theta.h") for leaf in leaves) == len(jax.tree.leaves(p.theta.h))
    assert "theta.o.W_o" in leaves
    assert sum(leaf.startswith("xs") for leaf in leaves) == 1  # flags have no gradient
    assert sum(leaf.startswith("h_0") for leaf in leaves) == len(jax.tree.leaves(p.h_0))
    assert str(report).startswith("check_gradients: 1 case, worst relative error")


@pytest.mark.parametrize("dtype", [None, jnp.float64], ids=["as-given", "sharp"])
def test_gradients_in_single_precision_while_x64_is_off(dtype):
    def single(leaf):
        return np.asarray(leaf).astype(np.float32)

    p = given()
    data = jax.tree.map(single, (p.theta, p.xs, p.ys, p.h_0))
    with jax.enable_x64(False):
        # A rule that is off by 1e-5 is within the rounding of float32, and found by the sharp check alone.
        model = jb.rnn(p.case.cell, p.model.readout._replace(vjp=_slightly_wrong))
        if dtype is None:
            report = jb.check_gradients(model, jb.losses.l2_loss, *data, MASK)
        else:
            report = jb.check_gradients(p.model, jb.losses.l2_loss, *data, MASK, dtype=dtype)
            with pytest.raises(WRONG, match=r"theta\.o\.W_o\["):
                jb.check_gradients(model, jb.losses.l2_loss, *data, MASK, dtype=dtype)
        assert jnp.ones(1).dtype == jnp.float32  # the setting is as it was
    worst = max(row.autodiff for row in report.rows)
    if dtype is None:
        assert 5e-6 < worst < report.tolerance < 1e-2
    else:
        assert worst < report.tolerance < 1e-11


def _slightly_wrong(*arguments):
    theta_bar, h_bar = READOUTS["linear"].vjp(*arguments)
    return theta_bar._replace(W_o=theta_bar.W_o * jnp.asarray(1 + 1e-5, theta_bar.W_o.dtype)), h_bar


@pytest.mark.usefixtures("eager")
def test_the_step_at_which_a_gradient_goes_astray():
    p = given()
    with pytest.raises(WRONG, match=r"`theta\.h\.W_x\[.*first at step t=3, counting back from T"):
        jb.check_gradients(p.model, jb.losses.l2_loss, p.theta, p.xs, p.ys, p.h_0, adjoint=_truncated)
    with pytest.raises(WRONG, match=r"`theta\.h\.W_x\[.*at every step alike"):
        jb.check_gradients(p.model, jb.losses.l2_loss, p.theta, p.xs, p.ys, p.h_0, adjoint=_deaf)


@pytest.mark.usefixtures("eager")
def test_a_wrong_cell_or_readout_in_a_model_is_found():
    p = given()
    (one,) = (mutation for mutation in MUTATIONS if mutation.name == "split_no_bias_bar")
    for model, leaf in (
        (jb.rnn(one.mutate(p.case.cell), p.model.readout), r"`theta\.h\.b\["),
        (jb.rnn(p.case.cell, p.model.readout._replace(vjp=WRONG_READOUTS["half"][1])), r"`theta\.o\.W_o\["),
    ):
        with pytest.raises(WRONG, match=leaf):
            jb.check_gradients(model, jb.losses.l2_loss, p.theta, p.xs, p.ys, p.h_0)


def test_a_difference_that_is_not_finite_is_a_mismatch():
    """It has no uncertainty that could excuse it."""

    def cliff(p):
        return 1.0 if p[0] == 1 else np.nan

    with pytest.raises(jb.checking.GradientMismatchError, match=r"⟨p, v⟩.*nan"):
        report.difference_errors(
            "p", cliff, np.ones(1), np.ones(1), jax.random.key(0), report.tolerances(np.float64), "there"
        )
