"""What the compiled programs are made of: no weight in the carry of a reverse scan, one GEMM a step each way."""

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import ADJOINTS, BUILT_IN, CELLS, problem
from tests.jaxprs import equations


def scans(given, adjoint, T=6):
    """(carried shapes, number of products in a step, reverse) for every scan of length T in the gradient of F."""
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    gradient = jax.grad(F, argnums=(0, 1, 3))
    jaxpr = jax.make_jaxpr(gradient)(given.theta, given.xs, given.ys, given.h_0).jaxpr
    found = []
    for equation in equations(jaxpr):
        if equation.primitive.name == "scan" and equation.params["length"] == T:
            body = equation.params["jaxpr"].jaxpr
            # a carry leaves the scan as it leaves the body; what is stacked gains the axis of time
            outside, inside = ([var.aval.shape for var in jaxpr.outvars] for jaxpr in (equation, body))
            shapes = [shape for whole, shape in zip(outside, inside, strict=True) if whole == shape]
            products = sum(inner.primitive.name == "dot_general" for inner in equations(body))
            found.append((shapes, products, equation.params["reverse"]))
    return found


@pytest.mark.parametrize("case", BUILT_IN, ids=cases.name)
def test_one_product_a_step_and_no_weight_carried(case):
    given = problem(case, T=6, batch=(2,), d=3, n=5)
    found = scans(given, jb.adjoints.full())
    assert [reverse for *_, reverse in found] == [False, True]
    for shapes, products, _ in found:
        assert products == 1
        assert set(shapes) == {(2, 5)}  # the state or its cotangent, nothing of the size of a weight


@pytest.mark.parametrize(
    ("adjoint", "of"),
    cases.in_turn(
        ["full", "tangent", "parallel", "checkpointed"], [((2,), 0), ((3, 2), 0), ((1,), 1), ((), 1)], times=2
    ),
)
def test_a_batch_reads_the_transpose_of_the_recurrent_weight(adjoint, of):
    """Which axis of what the loop is given is summed over: of W_hᵀ the first, of W_h [3n, n] the second."""
    batch, axis = of
    case = next(case for case in CELLS if case.name == "gru")
    given = problem(case, T=6, batch=batch, d=3, n=5)

    def last(theta_h):
        return jb.unroll(case.cell, theta_h, given.xs, given.h_0, adjoint=ADJOINTS[adjoint])[0]

    read = []
    for scan in equations(jax.make_jaxpr(last)(given.theta.h).jaxpr):
        if scan.primitive.name == "scan":
            body = scan.params["jaxpr"].jaxpr
            turned = {step.outvars[0]: step.invars[0] for step in body.eqns if step.primitive.name == "transpose"}
            for product in (step for step in body.eqns if step.primitive.name == "dot_general"):
                (_, (summed,)), _ = product.params["dimension_numbers"]
                weight = product.invars[1]
                if weight.aval.shape == (15, 5):  # W_h; as the loop has it
                    read.append(1 - summed if weight in turned else summed)
    assert read
    assert set(read) == {axis}


@pytest.mark.parametrize(
    ("name", "adjoint"),
    cases.in_turn(
        ["linear", "elman-tanh", "gru", "lstm", "stacked", "masked"],
        [name for name in ADJOINTS if name != "autodiff"],
        times=2,
    ),
)
def test_weights_are_rounded_to_bfloat16_before_the_loops(name, adjoint):
    """Not in each step, in either direction; that a θ_h of float32 is rounded at all is what is looked for first."""
    case = next(case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(2,), d=3, n=5, dtype=jnp.float32)
    cell = jb.cells.mixed_precision(case.cell)

    def last(theta_h, h_0):
        state = jb.unroll(cell, theta_h, given.xs, h_0, adjoint=ADJOINTS[adjoint])[0]
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(state))

    jaxpr = jax.make_jaxpr(jax.grad(last, argnums=(0, 1)))(given.theta.h, given.h_0).jaxpr
    weights = {leaf.shape for leaf in jax.tree.leaves(given.theta.h) if leaf.ndim > 1}

    def rounded(equations):
        return sum(
            step.primitive.name == "convert_element_type"
            and step.params["new_dtype"] == jnp.bfloat16
            and step.invars[0].aval.shape in weights
            for step in equations
        )

    assert rounded(equations(jaxpr)) > 0
    steps = [scan.params["jaxpr"].jaxpr for scan in equations(jaxpr) if scan.primitive.name == "scan"]
    steps = [step for step in steps if not any(inner.primitive.name == "scan" for inner in equations(step))]
    assert steps
    assert sum(rounded(equations(step)) for step in steps) == 0


def test_a_users_cell_carries_no_weight_either():
    (case,) = (case for case in CELLS if case.name == "from_step")
    given = problem(case, T=6, batch=(2,), d=3, n=5)
    for shapes, _, _ in scans(given, jb.adjoints.full()):
        assert set(shapes) == {(2, 5)}


def test_plain_jax_does_carry_weights():
    """The measure measures: what the rule avoids is there without it."""
    given = problem(next(case for case in CELLS if case.name == "lstm"), T=6, batch=(2,), d=3, n=5)
    reverse = [found for found in scans(given, jb.adjoints.autodiff()) if found[2]]
    assert any((20, 5) in shapes or (5, 20) in shapes for shapes, _, _ in reverse)


@pytest.mark.parametrize(("name", "states", "gates"), [("elman-tanh", 1, 0), ("gru", 1, 4), ("lstm", 2, 4)])
def test_what_full_keeps(name, states, gates):
    """Residuals that grow with T: arrays [T, B, n] of states, of gates if asked for, and the inputs; nothing else."""
    case = next(case for case in CELLS if case.name == name)
    given = problem(case, T=50, batch=(2,), d=3, n=5)
    for residuals, arrays in (("states", states), ("gates", states + gates)):

        def recursion(theta_h, adjoint):
            return jb.unroll(case.cell, theta_h, given.xs, given.h_0, adjoint=adjoint)[1]

        _, pull = jax.vjp(lambda theta_h, r=residuals: recursion(theta_h, jb.adjoints.full(residuals=r)), given.theta.h)
        kept = [leaf.shape for leaf in jax.tree.leaves(pull) if 50 in getattr(leaf, "shape", ())]
        assert kept.count((1, 50, 2, 5)) == arrays  # one block of 50 steps
        assert set(kept) <= {(1, 50, 2, 5), (50, 2, 3)}


def test_half_precision_is_accumulated_in_float32():
    """In the program, as the CPU accumulates so whether asked or not."""
    given = problem(next(case for case in CELLS if case.name == "lstm"), T=6, batch=(5,), dtype=jnp.bfloat16)
    F = jb.objective(given.model, jb.losses.l2_loss)
    jaxpr = jax.make_jaxpr(jax.grad(F))(given.theta, given.xs, given.ys, given.h_0).jaxpr
    weights = {(16, 3), (16, 4), (2, 4)}
    products = [e for e in equations(jaxpr) if e.primitive.name == "dot_general" and e.outvars[0].aval.shape in weights]
    assert len(products) >= 3
    assert all(product.outvars[0].aval.dtype == jnp.float32 for product in products)


@pytest.mark.parametrize("block", [None, 3])
def test_constant_work_per_step(block):
    """The size of the program doesn't depend on T."""
    case = BUILT_IN[-1]

    def size(T):
        given = problem(case, T=T)
        F = jb.objective(given.model, jb.losses.l2_loss, adjoint=jb.adjoints.full(block=block))
        return len(list(equations(jax.make_jaxpr(jax.grad(F))(given.theta, given.xs, given.ys).jaxpr)))

    assert size(7) == size(49)  # of either parity and with the same rest by 2 and 3


@pytest.mark.parametrize("name", ["full-blocks", "tangent", "parallel", "checkpointed"])
def test_a_gradient_pays_for_what_it_is_asked(name):
    """Products in the compiled program: one for W_x, one for W_h, one for xs; h_0 comes with delta."""
    given = problem(next(case for case in CELLS if case.name == "lstm"), T=6)

    def outputs(*arguments):
        return jnp.sum(jb.unroll(given.case.cell, *arguments, adjoint=ADJOINTS[name])[1] ** 2)

    def products(argnums):
        compiled = jax.jit(jax.grad(outputs, argnums)).lower(given.theta.h, given.xs, given.h_0).compile()
        return compiled.as_text().count(" dot(")

    everything = products((0, 1, 2))
    assert products((0, 2)) == everything - 1
    assert products((1, 2)) == everything - 2
    assert products((2,)) == everything - 3
