"""`initializers`: what they are made with, and shapes that they can't fill."""

import re

import jax
import numpy as np

import jaxbptt as jb
from jaxbptt import initializers
from tests.cases import turns
from tests.errors.rows import assert_refused, d, each, key, n, table

ROWS, row = table()

# What they are made with

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

for (name, made), (value, kind, pattern) in turns(
    (
        ("scale", initializers.orthogonal),
        ("scale", initializers.identity),
        ("strength", lambda value: initializers.non_normal(0.5, value)),
        ("rho", lambda value: initializers.non_normal(value, 1.0)),
        ("forget_bias", lambda value: jb.cells.lstm(forget_bias=value)),
        (r"values\[1\]", lambda value: initializers.gate_bias(0, value)),
    ),
    (
        ("1", TypeError, r"a number: got str \('1'\)"),
        (None, TypeError, r"a number: got NoneType"),
        (True, TypeError, "a number: got bool"),
        (1j, TypeError, "a number: got complex"),
        (np.inf, ValueError, "a finite number: got inf"),
    ),
):
    row(f"{name}-{value}", kind, f"`{name}` must be {pattern}", lambda made=made, value=value: made(value))
for name, made in (("rho", initializers.spectral_radius), ("T_max", initializers.chrono)):
    row(f"{name}-inf", ValueError, f"`{name}` must be a finite number: got inf", lambda made=made: made(np.inf))
for name, arguments, kind, pattern in (
    ("none", (None, 4), TypeError, "`init` must be a function: got NoneType"),
    ("factory", (initializers.orthogonal, 4), TypeError, "`init` must be an initialiser: got the factory orthogonal"),
    ("gates", (initializers.zeros, 0), ValueError, "`gates` must be an integer, at least 1: got 0"),
):
    row(f"per_gate-{name}", kind, pattern, lambda arguments=arguments: initializers.per_gate(*arguments))

# Shapes

for name, init in (("orthogonal", initializers.orthogonal()), ("glorot_uniform", initializers.glorot_uniform)):
    row(
        f"{name}-vector",
        ValueError,
        rf"initializers.{name} makes a matrix: got shape=\(3,\), expected two axes",
        lambda init=init: init(key(), (3,)),
    )
for (name, make, argument), (what, init, came) in turns(
    (
        ("elman", lambda init: jb.cells.elman(W_x_init=init).init, "W_x_init"),
        ("gru", lambda init: jb.cells.gru(W_h_init=init).init, "W_h_init"),
        ("lstm", lambda init: jb.cells.lstm(b_init=init).init, "b_init"),
        ("readout", lambda init: jb.readouts.linear(W_o_init=init).init, "W_o_init"),
    ),
    (
        ("factory", jax.nn.initializers.he_normal, r"a function; .*as `he_normal\(\)` of JAX"),
        ("shape", lambda key, shape, dtype: np.ones((1, 2), dtype), r"float32\[1, 2\]"),
        ("integer", lambda key, shape, dtype: np.ones(shape, np.int32), "int32"),
    ),
):
    row(
        f"{name}-{argument}-{what}",
        TypeError,
        rf"`{argument}` must return an array float32\[.*\] for \(key, shape, dtype\): got {came}",
        lambda make=make, init=init: make(init)(key(), d, n),
    )
row(
    "orthogonal-bias",
    ValueError,
    r"initializers.orthogonal makes a matrix: got shape=\(4,\)",
    lambda: jb.cells.elman(b_init=initializers.orthogonal()).init(key(), d, n),
)
for name, init, shape in (
    ("identity", initializers.identity(), (4, 3)),
    ("spectral_radius", initializers.spectral_radius(0.9), (4,)),
    ("non_normal", initializers.non_normal(0.5, 1.0), (2, 4, 4)),
):
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


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
