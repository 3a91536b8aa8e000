"""The checks accept right rules, and catch every wrong one that is put before them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.checking import __main__ as command
from jaxbptt.checking import report
from tests.cases import BUILT_IN, CELLS, problem

WRONG = jb.checking.GradientMismatchError
# One problem, all sizes different, for what is wrong everywhere.
ONCE: dict[str, Any] = {"seeds": (0,), "sizes": ((4, 3),), "batch_shapes": ((2,),), "steps": 2}
CELL = {case.name: case.cell for case in CELLS}
by_name = pytest.mark.parametrize("name", [case.name for case in BUILT_IN])


@pytest.fixture
def eager():
    """Many small checks: one operation at a time, as compiling each of them would take a second."""
    with jax.disable_jit():
        yield


def inputs_of(case):
    """What `check_cell` calls to draw inputs, in its order of arguments."""
    return case.inputs and (lambda key, shape, input_size, dtype: case.inputs(key, shape, input_size, dtype))


# Right rules


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("case", CELLS, ids=lambda case: case.name)
def test_right_cells_pass(case):
    report = jb.check_cell(case.cell, **ONCE, inputs=inputs_of(case))
    leaves = [row.leaf for row in report.rows]
    assert any(leaf.startswith("theta_h") for leaf in leaves)
    assert any(leaf.startswith("x_t") for leaf in leaves)
    assert any(leaf.startswith("h_tm1") for leaf in leaves)
    assert any(leaf.startswith("full: theta_h") for leaf in leaves)
    for row in report.rows:
        assert row.autodiff <= report.tolerance < 1e-11
        assert np.isnan(row.differences) == row.leaf.startswith("full: ")
        assert np.isnan(row.differences) or row.differences <= report.difference_tolerance < 1e-7


@pytest.mark.usefixtures("eager")
def test_the_report_is_a_table_of_all_cases():
    report = jb.check_cell(CELL["lstm"], **{**ONCE, "seeds": (0, 1), "batch_shapes": ((2,), (2,))})
    assert report.cases == 2 * 1 * 2 * (
        2 + 2
    )  # seeds · sizes · batches · (steps, and the trajectory with both residuals)
    assert [row.leaf for row in report.rows] == [
        *("theta_h.W_x", "theta_h.W_h", "theta_h.b", "x_t", "h_tm1.h", "h_tm1.c"),
        *("full: h_T.h", "full: h_T.c", "full: hs"),
        *("full: theta_h.W_x", "full: theta_h.W_h", "full: theta_h.b", "full: xs", "full: h_0.h", "full: h_0.c"),
    ]
    title, head, *rows, allowed = str(report).splitlines()
    assert title == "check_cell: 16 cases, worst relative error"
    assert head.split() == ["leaf", "jax", "differences"]
    for line, row in zip(rows, report.rows, strict=True):
        differences = "-" if row.leaf.startswith("full") else f"{row.differences:.1e}"
        assert line.split()[-2:] == [f"{row.autodiff:.1e}", differences]
        assert line.startswith(row.leaf)
    assert allowed.split() == ["allowed", f"{report.tolerance:.1e}", f"{report.difference_tolerance:.1e}"]
    assert len({len(line) for line in (head, *rows, allowed)}) == 1  # columns line up


@pytest.mark.usefixtures("eager")
def test_a_check_in_single_precision():
    report = jb.check_cell(CELL["elman-tanh"], **ONCE, dtype=jnp.float32)
    assert 1e-4 < report.tolerance < 1e-2
    assert max(row.autodiff for row in report.rows) > 1e-9  # it was float32


# Wrong rules: a function from a cell to a wrong one, and the leaf at which that shows


class Mutation(NamedTuple):
    name: str
    cells: str
    leaf: str
    mutate: Callable


MUTATIONS: list[Mutation] = []


def mutation(cells, leaf):
    def add(function):
        MUTATIONS.append(Mutation(function.__name__.removeprefix("_"), cells, leaf, function))
        return function

    return add


def after_vjp(change):
    """The cell whose `vjp` gives ``change(theta_bar, x_bar_t, h_bar_tm1)``."""

    def mutate(cell):
        return cell._replace(vjp=lambda *arguments: change(*cell.vjp(*arguments)))

    return mutate


def with_split(cell, **functions):
    return cell._replace(split=cell.split._replace(**functions))


def transposed(theta_h):
    """W_h with each gate's block transposed: the same shape, so nothing but the numbers gives it away."""
    n = theta_h.W_h.shape[1]
    blocks = jnp.split(theta_h.W_h, theta_h.W_h.shape[0] // n)
    return theta_h._replace(W_h=jnp.concatenate([block.T for block in blocks]))


def blocks_swapped(rows, i, j):
    """Two gates' blocks of rows in each other's place."""
    n = rows.shape[0] // (4 if rows.shape[0] % 4 == 0 else 3)
    order = list(range(rows.shape[0] // n))
    order[i], order[j] = order[j], order[i]
    blocks = jnp.split(rows, len(order))
    return jnp.concatenate([blocks[k] for k in order])


EVERY = "linear elman-tanh elman-relu elman-sigmoid gru lstm"
BIASED = "elman-tanh elman-relu elman-sigmoid gru lstm"
FOUR = "linear elman-tanh gru lstm"  # relu and sigmoid share all but φ' with tanh


@mutation(EVERY, "h_tm1")
def _vjp_transposed(cell):
    def vjp(theta_h, *step):
        theta_bar, x_bar_t, _ = cell.vjp(theta_h, *step)
        return theta_bar, x_bar_t, cell.vjp(transposed(theta_h), *step)[2]

    return cell._replace(vjp=vjp)


@mutation(FOUR, "theta_h.W_x")
def _vjp_twice_W_x_bar(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_x=2 * theta_bar.W_x), *rest))(cell)


@mutation(FOUR, "theta_h.W_h")
def _vjp_wrong_sign(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_h=-theta_bar.W_h), *rest))(cell)


@mutation(EVERY, r"theta_h.W_h\[0, 1\]")
def _vjp_one_element(cell):
    def change(theta_bar, *rest):
        return theta_bar._replace(W_h=theta_bar.W_h.at[0, 1].add(1e-9)), *rest

    return after_vjp(change)(cell)


@mutation(FOUR, "theta_h.W_x")
def _vjp_mean_over_the_batch(cell):
    """A sum over the batch is due."""
    return after_vjp(lambda theta_bar, *rest: (jax.tree.map(lambda leaf: leaf / 2, theta_bar), *rest))(cell)


@mutation(FOUR, "theta_h.W_x")
def _vjp_nan(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_x=theta_bar.W_x.at[1, 1].set(jnp.nan)), *rest))(
        cell
    )


@mutation(EVERY, "x_t")
def _vjp_no_x_bar(cell):
    return after_vjp(lambda theta_bar, x_bar_t, h_bar_tm1: (theta_bar, 0 * x_bar_t, h_bar_tm1))(cell)


@mutation(FOUR, "no cotangent of the right shape for x_t")
def _vjp_none_for_x_bar(cell):
    return after_vjp(lambda theta_bar, x_bar_t, h_bar_tm1: (theta_bar, None, h_bar_tm1))(cell)


@mutation(FOUR, "no cotangent of the right shape for theta_h.W_h")
def _vjp_none_for_W_h_bar(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_h=None), *rest))(cell)


@mutation(FOUR, "no cotangent of the right shape for theta_h.W_x")
def _vjp_wrong_shape(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_x=theta_bar.W_x.T), *rest))(cell)


@mutation(BIASED, "theta_h.b")
def _vjp_no_bias_bar(cell):
    def change(theta_bar, *rest):
        field = theta_bar._fields[-1]
        return theta_bar._replace(**{field: 0 * getattr(theta_bar, field)}), *rest

    return after_vjp(change)(cell)


@mutation("elman-tanh elman-sigmoid elman-relu", "theta_h.W_x")
def _vjp_without_the_derivative_of_phi(cell):
    """The rule of the linear unit: φ' forgotten."""

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        theta_bar = type(theta_h)(h_bar_t.T @ x_t, h_bar_t.T @ h_tm1, jnp.sum(h_bar_t, 0))
        return theta_bar, h_bar_t @ theta_h.W_x, h_bar_t @ theta_h.W_h

    return cell._replace(vjp=vjp)


@mutation("gru lstm", "theta_h.W_x")
def _vjp_swapped_gates(cell):
    def change(theta_bar, *rest):
        return theta_bar._replace(W_x=blocks_swapped(theta_bar.W_x, 0, 1)), *rest

    return after_vjp(change)(cell)


@mutation("gru", "theta_h.b_h")
def _vjp_forgets_r_in_b_h_bar(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(b_h=theta_bar.b_x), *rest))(cell)


@mutation("lstm", "theta_h.W_x")
def _vjp_forgets_c_bar(cell):
    """The path of c_t that doesn't go through h_t."""

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        return cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t._replace(c=0 * h_bar_t.c))

    return cell._replace(vjp=vjp)


@mutation("lstm", r"h_tm1\.c")
def _vjp_keeps_all_memory(cell):
    """c_bar_{t-1} = f ∘ c_bar without f."""

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        theta_bar, x_bar_t, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
        return theta_bar, x_bar_t, h_bar_tm1._replace(c=h_bar_t.c)

    return cell._replace(vjp=vjp)


@mutation(EVERY, "full: ")
def _split_transposed(cell):
    def step_vjp(theta_h, *rest):
        return cell.split.step_vjp(transposed(theta_h), *rest)

    return with_split(cell, step_vjp=step_vjp)


@mutation(EVERY, "full: ")
def _split_forgets_the_past(cell):
    def step_vjp(*arguments):
        z_bar_t, h_bar_tm1 = cell.split.step_vjp(*arguments)
        return z_bar_t, jax.tree.map(jnp.zeros_like, h_bar_tm1)

    return with_split(cell, step_vjp=step_vjp)


@mutation(FOUR, r"full: theta_h\.W_h")
def _split_reads_h_t_instead_of_h_tm1(cell):
    def param_vjp(theta_h, xs, hs_tm1, *rest):
        later = jax.tree.map(lambda hs: jnp.roll(hs, -1, axis=0), hs_tm1)
        return cell.split.param_vjp(theta_h, xs, later, *rest)

    return with_split(cell, param_vjp=param_vjp)


@mutation(FOUR, r"full: theta_h\.W_h\[0, 1\]")
def _split_one_element(cell):
    def param_vjp(*arguments):
        theta_bar = cell.split.param_vjp(*arguments)
        return theta_bar._replace(W_h=theta_bar.W_h.at[0, 1].add(1e-9))

    return with_split(cell, param_vjp=param_vjp)


@mutation(FOUR, "full: xs")
def _split_no_xs_bar(cell):
    return with_split(cell, input_vjp=lambda *arguments: 0 * cell.split.input_vjp(*arguments))


@mutation(FOUR, r"full: theta_h\.W_x")
def _split_nan(cell):
    def param_vjp(*arguments):
        theta_bar = cell.split.param_vjp(*arguments)
        return theta_bar._replace(W_x=theta_bar.W_x * jnp.nan)

    return with_split(cell, param_vjp=param_vjp)


@mutation(BIASED, r"full: theta_h\.b")
def _split_no_bias_bar(cell):
    def param_vjp(*arguments):
        theta_bar = cell.split.param_vjp(*arguments)
        field = theta_bar._fields[-1]
        return theta_bar._replace(**{field: 0 * getattr(theta_bar, field)})

    return with_split(cell, param_vjp=param_vjp)


@mutation("elman-tanh elman-sigmoid gru lstm", "full: h_T")
def _split_projects_another_bias(cell):
    """The division of f over time does not make f: a factor forgotten in `project`."""
    return with_split(cell, project=lambda *arguments: 0.5 * cell.split.project(*arguments))


@mutation("gru lstm", "full: theta_h")
def _split_gates_without_the_past(cell):
    def gates(theta_h, us, hs_tm1, hs):
        return cell.split.gates(theta_h, us, jax.tree.map(jnp.zeros_like, hs_tm1), hs)

    return with_split(cell, gates=gates)


@mutation("gru lstm", "full: theta_h")
def _split_swapped_gates(cell):
    def gates(*arguments):
        kept = cell.split.gates(*arguments)
        return kept._replace(**dict(zip(kept._fields[:2], reversed(kept[:2]), strict=True)))

    return with_split(cell, gates=gates)


@mutation("gru", r"full: theta_h\.(W_h|b_h)")
def _split_forgets_r(cell):
    def param_vjp(theta_h, xs, hs_tm1, gates, z_bars):
        return cell.split.param_vjp(theta_h, xs, hs_tm1, gates._replace(r=jnp.ones_like(gates.r)), z_bars)

    return with_split(cell, param_vjp=param_vjp)


@mutation("gru", "full: theta_h")
def _split_forgets_the_direct_path(cell):
    """h_bar_{t-1} = W_hᵀ v_bar without z ∘ h_bar_t."""

    def step_vjp(theta_h, gates_t, h_tm1, h_t, delta_t):
        u_bar_t, h_bar_tm1 = cell.split.step_vjp(theta_h, gates_t, h_tm1, h_t, delta_t)
        return u_bar_t, h_bar_tm1 - gates_t.z * delta_t

    return with_split(cell, step_vjp=step_vjp)


CAUGHT = [(mutation, name) for mutation in MUTATIONS for name in mutation.cells.split()]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("mutation", "name"), CAUGHT, ids=[f"{name}-{mutation.name}" for mutation, name in CAUGHT])
def test_wrong_rules_are_caught(mutation, name):
    with pytest.raises(WRONG) as caught:
        jb.check_cell(mutation.mutate(CELL[name]), **ONCE)
    message = str(caught.value)
    where = r'adjoints.full\(residuals="\w+"\) over 2 steps' if mutation.name.startswith("split") else "step t=1"
    assert re.search(rf"\({where}, seed=0, input_size=4, hidden_size=3, batch_shape=\(2,\)\)", message)
    if mutation.leaf.startswith("no cotangent"):
        assert f"the rule gives {mutation.leaf} " in message
    else:
        assert re.match(rf"`{mutation.leaf}", message)
        assert re.search(r"` by the hand-written rule is \S+, jax.vjp gives \S+: relative error \S+, allowed", message)


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
@pytest.mark.parametrize("name", ["stacked", "masked", "resettable", "from_step", "by_hand"])
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


# Inputs that are not numbers


def _embed(theta_h, token_t, h_tm1):
    return jnp.tanh(0.9 * h_tm1 + theta_h["embedding"][token_t])


def _embedding(key, input_size, hidden_size, dtype):
    return {"embedding": jax.random.normal(key, (10, hidden_size), dtype)}


def _at_rest(theta_h, batch_shape):
    return jnp.zeros((*batch_shape, theta_h["embedding"].shape[1]), theta_h["embedding"].dtype)


def _tokens(key, shape, input_size, dtype):
    return jax.random.randint(key, shape, 0, 10)


@pytest.mark.usefixtures("eager")
def test_token_ids():
    cell = jb.cells.from_step(_embed, _embedding, _at_rest)
    arguments = {**ONCE, "inputs": _tokens}
    report = jb.check_cell(cell, **arguments)
    leaves = [row.leaf for row in report.rows]  # no x_t: token ids have no derivative
    whole = ["full: h_T", "full: hs", "full: theta_h['embedding']", "full: h_0"]
    assert leaves == ["theta_h['embedding']", "h_tm1", *whole]

    def vjp(theta_h, token_t, *rest):  # the row of the next token
        return cell.vjp(theta_h, (token_t + 1) % 10, *rest)

    with pytest.raises(WRONG, match=r"theta_h\['embedding'\]\[\d+, \d\]"):
        jb.check_cell(cell._replace(vjp=vjp), **arguments)


# Readouts


def _tanh_readout(theta_o, h_t):
    return jnp.tanh(h_t @ theta_o)


def _tanh_params(key, hidden_size, output_size, dtype):
    return jax.random.normal(key, (hidden_size, output_size), dtype)


READOUTS = {
    "linear": jb.readouts.linear(),
    "no-bias": jb.readouts.linear(bias=False),
    "identity": jb.readouts.identity(),
    "from_apply": jb.readouts.from_apply(_tanh_readout, _tanh_params),
}
ONE_READOUT: dict[str, Any] = {"seeds": (0,), "sizes": ((3, 3),), "batch_shapes": ((), (2,)), "steps": 2}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", READOUTS)
def test_right_readouts_pass(name):
    report = jb.check_readout(READOUTS[name], **ONE_READOUT)
    wanted = {
        "linear": ["theta_o.W_o", "theta_o.b", "hs"],
        "no-bias": ["theta_o.W_o", "hs"],
        "identity": ["hs"],
        "from_apply": ["theta_o", "hs"],
    }
    assert [row.leaf for row in report.rows] == wanted[name]
    assert report.cases == 2
    assert "check_readout: 2 cases" in str(report)
    for row in report.rows:
        assert row.autodiff <= report.tolerance < 1e-11
        assert row.differences <= report.difference_tolerance < 1e-7


def _transposed_readout(theta_o, h_t, y_hat_bar_t):
    theta_bar, _ = READOUTS["linear"].vjp(theta_o, h_t, y_hat_bar_t)
    return theta_bar, y_hat_bar_t @ theta_o.W_o.T


def _wrong_readout(change):
    return lambda *arguments: change(*READOUTS["linear"].vjp(*arguments))


WRONG_READOUTS: dict[str, tuple[str, Callable]] = {
    "transposed": (r"`hs\[", _transposed_readout),
    "no-bias": (r"`theta_o.b\[", _wrong_readout(lambda bar, h_bar: (bar._replace(b=0 * bar.b), h_bar))),
    "none-bias": (
        r"no cotangent of the right shape for theta_o.b ",
        _wrong_readout(lambda bar, h_bar: (bar._replace(b=None), h_bar)),
    ),
    "none-h": (r"no cotangent of the right shape for hs ", _wrong_readout(lambda bar, h_bar: (bar, None))),
    "half": (r"`theta_o.W_o\[", _wrong_readout(lambda bar, h_bar: (bar._replace(W_o=bar.W_o / 2), h_bar))),
    "nan": (r"`hs\[.* is nan", _wrong_readout(lambda bar, h_bar: (bar, h_bar * jnp.nan))),
    "one-element": (
        r"`theta_o.W_o\[2, 1\]` by the hand-written rule is .*, jax.vjp gives .*\(seed=0, hidden_size=3, ",
        _wrong_readout(lambda bar, h_bar: (bar._replace(W_o=bar.W_o.at[2, 1].add(1e-8)), h_bar)),
    ),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", WRONG_READOUTS)
def test_wrong_readouts_are_caught(name):
    pattern, vjp = WRONG_READOUTS[name]
    with pytest.raises(WRONG, match=pattern):
        jb.check_readout(READOUTS["linear"]._replace(vjp=vjp), **ONE_READOUT)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("member", ["vjp", "vjp_over_time"])
def test_both_rules_of_a_readout_are_checked(member):
    readout = READOUTS["from_apply"]
    rule = getattr(readout, member)

    def doubled(*arguments):
        theta_bar, h_bar = rule(*arguments)
        return theta_bar, 2 * h_bar

    with pytest.raises(WRONG, match="h"):
        jb.check_readout(readout._replace(**{member: doubled}), **ONE_READOUT)


# The gradient of a whole model


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


# The shell

USERS_FILE = """
import jaxbptt as jb

RIGHT = jb.cells.linear()
READOUT = jb.readouts.linear()

def wrong_rule(theta_h, x_t, h_tm1, h_t, h_bar_t):
    theta_bar, x_bar_t, h_bar_tm1 = RIGHT.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    return theta_bar, x_bar_t, 2 * h_bar_tm1

WRONG = RIGHT._replace(vjp=wrong_rule)
NUMBER = 3

class Zoo:
    cell = RIGHT
"""


@pytest.fixture
def users_file(tmp_path, monkeypatch):
    """A module of the user's in the working directory; what importing it leaves behind is cleared away."""
    (tmp_path / "users_cells.py").write_text(USERS_FILE)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("users_cells", "broken", "sub", "sub.users_cells"):
        sys.modules.pop(name, None)


def test_the_command(users_file):
    """As processes of their own, all at once: right, wrong, and nothing to check."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(jb.__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # most of the time is compilation
    running = {
        target: subprocess.Popen(
            [sys.executable, "-m", "jaxbptt.checking", target, "--seeds", "1", "--sizes", "4,3"],
            cwd=users_file,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for target in ("users_cells:RIGHT", "users_cells.py:WRONG", "no_such_module:CELL")
    }
    ended = {target: (*process.communicate(timeout=120), process.returncode) for target, process in running.items()}

    out, err, status = ended["users_cells:RIGHT"]
    assert status == 0, err
    assert out.startswith("check_cell: ")
    assert re.search(r"^theta_h\.W_h +\d\.\de[+-]\d\d +\d\.\de[+-]\d\d$", out, re.MULTILINE)

    out, err, status = ended["users_cells.py:WRONG"]
    assert (status, out) == (1, "")
    assert re.match(r"WRONG: `h_tm1\[[\d, ]+\]` by the hand-written rule is \S+, jax.vjp gives \S+: .*step t=1", err)

    out, err, status = ended["no_such_module:CELL"]
    assert (status, out) == (2, "")
    assert re.match(r"error: `no_such_module:CELL` must be MODULE:NAME .*No module named 'no_such_module'", err)
    assert "Traceback" not in err


@pytest.mark.usefixtures("users_file")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("users_cells", "it needs both parts, with a colon between"),
        ("users_cells:", "it needs both parts, with a colon between"),
        ("users_cells:NOWHERE", "`users_cells` has no `NOWHERE`"),
        ("users_cells:Zoo.lion", "`users_cells` has no `Zoo.lion`"),
        ("users_cells:NUMBER", "`NUMBER` is a int"),
        ("broken:CELL", "importing `broken` failed (No module named 'nowhere_to_be_found')"),
        ("users_cells:wrong_rule", "calling `wrong_rule()` failed"),  # a function, but it makes no cell
    ],
)
def test_the_command_with_nothing_to_check(target, message, capsys):
    assert command.main([target]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert f"`{target}` must be MODULE:NAME of a Cell or a Readout" in err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("users_file")
def test_the_command_with_a_readout(capsys, monkeypatch):
    """It goes to `check_readout`, whose own work is tested above."""
    seen = []
    monkeypatch.setattr(command, "check_readout", lambda value, **options: seen.append((value, options)) or "TABLE")
    assert command.main(["users_cells:READOUT", "--seeds", "2", "--sizes", "5,3", "1,4"]) == 0
    assert capsys.readouterr().out == "TABLE\n"
    assert seen == [(jb.readouts.linear(), {"seeds": range(2), "sizes": [(5, 3), (1, 4)]})]


@pytest.mark.usefixtures("users_file")
def test_what_the_command_finds():
    """A name inside a class, a path with slashes, and a factory, which is called."""
    os.mkdir("sub")
    os.rename("users_cells.py", os.path.join("sub", "users_cells.py"))
    for target in ("sub.users_cells:Zoo.cell", "sub/users_cells.py:RIGHT", "jaxbptt.cells:linear"):
        assert command.load(target) is jb.cells.linear()


@pytest.mark.usefixtures("users_file")
def test_the_command_with_no_seeds(capsys):
    assert command.main(["users_cells:RIGHT", "--seeds", "0"]) == 2
    assert "`seeds` must have at least one entry" in capsys.readouterr().err


def test_a_difference_that_is_not_finite_is_a_mismatch():
    """It has no uncertainty that could excuse it."""

    def cliff(p):
        return 1.0 if p[0] == 1 else np.nan

    with pytest.raises(jb.checking.GradientMismatchError, match=r"⟨p, v⟩.*nan"):
        report.difference_errors(
            "p", cliff, np.ones(1), np.ones(1), jax.random.key(0), report.tolerances(np.float64), "there"
        )
