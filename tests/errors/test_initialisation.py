"""`init` of cells, readouts and models: keys, dtypes, sizes, and what was never given."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxbptt as jb
from tests.cases import turns
from tests.errors.rows import (
    ELMAN,
    GRU,
    LINEAR,
    LSTM,
    MODEL,
    USER,
    B,
    T,
    assert_refused,
    d,
    each,
    key,
    m,
    matmul_readout,
    objective,
    ones,
    table,
)

ROWS, row = table()

USER_MODEL = jb.rnn(USER, jb.readouts.identity())
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
# Each init with a key, a dtype or a size that is none, in turn.
NONE: tuple[tuple[Any, ...], ...] = (
    ("key", lambda: 0, r"int \(0\)"),
    ("dtype", np.int32, "int32"),
    ("first", 0, "0"),
    ("key", lambda: None, "NoneType"),
    ("dtype", np.complex64, "complex64"),
    ("second", 3.0, "3.0"),
    ("key", lambda: jax.random.split(key(), 2), r"\(2,\)"),
    ("dtype", "foo", "'foo'"),
    ("dtype", None, "None"),
    ("second", 0, "0"),
    ("first", 3.0, "3.0"),
)
for (name, init), (what, bad, came) in turns(INITS.items(), NONE):
    sizes = ("hidden_size", "output_size") if "readouts" in name else ("input_size", "hidden_size")
    argument = {"first": sizes[0], "second": sizes[1]}.get(what, what)
    kind, pattern, call = {
        "key": (TypeError, r"one random key: got {}.*jax.random.key\(seed\)", lambda init, bad: init(bad(), 3, 3)),
        "dtype": (
            TypeError,
            "a floating-point dtype: got {}; use jnp.float32",
            lambda init, bad: init(key(), 3, 3, bad),
        ),
        "first": (type(bad), "an integer, at least 1: got {}", lambda init, bad: init(key(), bad, 3)),
        "second": (type(bad), "an integer, at least 1: got {}", lambda init, bad: init(key(), 3, bad)),
    }[what]
    row(
        f"{name}.init-{argument}-{came}",
        {int: ValueError, float: TypeError}.get(kind, kind),
        rf"`{argument}` must be {pattern.format(came)}",
        lambda call=call, init=init, bad=bad: call(init, bad),
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
for name, sizes, came in (
    ("by-position", (3, 32, 2), r"\(3, 32, 2\) by position"),
    ("missing", (), "input_size=3, hidden_size=4, output_size=None"),
):
    row(
        f"rnn.init-sizes-{name}",
        TypeError,
        rf"sizes of a model must be keywords, all three: got {came}; write `model.init\(key, input_size=…",
        lambda sizes=sizes: MODEL.init(key(), *sizes, **({} if sizes else {"input_size": 3, "hidden_size": 4})),
    )
row(
    "identity-sizes",
    ValueError,
    r"`output_size` must equal `hidden_size` for the identity readout: got output_size=2, hidden_size=3",
    lambda: jb.readouts.identity().init(key(), 3, 2),
)

# What was never given

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


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
