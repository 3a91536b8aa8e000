"""Layers, what goes between them, the closed loop, and lists of sequences."""

import functools

import jax
import jax.numpy as jnp

import jaxbptt as jb
from tests.errors.rows import ELMAN, GRU, LSTM, T, assert_refused, d, each, flags, ints, l2, m, n, ones, table

ROWS, row = table()
READ = jb.readouts.linear()
both = jb.bidirectional(LSTM)
DEEP, WIDE = jb.rnn((GRU, LSTM), READ), jb.rnn((both, both), READ)


def theta_of(model, **changed):
    sizes = {"input_size": d, "hidden_size": n, "output_size": m, "dtype": jnp.float64} | changed
    return model.init(jax.random.key(0), **sizes)


def applied(model, theta=None, xs=None, **options):
    return model.apply(theta_of(model) if theta is None else theta, ones(T, d) if xs is None else xs, **options)


row("layer", TypeError, r"`cell\[1\]` must be a Cell.*: got a function, and is not called yet", lambda: (
    jb.rnn((GRU, jb.cells.lstm), READ)))  # fmt: skip
row("a-number", TypeError, r"`cell\[0\]` must be a Cell, or `jb.bidirectional.*: got a int", lambda: (
    jb.rnn((3,), READ)))  # fmt: skip
row("a-readout-for-a-cell", TypeError, r"`cell` must be a Cell", lambda: jb.rnn(READ, READ))
row("no-layer", ValueError, r"`cell` must have at least one layer: got an empty tuple", lambda: jb.rnn((), READ))
row("direction", TypeError, r"`backward` must be", lambda: jb.bidirectional(GRU, READ))
row("dropout", ValueError, r"`dropout` must lie from 0 to below 1: got 1.0; it is the share that is dropped", lambda: (
    jb.rnn((GRU, GRU), READ, dropout=1.0)))  # fmt: skip
row("dropout-word", TypeError, r"`dropout` must be", lambda: jb.rnn((GRU, GRU), READ, dropout="0.5"))
row("per", ValueError, r"`dropout_per` must be one of 'step', 'sequence': got 'batch'", lambda: (
    jb.rnn((GRU, GRU), READ, dropout_per="batch")))  # fmt: skip
row("residual", TypeError, r"`residual` must be True or False: got 2", lambda: jb.rnn((GRU, GRU), READ, residual=2))
row("one-cell", ValueError, r"`dropout` and `residual` are of layers: got dropout=0.5, residual=False", lambda: (
    jb.rnn(GRU, READ, dropout=0.5)))  # fmt: skip
row("sizes", ValueError, r"`hidden_size` must be one number, or one for each of the 2 layers: got 3 of them", lambda: (
    theta_of(DEEP, hidden_size=(3, 4, 5))))  # fmt: skip
row("a-size-of-zero", ValueError, r"`hidden_size` must be", lambda: theta_of(DEEP, hidden_size=(3, 0)))
row("another-stack", TypeError, r"`theta_h` of 2 stacked layers must be a tuple of 2: got 3 entries", lambda: (
    applied(DEEP, theta_of(jb.rnn((GRU, LSTM, GRU), READ)), h_0=DEEP.initial_state(theta_of(DEEP)))))  # fmt: skip
row("another-layer", TypeError, r"layer 2 of the stack, .* reads the output of layer 1", lambda: (
    applied(DEEP, theta_of(jb.rnn((GRU, ELMAN), READ)), h_0=DEEP.initial_state(theta_of(DEEP)))))  # fmt: skip
row("one-direction", TypeError, r"`theta_h` of a layer of two directions must be a Directions", lambda: (
    applied(WIDE, theta_of(jb.rnn((LSTM, LSTM), READ)))))  # fmt: skip
row("h_0-of-layers", TypeError, r"`h_0` of 2 stacked layers must be a tuple of 2: got", lambda: (
    applied(DEEP, h_0=ones(n))))  # fmt: skip
row("lengths", ValueError, r"`lengths`", lambda: applied(WIDE, xs=ones(T, 2, d), lengths=ints(3)))
row("key", TypeError, r"`key` must be one random key: got int", lambda: applied(DEEP, key=3))
for name in ("rtrl", "uoro", "windowed"):
    options = {"window": 3} if name == "windowed" else {}
    row(f"{name}-of-two-directions", NotImplementedError,
        r"takes one step after another, and a bidirectional layer is no causal cell: its output at t has read x_T",
        functools.partial(getattr(jb.estimators, name), WIDE, l2, **options))  # fmt: skip
row("residual-online", NotImplementedError, r"layers with residual connections are no causal cell", lambda: (
    jb.estimators.rtrl(jb.rnn((GRU, GRU), READ, residual=True), l2)))  # fmt: skip
row("dropout-online", NotImplementedError, r"drops nothing between them: got a model with dropout=0.5", lambda: (
    jb.estimators.rtrl(jb.rnn((GRU, GRU), READ, dropout=0.5), l2)))  # fmt: skip
row("step-of-two-directions", NotImplementedError, r"`model.step` takes one step after another", lambda: (
    WIDE.step(theta_of(WIDE), ones(d), None)))  # fmt: skip
row("said-and-read", ValueError, r"ŷ_t is the next input and must be like `x_0`, float64\[3\]: got", lambda: (
    DEEP.generate(theta_of(DEEP), ones(d), steps=3)))  # fmt: skip
row("sampled-and-read", ValueError, r"`sample\(key_t, y_hat_t\)` is the next input and must be like `x_0`", lambda: (
    DEEP.generate(theta_of(DEEP), ones(d), steps=3, sample=lambda key, y: y)))  # fmt: skip
row("sample", TypeError, r"`sample` must be a function that can be called as sample\(key_t, y_hat_t\)", lambda: (
    DEEP.generate(theta_of(DEEP), ones(d), steps=3, sample=lambda y: y)))  # fmt: skip
row("steps", ValueError, r"`steps` must be", lambda: DEEP.generate(theta_of(DEEP), ones(d), steps=0))
row("sequences", TypeError, r"`sequences` must be a list of at least one: got \[\]", lambda: jb.sequences.pad([]))
row("an-array-of-sequences", TypeError, r"`sequences` must be a list of at least one: got float64\[2, 3\]", lambda: (
    jb.sequences.pad(ones(2, 3))))  # fmt: skip
row("an-empty-sequence", ValueError, r"`sequences\[1\]` must have at least one step: got T = 0", lambda: (
    jb.sequences.pad([ones(2, 3), ones(0, 3)])))  # fmt: skip
row("other-features", ValueError, r"got `sequences\[1\]` = float64\[4, 2\] beside `sequences\[0\]`", lambda: (
    jb.sequences.pad([ones(2, 3), ones(4, 2)])))  # fmt: skip
row("multiple", ValueError, r"`multiple` must be", lambda: jb.sequences.pad([ones(2, 3)], multiple=0))
row("bucketed", TypeError, r"`lengths` must be integers \[N\], one a sequence: got float64\[3\]", lambda: (
    jb.sequences.bucket(ones(3), 2)))  # fmt: skip
row("batch_size", ValueError, r"`batch_size` must be", lambda: jb.sequences.bucket(ints(3), 0))
row("mask-of-layers", ValueError, r"`mask` must have the batch axes of `xs`", lambda: (
    jb.objective(WIDE, l2)(theta_of(WIDE), ones(T, 2, d), ones(T, 2, m), mask=flags(T, 3))))  # fmt: skip


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
