"""θ and θ_h: the type that `init` makes, its shapes and its dtypes."""

import re

import jax
import numpy as np

import jaxbptt as jb
from jaxbptt.cells import LearnedStart
from tests.errors.rows import (
    BPTT,
    CELLS,
    MODEL,
    PARAMS,
    SGD,
    THETA,
    B,
    T,
    assert_refused,
    check_gradients,
    closed,
    d,
    each,
    fit,
    l2,
    n,
    objective,
    ones,
    singles,
    table,
    unroll,
    update,
)

ROWS, row = table()


def converted(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


# θ, wherever a model is taken

for name, call in {
    "apply": lambda theta: MODEL.apply(theta, ones(T, B, d)),
    "initial_state": lambda theta: MODEL.initial_state(theta),
    "objective": lambda theta: objective(theta=theta),
    "objective-no-h_0": lambda theta: objective(theta=theta, h_0=None),
    "bptt.init": lambda theta: BPTT.init(theta),
    "bptt.update": lambda theta: update(jb.estimators.bptt, theta=theta, state=BPTT.init(THETA)),
    "rtrl.init": lambda theta: jb.estimators.rtrl(MODEL, l2).init(theta),
    "rtrl.update": lambda theta: update(
        jb.estimators.rtrl, theta=theta, state=jb.estimators.rtrl(MODEL, l2).init(THETA)
    ),
    "trainer.init": lambda theta: jb.training.trainer(BPTT, SGD).init(theta),
    "fit": lambda theta: fit(theta=theta),
    "double_sum": lambda theta: closed(jb.closed_form.double_sum, theta=theta),
    "closed_form.recursion": lambda theta: closed(jb.closed_form.recursion, theta=theta),
    "check_gradients": lambda theta: check_gradients(theta=theta),
}.items():
    row(
        f"{name}-theta",
        TypeError,
        r"`theta` must be a Theta\(h=…, o=…\): got GRUParams; make one with `model.init`",
        lambda call=call: call(THETA.h),
    )

# θ_h of one cell

for name in ("linear", "elman", "gru", "lstm"):
    params = type(PARAMS[name])
    rows = {"gru": "3n", "lstm": "4n"}.get(name, "n")
    if name in ("linear", "gru"):
        pattern = rf"`theta_h` must be {params.__name__}, as `cell.init` makes it: got tuple"
        wrong, dtype = tuple(PARAMS[name]), np.int32
    else:
        pattern = rf"`theta_h` must hold arrays: got {params.__name__}\(list, ndarray"
        wrong, dtype = PARAMS[name]._replace(W_x=[[1.0]]), complex
    row(f"{name}-params", TypeError, pattern, lambda name=name, wrong=wrong: unroll(name, theta_h=wrong))
    row(
        f"{name}-params-{np.dtype(dtype)}",
        TypeError,
        rf"`theta_h.W_h` must be floating point: got {np.dtype(dtype)}; complex parameters go through `cells.f",
        lambda name=name, dtype=dtype: unroll(name, theta_h=converted(PARAMS[name], dtype)),
    )
    if name in ("elman", "lstm"):
        row(
            f"{name}-initial_state-lists",
            TypeError,
            rf"`theta_h` must hold arrays: got {params.__name__}\(ndarray, list.*\); write `jnp.asarray` around each",
            lambda name=name: CELLS[name][0].initial_state(PARAMS[name]._replace(W_h=[[1.0]])),
        )
    for k, (field, leaf) in enumerate(PARAMS[name]._asdict().items()):
        layout = {"W_x": rf"\[{rows}, d\]", "W_h": rf"\[{rows}, n\]"}.get(field, rf"\[{rows}\]")
        is_rank = (
            k + ("linear", "elman", "gru", "lstm").index(name)
        ) % 2  # of each field its rows or its rank, in turn
        wrong = ones(*leaf.shape, 1) if is_rank else ones(leaf.shape[0] + 1, *leaf.shape[1:])
        row(
            f"{name}-{field}-{'rank' if is_rank else 'rows'}",
            ValueError,
            rf"`theta_h.{field}` must have shape {layout}: got {re.escape(str(wrong.shape))} beside W_h.shape="
            if not (field == "W_h" and is_rank)  # without n the first field is as wrong as any
            else r"`theta_h.W_x` must have shape .* beside W_h.shape=\(\d+, 4, 1\)",
            lambda name=name, field=field, wrong=wrong: unroll(name, theta_h=PARAMS[name]._replace(**{field: wrong})),
        )
        if field == ("W_x" if name in ("linear", "gru") else "b"):
            row(
                f"{name}-{field}-float32",
                TypeError,
                rf"`theta_h.{field}` must have the dtype of `theta_h.W_h`, float64: got float32; convert one",
                lambda name=name, field=field, leaf=leaf: unroll(
                    name, theta_h=PARAMS[name]._replace(**{field: leaf.astype(np.float32)})
                ),
            )
row(
    "stacked-theta-list",
    TypeError,
    r"`theta_h` of 2 stacked layers must be a tuple of 2: got list",
    lambda: unroll("stacked", theta_h=list(CELLS["stacked"][1]), h_0=(ones(B, n), ones(B, n))),
)
row(
    "stacked-theta-short",
    TypeError,
    r"`theta_h` of 2 stacked layers must be a tuple of 2: got 1 entries",
    lambda: unroll("stacked", theta_h=CELLS["stacked"][1][:1], h_0=(ones(B, n), ones(B, n))),
)
row(
    "stacked-h_0",
    TypeError,
    r"`h_0` of 2 stacked layers must be a tuple of 2: got \w*Array",
    lambda: unroll("stacked", h_0=ones(B, n)),
)
row(
    "stacked-upper-layer",
    ValueError,
    r"layer 2 of the stack, with `theta_h\[1\]` = GRUParams\(W_x='float64\[12, 3\]'.*, reads the output of layer 1, "
    r"float64\[6, 4\] at each step, as its `xs`: `xs` must have shape \[T, \*batch, d\] with d=3",
    lambda: unroll("stacked", theta_h=(PARAMS["elman"], PARAMS["gru"]), h_0=(ones(B, n), ones(B, n))),
)

LEARNED = jb.cells.learned_start(jb.cells.gru())
for what, kind, theta_h, pattern in (
    ("plain", TypeError, PARAMS["gru"], r"`theta_h` must be LearnedStart, as `cell.init` makes it: got GRUParams"),
    ("cell", TypeError, LearnedStart(PARAMS["elman"], ones(n)), r"`theta_h` must be GRUParams.*: got ElmanParams"),
    (
        "tree",
        TypeError,
        LearnedStart(PARAMS["gru"], (ones(n),)),
        r"`theta_h.h_0` must have the tree of `cell.initial_state\(theta_h.cell, \(\)\)`",
    ),
    (
        "batch",
        ValueError,
        LearnedStart(PARAMS["gru"], ones(B, n)),
        r"`theta_h.h_0` must be like `cell.initial_state\(.*, float64\[4\]: got float64\[6, 4\]",
    ),
    (
        "float32",
        ValueError,
        LearnedStart(PARAMS["gru"], singles(n)),
        r"`theta_h.h_0` must be like `cell.initial_state\(.*, float64\[4\]: got float32\[4\]",
    ),
):
    row(
        f"learned_start-{what}",
        kind,
        pattern,
        lambda theta_h=theta_h: unroll(cell=LEARNED, theta_h=theta_h, h_0=ones(B, n)),
    )
    if what in ("plain", "batch"):
        row(
            f"learned_start-initial_state-{what}",
            kind,
            pattern,
            lambda theta_h=theta_h: LEARNED.initial_state(theta_h, (B,)),
        )


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
