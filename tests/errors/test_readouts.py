"""What is no readout, and parameters that don't fit one."""

from collections.abc import Callable

import jaxbptt as jb
from jaxbptt.readouts import LinearReadoutParams
from tests.cases import turns
from tests.errors.rows import (
    GRU,
    MODEL,
    PARAMS,
    THETA,
    THETA_O,
    B,
    T,
    assert_refused,
    d,
    each,
    ints,
    key,
    leaks,
    m,
    matmul_readout,
    n,
    ones,
    singles,
    table,
    update,
)

ROWS, row = table()

row(
    "rnn-readout",
    TypeError,
    r"`readout` must be a Readout: got function .*call the factory, as in `readouts.linear\(\)`",
    lambda: jb.rnn(GRU, jb.readouts.linear),
)
row("rnn-readout-str", TypeError, r"`readout` must be a Readout: got str", lambda: jb.rnn(GRU, "linear"))
row("check_readout", TypeError, r"`readout` must be a Readout: got Cell", lambda: jb.check_readout(GRU))
CALLS: dict[str, Callable] = {
    "apply": lambda theta: MODEL.apply(theta, ones(T, B, d), ones(B, n)),
    "bptt": lambda theta: update(jb.estimators.bptt, theta=theta),
    "rtrl": lambda theta: update(jb.estimators.rtrl, theta=theta),
}
PARAMETERS = (
    ("tuple", (ones(m, n), ones(m)), r"`theta.o` must be LinearReadoutParams, as `readout.init` makes it: got tuple"),
    ("lists", LinearReadoutParams([[1.0]], None), r"got LinearReadoutParams\(W_o=list, b=NoneType\); write `jnp.asa"),
    ("b-list", THETA_O._replace(b=[1.0] * m), r"got LinearReadoutParams\(W_o=ndarray, b=list\); write `jnp.asarray`"),
    ("n", THETA_O._replace(W_o=ones(m, n + 1)), r"`theta.o.W_o` must have shape \[m, n\] .*n=4: got \(2, 5\)"),
    ("rank", THETA_O._replace(W_o=ones(n)), r"`theta.o.W_o` must have shape \[m, n\] .*got \(4,\)"),
    ("b", THETA_O._replace(b=ones(m + 1)), r"`theta.o.b` must have shape \[m\] = \(2,\): got \(3,\)"),
    ("float32", THETA_O._replace(b=singles(m)), r"`theta.o.b` must have the dtype of `hs`, float64: got float32"),
    ("integers", LinearReadoutParams(ints(m, n), ints(m)), r"`theta.o.W_o` must have the dtype of `hs`.*got int32"),
)
for (name, call), (what, o, pattern) in turns(CALLS.items(), PARAMETERS):
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

SEVERAL = jb.readouts.several(policy=jb.readouts.linear(), value=jb.readouts.linear())
PAIR = jb.readouts.several(jb.readouts.linear(), jb.readouts.linear())
row("several-none", TypeError, r"`several` must have at least one head: got none", jb.readouts.several)
row(
    "several-both",
    TypeError,
    r"heads of `several` go all by position, for a tuple, or all by name, for a dict: got 1 and \['value'\]",
    lambda: jb.readouts.several(jb.readouts.linear(), value=jb.readouts.linear()),
)
row(
    "several-not-called",
    TypeError,
    r"`readout` must be a Readout: got function .*call the factory",
    lambda: jb.readouts.several(value=jb.readouts.linear),
)
for what, readout, size, pattern in (
    ("names", SEVERAL, {"policy": 3}, r"`output_size` .* one integer, or a dict of policy, value: got \{'policy': 3\}"),
    ("tuple", SEVERAL, (3, 1), r"`output_size` .* a dict of policy, value: got \(3, 1\)"),
    ("dict", PAIR, {"policy": 3, "value": 1}, r"`output_size` .* one integer, or a tuple of 2: got \{'pol"),
    ("three", PAIR, (3, 1, 1), r"`output_size` .* a tuple of 2: got \(3, 1, 1\)"),
    ("zero", PAIR, (3, 0), r"`output_size` must be an integer, at least 1: got 0"),
):
    kind = ValueError if what == "zero" else TypeError
    row(f"several-output_size-{what}", kind, pattern, lambda readout=readout, size=size: readout.init(key(), n, size))
for what, readout, o, pattern in (
    ("names", SEVERAL, {"policy": THETA_O}, r"`theta.o` of several heads must be a dict of policy, value: got \{'pol"),
    ("one", SEVERAL, THETA_O, r"`theta.o` of several heads must be a dict of policy, value: got LinearR"),
    ("three", PAIR, (THETA_O,) * 3, r"`theta.o` of several heads must be a tuple of 2: got \(LinearR"),
    ("head", PAIR, (THETA_O, (ones(m, n), ones(m))), r"`theta.o` must be LinearReadoutParams.*got tuple"),
):
    row(
        f"several-theta.o-{what}",
        TypeError,
        pattern,
        lambda readout=readout, o=o: jb.rnn(GRU, readout).apply(jb.Theta(PARAMS["gru"], o), ones(T, B, d)),
    )


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
