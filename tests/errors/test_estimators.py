"""The state of an estimator, and what `update` is given beside it."""

import functools

import jaxbptt as jb
from jaxbptt.cells import LSTMState
from jaxbptt.readouts import identity
from tests.errors.rows import (
    ESTIMATORS,
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
    ints,
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
    ("state", TypeError, r"`state` must be AdaptiveState.*got WindowedState", lambda: update(ADAPTIVE, state=kept(3))),
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
