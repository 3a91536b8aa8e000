"""What a row is, and one good call of everything, from which each row departs in one place."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.cells import ElmanParams, GRUParams, LinearParams, LSTMParams, LSTMState
from jaxbptt.readouts import LinearReadoutParams


class Row(NamedTuple):
    """A call, the exception it must raise, and a pattern that its message must match."""

    name: str
    call: Callable[[], object]
    kind: type[Exception]
    pattern: str


def table():
    """The rows of one file, none yet, and the function that adds one."""
    rows: list[Row] = []

    def row(name, kind, pattern, call):
        rows.append(Row(name, call, kind, pattern))

    return rows, row


def each(rows):
    return pytest.mark.parametrize("wanted", rows, ids=[row.name for row in rows])


@functools.cache
def outcome(row):
    """The exception of a row, if any; each row runs once, whichever test asks first."""
    try:
        row.call()
    except Exception as error:
        return error
    return None


def assert_refused(wanted):
    error = outcome(wanted)
    assert error is not None, "accepted"
    assert isinstance(error, wanted.kind), f"{type(error).__name__}: {error}"
    assert re.search(wanted.pattern, str(error), re.DOTALL), f"{wanted.pattern}\ndoes not match\n{error}"


d, n, m, T, B = 3, 4, 2, 5, 6  # all different, so that no wrong axis fits by chance


def ones(*shape, dtype=np.float64):
    return np.ones(shape, dtype)


def ints(*shape):
    return ones(*shape, dtype=np.int32)


def singles(*shape):
    return ones(*shape, dtype=np.float32)


def flags(*shape):
    return ones(*shape, dtype=bool)


# Good calls


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
SGD = optax.sgd(0.1)
BPTT = jb.estimators.bptt(MODEL, l2)


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


def check_gradients(**changed):
    good: dict[str, Any] = {
        "model": MODEL, "loss": l2, "theta": THETA, "xs": ones(T, B, d), "ys": ones(T, B, m)
    }  # fmt: skip
    return jb.check_gradients(**good | changed)


# Functions of a user


def leak(theta_h, x_t, h_tm1):
    return h_tm1 * theta_h + x_t


def leaks(theta_h, x_t, h_tm1):
    return {name: theta_h * h for name, h in h_tm1.items()}


def matmul_readout(theta_o, h_t):
    return h_t @ theta_o


USER = jb.cells.from_step(leak)
