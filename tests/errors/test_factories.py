"""The arguments of factories: what is not hashable, no function, no model, no choice there is."""

import ast
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import jaxbptt as jb
from jaxbptt import initializers
from tests.errors.rows import (
    BPTT,
    ELMAN,
    ESTIMATORS,
    GRU,
    LINEAR,
    MODEL,
    SGD,
    assert_refused,
    check_gradients,
    each,
    l2,
    leak,
    matmul_readout,
    table,
)

ROWS, row = table()

# Every factory with arguments that make it work. An unhashable one is in the place of the first or the last below.
FACTORIES: dict[Callable, dict[str, Any]] = {
    jb.cells.linear: {},
    jb.cells.elman: {},
    jb.cells.leaky: {},
    jb.cells.gru: {},
    jb.cells.lstm: {},
    jb.cells.from_step: {"step": leak},
    jb.cells.sparse: {"cell": ELMAN, "masks": jb.cells.ElmanParams(None, None, None)},
    jb.cells.euler: {"cell": ELMAN},
    jb.cells.masked: {"cell": ELMAN},
    jb.cells.zoneout: {"cell": ELMAN},
    jb.cells.resettable: {"cell": ELMAN},
    jb.cells.learned_start: {"cell": ELMAN},
    jb.readouts.linear: {},
    jb.cells.mixed_precision: {"cell": ELMAN},
    jb.readouts.from_apply: {"apply": matmul_readout},
    jb.readouts.mixed_precision: {"readout": jb.readouts.linear()},
    jb.bidirectional: {"forward": GRU},
    jb.rnn: {"cell": GRU, "readout": jb.readouts.linear()},
    jb.objective: {"model": MODEL, "loss": l2},
    jb.estimators.bptt: {"model": MODEL, "loss": l2},
    jb.estimators.rtrl: {"model": MODEL, "loss": l2},
    jb.estimators.snap: {"model": MODEL, "loss": l2, "order": 1},
    jb.estimators.windowed: {"model": MODEL, "loss": l2, "window": 3},
    jb.estimators.randomised: {"model": MODEL, "loss": l2},
    jb.estimators.adaptive: {"model": MODEL, "loss": l2},
    jb.estimators.uoro: {"model": MODEL, "loss": l2},
    jb.estimators.kf_rtrl: {"model": MODEL, "loss": l2},
    jb.estimators.eprop: {"model": MODEL, "loss": l2},
    jb.estimators.rflo: {"model": MODEL, "loss": l2},
    jb.estimators.from_objective: {"F": jb.objective(MODEL, l2)},
    jb.adjoints.full: {},
    jb.adjoints.tangent: {},
    jb.adjoints.checkpointed: {},
    jb.diagnostics.clipped_delta: {"norm": 1.0},
    jb.training.trainer: {"estimator": BPTT, "optimizer": SGD},
    jb.training.evaluator: {"model": MODEL, "loss": l2},
    initializers.orthogonal: {},
    initializers.identity: {},
    initializers.spectral_radius: {"rho": 0.9},
    initializers.non_normal: {"rho": 0.5, "strength": 1.0},
    initializers.chrono: {"T_max": 10},
}
NO_INITIALISERS = (
    ("number", 0.1, r"must be a function: got float \(0.1\)"),
    ("not-called", initializers.orthogonal, "must be an initialiser: got the factory orthogonal; call it"),
    ("two", lambda key, shape: 0.0, r"must .*can be called as \w+\(key, shape, dtype\): got one of \(key, shape\)"),
)
for k, (factory, good) in enumerate(FACTORIES.items()):
    where = f"{factory.__module__.split('.')[1]}.{factory.__name__}"
    parameters = list(inspect.signature(factory).parameters)
    argument = parameters[-(k % 2)]
    row(
        f"{where}-{argument}-unhashable",
        TypeError,
        rf"`{argument}` of {factory.__name__} must be hashable.*got a list; pass functions, numbers or Cells",
        lambda factory=factory, good=good, argument=argument: factory(**good | {argument: [1.0]}),
    )
    for place, argument in enumerate(name for name in parameters if name.endswith("_init")):
        what, bad, pattern = NO_INITIALISERS[(k + place) % 3]
        row(
            f"{where}-{argument}-{what}",
            TypeError,
            rf"`{argument}` {pattern}",
            lambda factory=factory, good=good, argument=argument, bad=bad: factory(**good | {argument: bad}),
        )
# Sizes, where other libraries have them; what is missing; what is a keyword
for name, wrong, pattern in (
    (
        "gru",
        lambda: jb.cells.gru(32),
        r"too many positional.*gru\(\*, reset=…, W_x_init=…, .*`.init\(key, input_size, hidden_s",
    ),
    (
        "lstm",
        lambda: jb.cells.lstm(hidden_size=32),
        r"got an unexpected keyword argument 'hidden_size'.*`.init\(key",
    ),
    (
        "from_apply",
        jb.readouts.from_apply,
        r"missing a required .*'apply'.*from_apply\(apply, .*hidden_size, output_size",
    ),
    (
        "objective",
        lambda: jb.objective(MODEL),
        r"missing a required .*'loss'\): expected objective\(model, loss, \*, adj",
    ),
    (
        "full",
        lambda: jb.adjoints.full("states"),
        r"too many .*\): expected full\(\*, block=…, residuals=…, memory=…\)$",
    ),
):
    row(f"{name}-arguments", TypeError, rf"`{name}` can't be called so \({pattern}", wrong)
row("linear-bias", TypeError, r"`bias` must be True or False: got 10; sizes go to `readouts.linear\(\).init", lambda: (
    jb.readouts.linear(10)))  # fmt: skip
row("from_objective-F", TypeError, r"`F` must be a function that can be called as F\(theta, xs, ys, h_0", lambda: (
    jb.estimators.from_objective(lambda theta, xs, ys: 0.0)))  # fmt: skip
row(
    "stacked-list",
    TypeError,
    r"`layers` of stacked must be hashable.*got .*list.*, as in `stacked\(\*layers\)`",
    lambda: jb.cells.stacked([ELMAN, GRU]),
)
row(
    "stacked-tuple",
    TypeError,
    r"`layers` must be a Cell: got tuple \(\(Cell\(elman\), Cell\(gru\)\)\); pass Cells one by one, as in `\*layers`",
    lambda: jb.cells.stacked((ELMAN, GRU)),
)
row(
    "several-list",
    TypeError,
    r"`heads` of several must be hashable.*got .*list.*, as in `several\(\*heads\)`",
    lambda: jb.readouts.several([jb.readouts.linear()]),
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
        r"`reduction` must be one of 'mean', 'sum'(, 'sequences', 'none')?: got 'max'; weigh the loss",
        lambda make=make: make(MODEL, l2, reduction="max"),
    )
for name, make in ESTIMATORS.items():
    row(
        f"{name}-reduction-none",
        ValueError,
        r"`reduction` must be one of 'mean', 'sum': got 'none'",
        lambda make=make: make(MODEL, l2, reduction="none"),
    )
row(
    "objective-at",
    ValueError,
    r"`at` must be one of 'steps', 'last': got 'first'; a mask counts any other steps",
    lambda: jb.objective(MODEL, l2, at="first"),
)
row(
    "objective-has_aux",
    TypeError,
    r"`has_aux` must be True or False: got 1",
    lambda: jb.objective(MODEL, l2, has_aux=1),
)
row("check_gradients-model", TypeError, r"`model` must be a Model: got Cell", lambda: check_gradients(model=GRU))
row(
    "rnn-policy",
    TypeError,
    r"`policy` must be a Policy, such as `policies.mixed_precision\(\)`: got str \('bfloat16'\)",
    lambda: jb.rnn(LINEAR, jb.readouts.linear(), policy="bfloat16"),
)


def test_the_list_of_factories_is_whole():
    """Those that take a variable number of arguments, of which a list would be one, have rows of their own."""
    found = set()
    for path in pathlib.Path(jb.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                decorated = any(isinstance(by, ast.Name) and by.id == "factory" for by in node.decorator_list)
                if decorated and (node.args.args or node.args.kwonlyargs):
                    found.add((path.stem, node.name))
    listed = {(factory.__module__.split(".")[-1], factory.__name__) for factory in FACTORIES}
    assert found == listed


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
