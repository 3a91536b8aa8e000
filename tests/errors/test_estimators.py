"""The state of an estimator, and what `update` is given beside it."""

import functools

import numpy as np

import jaxbptt as jb
from jaxbptt.cells import LSTMState
from jaxbptt.readouts import identity
from tests.errors.rows import (
    ELMAN,
    ESTIMATORS,
    GRU,
    LSTM,
    MODEL,
    PARAMS,
    THETA,
    THETA_O,
    B,
    T,
    assert_refused,
    d,
    each,
    flags,
    ints,
    key,
    l2,
    n,
    ones,
    table,
    update,
)

ROWS, row = table()

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
    r"`state.a` must have the shapes \(\(6, 1, 4, 108\),\) for this .*: got \(\(6, 4, 7\),\); make the state with",
    lambda: update(jb.estimators.rtrl, state=jb.estimators.RTRLState(ones(B, n), (ones(B, n, 7),))),
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


for name, make in {"uoro": jb.estimators.uoro, "kf_rtrl": jb.estimators.kf_rtrl}.items():
    row(
        f"{name}-samples",
        ValueError,
        r"`samples` must be an integer, at least 1: got 0",
        lambda make=make: make(MODEL, l2, samples=0),
    )
row(
    "uoro-epsilon0",
    ValueError,
    r"`epsilon0` must be above 0: got 0$",
    lambda: jb.estimators.uoro(MODEL, l2, epsilon0=0),
)
row(
    "uoro-epsilon1",
    TypeError,
    r"`epsilon1` must be a number: got",
    lambda: jb.estimators.uoro(MODEL, l2, epsilon1="1e-7"),
)
row("uoro-key", TypeError, r"`key` must be given, .*: got None; call `update", lambda: update(jb.estimators.uoro))
row(
    "uoro-state",
    TypeError,
    r"`state` must be UOROState, as `estimator.init` makes it: got NoneType",
    lambda: update(jb.estimators.uoro, state=None, key=key()),
)
row(
    "uoro-state-samples",
    ValueError,
    r"`state.a` must have the shapes RankOne\(h=\(6, 1, 4\), .*: got RankOne\(h=\(6, 2, 4\), .*; make the state with",
    lambda: update(
        jb.estimators.uoro, state=jb.estimators.uoro(MODEL, l2, samples=2).init(THETA, ones(B, n)), key=key()
    ),
)
row(
    "kf_rtrl-cell",
    NotImplementedError,
    r"`kf_rtrl` is for cells of one product, .*`cells.elman`.*: got θ_h of GRUParams .*; use `uoro`",
    lambda: jb.estimators.kf_rtrl(MODEL, l2).init(THETA, ones(B, n)),
)
row(
    "kf_rtrl-inputs",
    NotImplementedError,
    r"`xs` must be one array \[T, \*batch, d\] for `kf_rtrl`: got a MaskedInput; give `lengths`",
    lambda: update(
        jb.estimators.kf_rtrl,
        jb.rnn(jb.cells.masked(ELMAN), jb.readouts.linear()),
        theta=jb.Theta(PARAMS["elman"], THETA_O),
        xs=jb.cells.MaskedInput(ones(T, B, d), flags(T, B)),
        key=key(),
    ),
)
row(
    "rflo-gated",
    NotImplementedError,
    r"`rflo` is for cells that read their output through W_h .*`eprop` takes gated ones too: got θ_h of GRUParams",
    lambda: jb.estimators.rflo(MODEL, l2).init(THETA, ones(B, n)),
)
row(
    "eprop-inputs",
    NotImplementedError,
    r"`xs` must be one array \[T, \*batch, d\] for `eprop`: got a MaskedInput; give `lengths`",
    lambda: update(
        jb.estimators.eprop,
        jb.rnn(jb.cells.masked(ELMAN), jb.readouts.linear()),
        theta=jb.Theta(PARAMS["elman"], THETA_O),
        xs=jb.cells.MaskedInput(ones(T, B, d), flags(T, B)),
    ),
)
halved = jb.cells.sparse(ELMAN, PARAMS["elman"]._replace(W_x=None, W_h=np.eye(n, dtype=bool), b=None))
row(
    "eprop-sparse",
    NotImplementedError,
    r"local rules are for cells that read their output z by W_h z, .*: got Cell\(.*; use `snap` or `uoro`",
    lambda: jb.estimators.eprop(jb.rnn(halved, jb.readouts.linear()), l2).init(
        jb.Theta(PARAMS["elman"], THETA_O), ones(B, n)
    ),
)
with_random_feedback = functools.partial(jb.estimators.eprop, feedback="random")
row(
    "eprop-key",
    TypeError,
    r'`key` must be given, as `feedback="random"` draws a matrix: got None; call `init\(theta, h_0, key=key\)`',
    lambda: with_random_feedback(MODEL, l2).init(THETA),
)
row(
    "eprop-two-heads",
    NotImplementedError,
    r'`y_hats` must be one array .* for `feedback="random"`: got .*; use `feedback="symmetric"`',
    lambda: with_random_feedback(
        jb.rnn(GRU, jb.readouts.several(jb.readouts.identity(), jb.readouts.identity())), l2
    ).init(jb.Theta(PARAMS["gru"], ((), ())), key=key()),
)
row(
    "eprop-no-feedback",
    ValueError,
    r"`state.feedback` must be a matrix \[m, n\], float64\[2, 4\]: got float64\[4, 2\]; make the state with",
    lambda: update(with_random_feedback, state=jb.estimators.LocalState(None, None, ones(n, 2))),
)

compared = functools.partial(jb.estimators.compare, MODEL, l2, THETA, ones(T, B, d), ones(T, B, 2))
row(
    "compare-nothing",
    ValueError,
    r"`estimators` must be .* with at least one entry: got 0",
    lambda: compared({}),
)
row(
    "compare-a-function",
    TypeError,
    r"`estimators` must be a dictionary from names to estimators, .*: got function",
    lambda: compared({"bptt": jb.estimators.bptt}),
)
row(
    "compare-one-sample",
    ValueError,
    r"`samples` must be .*: got 1",
    lambda: compared({"bptt": jb.estimators.bptt(MODEL, l2)}, samples=1),
)
row(
    "compare-no-key",
    TypeError,
    r"`key` must be given, as this estimator draws",
    lambda: compared({"uoro": jb.estimators.uoro(MODEL, l2)}),
)


def with_a_clock():
    """A cell with a number in its state that all members share, and such a state."""
    cell = jb.cells.from_step(
        lambda theta_h, x_t, state: (state[0] * theta_h, state[1] + 1.0),
        initial_state=lambda theta_h, batch=(): (ones(*batch, n), ones()),
    )
    return cell, (ones(B, n), ones())


for name, call in {
    "rtrl": lambda cell, h_0: jb.estimators.rtrl(
        jb.rnn(cell, jb.readouts.from_apply(lambda theta_o, state: state[0])), l2
    ).init(jb.Theta(ones(), ()), h_0),
    "power_iteration": lambda cell, h_0: jb.diagnostics.power_iteration(cell, ones(), ones(T, B, d), h_0),
    "jacobian_spectrum": lambda cell, h_0: jb.diagnostics.jacobian_spectrum(cell, ones(), ones(T, B, d), h_0),
}.items():
    row(
        f"{name}-h_0-shared",
        ValueError,
        r"`h_0` must have the batch axes in .*: got \('float64\[6, 4\]', 'float64\[\]'\).*broadcast_to",
        lambda call=call: call(*with_a_clock()),
    )

WINDOWED = jb.estimators.windowed
RANDOMISED = jb.estimators.randomised
ADAPTIVE = jb.estimators.adaptive
for name, kind, pattern, call in (
    ("window", ValueError, r"`window` must be an integer, at least 1: got 0", lambda: WINDOWED(MODEL, l2, window=0)),
    ("stride-0", ValueError, r"`stride` .*at least 1: got 0", lambda: WINDOWED(MODEL, l2, window=3, stride=0)),
    ("stride-kind", TypeError, r"`stride` .*got 1.0", lambda: WINDOWED(MODEL, l2, window=3, stride=1.0)),
    ("stride", ValueError, r"at most `window`.*stride=4, window=3", lambda: WINDOWED(MODEL, l2, window=3, stride=4)),
    ("inputs", TypeError, r"`inputs` must be one input .*got str", lambda: WINDOWED(MODEL, l2, window=3, inputs="x")),
    ("tolerance", ValueError, r"`tolerance` must be above 0: got 0", lambda: ADAPTIVE(MODEL, l2, tolerance=0)),
    ("max_window", ValueError, r"`max_window` .*at least 1: got 0", lambda: ADAPTIVE(MODEL, l2, max_window=0)),
    ("mean_window", ValueError, r"`mean_window` must be above 1: got 1", lambda: RANDOMISED(MODEL, l2, mean_window=1)),
    ("key", TypeError, r"`key` must be given.*got None; call .* new key", lambda: update(RANDOMISED)),
    (
        "state",
        TypeError,
        r"`state` must be TruncatedState.*got BPTTState",
        lambda: update(ADAPTIVE, state=jb.estimators.BPTTState(None)),
    ),
    ("kept-for-others", ValueError, r"`state.kept` must hold", lambda: update(ADAPTIVE, state=kept(3))),
    (
        "inputs-of-others",
        TypeError,
        r"`inputs` must be one x_t that f reads, .*: got float64\[9\]; ",
        lambda: jb.estimators.rtrl(MODEL, l2, inputs=ones(9)).init(THETA, ones(B, n)),
    ),
    ("kept", ValueError, r"`state.kept` must hold .*\[2, 6, 3\].*`inputs=`", lambda: update(windows(3), state=kept(4))),
    ("kept-batch", ValueError, r"`state.kept` must hold", lambda: update(windows(3), state=kept(3))),
):
    row(f"truncated-{name}", kind, pattern, call)
row(
    "truncated-shared-input",
    ValueError,
    r"`xs\['dt'\]` must have the batch axes, .* with \(6,\): got shape \(5,\); with `lengths` .*broadcast_to",
    lambda: update(
        windows(3),
        jb.rnn(jb.cells.from_step(lambda theta_h, x_t, h_tm1: h_tm1 * theta_h + x_t["x"] * x_t["dt"]), identity()),
        theta=jb.Theta(ones(), ()),
        xs={"x": ones(T, B, n), "dt": ones(T)},
        ys=ones(T, B, n),
        lengths=ints(B),
    ),
)


def windows(window):
    return functools.partial(WINDOWED, window=window)


def kept(window):
    return windows(window)(MODEL, l2).init(THETA, ones(B - (window == 3), n))._replace(h=ones(B, n))


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
