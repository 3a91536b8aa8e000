"""`apply` and `vjp` are the truth about a cell: a division over time of another pair is not used."""

import jax
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import ADJOINTS, CELLS, CellCase, assert_close, in_turn, oracle, problem


def twice(x):
    """The numbers of an input doubled, its flags kept."""
    return x._replace(x=2 * x.x) if hasattr(x, "x") else 2 * x


def of_twice_the_input(cell):
    """``f(2 x_t, h_{t-1})``, with its pullback, in a cell that still has the division of f."""

    def apply(theta_h, x_t, h_tm1):
        return cell.apply(theta_h, twice(x_t), h_tm1)

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        theta_bar, x_bar_t, h_bar_tm1 = cell.vjp(theta_h, twice(x_t), h_tm1, h_t, h_bar_t)
        return theta_bar, twice(x_bar_t), h_bar_tm1

    return cell._replace(apply=apply, vjp=vjp)


SOME = ["full", "full-states", "full-blocks-states", "tangent-blocks", "parallel", "checkpointed-states"]
CASE = {case.name: case for case in CELLS}
INSIDE = {
    "masked": jb.cells.masked(of_twice_the_input(jb.cells.lstm())),
    "resettable": jb.cells.resettable(of_twice_the_input(jb.cells.gru())),
    "stacked": jb.cells.stacked(of_twice_the_input(jb.cells.gru()), jb.cells.lstm()),
}
REPLACED = {
    **{name: of_twice_the_input(CASE[name].cell) for name in ("lstm", "from_step", "masked", "stacked", "by_hand")},
    **{f"inside {name}": cell for name, cell in INSIDE.items()},
    "rounded lstm": jb.cells.mixed_precision(of_twice_the_input(jb.cells.lstm())),
    "rounded, inside stacked": jb.cells.mixed_precision(INSIDE["stacked"]),
    "rounded before": of_twice_the_input(jb.cells.mixed_precision(cases.by_hand)),
    "with another's split": of_twice_the_input(jb.cells.gru())._replace(split=jb.cells.elman().split),
}
OF = {"rounded lstm": "lstm", "rounded before": "by_hand", "with another's split": "gru"}


@pytest.mark.parametrize(("name", "adjoint"), in_turn(list(REPLACED), [*SOME, "autodiff"], times=2))
def test_every_adjoint_is_of_what_replaced_the_function(name, adjoint):
    """Also with bfloat16 asked for: of a function of yours a CPU rounds nothing; its neighbours' operands, some."""
    given = CASE[OF.get(name, name.split()[-1])]
    case = CellCase(
        name, REPLACED[name], lambda theta, x, h: given.step(theta, twice(x), h), given.output, given.inputs
    )
    drawn = problem(case, T=5)
    F = jb.objective(drawn.model, jb.losses.l2_loss, adjoint=ADJOINTS[adjoint])
    run = jax.jit(jax.value_and_grad(F, argnums=(0, 1, 3), allow_int=True))
    value, bars = run(drawn.theta, drawn.xs, drawn.ys, drawn.h_0)
    bars = jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, bars)
    wanted_value, wanted = oracle(drawn)
    rounded = name == "rounded, inside stacked"
    np.testing.assert_allclose(value, wanted_value, rtol=1e-2 if rounded else 1e-12)
    assert_close(bars, wanted, 0.05 if rounded else 1e-10)


@pytest.mark.parametrize(("name", "adjoint"), in_turn(["lstm", "from_step", "by_hand"], SOME))
def test_a_pullback_alone_is_obeyed(name, adjoint):
    """A wrong one too, which is what `check_cell` finds: here three times what is right for θ_h."""

    def vjp(*step):
        theta_bar, *rest = CASE[name].cell.vjp(*step)
        return jax.tree.map(lambda leaf: 3 * leaf, theta_bar), *rest

    drawn = problem(CASE[name], T=5)
    model = jb.rnn(CASE[name].cell._replace(vjp=vjp), jb.readouts.linear())
    F = jb.objective(model, jb.losses.l2_loss, adjoint=ADJOINTS[adjoint])
    found = jax.jit(jax.grad(F))(drawn.theta, drawn.xs, drawn.ys, drawn.h_0)
    assert_close(found.h, jax.tree.map(lambda leaf: 3 * leaf, oracle(drawn)[1][0].h))
