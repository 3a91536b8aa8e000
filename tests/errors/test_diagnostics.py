"""`diagnostics`: the cells, models and keys that all of them take, and the numbers that each takes."""

import functools
from typing import Any

import numpy as np

import jaxbptt as jb
from tests.cases import turns
from tests.errors.rows import (
    ELMAN,
    GRU,
    MODEL,
    PARAMS,
    THETA,
    B,
    T,
    assert_refused,
    d,
    each,
    ints,
    l2,
    m,
    n,
    ones,
    table,
)

ROWS, row = table()

DIAGNOSTICS = jb.diagnostics
OWN_STATE = jb.cells.from_step(lambda theta_h, x_t, h_tm1: 0.5 * h_tm1)


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


# Several of them

for name, (argument, value, kind, pattern) in turns(
    ("jacobian_spectrum", "power_iteration", "verdict", "lyapunov_spectrum", "largest_exponent"),
    (
        ("cell", jb.cells.elman, TypeError, "`cell` must be a Cell: got function"),
        ("xs", ones(T, d + 1), ValueError, r"`xs` must have shape .*d=3.*got xs.shape=\(5, 4\)"),
        ("key", 7, TypeError, r"`key` must be one random key: got int \(7\)"),
    ),
):
    row(
        f"diagnostics.{name}-{argument}",
        kind,
        pattern,
        lambda name=name, changed={argument: value}: diagnostic(getattr(DIAGNOSTICS, name), **changed),
    )
for name, (argument, value, kind, pattern) in turns(
    ("gradient_flow", "omega"),
    (
        ("model", GRU, TypeError, "`model` must be a Model: got Cell"),
        ("loss", 3, TypeError, "`loss` must be a function: got int"),
        ("theta", THETA.h, TypeError, r"`theta` must be a Theta\(h=…, o=…\): got GRUParams"),
        ("ys", ones(T - 1, B, m), ValueError, "`xs` and `ys` must share their time axis"),
        ("mask", ints(T, B), TypeError, "`mask` must be boolean, or floating-point weights: got int32"),
        ("h_0", ones(B, n + 1), ValueError, r"`h_0` must have shape .*\(6, 4\).*got \(6, 5\)"),
    ),
):
    row(
        f"diagnostics.{name}-{argument}",
        kind,
        pattern,
        lambda name=name, changed={argument: value}: flow(getattr(DIAGNOSTICS, name), **changed),
    )

# One of them

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
row("flossing-target", TypeError, r"`target` must be a number: got str \('0'\)", lambda: diagnostic(
    DIAGNOSTICS.flossing, k=2, target="0"))  # fmt: skip
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
row("fixed_points-one", ValueError, r"`h_0` must hold S first guesses.*write `h\[None\]`", lambda: find(h_0=ones(n)))
row(
    "fixed_points-inputs",
    ValueError,
    r"`x` must be one input, without axes of time and batch: got float64\[6, 3\], .*float64\[6, 4\]; use `jax.vmap`",
    lambda: find(x=ones(B, d)),
)
row("fixed_points-cell", TypeError, "`cell` must be a Cell: got Model", lambda: find(cell=MODEL))
row("spectral_clipping-integer", TypeError, r"`W_h` must be floating point: got int32; write `W_h.astype", lambda: (
    DIAGNOSTICS.spectral_clipping(ints(n, n), 1.0)))  # fmt: skip
row("kaplan_yorke-none", ValueError, r"`exponents.shape\[-1\]` must be an integer, at least 1: got 0", lambda: (
    DIAGNOSTICS.kaplan_yorke_dimension(ones(0))))  # fmt: skip
row("lyapunov-no-member", ValueError, r"the batch must have at least one sequence: got batch axes \(0,\)", lambda: (
    spectrum(xs=ones(T, 0, d), h_0=ones(0, n))))  # fmt: skip
row(
    "fixed_points-two-axes",
    ValueError,
    r"`h_0` must have one batch axis.*got batch axes \(2, 3\).*`reshape`",
    lambda: find(cell=OWN_STATE, h_0=ones(2, 3, n)),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
