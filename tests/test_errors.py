"""Bad input: the message names the argument, what came and what was expected.

One table. Each row is a call and a pattern for its message; a last test holds that the rows reach every ``raise`` of
`jaxbptt._validate`, so a new message without a row fails.
"""

import ast
import functools
import importlib.util
import inspect
import pathlib
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt import _validate, initializers
from jaxbptt.cells import ElmanParams, GRUParams, LinearParams, LSTMParams, LSTMState, MaskedInput, ResetInput
from jaxbptt.checking import GradientMismatchError
from jaxbptt.checking.__main__ import load
from jaxbptt.readouts import LinearReadoutParams

d, n, m, T, B = 3, 4, 2, 5, 6  # all different, so that no wrong axis fits by chance


def ones(*shape, dtype=np.float64):
    return np.ones(shape, dtype)


def ints(*shape):
    return ones(*shape, dtype=np.int32)


def singles(*shape):
    return ones(*shape, dtype=np.float32)


def flags(*shape):
    return ones(*shape, dtype=bool)


def converted(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


# One good call of everything, from which each row departs in one place


LINEAR, ELMAN, GRU, LSTM = jb.cells.linear(), jb.cells.elman(), jb.cells.gru(), jb.cells.lstm()
CELLS = {
    "linear": (LINEAR, LinearParams(ones(n, d), ones(n, n)), ones(B, n)),
    "elman": (ELMAN, ElmanParams(ones(n, d), ones(n, n), ones(n)), ones(B, n)),
    "gru": (GRU, GRUParams(ones(3 * n, d), ones(3 * n, n), ones(3 * n), ones(3 * n)), ones(B, n)),
    "lstm": (LSTM, LSTMParams(ones(4 * n, d), ones(4 * n, n), ones(4 * n)), LSTMState(ones(B, n), ones(B, n))),
}
PARAMS = {name: theta_h for name, (_, theta_h, _) in CELLS.items()}
CELLS["stacked"] = (jb.cells.stacked(ELMAN, GRU), (PARAMS["elman"], PARAMS["gru"]._replace(W_x=ones(3 * n, n))), None)
CELLS["masked"] = (jb.cells.masked(ELMAN), PARAMS["elman"], ones(B, n))
CELLS["resettable"] = (jb.cells.resettable(ELMAN), PARAMS["elman"], ones(B, n))
MODEL = jb.rnn(GRU, jb.readouts.linear())
THETA_O = LinearReadoutParams(ones(m, n), ones(m))
THETA = jb.Theta(PARAMS["gru"], THETA_O)
CLOSED = jb.Theta(PARAMS["linear"], LinearReadoutParams(ones(m, n), None))
ESTIMATORS = {"bptt": jb.estimators.bptt, "rtrl": jb.estimators.rtrl}
l2 = jb.losses.l2_loss


def key():
    return jax.random.key(0)


def unroll(name="gru", **changed):
    cell, theta_h, h_0 = CELLS[name]
    good: dict[str, Any] = {"cell": cell, "theta_h": theta_h, "xs": ones(T, B, d), "h_0": h_0}
    return jb.unroll(**good | changed)


def objective(model=MODEL, loss=l2, options=(), **changed):
    good: dict[str, Any] = {"theta": THETA, "xs": ones(T, B, d), "ys": ones(T, B, m), "h_0": ones(B, n)}
    return jb.objective(model, loss, **dict(options))(**good | changed)


def update(make, model=MODEL, loss=l2, **changed):
    estimator = make(model, loss)
    good: dict[str, Any] = {"theta": THETA, "xs": ones(T, B, d), "ys": ones(T, B, m)}
    if "state" not in changed:
        changed["state"] = estimator.init(changed.get("theta", THETA), changed.pop("h_0", ones(B, n)))
    return estimator.update(**good | changed)


def jacobian(function, *more, **changed):
    good: dict[str, Any] = {"cell": ELMAN, "theta_h": PARAMS["elman"], "xs": ones(T, d), "h_0": ones(n)}
    return function(*(good | changed).values(), *more)


def closed(form, **changed):
    good: dict[str, Any] = {"theta": CLOSED, "loss": l2, "xs": ones(T, B, d), "ys": ones(T, B, m), "h_0": ones(B, n)}
    return form(**good | changed)


def fit(**changed):
    good: dict[str, Any] = {
        "estimator": jb.estimators.bptt(MODEL, l2),
        "optimizer": SGD,
        "theta": THETA,
        "batches": [(ones(T, B, d), ones(T, B, m))],
    }
    return jb.training.fit(**good | changed)


SGD = optax.sgd(0.1)
BPTT = jb.estimators.bptt(MODEL, l2)


def train(name, change, batch):
    trainer = jb.training.trainer(BPTT, SGD)
    return getattr(trainer, name)(change(trainer.init(THETA)), batch)


def check_gradients(**changed):
    good: dict[str, Any] = {
        "model": MODEL, "loss": l2, "theta": THETA, "xs": ones(T, B, d), "ys": ones(T, B, m)
    }  # fmt: skip
    return jb.check_gradients(**good | changed)


def loaded(target):
    path = list(sys.path)
    try:
        return load(target)
    finally:
        sys.path[:] = path  # `load` puts the working directory in front


# Users' own functions, good and bad


def leak(theta_h, x_t, h_tm1):
    return h_tm1 * theta_h + x_t


def leaks(theta_h, x_t, h_tm1):
    return {name: theta_h * h for name, h in h_tm1.items()}


def single_leak(theta_h, x_t, h_tm1):
    return leak(theta_h, x_t, h_tm1).astype(np.float32)


def branching(theta_h, x_t, h_tm1):
    return h_tm1 if h_tm1.sum() > 0 else x_t


def lookup(theta_h, x_t, h_tm1):
    return h_tm1 * theta_h["leak"]


USER = jb.cells.from_step(leak)
USER_MODEL = jb.rnn(USER, jb.readouts.identity())


def matmul_readout(theta_o, h_t):
    return h_t @ theta_o


class Row(NamedTuple):
    """A call, the exception it must raise, and a pattern that its message must match."""

    name: str
    call: Callable[[], object]
    kind: type[Exception]
    pattern: str


ROWS: list[Row] = []


def row(name, kind, pattern, call):
    ROWS.append(Row(name, call, kind, pattern))


# Devices (conftest makes two) and checkpoints


def split(**changed):
    good: dict[str, Any] = {"theta": THETA, "xs": ones(T, 4, d), "ys": ones(T, 4, m)}
    return jb.data_parallel(jb.objective(MODEL, l2))(**good | changed)


row("F", TypeError, r"`F` must be an objective.*got function", lambda: jb.data_parallel(lambda theta: 0.0))
row(
    "devices",
    TypeError,
    r"`devices` must be devices: got \('cpu',\)",
    lambda: jb.data_parallel(jb.objective(MODEL, l2), ("cpu",)),
)
row(
    "batch-divides",
    ValueError,
    r"batch of `xs` must be a multiple of the 2 devices: got 3 along axis 1; pad it by 1 and give a `mask`",
    lambda: split(xs=ones(T, 3, d), ys=ones(T, 3, m)),
)
row(
    "batch-axis",
    ValueError,
    rf"`ys` must have a batch axis to split, axis 1: got shape \({T},\)",
    lambda: split(ys=ones(T)),
)
for name, kind, pattern, choices in [
    ("slots-zero", ValueError, r"`slots` must be an integer, at least 1: got 0", {"slots": 0}),
    ("slots-float", TypeError, r"`slots` must be an integer, at least 1: got 2.5", {"slots": 2.5}),
    ("two", ValueError, r"`slots`, `fraction` and `budget` exclude each other: got slots=2", {"slots": 2, "budget": 9}),
    ("fraction", ValueError, r"`fraction` must be a number with 0 < fraction ≤ 1.*got 1.5", {"fraction": 1.5}),
    ("fraction-word", TypeError, r"`fraction` must be a number.*got 'half'", {"fraction": "half"}),
]:
    row(f"checkpointed-{name}", kind, pattern, lambda choices=choices: jb.adjoints.checkpointed(**choices))
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
for name, kind, pattern, adjoints in [
    ("list", TypeError, r"`adjoints` must be a dictionary from names to adjoints: got list", [jb.adjoints.full()]),
    ("empty", ValueError, r"`adjoints` must have at least one entry: got none", {}),
]:
    row(
        f"plan-{name}",
        kind,
        pattern,
        lambda adjoints=adjoints: jb.plan(GRU, PARAMS["gru"], ones(T, B, d), ones(B, n), adjoints=adjoints),
    )

# Arguments of factories

# Every factory with arguments that make it work; each argument in turn is replaced by an unhashable one below.
FACTORIES: dict[Callable, dict[str, Any]] = {
    jb.cells.linear: {},
    jb.cells.elman: {},
    jb.cells.gru: {},
    jb.cells.lstm: {},
    jb.cells.from_step: {"step": leak},
    jb.cells.masked: {"cell": ELMAN},
    jb.cells.resettable: {"cell": ELMAN},
    jb.readouts.linear: {},
    jb.readouts.from_apply: {"apply": matmul_readout},
    jb.rnn: {"cell": GRU, "readout": jb.readouts.linear()},
    jb.objective: {"model": MODEL, "loss": l2},
    jb.estimators.bptt: {"model": MODEL, "loss": l2},
    jb.estimators.rtrl: {"model": MODEL, "loss": l2},
    jb.training.trainer: {"estimator": BPTT, "optimizer": SGD},
    initializers.orthogonal: {},
    initializers.identity: {},
    initializers.spectral_radius: {"rho": 0.9},
    initializers.non_normal: {"rho": 0.5, "strength": 1.0},
    initializers.chrono: {"T_max": 10},
}
for factory, good in FACTORIES.items():
    where = f"{factory.__module__.split('.')[1]}.{factory.__name__}"
    for argument in inspect.signature(factory).parameters:
        row(
            f"{where}-{argument}-unhashable",
            TypeError,
            rf"`{argument}` of {factory.__name__} must be hashable.*got a list; pass functions, numbers or Cells",
            lambda factory=factory, good=good, argument=argument: factory(**good | {argument: [1.0]}),
        )
        if argument.endswith("_init"):
            row(
                f"{where}-{argument}-number",
                TypeError,
                rf"`{argument}` must be a function: got float \(0.1\)",
                lambda factory=factory, good=good, argument=argument: factory(**good | {argument: 0.1}),
            )
row(
    "stacked-list",
    TypeError,
    r"`layers` of stacked must be hashable.*got .*list",
    lambda: jb.cells.stacked([ELMAN, GRU]),
)
row(
    "gate_bias-list",
    TypeError,
    r"`values` of gate_bias must be hashable.*got .*list",
    lambda: initializers.gate_bias([0, 1, 0, 0]),
)

for argument in ("step", "init", "initial_state", "output"):
    row(
        f"from_step-{argument}-number",
        TypeError,
        rf"`{argument}` must be a function: got int \(3\)",
        lambda argument=argument: jb.cells.from_step(**{"step": leak} | {argument: 3}),
    )
for argument in ("apply", "init"):
    row(
        f"from_apply-{argument}-str",
        TypeError,
        rf"`{argument}` must be a function: got str \('tanh'\)",
        lambda argument=argument: jb.readouts.from_apply(**{"apply": matmul_readout} | {argument: "tanh"}),
    )
for name, make in (("objective", jb.objective), *ESTIMATORS.items()):
    row(f"{name}-loss", TypeError, r"`loss` must be a function: got str", lambda make=make: make(MODEL, "l2"))
    row(
        f"{name}-model",
        TypeError,
        r"`model` must be a Model: got Cell .*jb.rnn",
        lambda make=make: make(GRU, l2),
    )
    row(
        f"{name}-reduction",
        ValueError,
        r"`reduction` must be one of 'mean', 'sum': got 'max'; weigh the loss",
        lambda make=make: make(MODEL, l2, reduction="max"),
    )
for name, make in (("objective", jb.objective), ("bptt", jb.estimators.bptt)):
    row(
        f"{name}-adjoint",
        TypeError,
        r"`adjoint` must be a function: got str \('full'\)",
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
row("unroll-adjoint", TypeError, r"`adjoint` must be a function: got str", lambda: unroll(adjoint="full"))
row(
    "apply-adjoint",
    TypeError,
    r"`adjoint` must be a function: got int",
    lambda: MODEL.apply(THETA, ones(T, B, d), adjoint=1),
)
row(
    "fit-callback",
    TypeError,
    r"`callback` must be a function or an Observer, or several: got int",
    lambda: fit(callback=5),
)
row("check_cell-inputs", TypeError, r"`inputs` must be a function: got int", lambda: jb.check_cell(ELMAN, inputs=3))
row(
    "elman-activation",
    ValueError,
    r"`activation` must be one of 'tanh', 'relu', 'sigmoid': got 'gelu'; bring your own f",
    lambda: jb.cells.elman("gelu"),
)
row(
    "lstm-two-biases",
    ValueError,
    r"`forget_bias` and `b_init` exclude each other: got both; .*row 1",
    lambda: jb.cells.lstm(forget_bias=2.0, b_init=initializers.zeros),
)
for rho in (-0.5, float("nan"), "0.9", True):
    row(
        f"spectral_radius-{rho!r}",
        ValueError,
        rf"`rho` must be a number, at least 0: got {re.escape(repr(rho))}",
        lambda rho=rho: initializers.spectral_radius(rho),
    )
for T_max in (2, None):
    row(
        f"chrono-{T_max}",
        ValueError,
        rf"`T_max` must be a number, at least 3: got {T_max}",
        lambda T_max=T_max: initializers.chrono(T_max),
    )

# Cells, readouts, models, estimators that are none

NOT_CELLS: dict[str, Callable] = {
    "rnn": lambda value: jb.rnn(value, jb.readouts.linear()),
    "unroll": lambda value: unroll(cell=value),
    "masked": jb.cells.masked,
    "resettable": jb.cells.resettable,
    "check_cell": jb.check_cell,
    "jacobians": lambda value: jacobian(jb.jacobians.along, cell=value),
}
for name, call in NOT_CELLS.items():
    row(f"{name}-not-a-cell", TypeError, r"`cell` must be a Cell: got str \('gru'\)$", lambda call=call: call("gru"))
    row(
        f"{name}-factory-not-called",
        TypeError,
        r"`cell` must be a Cell: got function .*call the factory",
        lambda call=call: call(jb.cells.gru),
    )
row("stacked-none", TypeError, r"`layers` must be at least one Cell: got none", jb.cells.stacked)
row("stacked-not-a-cell", TypeError, r"`layers` must be a Cell: got int", lambda: jb.cells.stacked(ELMAN, 3))
row(
    "rnn-readout",
    TypeError,
    r"`readout` must be a Readout: got function .*call the factory, as in `readouts.linear\(\)`",
    lambda: jb.rnn(GRU, jb.readouts.linear),
)
row("rnn-readout-str", TypeError, r"`readout` must be a Readout: got str", lambda: jb.rnn(GRU, "linear"))
row("check_readout", TypeError, r"`readout` must be a Readout: got Cell", lambda: jb.check_readout(GRU))
row("check_gradients-model", TypeError, r"`model` must be a Model: got Cell", lambda: check_gradients(model=GRU))

# Initialisation

INITS: dict[str, Callable] = {
    "linear": LINEAR.init,
    "elman": ELMAN.init,
    "gru": GRU.init,
    "lstm": LSTM.init,
    "stacked": jb.cells.stacked(ELMAN, GRU).init,
    "masked": jb.cells.masked(ELMAN).init,
    "resettable": jb.cells.resettable(ELMAN).init,
    "readouts.linear": jb.readouts.linear().init,
    "readouts.identity": jb.readouts.identity().init,
    "rnn": lambda key, input_size, hidden_size, dtype=np.float64: MODEL.init(
        key, input_size=input_size, hidden_size=hidden_size, output_size=m, dtype=dtype
    ),
}
for name, init in INITS.items():
    first, second = ("hidden_size", "output_size") if "readouts" in name else ("input_size", "hidden_size")
    for what, bad, came in (
        ("int", lambda: 0, r"int \(0\)"),
        ("none", lambda: None, "NoneType"),
        ("split", lambda: jax.random.split(key(), 2), r"\(2,\)"),
    ):
        row(
            f"{name}.init-key-{what}",
            TypeError,
            rf"`key` must be one random key: got {came}.*jax.random.key\(seed\)",
            lambda init=init, bad=bad: init(bad(), 3, 3),
        )
    for dtype, came in ((np.int32, "int32"), (np.complex64, "complex64")):
        row(
            f"{name}.init-{came}",
            TypeError,
            rf"`dtype` must be a floating-point dtype: got {came}; use jnp.float32",
            lambda init=init, dtype=dtype: init(key(), 3, 3, dtype=dtype),
        )
    for argument, sizes in ((first, (0, 3)), (second, (3, 0))):
        row(
            f"{name}.init-{argument}-0",
            ValueError,
            rf"`{argument}` must be an integer, at least 1: got 0",
            lambda init=init, sizes=sizes: init(key(), *sizes),
        )
    for argument, sizes in ((first, (3.0, 3)), (second, (3, 3.0))):
        row(
            f"{name}.init-{argument}-float",
            TypeError,
            rf"`{argument}` must be an integer, at least 1: got 3.0",
            lambda init=init, sizes=sizes: init(key(), *sizes),
        )
row(
    "init-key-array",
    TypeError,
    r"`key` must be one random key: got",
    lambda: GRU.init(ones(2), 3, 3),
)
row("init-size-bool", TypeError, r"`hidden_size` must be an integer.*got True", lambda: GRU.init(key(), 3, True))
row(
    "rnn.init-output_size",
    ValueError,
    r"`output_size` must be an integer, at least 1: got -1",
    lambda: MODEL.init(key(), input_size=3, hidden_size=4, output_size=-1),
)
row(
    "identity-sizes",
    ValueError,
    r"`output_size` must equal `hidden_size` for the identity readout: got output_size=2, hidden_size=3",
    lambda: jb.readouts.identity().init(key(), 3, 2),
)
row(
    "from_step-init",
    NotImplementedError,
    r"needs `init`, which was not given: pass `init=` to `cells.from_step`",
    lambda: USER.init(key(), 3, 3),
)
row(
    "from_step-initial_state",
    NotImplementedError,
    r"needs `initial_state`, which was not given: .*or pass `h_0`",
    lambda: objective(model=USER_MODEL, theta=jb.Theta(ones(), ()), ys=ones(T, B, d), h_0=None),
)
row(
    "from_apply-init",
    NotImplementedError,
    r"needs `init`, which was not given: pass `init=` to `readouts.from_apply`",
    lambda: jb.rnn(GRU, jb.readouts.from_apply(matmul_readout)).init(key(), input_size=3, hidden_size=4, output_size=2),
)
row(
    "check_cell-without-init",
    NotImplementedError,
    r"needs `init`.*cells.from_step",
    lambda: jb.check_cell(USER),
)
row(
    "orthogonal-vector",
    ValueError,
    r"initializers.orthogonal makes a matrix: got shape=\(3,\), expected two axes",
    lambda: initializers.orthogonal()(key(), (3,)),
)
row(
    "orthogonal-bias",
    ValueError,
    r"initializers.orthogonal makes a matrix: got shape=\(4,\)",
    lambda: jb.cells.elman(b_init=initializers.orthogonal()).init(key(), d, n),
)
for name, init in {
    "identity": initializers.identity(),
    "spectral_radius": initializers.spectral_radius(0.9),
    "non_normal": initializers.non_normal(0.5, 1.0),
}.items():
    for shape in ((4, 3), (4,), (2, 4, 4)):
        row(
            f"{name}-{shape}",
            ValueError,
            rf"initializers.{name} makes a square matrix: got shape={re.escape(str(shape))}; .*one gate at a time",
            lambda init=init, shape=shape: init(key(), shape),
        )
row(
    "identity-as-W_x",
    ValueError,
    r"initializers.identity makes a square matrix: got shape=\(4, 3\)",
    lambda: jb.cells.gru(W_x_init=initializers.identity()).init(key(), d, n),
)
for name, call, gates, shape in (
    ("gate_bias", lambda: initializers.gate_bias(0, 1)(key(), (3, 4)), "2", (3, 4)),
    ("gate_bias-lstm", lambda: jb.cells.lstm(b_init=initializers.gate_bias(0, 1, 0)).init(key(), d, n), "3", (4, n)),
    ("chrono", lambda: initializers.chrono(9)(key(), (2, 4)), "3 or 4", (2, 4)),
    ("chrono-elman", lambda: jb.cells.elman(b_init=initializers.chrono(9)).init(key(), d, n), "3 or 4", (n,)),
):
    row(
        f"{name}-rows",
        ValueError,
        rf"initializers.{name.split('-')[0]} makes biases of shape \(gates, n\) with {gates} gates: "
        rf"got shape={re.escape(str(shape))}",
        call,
    )

# Parameters

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
for name in ("linear", "elman", "gru", "lstm"):
    params = type(PARAMS[name])
    rows = {"gru": "3n", "lstm": "4n"}.get(name, "n")
    row(
        f"{name}-params-tuple",
        TypeError,
        rf"`theta_h` must be {params.__name__}, as `cell.init` makes it: got tuple",
        lambda name=name: unroll(name, theta_h=tuple(PARAMS[name])),
    )
    row(
        f"{name}-params-lists",
        TypeError,
        rf"`theta_h` must hold arrays: got {params.__name__}\(list, ndarray",
        lambda name=name: unroll(name, theta_h=PARAMS[name]._replace(W_x=[[1.0]])),
    )
    row(
        f"{name}-params-integer",
        TypeError,
        r"`theta_h.W_h` must be floating point: got int32; complex parameters go through `cells.from_step`",
        lambda name=name: unroll(name, theta_h=converted(PARAMS[name], np.int32)),
    )
    row(
        f"{name}-params-complex",
        TypeError,
        r"`theta_h.W_h` must be floating point: got complex128",
        lambda name=name: unroll(name, theta_h=converted(PARAMS[name], complex)),
    )
    for field, leaf in PARAMS[name]._asdict().items():
        layout = {"W_x": rf"\[{rows}, d\]", "W_h": rf"\[{rows}, n\]"}.get(field, rf"\[{rows}\]")
        wrong_rows = ones(leaf.shape[0] + 1, *leaf.shape[1:])
        wrong_rank = ones(*leaf.shape, 1)
        for what, wrong in (("rows", wrong_rows), ("rank", wrong_rank)):
            row(
                f"{name}-{field}-{what}",
                ValueError,
                rf"`theta_h.{field}` must have shape {layout}: got {re.escape(str(wrong.shape))} beside W_h.shape="
                if (field, what) != ("W_h", "rank")  # without n the first field is as wrong as any
                else r"`theta_h.W_x` must have shape .* beside W_h.shape=\(\d+, 4, 1\)",
                lambda name=name, field=field, wrong=wrong: unroll(
                    name, theta_h=PARAMS[name]._replace(**{field: wrong})
                ),
            )
        if field != "W_h":
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
    r"`xs` must have shape \[T, \*batch, d\] with d=3 .*got xs.shape=\(5, 6, 4\)",
    lambda: unroll("stacked", theta_h=(PARAMS["elman"], PARAMS["gru"]), h_0=(ones(B, n), ones(B, n))),
)

# Inputs

for name in ("linear", "elman", "gru", "lstm"):
    for what, xs, kind, pattern in (
        ("wrong-d", ones(T, B, d + 1), ValueError, r"`xs` must have shape .*d=3 as in .*got xs.shape=\(5, 6, 4\)"),
        ("one-axis", ones(d), ValueError, r"`xs` must have shape \[T, \*batch, d\].*got xs.shape=\(3,\)"),
        ("integers", ints(T, B, d), TypeError, r"`xs` must have the dtype of `theta_h.W_h`, float64: got int32"),
        ("float32", singles(T, B, d), TypeError, r"`xs` must have the dtype .*float64: got float32; .*xs.astype"),
        ("dict", {"a": ones(T, B, d)}, TypeError, r"`xs` must be one array \[T, \*batch, d\]: got dict"),
    ):
        row(f"{name}-xs-{what}", kind, pattern, lambda name=name, xs=xs: unroll(name, xs=xs))
    state = CELLS[name][2]
    for what, make, kind, pattern in (
        ("n", lambda h: ones(B, n + 1), ValueError, r"must have shape \[\*batch, n\] = \(6, 4\).*got \(6, 5\)"),
        ("batch", lambda h: ones(B + 1, n), ValueError, r"= \(6, 4\), with the batch of xs.shape=.*: got \(7, 4\)"),
        ("no-batch", lambda h: ones(n), ValueError, r"= \(6, 4\).*got \(4,\); .*\(theta, batch_shape=\(6,\)\)"),
        ("float32", lambda h: singles(B, n), TypeError, r"must have the dtype of `theta_h.W_h`, float64: got float32"),
        ("integers", lambda h: ints(B, n), TypeError, r"must have the dtype of `theta_h.W_h`, float64: got int32"),
    ):  # fmt: skip
        label = r"h_0\.h" if name == "lstm" else "h_0"
        row(
            f"{name}-h_0-{what}",
            kind,
            rf"`{label}` .*{pattern}",
            lambda name=name, state=state, make=make: unroll(name, h_0=jax.tree.map(make, state)),
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
for name in ("linear", "elman", "gru", "lstm"):
    cell = CELLS[name][0]
    row(
        f"{name}.initial_state-Theta",
        TypeError,
        rf"`theta_h` must be {type(PARAMS[name]).__name__}.*got Theta",
        lambda cell=cell, name=name: cell.initial_state(jb.Theta(PARAMS[name], THETA_O), (B,)),
    )
    row(
        f"{name}.initial_state-batch_shape",
        TypeError,
        r"`batch_shape` must be a tuple.*got (int|6)",
        lambda cell=cell, name=name: cell.initial_state(PARAMS[name], B),
    )
row(
    "rnn.initial_state-batch_shape",
    TypeError,
    r"`batch_shape` must be a tuple.*got (int|6)",
    lambda: MODEL.initial_state(THETA, B),
)
row("unroll-no-h_0", TypeError, r"`h_0` must be a state: got None; .*cell.initial_state", lambda: unroll(h_0=None))
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
        rf"`xs.{field}` must be boolean: got int32; write `{field}.astype\(bool\)`",
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
EMPTY = r"must have at least one array, to say how many steps there are: got .*jnp.zeros\(\(T, 0\)\)"
SCALAR = r"must have time as its first axis: got a scalar, expected \[T, \*batch, …\]"
NO_STEP = r"must have at least one step: got T = 0 \(float64\[0, 6, \d\]\)"
for name, call in {
    "unroll": lambda **changed: unroll(**changed),
    "apply": lambda xs: MODEL.apply(THETA, xs),
    "objective": lambda **changed: objective(**changed),
    "bptt": lambda **changed: update(jb.estimators.bptt, **changed),
    "rtrl": lambda **changed: update(jb.estimators.rtrl, **changed),
    "double_sum": lambda **changed: closed(jb.closed_form.double_sum, **changed),
    "closed_form.recursion": lambda **changed: closed(jb.closed_form.recursion, **changed),
    "check_gradients": lambda **changed: check_gradients(**changed),
}.items():
    for argument, last in (("xs", d),) if name in ("unroll", "apply") else (("xs", d), ("ys", m)):
        for what, value, pattern in (("none", (), EMPTY), ("scalar", 1.0, SCALAR), ("T-0", ones(0, B, last), NO_STEP)):
            row(
                f"{name}-{argument}-{what}",
                ValueError,
                rf"`{argument}` {pattern}",
                lambda call=call, argument=argument, value=value: call(**{argument: value}),
            )
    if name not in ("unroll", "apply"):
        row(
            f"{name}-T",
            ValueError,
            r"`xs` and `ys` must share their time axis: got xs=float64\[5, 6, 3\], ys=float64\[4, 6, 2\]",
            lambda call=call: call(ys=ones(T - 1, B, m)),
        )
        row(
            f"{name}-ys-batch",
            ValueError,
            r"`loss` does not accept its arguments \(float64\[6, 2\], float64\[7, 2\]\): .*one shape",
            lambda call=call: call(ys=ones(T, B + 1, m)),
        )
        row(
            f"{name}-ys-integers",
            TypeError,
            r"`loss` does not accept.*l2_loss takes floating-point predictions and targets: got float64 and int32",
            lambda call=call: call(ys=ints(T, B, m)),
        )
row(
    "xs-leaves-differ-in-T",
    ValueError,
    r"all leaves of `xs` must share their time axis: got lengths \{.*'a'.*5.*'b'.*4\}",
    lambda: unroll(cell=USER, theta_h=ones(), xs={"a": ones(T, B, n), "b": ones(T - 1, B, n)}),
)
row(
    "xs-leaves-differ-in-batch",
    ValueError,
    r"`h_0` can't be made, as the leaves of `xs` suggest different batch axes \[\(6,\), \(7,\)\].*pass `h_0`",
    lambda: objective(xs={"a": ones(T, B, d), "b": ones(T, B + 1, d)}, h_0=None),
)

# Users' cells

row(
    "from_step-tree",
    TypeError,
    r"f must return the tree of its state: got .*\{'a': \*\}.*expected that of h_0.*\{'a': \*, 'b': \*\}",
    lambda: unroll(
        cell=jb.cells.from_step(lambda theta_h, x_t, h_tm1: {"a": h_tm1["a"]}),
        theta_h=ones(),
        h_0={"a": ones(B, n), "b": ones(B, n)},
    ),
)
row(
    "from_step-shape",
    ValueError,
    r"`h_0` must have the shape and dtype that f returns, float64\[6, 3\]: got float64\[1, 3\]",
    lambda: unroll(
        cell=jb.cells.from_step(lambda theta_h, x_t, h_tm1: x_t + 0 * jnp.sum(h_tm1)), theta_h=ones(), h_0=ones(1, d)
    ),
)
row(
    "from_step-dtype",
    TypeError,
    r"`h_0` must have the shape and dtype that f returns, float32\[6, 3\]: got float64\[6, 3\]",
    lambda: unroll(cell=jb.cells.from_step(single_leak), theta_h=ones(), h_0=ones(B, d)),
)
row(
    "from_step-does-not-fit",
    TypeError,
    r"`cell.apply` does not accept its arguments \(float64\[\], float64\[6, 3\], float64\[6, 4\]\)",
    lambda: unroll(cell=USER, theta_h=ones(), h_0=ones(B, n)),
)
row(
    "from_step-branches-on-values",
    TypeError,
    r"`cell.apply` does not accept its arguments.*boolean",
    lambda: unroll(cell=jb.cells.from_step(branching), theta_h=ones(), h_0=ones(B, d)),
)
row(
    "from_step-missing-parameter",
    TypeError,
    r"`cell.apply` does not accept its arguments \(\{'other': .*leak",
    lambda: unroll(cell=jb.cells.from_step(lookup), theta_h={"other": ones()}, h_0=ones(B, d)),
)
row(
    "rtrl-h_0-batches-differ",
    ValueError,
    r"the leaves of `h_0` must share their batch axes: got \[\(6,\), \(7,\)\] in LSTMState",
    lambda: jb.estimators.rtrl(jb.rnn(LSTM, jb.readouts.linear()), l2).init(
        jb.Theta(PARAMS["lstm"], THETA_O), LSTMState(ones(B, n), ones(B + 1, n))
    ),
)
row(
    "rtrl-h_0-tree",
    TypeError,
    r"`h_0` must have the tree of the cell's state, .*LSTMState.*: got PyTreeDef\(\*\)",
    lambda: jb.estimators.rtrl(jb.rnn(LSTM, jb.readouts.linear()), l2).init(
        jb.Theta(PARAMS["lstm"], THETA_O), ones(B, n)
    ),
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

# Readouts

for what, o, pattern in (
    ("tuple", (ones(m, n), ones(m)), r"`theta.o` must be LinearReadoutParams, as `readout.init` makes it: got tuple"),
    ("lists", LinearReadoutParams([[1.0]], None), r"`theta.o` must be LinearReadoutParams"),
    ("n", THETA_O._replace(W_o=ones(m, n + 1)), r"`theta.o.W_o` must have shape \[m, n\] .*n=4: got \(2, 5\)"),
    ("rank", THETA_O._replace(W_o=ones(n)), r"`theta.o.W_o` must have shape \[m, n\] .*got \(4,\)"),
    ("b", THETA_O._replace(b=ones(m + 1)), r"`theta.o.b` must have shape \[m\] = \(2,\): got \(3,\)"),
    ("float32", THETA_O._replace(b=singles(m)), r"`theta.o.b` must have the dtype of `hs`, float64: got float32"),
    ("integers", LinearReadoutParams(ints(m, n), ints(m)), r"`theta.o.W_o` must have the dtype of `hs`.*got int32"),
):
    for name, call in (
        ("apply", lambda theta: MODEL.apply(theta, ones(T, B, d), ones(B, n))),
        ("bptt", lambda theta: update(jb.estimators.bptt, theta=theta)),
        ("rtrl", lambda theta: update(jb.estimators.rtrl, theta=theta)),
    ):
        kind = ValueError if what in ("n", "rank", "b") else TypeError
        row(f"{name}-theta.o-{what}", kind, pattern, lambda call=call, o=o: call(THETA._replace(o=o)))
row(
    "linear-readout-of-a-dict",
    TypeError,
    r"the linear readout reads one array: the cell's output is a dict; use `readouts.from_apply`",
    lambda: jb.rnn(jb.cells.from_step(leaks), jb.readouts.linear()).apply(
        jb.Theta(ones(), THETA_O), ones(T, B, d), {"a": ones(B, n)}
    ),
)
row(
    "from_apply-does-not-fit",
    TypeError,
    r"`readout.apply` does not accept its arguments \(float64\[5, 2\], float64\[6, 4\]\)",
    lambda: jb.rnn(GRU, jb.readouts.from_apply(matmul_readout)).apply(
        jb.Theta(PARAMS["gru"], ones(n + 1, m)), ones(T, B, d), ones(B, n)
    ),
)

# Losses and masks

for name, call in {
    "objective": objective,
    "bptt": lambda **changed: update(jb.estimators.bptt, **changed),
    "rtrl": lambda **changed: update(jb.estimators.rtrl, **changed),
    "check_gradients": lambda **changed: check_gradients(**changed),
}.items():
    for what, kind, pattern, loss in (
        ("features-kept", ValueError, r"shape \(6,\): got \(6, 2\) .*sum over features", lambda y_hat, y: y_hat - y),
        ("batch-summed", ValueError, r"shape \(6,\): got \(\) .*not over the batch", lambda y_hat, y: jnp.sum(y_hat)),
        ("a-pair", ValueError, r"shape \(6,\): got a tuple for y_hat_t=.*y_t=", lambda y_hat, y: (l2(y_hat, y), 0)),
    ):
        row(
            f"{name}-loss-{what}",
            kind,
            rf"`loss` must return one number for each member of the batch, {pattern}",
            lambda call=call, loss=loss: call(loss=loss),
        )
    row(
        f"{name}-loss-integer",
        TypeError,
        r"`loss` must return real floating point: got int32",
        lambda call=call: call(loss=lambda y_hat, y: jnp.sum(y_hat > y, -1, dtype=np.int32)),
    )
    row(
        f"{name}-loss-complex",
        TypeError,
        r"`loss` must return real floating point: got complex128",
        lambda call=call: call(loss=lambda y_hat, y: jnp.sum(y_hat, -1).astype(complex)),
    )
    row(
        f"{name}-loss-fails",
        TypeError,
        r"`loss` does not accept its arguments \(float64\[6, 2\], float64\[6, 2\]\): .*(unexpected|takes|argument)",
        lambda call=call: call(loss=lambda y_hat: y_hat),
    )
    for what, mask, kind, pattern in (
        ("integer", ints(T, B), TypeError, r"`mask` must be boolean: got int32; write `mask.astype\(bool\)`"),
        ("float", ones(T, B), TypeError, r"`mask` must be boolean: got float64"),
        ("list", [[True]], TypeError, r"`mask` must be boolean: got list"),
        ("T", flags(T - 1, B), ValueError, r"`mask` must share the time axis of `xs`, T=5: got mask.shape=\(4, 6\)"),
        ("scalar", np.bool_(True), ValueError, r"`mask` must share the time axis of `xs`, T=5: got mask.shape=\(\)"),
        ("batch", flags(T, B + 1), ValueError, r"`mask` must have shape \[T, \*batch\] = \(5, 6\).*got .*\(5, 7\)"),
        ("time-only", flags(T), ValueError, r"`mask` must have shape .* = \(5, 6\).*got .*\(5,\).*broadcast_to"),
        ("features", flags(T, B, m), ValueError, r"`mask` must have shape .* = \(5, 6\).*got .*\(5, 6, 2\)"),
    ):  # fmt: skip
        row(f"{name}-mask-{what}", kind, pattern, lambda call=call, mask=mask: call(mask=mask))
for name in ("l2_loss", "sigmoid_binary_cross_entropy"):
    loss = getattr(jb.losses, name)
    for what, kind, pattern, arguments in (
        ("dtype", TypeError, "floating-point predictions and targets: got float64 and int32", (ones(m), ints(m))),
        ("y_hat", TypeError, "floating-point predictions and targets: got int32 and float64", (ints(m), ones(m))),
        ("shape", ValueError, r"of one shape \[\*batch, m\]: got \(6, 2\) and \(6,\)", (ones(B, m), ones(B))),
        ("scalar", ValueError, r"of one shape \[\*batch, m\]: got \(\) and \(\)", (ones(), ones())),
    ):
        row(
            f"{name}-{what}",
            kind,
            rf"losses.{name} takes .*{pattern}",
            lambda loss=loss, arguments=arguments: loss(*arguments),
        )
for what, kind, pattern, arguments in (
    ("labels", TypeError, "logits and integer labels: got float64 and float64", (ones(B, m), ones(B))),
    ("logits", TypeError, "logits and integer labels: got int32 and int32", (ints(B, m), ints(B))),
    ("one-hot", ValueError, r"m\] and labels \[\*batch\]: got \(6, 2\) and \(6, 2\)", (ones(B, m), ints(B, m))),
    ("scalar", ValueError, r"\[\*batch, m\] and labels \[\*batch\]: got \(\) and \(\)", (ones(), ints())),
):  # fmt: skip
    row(
        f"softmax_cross_entropy-{what}",
        kind,
        rf"losses.softmax_cross_entropy takes .*{pattern}",
        lambda arguments=arguments: jb.losses.softmax_cross_entropy(*arguments),
    )

# Jacobians and closed forms

for name in ("along", "recursion", "written_out", "product"):
    function = getattr(jb.jacobians, name)
    row(
        f"jacobians.{name}-batch",
        ValueError,
        r"Jacobian matrices are of one sequence: got a state with batch axes \(6,\); use `jax.vmap`",
        lambda function=function: jacobian(function, xs=ones(T, B, d), h_0=ones(B, n)),
    )
    row(
        f"jacobians.{name}-h_0",
        ValueError,
        r"`h_0` must have shape .*\(4,\).*got \(5,\)",
        lambda function=function: jacobian(function, h_0=ones(n + 1)),
    )
    row(
        f"jacobians.{name}-T-0",
        ValueError,
        r"`xs` must have at least one step: got T = 0",
        lambda function=function: jacobian(function, xs=ones(0, d)),
    )
for name in ("immediate", "state"):
    function = getattr(jb.jacobians, name)
    row(
        f"jacobians.{name}-batch",
        ValueError,
        r"Jacobian matrices are of one sequence: got a state with batch axes \(6,\)",
        lambda function=function: jacobian(function, xs=ones(B, d), h_0=ones(B, n)),
    )
    row(
        f"jacobians.{name}-x_t",
        ValueError,
        r"`xs` must have shape .*d=3",
        lambda function=function: jacobian(function, xs=ones(d + 1)),
    )
    row(
        f"jacobians.{name}-theta_h",
        TypeError,
        r"`theta_h` must be ElmanParams.*got GRUParams",
        lambda function=function: jacobian(function, xs=ones(d), theta_h=PARAMS["gru"]),
    )
row(
    "jacobians.jvp-shape",
    ValueError,
    r"`h_0_dot` must be like `h_0`, float64\[4\]: got float64\[5\]",
    lambda: jacobian(jb.jacobians.jvp, ones(n + 1)),
)
row(
    "jacobians.jvp-dtype",
    ValueError,
    r"`h_0_dot` must be like `h_0`, float64\[4\]: got float32\[4\]",
    lambda: jacobian(jb.jacobians.jvp, singles(n)),
)
row(
    "jacobians.jvp-tree",
    TypeError,
    r"`h_0_dot` must have the tree of `h_0`: got .*expected PyTreeDef\(\*\)",
    lambda: jacobian(jb.jacobians.jvp, (ones(n), ones(n))),
)
row(
    "jacobians.vjp-shape",
    ValueError,
    r"`h_bars` must be like `hs`, float64\[5, 4\]: got float64\[4\]",
    lambda: jacobian(jb.jacobians.vjp, ones(n)),
)
row(
    "jacobians.vjp-tree",
    TypeError,
    r"`h_bars` must have the tree of `hs`",
    lambda: jacobian(jb.jacobians.vjp, {"h": ones(T, n)}),
)
for form in (jb.closed_form.double_sum, jb.closed_form.recursion):
    row(
        f"{form.__name__}-bias",
        TypeError,
        r"closed forms need Theta\(h=LinearParams, o=LinearReadoutParams with b=None\): got Theta\(h=LinearParams, "
        r"o=LinearReadoutParams with a bias\)",
        lambda form=form: closed(form, theta=jb.Theta(PARAMS["linear"], THETA_O)),
    )
    row(
        f"{form.__name__}-gru",
        TypeError,
        r"closed forms need Theta.*got Theta\(h=GRUParams, o=LinearReadoutParams\); use `jb.rnn\(cells.linear",
        lambda form=form: closed(form, theta=jb.Theta(PARAMS["gru"], CLOSED.o)),
    )
    row(
        f"{form.__name__}-W_o",
        ValueError,
        r"`theta.o.W_o` must have shape \[m, n\] with the cell's n=4: got \(2, 5\)",
        lambda form=form: closed(form, theta=CLOSED._replace(o=LinearReadoutParams(ones(m, n + 1), None))),
    )
    row(
        f"{form.__name__}-h_0",
        ValueError,
        r"`h_0` must have shape .*\(6, 4\).*got \(4,\)",
        lambda form=form: closed(form, h_0=ones(n)),
    )
    row(
        f"{form.__name__}-loss",
        TypeError,
        r"`loss` must be a function: got str",
        lambda form=form: closed(form, loss="l2"),
    )
row(
    "closed_form.states-theta_h",
    TypeError,
    r"`theta_h` must be LinearParams.*got ElmanParams",
    lambda: jb.closed_form.states(PARAMS["elman"], ones(T, d), ones(n)),
)

# Estimators

for name, make in ESTIMATORS.items():
    wanted = {"bptt": "BPTTState", "rtrl": "RTRLState"}[name]
    for what, state in (("none", None), ("h", ones(B, n)), ("tuple", (ones(B, n), None))):
        row(
            f"{name}-state-{what}",
            TypeError,
            rf"`state` must be {wanted}, as `estimator.init` makes it: got {type(state).__name__}",
            lambda make=make, state=state: update(make, state=state),
        )
    row(
        f"{name}-h_0",
        ValueError,
        r"`h_0` must have shape .*\(6, 4\), with the batch of xs.shape=\(5, 6, 3\): got \(7, 4\)",
        lambda make=make: update(make, h_0=ones(B + 1, n)),
    )
    row(
        f"{name}-xs",
        ValueError,
        r"`xs` must have shape .*d=3 .*got xs.shape=\(5, 6, 4\)",
        lambda make=make: update(make, xs=ones(T, B, d + 1)),
    )

row(
    "rtrl-state-a",
    ValueError,
    r"`state.a` must have shape \[\*batch, N, P\] = \(6, 4, 108\).*: got \(6, 4, 7\); make the state with",
    lambda: update(jb.estimators.rtrl, state=jb.estimators.RTRLState(ones(B, n), ones(B, n, 7))),
)

# Training

row(
    "trainer-estimator",
    TypeError,
    r"`estimator` must be a GradientEstimator: got Model .*jb.estimators.bptt\(model, loss\)",
    lambda: jb.training.trainer(MODEL, SGD),
)
row(
    "trainer-optimizer",
    TypeError,
    r"`optimizer` must be an optax optimiser: got float; `optax.adam\(1e-3\)`",
    lambda: jb.training.trainer(BPTT, 0.1),
)
row(
    "trainer-optimizer-not-called",
    TypeError,
    r"`optimizer` must be an optax optimiser: got function",
    lambda: jb.training.trainer(BPTT, optax.adam),
)
for value, kind in ((0, ValueError), (2.0, TypeError)):
    for name, call in (
        ("skip_nonfinite", lambda value: fit(skip_nonfinite=value)),
        ("steps", lambda value: fit(steps=value)),
        ("steps_per_dispatch", lambda value: fit(steps_per_dispatch=value)),
    ):
        row(
            f"{name}-{value}",
            kind,
            rf"`{name}` must be an integer, at least 1: got {value}",
            lambda call=call, value=value: call(value),
        )
row(
    "trainer.init-key",
    TypeError,
    r"`key` must be one random key: got int \(7\)",
    lambda: jb.training.trainer(BPTT, SGD).init(THETA, key=7),
)
for name, call in (
    ("trainer", lambda: jb.training.trainer(BPTT, SGD, streaming=True).init(THETA)),
    ("fit", lambda: fit(streaming=True)),
):
    row(f"{name}-stream", ValueError, r"`h_0` must be given for a stream.*got None; .*model.initial_state", call)
for what, batches, came in (
    ("batch", jb.training.Batch(ones(T, B, d), ones(T, B, m)), "Batch"),
    ("dict", {"xs": ones(T, B, d)}, "dict"),
    ("str", "batches", "str"),
    ("number", 3, "int"),
):
    row(
        f"fit-batches-{what}",
        TypeError,
        rf"`batches` must be an iterable of batches: got {came}; for one batch write `\[\(xs, ys\)\]`",
        lambda batches=batches: fit(batches=batches),
    )
for what, batch, came in (
    ("dict", {"xs": ones(T, B, d), "ys": ones(T, B, m)}, "dict"),
    ("array", ones(T, B, d), "ndarray"),
    ("one", (ones(T, B, d),), "a tuple of 1"),
    ("five", (ones(T, B, d),) * 5, "a tuple of 5"),
):
    row(
        f"fit-batch-{what}",
        TypeError,
        rf"a batch must be a tuple \(xs, ys\[, mask\[, h_0\]\]\): got {came}",
        lambda batch=batch: fit(batches=[batch]),
    )
row(
    "fit-batch-of-lists",
    TypeError,
    r"a batch must hold arrays: got a float; write `jnp.asarray",
    lambda: fit(batches=[([[1.0]], [[1.0]])]),
)
row("fit-empty", ValueError, r"`batches` must yield at least one batch: got none", lambda: fit(batches=[]))
row("fit-used-up", ValueError, r"`batches` must yield at least one batch.*only once", lambda: fit(batches=iter(())))
row(
    "fit-mask",
    TypeError,
    r"`mask` must be boolean: got int32",
    lambda: fit(batches=[(ones(T, B, d), ones(T, B, m), ints(T, B))]),
)
row(
    "fit-h_0",
    ValueError,
    r"`h_0` must have shape .*\(6, 4\).*got \(6, 5\)",
    lambda: fit(batches=[(ones(T, B, d), ones(T, B, m), None, ones(B, n + 1))]),
)
# An h_0 that would be ignored in silence trains on something else than what was given.
row("fit-h_0-no-stream", ValueError, r"`h_0` .*stream", lambda: fit(h_0=ones(B, n)))
row(
    "trainer.init-h_0-no-stream",
    ValueError,
    r"`h_0` .*stream",
    lambda: jb.training.trainer(BPTT, SGD).init(THETA, ones(B, n)),
)
row(
    "fit-h_0-in-a-batch-of-a-stream",
    ValueError,
    r"h_0.* stream",
    lambda: fit(streaming=True, h_0=ones(B, n), batches=[(ones(T, B, d), ones(T, B, m), None, ones(B, n))]),
)
for name in ("step", "steps"):
    row(
        f"trainer.{name}-state",
        TypeError,
        r"`state` must be (a )?TrainState.*got Theta",
        lambda name=name: train(name, lambda state: state.theta, jb.training.Batch(ones(T, B, d), ones(T, B, m))),
    )
row("fit-estimator", TypeError, r"`estimator` must be a GradientEstimator: got Model", lambda: fit(estimator=MODEL))
row("fit-optimizer", TypeError, r"`optimizer` must be an optax optimiser: got str", lambda: fit(optimizer="adam"))

# Checking

for name, call in (
    ("check_cell", functools.partial(jb.check_cell, ELMAN)),
    ("check_readout", functools.partial(jb.check_readout, jb.readouts.linear())),
):
    for argument in ("seeds", "sizes", "batch_shapes"):
        row(
            f"{name}-{argument}",
            ValueError,
            rf"`{argument}` must have at least one entry: got \(\)",
            lambda call=call, argument=argument: call(**{argument: ()}),
        )
    row(f"{name}-steps", ValueError, r"`steps` must be an integer, at least 1: got 0", lambda call=call: call(steps=0))
    row(
        f"{name}-dtype",
        TypeError,
        r"`dtype` must be a floating-point dtype: got int32",
        lambda call=call: call(dtype=np.int32),
    )
    for argument, value in (("seeds", 3), ("sizes", (3, 5)), ("batch_shapes", (2,))):
        row(
            f"{name}-{argument}-{value}",
            TypeError,
            rf"`{argument}` must .*got .*{value if argument == 'seeds' else value[0]}",
            lambda call=call, argument=argument, value=value: call(**{"seeds": (0,)} | {argument: value}),
        )
ONCE: dict[str, Any] = {"seeds": (0,), "sizes": ((2, 3),), "batch_shapes": ((),), "steps": 1}


def wrong_rule(theta_h, x_t, h_tm1, h_t, h_bar_t):
    theta_bar, x_bar_t, h_bar_tm1 = LINEAR.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    return theta_bar, 2 * x_bar_t, h_bar_tm1


def infinite_slope(theta_h, x_t, h_tm1):
    return LINEAR.apply(theta_h, x_t, h_tm1) + jnp.sqrt(jnp.sum(0 * theta_h.W_h))


def silent_rule(theta_h, x_t, h_tm1, h_t, h_bar_t):
    theta_bar, _, h_bar_tm1 = LINEAR.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    return theta_bar, None, h_bar_tm1


row(
    "check_cell-wrong",
    GradientMismatchError,
    r"`x_t\[\d\]` by the hand-written rule is .*, jax.vjp gives .*: relative error .*, allowed .* \(step t=1, seed=0",
    lambda: jb.check_cell(LINEAR._replace(vjp=wrong_rule), **ONCE),
)
row(
    "check_cell-f-not-finite",
    ValueError,
    r"jax.vjp itself gives NaN or infinity for `theta_h\.W_h` \(step t=1, seed=0.*check them first",
    lambda: jb.check_cell(LINEAR._replace(apply=infinite_slope), **ONCE),
)
row(
    "check_gradients-not-finite",
    ValueError,
    r"itself gives NaN or infinity for `theta",
    lambda: check_gradients(xs=np.full((T, B, d), np.nan)),
)
for name, call in (
    ("check_cell", lambda: jb.check_cell(LINEAR, dtype=jnp.bfloat16)),
    ("check_readout", lambda: jb.check_readout(jb.readouts.linear(), dtype=jnp.bfloat16)),
    ("check_gradients", lambda: check_gradients(dtype=jnp.bfloat16)),
):
    row(
        f"{name}-bfloat16",
        ValueError,
        r"`dtype` of a check must be float32 or wider.*got bfloat16; pass `dtype=jnp.float64`",
        call,
    )
row(
    "check_cell-missing",
    GradientMismatchError,
    r"the rule gives no cotangent of the right shape for x_t \(step t=1, seed=0.*return one of the leaf's own shape",
    lambda: jb.check_cell(LINEAR._replace(vjp=silent_rule), **ONCE),
)
for target, pattern in (
    ("no_colon", "it needs both parts, with a colon between"),
    (":CELL", "it needs both parts, with a colon between"),
    ("jaxbptt:", "it needs both parts, with a colon between"),
    ("no_such_file.py:CELL", r"there is no file `no_such_file.py` in /"),
    ("jaxbptt.nowhere:CELL", r"importing `jaxbptt.nowhere` failed \(No module named"),
    ("jaxbptt.cells:NOWHERE", "`jaxbptt.cells` has no `NOWHERE`"),
    ("jaxbptt:__version__", "`__version__` is a str"),
    ("jaxbptt.adjoints:full", "`full` is a"),
):
    row(
        f"checking-{target}",
        ValueError,
        rf"`{re.escape(target)}` must be MODULE:NAME of a Cell or a Readout.*: {pattern}",
        lambda target=target: loaded(target),
    )

# Diagnostics

DIAGNOSTICS = jb.diagnostics


def diagnostic(function, **changed):
    good: dict[str, Any] = {"cell": ELMAN, "theta_h": PARAMS["elman"], "xs": ones(T, d), "h_0": ones(n)}
    return function(**good | changed)


def flow(function=DIAGNOSTICS.gradient_flow, **changed):
    good: dict[str, Any] = {
        "model": MODEL, "loss": l2, "theta": THETA, "xs": ones(T, B, d), "ys": ones(T, B, m), "h_0": ones(B, n)
    }  # fmt: skip
    return function(**good | changed)


def find(**changed):
    good: dict[str, Any] = {"cell": ELMAN, "theta_h": PARAMS["elman"], "x": ones(d), "h_0": ones(B, n)}
    return DIAGNOSTICS.fixed_points(**good | changed)


for name in ("jacobian_spectrum", "power_iteration", "verdict", "lyapunov_spectrum", "largest_exponent"):
    function = getattr(DIAGNOSTICS, name)
    row(
        f"diagnostics.{name}-cell",
        TypeError,
        "`cell` must be a Cell: got function",
        lambda function=function: diagnostic(function, cell=jb.cells.elman),
    )
    row(
        f"diagnostics.{name}-xs",
        ValueError,
        r"`xs` must have shape .*d=3.*got xs.shape=\(5, 4\)",
        lambda function=function: diagnostic(function, xs=ones(T, d + 1)),
    )
    row(
        f"diagnostics.{name}-key",
        TypeError,
        r"`key` must be one random key: got int \(7\)",
        lambda function=function: diagnostic(function, key=7),
    )
for name in ("gradient_flow", "omega"):
    function = getattr(DIAGNOSTICS, name)
    for argument, value, kind, pattern in (
        ("model", GRU, TypeError, "`model` must be a Model: got Cell"),
        ("loss", 3, TypeError, "`loss` must be a function: got int"),
        ("theta", THETA.h, TypeError, r"`theta` must be a Theta\(h=…, o=…\): got GRUParams"),
        ("ys", ones(T - 1, B, m), ValueError, "`xs` and `ys` must share their time axis"),
        ("mask", ints(T, B), TypeError, "`mask` must be boolean: got int32"),
        ("h_0", ones(B, n + 1), ValueError, r"`h_0` must have shape .*\(6, 4\).*got \(6, 5\)"),
    ):
        row(
            f"diagnostics.{name}-{argument}",
            kind,
            pattern,
            lambda function=function, argument=argument, value=value: flow(function, **{argument: value}),
        )
row(
    "gradient_flow-lags",
    ValueError,
    "`lags` must be an integer, at least 1: got 0",
    lambda: flow(lags=0),
)
row("gradient_flow-reduction", ValueError, "`reduction` must be one of 'mean', 'sum': got 'max'", lambda: flow(
    reduction="max"))  # fmt: skip
spectrum = functools.partial(diagnostic, DIAGNOSTICS.lyapunov_spectrum)
row("lyapunov-k", ValueError, r"`k` must be at most the size of the state, N=4: got 5", lambda: spectrum(k=n + 1))
row("lyapunov-k-zero", ValueError, "`k` must be an integer, at least 1: got 0", lambda: spectrum(k=0))
row("lyapunov-transient", ValueError, r"`transient` must be less than .*T=5: got 5", lambda: spectrum(transient=T))
row("lyapunov-transient-negative", ValueError, "`transient` must be an integer, at least 0: got -1", lambda: spectrum(
    transient=-1))  # fmt: skip
row(
    "lyapunov-every", ValueError, "`every` must divide the number of steps, T=5: got every=2", lambda: spectrum(every=2)
)
row("lyapunov-every-transient", ValueError, "`every` must divide `transient`=2: got every=5", lambda: spectrum(
    every=T, transient=2))  # fmt: skip
row("power_iteration-iterations", ValueError, "`iterations` must be an integer, at least 2: got 1", lambda: diagnostic(
    DIAGNOSTICS.power_iteration, iterations=1))  # fmt: skip
for value, kind, pattern in (
    (1.0, ValueError, "`factor` must be a finite number above 1: got 1.0"),
    (np.inf, ValueError, "`factor` must be a finite number above 1: got inf"),
    ("10", TypeError, r"`factor` must be a number above 1: got str \('10'\)"),
):
    row(f"verdict-{value}", kind, pattern, lambda value=value: diagnostic(DIAGNOSTICS.verdict, factor=value))
for what, W, came in (("gates", ones(4 * n, n), r"\(16, 4\)"), ("list", [[1.0]], "a list"), ("empty", ones(0, 0), "0")):
    row(
        f"jacobian_bound-{what}",
        ValueError,
        rf"`W_h` must be a square matrix \[n, n\]: got .*{came}.*one gate's rows",
        lambda W=W: DIAGNOSTICS.jacobian_bound(W),
    )
row("jacobian_bound-gamma", ValueError, "`gamma` must be a finite number above 0: got 0", lambda: (
    DIAGNOSTICS.jacobian_bound(ones(n, n), 0)))  # fmt: skip
row(
    "spectral_clipping-gates",
    ValueError,
    r"`W_h` must have shape \[gates · n, n\] with gates=1: got \(16, 4\); gates is 1 .* 4 for an LSTM",
    lambda: DIAGNOSTICS.spectral_clipping(ones(4 * n, n), 1.0),
)
row("spectral_clipping-sigma", ValueError, "`sigma` must be a finite number above 0: got -1.0", lambda: (
    DIAGNOSTICS.spectral_clipping(ones(n, n), -1.0)))  # fmt: skip
for what, options, came in (("neither", {}, "neither"), ("both", {"norm": 1.0, "value": 2.0}, "'norm': 1.0")):
    row(
        f"clipped_delta-{what}",
        ValueError,
        rf"one of `norm` and `value` must be given: got .*{came}",
        lambda options=options: DIAGNOSTICS.clipped_delta(**options),
    )
row("clipped_delta-zero", ValueError, "`norm` must be a finite number above 0: got 0", lambda: (
    DIAGNOSTICS.clipped_delta(norm=0)))  # fmt: skip
row("fixed_points-solver", TypeError, "`solver` must be an optax solver: got str", lambda: find(solver="lbfgs"))
row("fixed_points-steps", ValueError, "`steps` must be an integer, at least 1: got 0", lambda: find(steps=0))
row(
    "fixed_points-tolerance",
    ValueError,
    "`tolerance` must be a finite number above 0: got 0",
    lambda: find(tolerance=0),
)
row("fixed_points-none", ValueError, r"`h_0` must hold S first guesses.*S ≥ 1", lambda: find(h_0=ones(0, n)))
row("fixed_points-scalar", ValueError, r"`h_0` must hold S first guesses.*write `h\[None\]`", lambda: find(h_0=1.0))
row("fixed_points-one", ValueError, r"`h_0` must have shape", lambda: find(h_0=ones(n)))
row(
    "fixed_points-two-axes",
    ValueError,
    r"`h_0` must have one batch axis.*got batch axes \(2, 3\).*`reshape`",
    lambda: find(cell=OWN_STATE, h_0=ones(2, 3, n)),
)
OWN_STATE = jb.cells.from_step(lambda theta_h, x_t, h_tm1: 0.5 * h_tm1)


row(
    "checkpoints-processes",
    NotImplementedError,
    r"checkpoints are written by one process: got 2 of `jax.distributed`; keep the run with a `Saver`",
    lambda: _validate.one_process(2),
)
row(
    "rnn-policy",
    TypeError,
    r"`policy` must be a Policy, such as `policies.mixed_precision\(\)`: got str \('bfloat16'\)",
    lambda: jb.rnn(LINEAR, jb.readouts.linear(), policy="bfloat16"),
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


# Runs that are watched and kept

row(
    "fit-function-without-steps",
    ValueError,
    r"`steps` must be given when `batches` is a function of the step, which has no end: got None",
    lambda: fit(batches=lambda k: (ones(T, B, d), ones(T, B, m))),
)
row(
    "fit-checkpoints-of-an-iterable",
    TypeError,
    r"`batches` must be a function of the step with `checkpoints`: got list, .*see `shuffled`",
    lambda: fit(checkpoints=jb.training.Saver(1, lambda step, run: None, lambda run: None)),
)
row(
    "fit-checkpoints",
    TypeError,
    r"`checkpoints` must be a Saver: got str; .*checkpoints.saver\(folder, every=100\)",
    lambda: fit(checkpoints="runs/one"),
)
for what, callback, came in (("list", [print, "bar"], "str"), ("str", "bar", "str")):
    row(
        f"fit-callback-{what}",
        TypeError,
        rf"`callback` must be a function or an Observer, or several: got {came}",
        lambda callback=callback: fit(callback=callback),
    )
row(
    "fit-not-finite",
    FloatingPointError,
    r"step 0 .*is not finite: the first leaf is ∂F/∂θ at `theta\.h\.W_x`, with loss nan.*`skip_nonfinite` allows 0",
    lambda: fit(batches=[(np.nan * ones(T, B, d), ones(T, B, m))]),
)
row(
    "evaluator-no-step",
    ValueError,
    r"`batches` must hold at least one step that counts: got none",
    lambda: jb.training.evaluator(MODEL, l2)(THETA, []),
)
row(
    "early_stopping-no-scalar",
    ValueError,
    r"`evaluate` must return a scalar, the lower the better: got the shape \(4,\)",
    lambda: fit(callback=jb.training.early_stopping(lambda theta: ones(n), every=1)),
)
for name, call in (
    ("every", lambda value: jb.training.early_stopping(len, every=value)),
    ("patience", lambda value: jb.training.early_stopping(len, every=1, patience=value)),
    ("size", lambda value: jb.training.shuffled(value, 1, seed=0)),
    ("batch_size", lambda value: jb.training.shuffled(5, value, seed=0)),
    ("keep", lambda value: jb.training.checkpoints.saver("runs", every=1, keep=value)),
):
    row(
        f"training-{name}",
        ValueError,
        rf"`{name}` must be an integer, at least 1: got 0",
        lambda call=call: call(0),
    )
row(
    "shuffled-batch_size-above-size",
    ValueError,
    r"`batch_size` must be at most `size`: got batch_size=6, size=5",
    lambda: jb.training.shuffled(5, 6, seed=0),
)
for value in (-1, 0.5, True):
    row(
        f"shuffled-seed-{value}",
        TypeError,
        rf"`seed` must be an integer of at least 0: got {value}",
        lambda value=value: jb.training.shuffled(5, 2, seed=value),
    )
for value in ({"f": len}, {"x": np.nan}, 3):
    row(
        f"saver-about-{type(value).__name__}-{value if value == 3 else next(iter(value))}",
        TypeError,
        r"`about` must be a mapping that JSON can hold, such as flags: ",
        lambda value=value: jb.training.checkpoints.saver("runs", every=1, about=value),
    )


def without(package, call):
    find = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith(package) else find(name))
        call()


row(
    "saver-without-orbax",
    ImportError,
    r"this needs orbax-checkpoint, which is not installed: run `pip install 'jaxbptt\[checkpoints\]'`",
    lambda: without("orbax", lambda: jb.training.checkpoints.saver("runs", every=1)),
)
row(
    "tensorboard-without-tensorboardX",
    ImportError,
    r"this needs tensorboardX, which is not installed: run `pip install 'jaxbptt\[tensorboard\]'`",
    lambda: without("tensorboardX", lambda: jb.training.metrics.tensorboard("runs")),
)


def kept(change=lambda folder: None, about=None, tree=None):
    """A checkpoint in a folder that is changed, then restored as another run or tree."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name, "run")
        saver = jb.training.checkpoints.saver(folder, every=1, about={"seed": 0})
        saver.save(3, {"a": singles(2)})
        change(folder)
        saver = jb.training.checkpoints.saver(folder, every=1, about={"seed": 0} if about is None else about)
        saver.restore({"a": singles(2)} if tree is None else tree)


row("restore-about", ValueError, r"is of another run: seed=0 there, 1 here; give the", lambda: kept(about={"seed": 1}))
for name, tree, message in (
    ("shape", {"a": singles(3)}, r"the leaf `\['a'\]` is float32\[2\] there and float32\[3\] here"),
    ("dtype", {"a": ones(2)}, r"the leaf `\['a'\]` is float32\[2\] there and float64\[2\] here"),
    ("more", {"a": singles(2), "b": singles(1)}, r"the leaf `\['b'\]` is absent there and float32\[1\] here"),
    ("fewer", {}, r"the leaf `\['a'\]` is float32\[2\] there and absent here"),
):
    row(f"restore-{name}", ValueError, message, lambda tree=tree: kept(tree=tree))
row(
    "restore-none-good",
    ValueError,
    r"no checkpoint in .* is good: that of step 3 is refused, as its manifest.json.*; remove the folder to begin anew",
    lambda: kept(lambda folder: (folder / "000000000003" / "manifest.json").write_text("{}")),
)
row(
    "save-on-a-file",
    OSError,
    r"the checkpoint of step 3 could not be written to .*; there is none before it\. Make room",
    lambda: jb.training.checkpoints.saver(__file__, every=1).save(3, {"a": singles(2)}),
)
row(
    "jsonl-no-folder",
    OSError,
    r"metrics could not be written to `.*nowhere/metrics.jsonl`: FileNotFoundError",
    lambda: fit(callback=jb.training.metrics.jsonl("nowhere/metrics.jsonl")),
)
row(
    "jsonl-of-another-run",
    FileExistsError,
    r"holds \d+ bytes of another run: remove it or give another path",
    lambda: fit(callback=jb.training.metrics.jsonl(__file__)),
)


@functools.cache
def outcome(index):
    """The exception of a row, if any; each row runs once, whichever test asks first."""
    try:
        ROWS[index].call()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("index", range(len(ROWS)), ids=[row.name for row in ROWS])
def test_bad_input(index):
    wanted, error = ROWS[index], outcome(index)
    assert error is not None, "accepted"
    assert isinstance(error, wanted.kind), f"{type(error).__name__}: {error}"
    assert re.search(wanted.pattern, str(error), re.DOTALL), f"{wanted.pattern}\ndoes not match\n{error}"


def test_rows_are_distinct():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_every_message_has_a_row():
    """Each ``raise`` in `_validate` is where the exception of some row was raised."""
    files = sorted(pathlib.Path(_validate.__file__).parent.glob("*.py"))
    reached = {
        (pathlib.Path(frame.filename), frame.lineno)
        for index in range(len(ROWS))
        for frame in traceback.extract_tb(getattr(outcome(index), "__traceback__", None))
    }
    raises = [
        (path, node) for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)
    ]
    assert len(raises) > 50
    missed = [
        f"{path.name}:{node.lineno}"
        for path, node in raises
        if not any((path, line) in reached for line in range(node.lineno, node.end_lineno + 1))
    ]
    assert not missed, f"no row reaches {missed}"


TRANSFORMATIONS: dict[str, Callable] = {
    "jit": jax.jit,
    "grad": jax.grad,
    "vmap": lambda F: jax.vmap(F, axis_size=2, in_axes=None),
    "jit-grad": lambda F: jax.jit(jax.grad(F)),
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_messages_when_traced(transform):
    """Shapes are known under a transformation, so the message is the same, not one about tracers."""
    for changed, pattern in (
        ({"xs": ones(T, B, d + 1)}, r"`xs` must have shape .*d=3 .*got xs.shape=\(5, 6, 4\)"),
        ({"ys": ones(T - 1, B, m)}, r"`xs` and `ys` must share their time axis"),
        ({"h_0": ones(n)}, r"`h_0` must have shape \[\*batch, n\] = \(6, 4\).*got \(4,\)"),
    ):
        with pytest.raises(ValueError, match=pattern):
            transform(lambda theta, changed=changed: objective(theta=theta, **changed))(THETA)


def test_only_validate_raises():
    """No module outside that room has a ``raise``, so that the test above sees every message."""
    for module in {name: module for name, module in sys.modules.items() if name.split(".")[0] == "jaxbptt"}.values():
        if not module.__name__.startswith(_validate.__name__) and module.__file__ is not None:
            raises = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Raise)]
            assert not raises, f"{module.__name__} raises at line {raises[0].lineno}"


# What is not known when tracing: no exception, but it shows


@pytest.mark.parametrize("name", ["linear", "elman", "gru", "lstm"])
@pytest.mark.parametrize("where", ["xs", "ys", "h_0", "theta"])
def test_nan_in_the_data_shows_in_the_loss(name, where):
    cell, theta_h, h_0 = CELLS[name]
    given: dict[str, Any] = {
        "theta": jb.Theta(theta_h, THETA_O),
        "xs": ones(T, B, d),
        "ys": ones(T, B, m),
        "h_0": h_0,
    }
    F = jax.jit(jb.objective(jb.rnn(cell, jb.readouts.linear()), l2))
    assert np.isfinite(F(*given.values()))
    leaves, treedef = jax.tree.flatten(given[where])
    leaves[0] = np.array(leaves[0])
    leaves[0].flat[-1] = np.nan
    value, grads = jax.value_and_grad(F)(*(given | {where: treedef.unflatten(leaves)}).values())
    assert np.isnan(value)
    assert np.isnan(grads.o.W_o).any()


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_nan_in_the_data_shows_in_an_estimate(make):
    xs = ones(T, B, d)
    xs[2, 3, 1] = np.nan
    estimate, state = update(make, xs=xs)
    assert np.isnan(estimate.loss)
    assert np.isnan(estimate.grads.h.W_h).any()
    # ... of the one sequence that it stands in: the others go on as they were
    others = np.arange(B) != 3
    assert np.isnan(np.asarray(state.h)[3]).all()
    assert np.isfinite(np.asarray(state.h)[others]).all()


@pytest.mark.parametrize("label", [-1, m, 100])
def test_a_label_out_of_range_gives_nan(label):
    logits = np.arange(B * m, dtype=float).reshape(B, m)
    labels = np.zeros(B, np.int32)
    labels[4] = label
    for loss in (jb.losses.softmax_cross_entropy, jax.jit(jb.losses.softmax_cross_entropy)):
        L = np.asarray(loss(logits, labels))
        assert np.isnan(L[4])
        assert np.isfinite(np.delete(L, 4)).all()


def test_a_label_out_of_range_shows_in_F_unless_masked():
    labels = np.zeros((T, B), np.int32)
    labels[1, 2] = m
    given = {"loss": jb.losses.softmax_cross_entropy, "ys": labels}
    assert np.isnan(objective(**given))
    mask = flags(T, B)
    mask[1, 2] = False
    assert np.isfinite(objective(**given, mask=mask))


def test_the_remedy_for_no_inputs():
    """A message says to pass ``zeros((T, 0))`` for a recursion without inputs."""
    h_T, _ = jb.unroll(LINEAR, LinearParams(ones(n, 0), 2 * np.eye(n)), np.zeros((3, 0)), ones(n))
    np.testing.assert_array_equal(h_T, 8 * ones(n))
