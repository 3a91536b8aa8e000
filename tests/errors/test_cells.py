"""What is no cell, choices of the built-in cells, and cells of users."""

import re
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from jaxbptt import initializers
from tests.cases import turns
from tests.errors.rows import ELMAN, USER, B, T, assert_refused, d, each, jacobian, leak, n, ones, table, unroll

ROWS, row = table()

NOT_CELLS: dict[str, Callable] = {
    "rnn": lambda value: jb.rnn(value, jb.readouts.linear()),
    "unroll": lambda value: unroll(cell=value),
    "masked": jb.cells.masked,
    "resettable": jb.cells.resettable,
    "learned_start": jb.cells.learned_start,
    "check_cell": jb.check_cell,
    "jacobians": lambda value: jacobian(jb.jacobians.along, cell=value),
}
for (name, call), (what, bad, came) in turns(
    NOT_CELLS.items(),
    (("not-a-cell", "gru", r"str \('gru'\)$"), ("factory-not-called", jb.cells.gru, "function .*call the factory")),
):
    row(f"{name}-{what}", TypeError, rf"`cell` must be a Cell: got {came}", lambda call=call, bad=bad: call(bad))
row("stacked-none", TypeError, r"`layers` must be at least one Cell: got none", jb.cells.stacked)
row("stacked-not-a-cell", TypeError, r"`layers` must be a Cell: got int", lambda: jb.cells.stacked(ELMAN, 3))
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
row("jacobian", ValueError, r"`jacobian` must be one of 'dense', 'diagonal': got 'diag'; \"dense\" is right", lambda: (
    jb.cells.from_step(leak, jacobian="diag")))  # fmt: skip
row("affine", TypeError, r"`affine` must be True or False: got 1; False is right", lambda: (
    jb.check_cell(ELMAN._replace(split=ELMAN.split._replace(affine=1)))))  # fmt: skip

leaky_theta = jb.cells.LeakyParams(ones(n, d), ones(n, n), ones(n))
row("reset", ValueError, r"`reset` must be one of 'after', 'before': got 'never'; there is no other", lambda: (
    jb.cells.gru(reset="never")))  # fmt: skip
row("two-that-draw", TypeError, r"`cell` of zoneout must draw no random numbers of its own", lambda: (
    jb.cells.zoneout(jb.cells.zoneout(ELMAN))))  # fmt: skip
row("noise-around-zoneout", TypeError, r"`cell` of euler must draw no random numbers of its own", lambda: (
    jb.cells.euler(jb.cells.zoneout(ELMAN), noise=0.1)))  # fmt: skip
row("zoneout-rate", ValueError, r"`rate` must lie from 0 to below 1: got 1.5; it is a probability", lambda: (
    jb.cells.zoneout(ELMAN, 1.5)))  # fmt: skip
row("zoneout-rates", ValueError, r"`rate` must be one number, or one for each of the 1 leaves", lambda: (
    unroll(cell=jb.cells.zoneout(ELMAN, (0.1, 0.2)))))  # fmt: skip
row("leaky-alpha", ValueError, r"`alpha` must lie above 0 and be at most 1: got 1.5; it is dt/τ", lambda: (
    jb.cells.leaky(alpha=1.5)))  # fmt: skip
row("leaky-alphas", ValueError, r"`alpha` must be one number, or one for each of the n = 4 units: got 2", lambda: (
    unroll(cell=jb.cells.leaky(alpha=(0.1, 0.2)), theta_h=leaky_theta)))  # fmt: skip
mask = np.ones((n, n), bool)
row("sparse-masks", TypeError, r"`masks` must be a tree like θ_h of NumPy arrays of booleans, .*: got ", lambda: (
    jb.cells.sparse(ELMAN, jb.cells.ElmanParams(None, mask.astype(float), None))))  # fmt: skip
MASKS = {"tree": jb.cells.LinearParams(None, mask), "shape": jb.cells.ElmanParams(None, mask[:3, :3], None)}
sparse = {name: jb.cells.sparse(ELMAN, masks) for name, masks in MASKS.items()}
row("sparse-tree", TypeError, r"`theta_h` must have the tree of the masks, ", lambda: (
    unroll("elman", cell=sparse["tree"])))  # fmt: skip
row("sparse-shape", ValueError, r"`theta_h` must have the shapes of the masks, \(3, 3\) .*: got \(4, 4\)", lambda: (
    unroll("elman", cell=sparse["shape"])))  # fmt: skip
row("euler-noise", ValueError, r"`noise` must be a number, at least 0: got -1.0", lambda: jb.cells.euler(ELMAN, -1.0))
for what, kind, pattern, changed in (
    ("dt-integer", TypeError, r"`xs.dt` must be an array of floating point, .*: got int64", {"dt": np.ones(T, int)}),
    (
        "dt-features",
        ValueError,
        r"`xs.dt` must have shape .*: got \(5, 1\) with `h_0` of shape \(6, 4\)",
        {"dt": ones(T, 1)},
    ),
    ("key-raw", TypeError, r"`xs.key` must be an array of keys of .*: got uint32", {"key": np.ones((T, 2), np.uint32)}),
):
    row(f"euler-{what}", kind, pattern, lambda changed=changed: unroll(
        "elman", cell=jb.cells.euler(ELMAN),
        xs=jb.cells.Keyed(jb.cells.TimedInput(ones(T, B, d), changed.get("dt", ones(T))), changed.get("key")),
    ))  # fmt: skip

# Users' cells

for name, call, called in (
    ("step", lambda f: jb.cells.from_step(f), "step(theta_h, x_t, h_tm1)"),
    ("init", lambda f: jb.cells.from_step(leak, init=f), "init(key, input_size, hidden_size, dtype)"),
    ("initial_state", lambda f: jb.cells.from_step(leak, initial_state=f), "initial_state(theta_h, batch_shape)"),
    ("output", lambda f: jb.cells.from_step(leak, output=lambda: f), "output(h_t)"),
    ("apply", lambda f: jb.readouts.from_apply(f), "apply(theta_o, h_t)"),
    (
        "init",
        lambda f: jb.readouts.from_apply(lambda theta_o, h_t: h_t, init=f),
        "init(key, hidden_size, output_size, dtype)",
    ),
):
    row(
        f"{called}-of-another-arity",
        TypeError,
        rf"`{name}` must be a function that can be called as {re.escape(called)}: got one of \((\w+)?\)$",
        lambda call=call: call(lambda alone: alone),
    )


def single_leak(theta_h, x_t, h_tm1):
    return leak(theta_h, x_t, h_tm1).astype(np.float32)


def branching(theta_h, x_t, h_tm1):
    return h_tm1 if h_tm1.sum() > 0 else x_t


def lookup(theta_h, x_t, h_tm1):
    return h_tm1 * theta_h["leak"]


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


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
