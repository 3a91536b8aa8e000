"""What is no adjoint, and the memory that one may have: `checkpointed`, `full(memory=…)`, `plan`."""

import functools

import jax
import jax.export
import jax.numpy as jnp

import jaxbptt as jb
from jaxbptt.cells._from_split import split_of
from tests.errors.rows import (
    GRU,
    MODEL,
    PARAMS,
    THETA,
    B,
    T,
    assert_refused,
    d,
    each,
    flags,
    l2,
    m,
    n,
    objective,
    ones,
    table,
    unroll,
    update,
)

ROWS, row = table()

# What an adjoint is

for name, make in (("objective", jb.objective), ("bptt", jb.estimators.bptt)):
    row(
        f"{name}-adjoint",
        TypeError,
        r"`adjoint` must be an adjoint: got str \('full'\); `adjoints.full\(\)`",
        lambda make=make: make(MODEL, l2, adjoint="full"),
    )
# A factory has a function's face: `adjoint=adjoints.full` must not end in a complaint about its own signature.
for name, call in (
    ("unroll", lambda adjoint: unroll(adjoint=adjoint)),
    ("objective", lambda adjoint: objective(options={"adjoint": adjoint})),
    ("bptt", lambda adjoint: update(functools.partial(jb.estimators.bptt, adjoint=adjoint))),
):
    row(
        f"{name}-adjoint-not-called",
        TypeError,
        r"`adjoint` must be an adjoint: got the factory full; call it, as in `adjoints.full\(\)`",
        lambda call=call: call(jb.adjoints.full),
    )
row("unroll-adjoint", TypeError, r"`adjoint` must be an adjoint: got str", lambda: unroll(adjoint="full"))
row(
    "apply-adjoint",
    TypeError,
    r"`adjoint` must be an adjoint: got int",
    lambda: MODEL.apply(THETA, ones(T, B, d), adjoint=1),
)

# What a division over time keeps

row(
    "split-residuals",
    TypeError,
    r"`residuals` of a cell's split must be the tree that its `step` returns beside h_t: got .*\{'r': \*\}.*, expected "
    r".*\[\*, \*, \*, \*\].*same order",
    lambda: jb.check_cell(
        GRU._replace(split=split_of(GRU)._replace(residuals=lambda *a: {"r": a[1]})),
        seeds=(0,),
        sizes=((2, 3),),
        batch_shapes=((),),
        steps=2,
    ),
)

# How much an adjoint may keep, and where

for name, kind, pattern, choices in [
    ("slots-zero", ValueError, r"`slots` must be an integer, at least 1: got 0", {"slots": 0}),
    ("slots-float", TypeError, r"`slots` must be an integer, at least 1: got 2.5", {"slots": 2.5}),
    ("two", ValueError, r"`slots`, `fraction` and `budget` exclude each other: got slots=2", {"slots": 2, "budget": 9}),
    ("fraction", ValueError, r"`fraction` must be a number with 0 < fraction ≤ 1.*got 1.5", {"fraction": 1.5}),
    ("fraction-word", TypeError, r"`fraction` must be a number.*got 'half'", {"fraction": "half"}),
]:
    row(f"checkpointed-{name}", kind, pattern, lambda choices=choices: jb.adjoints.checkpointed(**choices))
(batch_size, steps) = jax.export.symbolic_shape("b, t")


def exported(adjoint, time, batch, transform=lambda F: F):
    """A program for any size of what is a symbol."""
    F = jax.jit(transform(lambda theta, xs: jnp.sum(MODEL.apply(theta, xs, adjoint=adjoint))))
    return jax.export.export(F)(THETA, jax.ShapeDtypeStruct((time, batch, d), ones(1).dtype))


for name, adjoint in (
    ("full", jb.adjoints.full()),
    ("full-blocks", jb.adjoints.full(block=2)),
    ("tangent", jb.adjoints.tangent()),
    ("checkpointed", jb.adjoints.checkpointed(3)),
):
    row(
        f"{name}-any-T",
        ValueError,
        r"`xs` must have a number of steps for an adjoint that lays out time when traced: got T = t; take "
        r"`adjoints.autodiff\(\)` for any T",
        lambda adjoint=adjoint: exported(adjoint, steps, B),
    )
row(
    "parallel-any-T",
    ValueError,
    r"`xs` must have a number of steps .*: got T = t; take `adjoints.autodiff\(\)`",
    lambda: exported(jb.adjoints.parallel(), steps, B, jax.grad),
)
row(
    "checkpointed-budget-any-batch",
    ValueError,
    r"`budget` must be of a state whose size is known: got the shape \(b, 4\) .*; give `slots` or `fraction`",
    lambda: exported(jb.adjoints.checkpointed(budget=1000), T, batch_size),
)
for name, pattern, choices in [
    ("budget", r"`budget` must be at least \d+ bytes here.*got 1; give more", {"budget": 1}),
    ("block", r"`block` must be at most `slots`.*got block=3, slots=2", {"slots": 2, "block": 3}),
]:
    row(
        f"checkpointed-{name}-fits",
        ValueError,
        pattern,
        lambda choices=choices: jax.grad(jb.objective(MODEL, l2, adjoint=jb.adjoints.checkpointed(**choices)))(
            THETA, ones(T, B, d), ones(T, B, m)
        ),
    )
for name, kind, pattern, changed in [
    (
        "transformed",
        TypeError,
        r"`target` must be an objective, a Model or a Cell: got function.*make one with `jb.objective\(model, loss\)`",
        {"target": jax.value_and_grad(jb.objective(MODEL, l2))},
    ),
    ("factory", TypeError, r"`target` must be .*: got function.*call the factory", {"target": jb.cells.gru}),
    ("theta_h", TypeError, r"`theta` must be a Theta\(h=…, o=…\): got", {"target": MODEL}),
    ("fits", ValueError, r"`fits` must be an integer, at least 1: got 0", {"fits": 0}),
    ("ys", TypeError, r"`ys` must be left out for a Model .*: got ndarray; for a loss", {"h_0": ones(B, n)}),
    ("mask", TypeError, r"`mask` must be left out for a Model or a Cell.*: got ndarray", {"mask": flags(T, B)}),
    ("list", TypeError, r"`adjoints` must be a dictionary .*: got list", {"adjoints": [jb.adjoints.full()]}),
    ("empty", ValueError, r"`adjoints` must have at least one entry: got none", {"adjoints": {}}),
    ("called", TypeError, r"`adjoint` must be an adjoint.*call it", {"adjoints": {"full": jb.adjoints.full}}),
]:
    good = {"target": GRU, "theta": PARAMS["gru"], "xs": ones(T, B, d), "ys": ones(B, n)}
    row(f"plan-{name}", kind, pattern, lambda arguments=good | changed: jb.plan(**arguments))
row(
    "plan-no-ys",
    ValueError,
    r"`ys` must have at least one array.*got None",
    lambda: jb.plan(jb.objective(MODEL, l2), THETA, ones(T, B, d)),
)
row(
    "full-memory",
    ValueError,
    r"`memory` must be one of .*got 'disk'",
    lambda: jb.adjoints.full(memory="disk"),
)
row(
    "full-host-on-a-cpu",
    NotImplementedError,
    r"`memory='host'` moves .*got the CPU as the device, whose memory is the host's; use memory='device'",
    lambda: objective(options={"adjoint": jb.adjoints.full(memory="host")}),
)


row(
    "unroll-model",
    TypeError,
    r"`cell` must be a Cell: got Model .*; take its `.cell`",
    lambda: jb.unroll(MODEL, THETA.h, ones(T, B, d), ones(B, n)),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
