"""Mixed precision: bfloat16 operands, float32 everything else; and the states in the host's memory."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import ADJOINTS, BUILT_IN, CELLS, problem
from tests.jaxprs import equations

MIXED = jb.policies.mixed_precision()
LSTM, FROM_STEP = (next(case for case in CELLS if case.name == name) for name in ("lstm", "from_step"))


def models(case, **options):
    """The same problem in float32: as it is, and under the policy."""
    given = problem(case, dtype=jnp.float32, **options)
    return given, given._replace(model=jb.rnn(case.cell, jb.readouts.linear(), policy=MIXED))


def scaled(factor, problems):
    return (given._replace(theta=jax.tree.map(lambda leaf: factor * leaf, given.theta)) for given in problems)


def grads(given, adjoint):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    return jax.jit(jax.value_and_grad(F, argnums=(0, 3)))(given.theta, given.xs, given.ys, given.h_0)


def distances(got, wanted):
    """Leaf by leaf, relative in the 2-norm."""
    return [
        float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    ]


@pytest.mark.parametrize(("case", "one", "other"), cases.in_turn(CELLS, list(ADJOINTS), list(ADJOINTS)[::-1]))
def test_every_adjoint_is_float32_to_the_digits_of_bfloat16(case, one, other):
    """bfloat16 has 8 bits, so a product is off by 2⁻⁸ at most; over a few steps 2% leaves room for no wrong term.

    Parameters are halved: a linear network that explodes multiplies what was rounded.
    """
    plain, mixed = scaled(0.5, models(case, T=5, n=6))
    wanted = grads(plain, jb.adjoints.autodiff())
    for name in {one: (), other: ()}:
        got = grads(mixed, ADJOINTS[name])
        assert max(distances(got, wanted)) < 0.02, name
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got)), name
        if case in BUILT_IN:
            assert min(distances(got[1], wanted[1])) > 1e-5, f"{name}: nothing was rounded"


SOME = ["full", "full-blocks-states", "tangent-blocks", "checkpointed-states", "parallel"]


@pytest.mark.parametrize(
    ("case", "T", "batch", "name"), cases.in_turn([LSTM, FROM_STEP], [1, 7], [(), (1,), (2, 3)], SOME, times=2)
)
def test_lengths_and_batches(case, T, batch, name):
    """On a GPU the user's products are rounded too, which over seven steps of what grows is some per cent."""
    plain, mixed = scaled(0.25, models(case, T=T, batch=batch))
    wanted = grads(plain, jb.adjoints.autodiff())
    assert max(distances(grads(mixed, ADJOINTS[name]), wanted)) < 0.02


@pytest.mark.parametrize(
    ("name", "adjoint"),
    cases.in_turn(["linear", "gru", "stacked", "masked"], ["full", "full-states", "full-blocks", "parallel"]),
)
def test_second_derivatives_over_many_steps(adjoint, name):
    """What is summed over time is summed in float32: a sum in bfloat16 stands still after some hundred steps."""
    plain, mixed = models(next(case for case in CELLS if case.name == name), T=2000, d=2, n=3)
    theta_h = jax.tree.map(lambda leaf: 0.5 * leaf, plain.theta.h)

    def slope(theta_h, cell):
        def F(theta_h):
            return jnp.mean(jnp.sin(jb.unroll(cell, theta_h, plain.xs, plain.h_0, adjoint=ADJOINTS[adjoint])[1] + 1))

        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(jax.grad(F)(theta_h)))

    second = jax.jit(jax.grad(slope), static_argnums=1)
    assert max(distances(second(theta_h, mixed.model.cell), second(theta_h, plain.model.cell))) < 0.02


def test_against_numpy_with_rounded_operands():
    """The linear network, every product's operands rounded by NumPy: forward and backward, to float32's digits."""

    def bf16(array):
        return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)

    case = next(case for case in CELLS if case.name == "linear")
    _, given = models(case, T=4, batch=(3,), d=2, n=5, m=2, bias=True)
    W_x, W_h = (bf16(W) for W in given.theta.h)
    W_o, b = bf16(given.theta.o.W_o), np.asarray(given.theta.o.b, np.float64)
    xs, ys = np.asarray(given.xs, np.float64), np.asarray(given.ys, np.float64)
    hs = [np.asarray(given.h_0, np.float64)]
    for x_t in xs:
        hs.append(bf16(x_t) @ W_x.T + bf16(hs[-1]) @ W_h.T)
    y_hat_bars = [(bf16(h_t) @ W_o.T + b - y_t) / (4 * 3) for h_t, y_t in zip(hs[1:], ys, strict=True)]
    delta, W_x_bar, W_h_bar, W_o_bar = 0.0, 0.0, 0.0, 0.0
    for t in reversed(range(4)):
        delta = delta + bf16(y_hat_bars[t]) @ W_o
        W_o_bar = W_o_bar + bf16(y_hat_bars[t]).T @ bf16(hs[t + 1])
        W_x_bar = W_x_bar + bf16(delta).T @ bf16(xs[t])
        W_h_bar = W_h_bar + bf16(delta).T @ bf16(hs[t])
        delta = bf16(delta) @ W_h
    _, (theta_bar, h_0_bar) = grads(given, jb.adjoints.full())
    for got, wanted in (
        (theta_bar.h.W_x, W_x_bar), (theta_bar.h.W_h, W_h_bar), (theta_bar.o.W_o, W_o_bar), (h_0_bar, delta),
    ):  # fmt: skip
        # Both round to bfloat16, but a sum that differs in float32's last digit may round to the neighbour: 2⁻⁸ of it.
        np.testing.assert_allclose(got, wanted, rtol=1e-2, atol=2e-3 * np.abs(wanted).max())
        assert np.median(np.abs(np.asarray(got) - wanted)) < 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["elman-tanh", "gru", "lstm", "stacked", "masked", "resettable", "learned_start"])
def test_every_product_has_bfloat16_operands_and_a_float32_sum(name):
    _, given = models(next(case for case in CELLS if case.name == name))
    F = jb.objective(given.model, jb.losses.l2_loss)
    jaxpr = jax.make_jaxpr(jax.grad(F))(given.theta, given.xs, given.ys, given.h_0).jaxpr
    products = [equation for equation in equations(jaxpr) if equation.primitive.name == "dot_general"]
    assert len(products) >= 8
    for product in products:
        assert [var.aval.dtype for var in product.invars] == [jnp.bfloat16] * 2
        assert product.outvars[0].aval.dtype == jnp.float32


def test_a_users_products_are_asked_for_bfloat16(monkeypatch):
    """A lower bound that the CPU exceeds and accelerators take at its word: looked up in the program for one."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    _, given = models(next(case for case in CELLS if case.name == "from_step"))
    F = jb.objective(given.model, jb.losses.l2_loss)
    program = jax.export.export(jax.jit(jax.grad(F)), platforms=["cuda"])(given.theta, given.xs, given.ys, given.h_0)
    products = [line for line in program.mlir_module().splitlines() if "stablehlo.dot_general" in line]
    assert len(products) >= 8
    assert all("bf16" in line for line in products)


def test_what_a_user_replaced_stays():
    """An init, an f, a readout's init: the policy is one of precision and of nothing else."""
    cell = jb.cells.gru()._replace(init=lambda *arguments: "mine")
    assert jb.cells.mixed_precision(cell).init() == "mine"
    assert jb.cells.mixed_precision(jb.cells.masked(cell)).init() == "mine"
    zero = jb.cells.linear()._replace(apply=lambda theta_h, x_t, h_tm1: 0 * h_tm1)
    theta_h = jb.cells.LinearParams(jnp.ones((2, 2)), jnp.ones((2, 2)))
    np.testing.assert_array_equal(jb.cells.mixed_precision(zero).apply(theta_h, jnp.ones(2), jnp.ones(2)), np.zeros(2))
    readout = jb.readouts.linear()._replace(init=lambda *arguments: "mine")
    assert jb.readouts.mixed_precision(readout).init() == "mine"
    twice = jb.cells.mixed_precision(jb.cells.mixed_precision(jb.cells.lstm()))
    assert twice == jb.cells.mixed_precision(jb.cells.lstm())


@pytest.mark.parametrize(
    ("name", "residuals"), cases.in_turn(["gru", "lstm", "from_step"], ["gates", "states"], times=2)
)
def test_states_in_host_memory(monkeypatch, name, residuals):
    """The CPU's own memory is the host's, so the numbers can be had here once the check is out of the way."""
    given = problem(next(case for case in CELLS if case.name == name), T=7)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    adjoint = jb.adjoints.full(block=3, residuals=residuals, memory="host")
    cases.assert_close(grads(given, adjoint), grads(given, jb.adjoints.autodiff()))

    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    arguments = (given.theta, given.xs, given.ys, given.h_0)
    program = jax.export.export(jax.jit(jax.grad(F)), platforms=["cuda"])(*arguments).mlir_module()
    moves = [line for line in program.splitlines() if "annotate_device_placement" in line]
    kept = {"gru": 1, "lstm": 2, "from_step": 2}[name]
    if residuals == "gates":
        kept += {"gru": 4, "lstm": 4, "from_step": 0}[name]  # a user's step needs its input, which is there
    # there and back, each in the loop over blocks
    assert sum("pinned_host" in line for line in moves) == kept
    assert sum('"device"' in line for line in moves) == kept
