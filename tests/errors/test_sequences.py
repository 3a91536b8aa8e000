"""Inputs, targets and states: their trees, their axes and their dtypes."""

from collections.abc import Callable

import jax
import numpy as np

import jaxbptt as jb
from jaxbptt.cells import LinearParams, LSTMState, MaskedInput, ResetInput
from tests.cases import turns
from tests.errors.rows import (
    CELLS,
    LINEAR,
    MODEL,
    PARAMS,
    THETA,
    THETA_O,
    USER,
    B,
    T,
    assert_refused,
    check_gradients,
    closed,
    d,
    each,
    flags,
    ints,
    leaks,
    m,
    n,
    objective,
    ones,
    singles,
    table,
    unroll,
    update,
)

ROWS, row = table()


def looked_up(theta_h, x_t, h_tm1):
    return h_tm1 + theta_h[x_t[0]]


def begun_counting(theta_h, batch_shape=()):
    return np.zeros((*batch_shape, n)), np.zeros((), int)


_COUNTING = jb.rnn(
    jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: (h_tm1[0] + x_t, h_tm1[1] + 1),
        initial_state=begun_counting,
        output=lambda h_t: h_t[0],
    ),
    jb.readouts.identity(),
)


def two_states(theta_h, batch_shape):
    return np.zeros((*batch_shape, n))


# The inputs and the first state of one cell

BUILT_IN = ("linear", "elman", "gru", "lstm")
for name, (what, xs, kind, pattern) in turns(
    BUILT_IN,
    (
        ("wrong-d", ones(T, B, d + 1), ValueError, r"`xs` must have shape .*d=3 as in .*got xs.shape=\(5, 6, 4\)"),
        ("one-axis", ones(d), ValueError, r"`xs` must have shape \[T, \*batch, d\].*got xs.shape=\(3,\)"),
        ("integers", ints(T, B, d), TypeError, r"`xs` must have the dtype of `theta_h.W_h`, float64: got int32"),
        ("float32", singles(T, B, d), TypeError, r"`xs` must have the dtype .*float64: got float32; .*xs.astype"),
        ("dict", {"a": ones(T, B, d)}, TypeError, r"`xs` must be one array \[T, \*batch, d\]: got dict"),
    ),
):
    row(f"{name}-xs-{what}", kind, pattern, lambda name=name, xs=xs: unroll(name, xs=xs))
for name, (what, make, kind, pattern) in turns(
    BUILT_IN,
    (
        ("n", lambda h: ones(B, n + 1), ValueError, r"must have shape \[\*batch, n\] = \(6, 4\).*got \(6, 5\)"),
        ("batch", lambda h: ones(B + 1, n), ValueError, r"= \(6, 4\), with the batch of xs.shape=.*: got \(7, 4\)"),
        ("no-batch", lambda h: ones(n), ValueError, r"= \(6, 4\).*got \(4,\); .*\(theta, batch_shape=\(6,\)\)"),
        ("float32", lambda h: singles(B, n), TypeError, r"must have the dtype of `theta_h.W_h`, float64: got float32"),
        ("integers", lambda h: ints(B, n), TypeError, r"must have the dtype of `theta_h.W_h`, float64: got int32"),
    ),
):  # fmt: skip
    label = r"h_0\.h" if name == "lstm" else "h_0"
    row(
        f"{name}-h_0-{what}",
        kind,
        rf"`{label}` .*{pattern}",
        lambda name=name, make=make: unroll(name, h_0=jax.tree.map(make, CELLS[name][2])),
    )
row(
    "lstm-c_0",
    ValueError,
    r"`h_0\.c` must have shape .*\(6, 4\).*got \(6, 5\)",
    lambda: unroll("lstm", h_0=LSTMState(ones(B, n), ones(B, n + 1))),
)
row(
    "lstm-h_0-tuple",
    TypeError,
    r"`h_0` must have the tree of the cell's state, .*LSTMState.*: got PyTreeDef\(\(\*, \*\)\)",
    lambda: unroll("lstm", h_0=(ones(B, n), ones(B, n))),
)
row(
    "lstm-h_0-array",
    TypeError,
    r"`h_0` must .*LSTMState.*: got PyTreeDef\(\*\)",
    lambda: unroll("lstm", h_0=ones(B, n)),
)
for name in BUILT_IN:
    row(
        f"{name}.initial_state-Theta",
        TypeError,
        rf"`theta_h` must be {type(PARAMS[name]).__name__}.*got Theta",
        lambda name=name: CELLS[name][0].initial_state(jb.Theta(PARAMS[name], THETA_O), (B,)),
    )
row(
    "gru.initial_state-batch_shape",
    TypeError,
    r"`batch_shape` must be a tuple.*got (int|6)",
    lambda: CELLS["gru"][0].initial_state(PARAMS["gru"], B),
)
row(
    "rnn.initial_state-batch_shape",
    TypeError,
    r"`batch_shape` must be a tuple.*got (int|6)",
    lambda: MODEL.initial_state(THETA, B),
)
row(
    "rnn.initial_state-negative",
    ValueError,
    r"`batch_shape` must be sizes of at least 0: got \(-4,\)",
    lambda: MODEL.initial_state(THETA, (-4,)),
)
row("unroll-no-h_0", TypeError, r"`h_0` must be a state: got None; .*cell.initial_state", lambda: unroll(h_0=None))

# The flags of a combinator

for combinator, make, field in (("masked", MaskedInput, "mask"), ("resettable", ResetInput, "reset")):
    row(
        f"{combinator}-plain-xs",
        TypeError,
        rf"`xs` of a {combinator} cell must be {make.__name__}\(x, {field}\): got ndarray",
        lambda combinator=combinator: unroll(combinator),
    )
    row(
        f"{combinator}-integer-flags",
        TypeError,
        rf"`xs.{field}` must be boolean: got int32; write `jnp.asarray\({field}, bool\)`",
        lambda combinator=combinator, make=make: unroll(combinator, xs=make(ones(T, B, d), ints(T, B))),
    )
    row(
        f"{combinator}-flags-batch",
        ValueError,
        rf"`xs.{field}` must have the leading axes \[T, \*batch\] of `xs.x`: got \(5, 7\) and \(5, 6, 3\)",
        lambda combinator=combinator, make=make: unroll(combinator, xs=make(ones(T, B, d), flags(T, B + 1))),
    )
    row(
        f"{combinator}-flags-time",
        ValueError,
        rf"all leaves of `xs` must share their time axis: got lengths .*\.x.*5.*\.{field}.*4",
        lambda combinator=combinator, make=make: unroll(combinator, xs=make(ones(T, B, d), flags(T - 1, B))),
    )
    row(
        f"{combinator}-h_0-batch",
        ValueError,
        rf"`h_0` of a {combinator} cell must have the batch axes of `xs.{field}`, \(6,\): got shape \(4,\)",
        lambda combinator=combinator, make=make: unroll(combinator, xs=make(ones(T, B, d), flags(T, B)), h_0=ones(n)),
    )
    row(
        f"{combinator}-inner-xs",
        ValueError,
        r"`xs` must have shape .*d=3.*got xs.shape=\(5, 6, 4\)",
        lambda combinator=combinator, make=make: unroll(combinator, xs=make(ones(T, B, d + 1), flags(T, B))),
    )

# Time and batch, wherever sequences are taken

EMPTY = r"must have at least one array, to say how many steps there are: got .*for a %s pass `jnp.zeros"
NOTHING = {"xs": EMPTY % "recursion without inputs", "ys": EMPTY % "loss without targets"}
SCALAR = r"must have time as its first axis: got a (float|scalar), expected \[T, \*batch, …\](; a list .* of it)?$"
NO_AXIS = r"must have time as its first axis: got a scalar, expected"
NO_STEP = r"must have at least one step: got T = 0 \(float64\[0, 6, \d\]\)"
CALLS: dict[str, Callable] = {
    "unroll": lambda **changed: unroll(**changed),
    "apply": lambda xs: MODEL.apply(THETA, xs),
    "objective": lambda **changed: objective(**changed),
    "bptt": lambda **changed: update(jb.estimators.bptt, **changed),
    "rtrl": lambda **changed: update(jb.estimators.rtrl, **changed),
    "double_sum": lambda **changed: closed(jb.closed_form.double_sum, **changed),
    "closed_form.recursion": lambda **changed: closed(jb.closed_form.recursion, **changed),
    "check_gradients": lambda **changed: check_gradients(**changed),
}
WHATS = ("none", "number", "scalar", "T-0")
for k, (name, call) in enumerate(CALLS.items()):
    for place, (argument, last) in enumerate((("xs", d),) if name in ("unroll", "apply") else (("xs", d), ("ys", m))):
        what, value, pattern = (
            ("none", (), NOTHING[argument]),
            ("number", 1.0, SCALAR),
            ("scalar", np.float64(1.0), NO_AXIS),
            ("T-0", ones(0, B, last), NO_STEP),
        )[(k + place) % 4]
        row(
            f"{name}-{argument}-{what}",
            ValueError,
            rf"`{argument}` {pattern}",
            lambda call=call, argument=argument, value=value: call(**{argument: value}),
        )
for (name, call), (argument, last, dtype, came) in turns(
    CALLS.items(), (("xs", d, str, "<U32"), ("xs", d, object, "object"))
):
    row(
        f"{name}-{argument}-{came}",
        TypeError,
        rf"`{argument}` must hold numbers: got an array of dtype {came}; write `{argument}.astype\(np",
        lambda call=call, argument=argument, shape=(T, B, last), dtype=dtype: call(
            **{argument: ones(*shape).astype(dtype)}
        ),
    )
for (name, call), (what, ys, kind, pattern) in turns(
    [(name, call) for name, call in CALLS.items() if name not in ("unroll", "apply")],
    (
        (
            "T",
            ones(T - 1, B, m),
            ValueError,
            r"`xs` and `ys` must share their time axis: got xs=float64\[5, 6, 3\], ys=float64\[4",
        ),
        (
            "batch",
            ones(T, B + 1, m),
            ValueError,
            r"`loss` does not accept its .*float64\[6, 2\], float64\[7, 2\]\): .*one shape",
        ),
        (
            "integers",
            ints(T, B, m),
            TypeError,
            r"`loss` does not accept.*l2_loss takes floating-point .*: got float64 and int32",
        ),
    ),
):
    row(f"{name}-ys-{what}", kind, pattern, lambda call=call, ys=ys: call(ys=ys))
row(
    "xs-leaves-differ-in-T",
    ValueError,
    r"all leaves of `xs` must share their time axis: got lengths \{.*'a'.*5.*'b'.*4\}",
    lambda: unroll(cell=USER, theta_h=ones(), xs={"a": ones(T, B, n), "b": ones(T - 1, B, n)}),
)
row(
    "xs-leaves-differ-in-batch",
    ValueError,
    r"`h_0` can't be made, as the leaves of `xs` suggest different batch axes: got .*6, 3\].*7, 3\].*pass `h_0`",
    lambda: objective(xs={"a": ones(T, B, d), "b": ones(T, B + 1, d)}, h_0=None),
)
row(
    "xs-leaves-of-another-batch",
    ValueError,
    r"`h_0` can't be made.*floating-point leaves are taken for \[T, \*batch, d\] and others must begin with \[T",
    lambda: objective(xs={"a": ones(T, B, d), "b": flags(T, B + 1)}, h_0=None),
)
row(
    "xs-of-integers-without-a-batch",
    ValueError,
    r"`h_0` can't be made, as with no batch axes that the leaves of `xs` share does f return a state like its own: got "
    r"xs=.*int32\[5, 6\].*bool\[5, 7\].*; pass `h_0`",
    lambda: objective(
        jb.rnn(jb.cells.from_step(looked_up, initial_state=two_states), jb.readouts.identity()),
        theta=jb.Theta(ones(7, n), ()),
        xs=(ints(T, B), flags(T, B + 1)),
        h_0=None,
    ),
)
row(
    "mask-of-another-batch",
    ValueError,
    r"`mask` must have the batch axes of `xs`, \[T, \*batch\]: got \(5, 7\) and xs=float64\[5, 6, 3\]; use `jnp",
    lambda: objective(h_0=None, mask=flags(T, B + 1)),
)
row(
    "lengths-of-another-batch",
    ValueError,
    r"`xs` must have the batch axes of `lengths`, \[T, \*batch, …\] with \(7,\): got shape \(5, 6, 3\)",
    lambda: objective(h_0=None, lengths=np.full(B + 1, T)),
)
row(
    "lengths-of-a-counter",
    ValueError,
    r"`h_0\[1\]` must have the batch axes of `lengths`, \(6,\), .*: got shape \(\); use `jnp.broadcast_to`",
    lambda: jb.objective(_COUNTING, jb.losses.l2_loss)(
        jb.Theta(ones(n), ()), ones(T, B, n), ones(T, B, n), lengths=np.full(B, T)
    ),
)
row(
    "initial_state-of-a-batch-alone",
    ValueError,
    r"`cell.initial_state` must take `batch_shape=\(\)`, which says which axes of a state are its own: tuple index",
    lambda: unroll(
        cell=USER._replace(initial_state=lambda theta_h, batch_shape=(): ones(batch_shape[0], n)),
        theta_h=ones(),
        xs=ones(T, B, n),
    ),
)
row(
    "resettable-h_0-of-another-tree",
    TypeError,
    r"`h_0` must have the tree of the cell's state, .*: got .*make one with `initial_state",
    lambda: unroll("resettable", xs=ResetInput(ones(T, B, d), flags(T, B)), h_0=(ones(B, n), ones(B, n))),
)
row(
    "reset-of-a-batch",
    ValueError,
    r"`xs.reset` must have all axes \[T, \*batch\] of the state: got \(5,\), .*begins with \[4\], and `h_0` of shape "
    r"\(6, 4\); use `jnp.broadcast_to`",
    lambda: unroll("resettable", xs=ResetInput(ones(T, B, d), flags(T))),
)
row(
    "objective-h_0-batches-differ",
    ValueError,
    r"the leaves of `h_0` must share their batch axes: got \[\(6,\), \(7,\)\]",
    lambda: objective(
        model=jb.rnn(jb.cells.from_step(leaks, output=lambda h_t: h_t["a"]), jb.readouts.identity()),
        theta=jb.Theta(ones(), ()),
        ys=ones(T, B, n),
        h_0={"a": ones(B, n), "b": ones(B + 1, n)},
    ),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)


def test_the_remedy_for_no_inputs():
    """A message says to pass ``zeros((T, 0))`` for a recursion without inputs."""
    h_T, _ = jb.unroll(LINEAR, LinearParams(ones(n, 0), 2 * np.eye(n)), np.zeros((3, 0)), ones(n))
    np.testing.assert_array_equal(h_T, 8 * ones(n))
