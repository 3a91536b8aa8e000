"""The check of a cell catches every wrong rule that is put before it."""

import re

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from tests.cases import CELLS
from tests.checking.given import CELL, ONCE, WRONG, inputs_of
from tests.checking.mutations import MUTATIONS, after_vjp, with_split


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_wrong_rules_are_caught(mutation):
    """In every cell that it can be wrong in."""
    for name in mutation.cells.split():
        try:
            jb.check_cell(mutation.mutate(CELL[name]), **ONCE)
        except WRONG as caught:
            message = str(caught)
        else:
            pytest.fail(f"{name} with this rule passes")
        where = r'adjoints.full\(residuals="\w+"\) over 2 steps' if mutation.name.startswith("split") else "step t=1"
        assert re.search(rf"\({where}, seed=0, input_size=4, hidden_size=3, batch_shape=\(2,\)\)", message), name
        if mutation.leaf.startswith("no cotangent"):
            assert f"the rule gives {mutation.leaf} " in message, name
        else:
            assert re.match(rf"`{mutation.leaf}", message), name
            assert re.search(r"rule is \S+, jax.vjp gives \S+: relative error \S+, allowed", message), name


@pytest.mark.usefixtures("eager")
def test_the_message_has_both_values():
    """Of the one element that is wrong: they differ by what was added."""
    (one,) = (mutation for mutation in MUTATIONS if mutation.name == "vjp_one_element")
    with pytest.raises(WRONG) as caught:
        jb.check_cell(one.mutate(CELL["lstm"]), **ONCE)
    got, wanted = re.search(r"rule is (\S+), jax.vjp gives (\S+): ", str(caught.value)).groups()
    assert float(got) - float(wanted) == pytest.approx(1e-9, rel=1e-5)


@pytest.mark.usefixtures("eager")
def test_the_step_is_the_one_that_is_wrong():
    """A rule that goes wrong when the input passes a threshold, which the third one does first."""
    cell = CELL["elman-tanh"]

    def vjp(theta_h, x_t, *rest):
        theta_bar, x_bar_t, h_bar_tm1 = cell.vjp(theta_h, x_t, *rest)
        return theta_bar, jnp.where(x_t[0, 0] > 2.5, 2.0, 1.0) * x_bar_t, h_bar_tm1

    def inputs(key, shape, input_size, dtype):
        return jnp.broadcast_to(jnp.arange(1, shape[0] + 1, dtype=dtype)[:, None, None], (*shape, input_size))

    with pytest.raises(WRONG, match=r"`x_t\[.*\(step t=3, seed=0"):
        jb.check_cell(cell._replace(vjp=vjp), **{**ONCE, "steps": 3}, inputs=inputs)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["stacked", "masked", "resettable", "learned_start", "from_step", "by_hand"])
def test_wrong_rules_of_other_cells_are_caught(name):
    """Every leaf of θ in turn gets a wrong element, in `vjp` and (where there is one) in `split`."""
    (case,) = (case for case in CELLS if case.name == name)
    cell, theta_h = case.cell, case.cell.init(jax.random.key(0), 4, 3, jnp.float64)
    paths = [path for path, _ in jax.tree.leaves_with_path(theta_h)]

    def spoilt(k, theta_bar):
        leaves, treedef = jax.tree.flatten(theta_bar)
        leaves[k] = leaves[k].at[(1,) * leaves[k].ndim].add(1e-8)
        return treedef.unflatten(leaves)

    for k in range(len(paths)):
        leaf = re.escape(jax.tree_util.keystr(paths[k])) + r"\[1"
        wrong = after_vjp(lambda theta_bar, *rest, k=k: (spoilt(k, theta_bar), *rest))(cell)
        with pytest.raises(WRONG, match=rf"^`theta_h{leaf}"):
            jb.check_cell(wrong, **ONCE, inputs=inputs_of(case))
        if cell.split is not None:
            wrong = with_split(cell, param_vjp=lambda *step, k=k: spoilt(k, cell.split.param_vjp(*step)))
            with pytest.raises(WRONG, match=rf"^`full: theta_h{leaf}"):
                jb.check_cell(wrong, **ONCE, inputs=inputs_of(case))


def _with_a_far_corner(theta_h, x_t, h_tm1):
    return jnp.minimum(h_tm1, 50.0) + x_t @ theta_h["U"].T


def _declared(cell, **declared):
    return cell._replace(split=cell.split._replace(**declared))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("cell", "leaf"),
    [
        (_declared(CELL["affine"], jacobian="diagonal"), "diagonal: h_tm1"),
        (
            _declared(CELL["lstm"], jacobian="diagonal"),
            r"diagonal: h_tm1\.h",
        ),  # each leaf on its own
        (_declared(CELL["elman-tanh"], affine=True), "affine: h_t"),
        (
            jb.cells.from_step(_with_a_far_corner, CELL["diagonal"].init, CELL["diagonal"].initial_state, affine=True),
            "affine, far: h_t",
        ),
    ],
    ids=["dense", "two-leaves", "curved", "corner"],
)
def test_false_declarations_are_caught(cell, leaf):
    with pytest.raises(WRONG, match=rf"is declared and false: `{leaf}\[.*step t=1, seed=0.*; declare `"):
        jb.check_cell(cell, **ONCE)


def test_what_a_combinator_hands_on_holds():
    """A false one would be caught; a true one that is lost would cost a fast path."""

    def declared(cell):
        return cell.split.jacobian, cell.split.affine

    C, diagonal = jb.cells, CELL["diagonal"]
    for combinator in (C.masked, C.resettable, C.learned_start, C.mixed_precision):
        assert declared(combinator(diagonal)) == ("diagonal", True)
    assert declared(C.masked(C.linear())) == declared(C.linear()) == ("dense", True)
    assert declared(C.mixed_precision(C.linear())) == declared(C.stacked(diagonal)) == ("dense", False)
    flagged = {"mask": C.masked(diagonal), "reset": C.resettable(CELL["affine"])}
    with jax.disable_jit():
        for name, cell in flagged.items():
            (case,) = (case for case in CELLS if case.name == {"mask": "masked", "reset": "resettable"}[name])
            jb.check_cell(cell, **ONCE, inputs=inputs_of(case))


@pytest.mark.usefixtures("eager")
def test_a_division_with_other_states_is_caught():
    """Its gradients are right and its states are not: what is sequential and what is not must still make f."""

    def step(theta_h, x_t, h_tm1):
        return h_tm1 + theta_h * x_t

    def init(key, input_size, hidden_size, dtype):
        return jax.random.normal(key, (input_size,), dtype)

    def initial_state(theta_h, batch_shape):
        return jnp.zeros((*batch_shape, *theta_h.shape), theta_h.dtype)

    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: h_tm1 + jnp.broadcast_to(theta_h, x_t.shape) * x_t)
    cell = cell._replace(init=init, initial_state=initial_state)
    jb.check_cell(cell, **ONCE)

    def shifted(*arguments):
        h_t, kept_t = cell.split.step(*arguments)
        return h_t + 1, kept_t

    with pytest.raises(WRONG, match="full"):
        jb.check_cell(with_split(cell, step=shifted), **ONCE)
