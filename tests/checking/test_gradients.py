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
    report = jb.check_gradients(p.model, jb.losses.l2_loss, p.theta, p.xs, p.ys, p.h_0, mask=mask)
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
            report = jb.check_gradients(model, jb.losses.l2_loss, *data, mask=MASK)
        else:
            report = jb.check_gradients(p.model, jb.losses.l2_loss, *data, mask=MASK, dtype=dtype)
            with pytest.raises(WRONG, match=r"theta\.o\.W_o\["):
                jb.check_gradients(model, jb.losses.l2_loss, *data, mask=MASK, dtype=dtype)
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


LARGE_STEPS = report.Tolerances(1e-12, 1e-8, 0.1)
STEP = float(jnp.finfo(jnp.float64).eps) ** (1 / 3)


BY_HAND = [
    (lambda x: x**2 + 3 * x, 3.1, True), (lambda x: 5 + 0 * x, 1e-3, True), (lambda x: np.sin(1e4 * x), 1e4 + 1, True),
    (lambda x: abs(x), 0.5, False), (lambda x: max(x, 0), 1.0, False), (lambda x: max(x, 0) + 2 * max(-x, 0), 0, False),
    (lambda x: max(x + 0.3 * STEP, 0), 1.0, False), (lambda x: max(x + 0.3 * STEP, 0), 0.9, True),
    (lambda x: np.sin(1e7 * x), 1e7, False), (lambda x: np.sin(1e12 * x), 1e12, False),
    (lambda x: np.tanh(1e12 * x), 1e12, False), (lambda x: np.tanh(1e12 * x) + 1e-3 * np.sin(3e9 * x + 1), 1e12, False),
    (lambda x: (np.float64(3 * x) + 1e3) - 1e3, 6.0, True),
]  # fmt: skip


def test_what_differences_tell_by_hand():
    """Slopes at 0, wrong ones where there is one and any where there is none."""
    found = []
    for F, derivative, _ in BY_HAND:
        difference = (8 * (F(STEP) - F(-STEP)) - (F(2 * STEP) - F(-2 * STEP))) / (12 * STEP)
        found.append(report._tells_otherwise(F, derivative, difference, STEP))
    assert found == [tells for _, _, tells in BY_HAND]


def test_right_gradients_pass_at_corners():
    """Pixels that are 0 where h_0 and the bias are 0: what relu is given is 0."""
    model = jb.rnn(jb.cells.elman("relu"), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=1, hidden_size=16, output_size=10)
    xs = jnp.clip(jax.random.normal(jax.random.key(1), (20, 4, 1)), 0).at[:3].set(0)
    ys = jax.random.randint(jax.random.key(2), (20, 4), 0, 10)
    rows = jb.check_gradients(model, jb.losses.softmax_cross_entropy, theta, xs, ys, dtype=jnp.float64).rows
    assert {row.leaf for row in rows if np.isnan(row.differences)} >= {"theta.h.b"}
    assert all(row.differences < 1e-6 for row in rows if row.leaf.startswith("theta.o"))


def test_differences_of_what_explodes_are_not_counted():
    """A slope of 1e7 that no step of a difference is short enough for, beside one that all are."""

    def F(x):
        return float(np.sin(1e7 * x["steep"].sum()) + x["flat"].sum())

    x, bars = {"steep": np.zeros(1), "flat": np.zeros(2)}, {"steep": np.full(1, 1e7), "flat": np.ones(2)}
    scales = report.tolerances(jnp.float64)
    errors = report.difference_errors("x", F, x, bars, jax.random.key(0), scales, "here")
    assert np.isnan(errors["x['steep']"]).all()
    error, uncertainty = errors["x['flat']"]
    assert error - uncertainty <= scales.differences


def test_a_difference_is_shown_as_it_was_measured():
    """F(x) = x⁵ at 1 with steps of 0.1: an error that is not zero, within what two step sizes disagree by."""
    errors = report.difference_errors(
        "x", lambda x: float(x[0] ** 5), np.ones(1), np.full(1, 5.0), jax.random.key(0), LARGE_STEPS, "here"
    )
    ((error, uncertainty),) = errors.values()
    # By hand, the difference is 5 - 4 ε⁴, and the slopes over ε and 2ε are 30 ε² + 15 ε⁴ apart.
    np.testing.assert_allclose(error, 4e-4 / 5, rtol=1e-9)
    np.testing.assert_allclose(uncertainty, 10 * (30e-2 + 15e-4) / 5, rtol=1e-9)
    wrong = np.full(1, 5.0 + 5 * uncertainty)
    with pytest.raises(WRONG, match="central difference"):
        report.difference_errors(
            "x", lambda x: float(x[0] ** 5), np.ones(1), wrong, jax.random.key(0), LARGE_STEPS, "here"
        )


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("what", ["mask", "dead"])
@pytest.mark.parametrize("rule", ["right", "wrong"])
def test_where_no_gradient_reaches_the_state_nothing_was_checked(what, rule):
    """The readout's bias has a gradient still, where all units are dead."""
    p = given("elman-relu")
    theta = p.theta._replace(h=p.theta.h._replace(b=p.theta.h.b - (100.0 if what == "dead" else 0.0)))
    mask = np.full((6, 3), what != "mask")
    (one,) = (mutation for mutation in MUTATIONS if mutation.name == "split_no_bias_bar")
    model = p.model if rule == "right" else jb.rnn(one.mutate(p.case.cell), p.model.readout)
    with pytest.raises(ValueError, match="all of ∂F/∂θ_h is zero, so that a wrong rule would pass"):
        jb.check_gradients(model, jb.losses.l2_loss, theta, p.xs, p.ys, jax.tree.map(abs, p.h_0), mask=mask)


def test_a_relu_cell_passes_in_single_precision():
    jb.check_cell(jb.cells.elman("relu"), seeds=(2,), sizes=((3, 5),), batch_shapes=((8,),), dtype=jnp.float32)
