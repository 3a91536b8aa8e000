"""`check_cell`, `check_readout`, `check_gradients` and the command `python -m jaxbptt.checking`."""

import functools
import re
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from jaxbptt.checking import GradientMismatchError
from jaxbptt.checking.__main__ import load
from tests.cases import turns
from tests.errors.rows import ELMAN, LINEAR, B, T, assert_refused, check_gradients, d, each, flags, table

ROWS, row = table()


def loaded(target):
    path = list(sys.path)
    try:
        return load(target)
    finally:
        sys.path[:] = path  # `load` puts the working directory in front


row("check_cell-inputs", TypeError, r"`inputs` must be a function: got int", lambda: jb.check_cell(ELMAN, inputs=3))
CHECKS = (
    ("check_cell", functools.partial(jb.check_cell, ELMAN)),
    ("check_readout", functools.partial(jb.check_readout, jb.readouts.linear())),
)
for name, call in CHECKS:
    row(f"{name}-steps", ValueError, r"`steps` must be an integer, at least 1: got 0", lambda call=call: call(steps=0))
    row(
        f"{name}-dtype",
        TypeError,
        r"`dtype` must be a floating-point dtype: got int32",
        lambda call=call: call(dtype=np.int32),
    )
for argument, value, (name, call), (other, another) in turns(
    ("seeds", "sizes", "batch_shapes"), (3, (3, 5), (2,)), CHECKS, CHECKS[::-1]
):
    row(
        f"{name}-{argument}",
        ValueError,
        rf"`{argument}` must have at least one entry: got \(\)",
        lambda call=call, argument=argument: call(**{argument: ()}),
    )
    row(
        f"{other}-{argument}-{value}",
        TypeError,
        rf"`{argument}` must .*got .*{value if argument == 'seeds' else value[0]}",
        lambda call=another, argument=argument, value=value: call(**{"seeds": (0,)} | {argument: value}),
    )
ONCE: dict[str, Any] = {"seeds": (0,), "sizes": ((2, 3),), "batch_shapes": ((),), "steps": 1}


def wrong_rule(theta_h, x_t, h_tm1, h_t, h_bar_t):
    theta_bar, x_bar_t, h_bar_tm1 = LINEAR.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    return theta_bar, 2 * x_bar_t, h_bar_tm1


def infinite_slope(theta_h, x_t, h_tm1):
    return LINEAR.apply(theta_h, x_t, h_tm1) + jnp.sqrt(jnp.sum(0 * theta_h.W_h))


def half_step(theta_h, x_t, h_tm1):
    return h_tm1 @ theta_h["U"].astype(h_tm1.dtype)


def half_state(theta_h, batch_shape):
    return jnp.zeros((*batch_shape, theta_h["U"].shape[0]), theta_h["U"].dtype)


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
    "check_cell-false-declaration",
    GradientMismatchError,
    r"`split.jacobian=\"diagonal\"` is declared and false: `diagonal: h_tm1.*declare `jacobian=\"dense\"`, or mend f",
    lambda: jb.check_cell(LINEAR._replace(split=LINEAR.split._replace(jacobian="diagonal")), **ONCE),
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
row(
    "check_gradients-zero",
    ValueError,
    "all of ∂F/∂θ_h is zero, so that a wrong rule would pass: got a `mask` that counts no step.*at another `theta`",
    lambda: check_gradients(mask=~flags(T, B)),
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
for name, check in (
    ("theta_h", lambda init: jb.check_cell(jb.cells.from_step(half_step, init, half_state), **ONCE)),
    ("theta_o", lambda init: jb.check_readout(jb.readouts.from_apply(lambda theta_o, h_t: h_t, init), seeds=(0,))),
):
    row(
        f"{name}-of-another-dtype",
        TypeError,
        rf"`init` must make parameters of the dtype that it is given: got float32 at `{name}\['U'\]`, expected "
        r"float64; hand `dtype` on, or check with `dtype=jnp.float32`",
        lambda check=check: check(lambda key, d, n, dtype: {"U": jnp.ones((n, n), jnp.float32)}),
    )
row(
    "check_cell-token-ids",
    TypeError,
    r"f must accept numbers float64\[\d\] where `inputs` is None: .*integer.*; if it reads token ids, .*`--tokens` in",
    lambda: jb.check_cell(
        jb.cells.from_step(
            lambda theta_h, token_t, h_tm1: h_tm1 + theta_h["U"][token_t],
            lambda key, d, n, dtype: {"U": jnp.ones((n, n), dtype)},
            half_state,
        ),
        **ONCE,
    ),
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
    ("jaxbptt.nowhere:CELL", r"importing `jaxbptt.nowhere` failed \(ModuleNotFoundError: No module named"),
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


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
