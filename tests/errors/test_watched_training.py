"""`training`: who watches a run, what is measured in it, the order of batches; flags of several functions."""

import numpy as np

import jaxbptt as jb
from tests.errors.rows import BPTT, MODEL, SGD, THETA, B, T, assert_refused, d, each, fit, l2, m, n, ones, table

ROWS, row = table()

# Observers, and the order of batches

row(
    "fit-callback",
    TypeError,
    r"`callback` must be a function or an Observer, or several: got int",
    lambda: fit(callback=5),
)
row(
    "fit-function-without-steps",
    ValueError,
    r"`steps` must be given when `batches` is a function of the step, which has no end: got None",
    lambda: fit(batches=lambda k: (ones(T, B, d), ones(T, B, m))),
)
for what, callback, came in (("list", [print, "bar"], "str"), ("str", "bar", "str")):
    row(
        f"fit-callback-{what}",
        TypeError,
        rf"`callback` must be a function or an Observer, or several: got {came}",
        lambda callback=callback: fit(callback=callback),
    )
row(
    "fit-not-finite",
    FloatingPointError,
    r"step 0 .*is not finite: the first leaf is ∂F/∂θ at `theta\.h\.W_x`, with loss nan.*`skip_nonfinite` allows 0",
    lambda: fit(batches=[(np.nan * ones(T, B, d), ones(T, B, m))]),
)
row(
    "evaluator-no-step",
    ValueError,
    r"`batches` must hold at least one step that counts: got none",
    lambda: jb.training.evaluator(MODEL, l2)(THETA, []),
)
row(
    "early_stopping-no-scalar",
    ValueError,
    r"`evaluate` must return a scalar, the lower the better: got the shape \(4,\)",
    lambda: fit(callback=jb.training.early_stopping(lambda theta: ones(n), every=1)),
)
for name, kind, message in (
    (3, TypeError, "`name` of a measurement must be a str: got 3"),
    ("loss", ValueError, "`name` of a measurement must be its own: got 'loss', and .* 'step', 'loss', 'gradient_norm'"),
):
    row(
        f"early_stopping-name-{name}",
        kind,
        message,
        lambda name=name: jb.training.early_stopping(lambda theta: 0.0, every=1, name=name),
    )
    row(
        f"summary-name-{name}",
        kind,
        message,
        lambda name=name: fit(
            callback=[
                jb.training.Observer(
                    lambda theta: (), lambda state, progress: (state, progress._replace(scalars={name: 0.0}))
                ),
                lambda progress: jb.training.metrics.summary(progress),
            ]
        ),
    )
row(
    "early_stopping-twice-the-name",
    ValueError,
    r"`name` of a measurement must be its own: got 'validation_loss', .*; `early_stopping\(…, name=…\)` gives another",
    lambda: fit(callback=[jb.training.early_stopping(lambda theta: 0.0, every=1)] * 2),
)
row(
    "early_stopping-no-number",
    TypeError,
    r"`evaluate` must return a number, the lower the better: got None",
    lambda: fit(callback=jb.training.early_stopping(lambda theta: None, every=1)),
)
row(
    "early_stopping-evaluator",
    TypeError,
    r"`evaluate` must be a function that can be called as evaluate\(theta\): got one of \(theta, batches\)",
    lambda: jb.training.early_stopping(jb.training.evaluator(MODEL, l2), every=1),
)
row(
    "fit-callback-arguments",
    TypeError,
    r"`callback` must be a function that can be called as callback\(progress\): got one of \(step, loss\)",
    lambda: fit(callback=lambda step, loss: None),
)
row("trainer-streaming", TypeError, r"`streaming` must be True or False: got 'no'", lambda: jb.training.trainer(
    BPTT, SGD, streaming="no"))  # fmt: skip
row(
    "fit-theta-and-optimizer",
    TypeError,
    r"`optimizer` must be an optax optimiser: got Theta",
    lambda: jb.training.fit(BPTT, THETA, SGD, [(ones(T, B, d), ones(T, B, m))]),
)
for name, call in (
    ("every", lambda value: jb.training.early_stopping(len, every=value)),
    ("patience", lambda value: jb.training.early_stopping(len, every=1, patience=value)),
    ("size", lambda value: jb.training.shuffled(value, 1, seed=0)),
    ("batch_size", lambda value: jb.training.shuffled(5, value, seed=0)),
    ("keep", lambda value: jb.training.checkpoints.saver("runs", every=1, keep=value)),
):
    row(
        f"training-{name}",
        ValueError,
        rf"`{name}` must be an integer, at least 1: got 0",
        lambda call=call: call(0),
    )
row(
    "shuffled-batch_size-above-size",
    ValueError,
    r"`batch_size` must be at most `size`: got batch_size=6, size=5",
    lambda: jb.training.shuffled(5, 6, seed=0),
)
for value in (-1, 0.5, True):
    row(
        f"shuffled-seed-{value}",
        TypeError,
        rf"`seed` must be an integer of at least 0: got {value}",
        lambda value=value: jb.training.shuffled(5, 2, seed=value),
    )
    row(
        f"shuffled-at-{value}",
        TypeError,
        rf"`k` must be an integer of at least 0: got {value}",
        lambda value=value: jb.training.shuffled(5, 2, seed=0).at(value),
    )


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
