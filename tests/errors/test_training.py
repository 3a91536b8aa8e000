"""`training`: the trainer, `fit` and its batches; who watches, and checkpoints, have files of their own."""

import types
import warnings

import jax
import jax.numpy as jnp
import optax

import jaxbptt as jb
from jaxbptt.training import Batch
from tests.errors.rows import (
    BPTT,
    MODEL,
    SGD,
    THETA,
    B,
    T,
    assert_refused,
    d,
    each,
    fit,
    flags,
    ints,
    l2,
    m,
    n,
    ones,
    singles,
    table,
)

ROWS, row = table()


TRAINER = jb.training.trainer(BPTT, SGD)


def train(name, change, batch):
    return getattr(TRAINER, name)(change(TRAINER.init(THETA)), batch)


def in_standard_promotion(call):
    with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()


# What is trained, and how

row(
    "trainer-estimator",
    TypeError,
    r"`estimator` must be a GradientEstimator or a function F: got Model .*jb.estimators.bptt\(model, loss\)",
    lambda: jb.training.trainer(MODEL, SGD),
)
row(
    "trainer-optimizer",
    TypeError,
    r"`optimizer` must be an optax optimiser: got float; `optax.adam\(1e-3\)`",
    lambda: jb.training.trainer(BPTT, 0.1),
)
row(
    "trainer-integer-leaf",
    TypeError,
    r"`theta.h\['k'\]` must be floating point to be trained: got int32; keep what is not learned out of θ",
    lambda: jb.training.trainer(BPTT, SGD).init(jb.Theta({"W": ones(3), "k": ints(1)}, ())),
)
row(
    "trainer-optimizer-not-called",
    TypeError,
    r"`optimizer` must be an optax optimiser: got function",
    lambda: jb.training.trainer(BPTT, optax.adam),
)
for name, optimizer, came in (
    ("lbfgs", optax.lbfgs, "'grad' and 'value_fn'"),
    ("lookahead", lambda: optax.lookahead(SGD, 3, 0.5), "AttributeError.*fast"),
    ("sam", lambda: optax.contrib.sam(SGD, SGD), "TypeError.*'value'"),
    ("sophia", lambda: optax.contrib.sophia(0.1), "ValueError.*obj_fn"),
):
    row(
        f"trainer-optimizer-{name}",
        TypeError,
        rf"`optimizer` must make its update of a gradient, θ and the loss alone: .*{came}.*write the loop by hand",
        lambda optimizer=optimizer: in_standard_promotion(lambda: fit(optimizer=optimizer())),
    )


def spent():
    """A state that a step has taken."""
    state = TRAINER.init(THETA)
    TRAINER.step(state, Batch(ones(T, B, d), ones(T, B, m)))
    return state


for name, call in (
    ("trainer.step-state", lambda: TRAINER.step(spent(), Batch(ones(T, B, d), ones(T, B, m)))),
    ("trainer.steps-state", lambda: TRAINER.steps(spent(), Batch(ones(2, T, B, d), ones(2, T, B, m)))),
    ("trainer.init-theta", lambda: TRAINER.init(spent().theta)),
    ("fit-theta", lambda: fit(theta=spent())),
):
    row(
        f"{name}-donated",
        ValueError,
        rf"`{name.split('-')[1]}` must be arrays that are still there: got some that were deleted.* donate .* a copy",
        call,
    )
for name, batch in (
    ("of-one", Batch(ones(T, B, d), ones(T, B, m), lengths=ints(B))),
    ("of-numbers", Batch(ones(), ones())),
):
    row(
        f"trainer.steps-{name}",
        ValueError,
        r"`steps` must be given batches that are stacked along one leading axis: got .*; one batch goes to `step`",
        lambda batch=batch: TRAINER.steps(TRAINER.init(THETA), batch),
    )
for value, kind in ((0, ValueError), (2.0, TypeError)):
    for name, call in (
        ("skip_nonfinite", lambda value: fit(skip_nonfinite=value)),
        ("steps", lambda value: fit(steps=value)),
        ("steps_per_dispatch", lambda value: fit(steps_per_dispatch=value)),
    ):
        row(
            f"{name}-{value}",
            kind,
            rf"`{name}` must be an integer, at least 1: got {value}",
            lambda call=call, value=value: call(value),
        )
row(
    "trainer.init-key",
    TypeError,
    r"`key` must be one random key: got int \(7\)",
    lambda: jb.training.trainer(BPTT, SGD).init(THETA, key=7),
)
for name, call in (
    ("trainer", lambda: jb.training.trainer(BPTT, SGD, streaming=True).init(THETA)),
    ("fit", lambda: fit(streaming=True)),
):
    row(f"{name}-stream", ValueError, r"`h_0` must be given for a stream.*got None; .*model.initial_state", call)

row(
    "stream-of-an-objective",
    TypeError,
    r"`streaming=True` needs an estimator that carries a state from chunk to chunk: got one that returns "
    r"the state it is given; take `estimators.bptt` .* return `\(value, aux\)` with .* `aux.h_T`",
    lambda: fit(estimator=jb.estimators.from_objective(jb.objective(MODEL, l2)), streaming=True, h_0=ones(B, n)),
)


def own(aux):
    """An F of the user's own, over a θ that is one number."""

    def F(theta, xs, ys, h_0=None):
        return theta * jnp.mean(xs), aux

    return {"estimator": F, "theta": ones()}


row(
    "stream-of-an-F-without-h_T",
    TypeError,
    r"`streaming=True` needs an estimator that carries a state .* `aux.h_T`",
    lambda: fit(**own({"h": ones(B, n)}), streaming=True, h_0=ones(B, n)),
)
for what, after in (("shape", ones(B, n + 1)), ("dtype", singles(B, n)), ("tree", (ones(B, n),))):
    row(
        f"stream-of-an-F-h_T-{what}",
        TypeError,
        r"the state that a stream hands on must be like the one it gets: got .*, expected .*float64\[6, 4\].*`aux.h_T`",
        lambda after=after: fit(**own(types.SimpleNamespace(h_T=after)), streaming=True, h_0=ones(B, n)),
    )
for name, value in (("mask", flags(T, B)), ("lengths", ints(B))):
    row(
        f"fit-{name}-of-an-F-that-takes-none",
        TypeError,
        rf"`{name}` must be None for an F that takes none: got one; leave it out.*F\(theta, .* {name}=None\)",
        lambda name=name, value=value: fit(
            **own(()), batches=[Batch(ones(T, B, d), ones(T, B, m))._replace(**{name: value})]
        ),
    )
for what, returned, came in (
    ("three", (ones(), ones(), ones()), r"\('float64\[\]', .*\)"),
    ("array", ones(B), r"float64\[6\]"),
    ("integer", (ints(), ()), r"\('int32\[\]', \(\)\)"),
    ("number", 0.0, r"float64\[\]"),
    ("none", None, "None"),
):
    row(
        f"F-returns-{what}",
        TypeError,
        rf"`F` must return one floating-point number, as an array, or two things, `\(number, aux\)`: got {came}",
        lambda returned=returned: fit(estimator=lambda theta, xs, ys, h_0: returned, theta=ones()),
    )
row(
    "fit-F-arguments",
    TypeError,
    r"`F` must be a function that can be called as F\(theta, xs, ys, h_0\): got one of \(model, ",
    lambda: fit(estimator=lambda model, loss: None),
)


def fit_on(was_stream, **changed):
    """From the state of a run that was a stream, or not."""
    train = jb.training.trainer(BPTT, SGD, streaming=was_stream)
    fit(theta=train.init(THETA, ones(B, n) if was_stream else None), **changed)


row(
    "fit-key-of-a-state",
    ValueError,
    r"`key` would be ignored: got one beside a `theta` that is a TrainState.*write `state._replace\(key=key\)`",
    lambda: fit_on(False, key=7),
)
row(
    "fit-h_0-of-a-state",
    ValueError,
    r"`h_0` would be ignored: got one beside a `theta` that is a TrainState, whose stream has its own.*estimator.init",
    lambda: fit_on(True, streaming=True, h_0=ones(B, n)),
)
row(
    "fit-h_0-of-no-stream",
    ValueError,
    r"`h_0` of `fit` without streaming would be",
    lambda: fit_on(False, h_0=ones(B, n)),
)
row(
    "fit-state-of-a-stream",
    ValueError,
    r"`state` must carry no state of an estimator without streaming: got that of a stream; pass `streaming=True`",
    lambda: fit_on(True),
)

# Batches

for what, batches, came in (
    ("batch", Batch(ones(T, B, d), ones(T, B, m)), "Batch"),
    ("dict", {"xs": ones(T, B, d)}, "dict"),
    ("str", "batches", "str"),
    ("number", 3, "int"),
):
    row(
        f"fit-batches-{what}",
        TypeError,
        rf"`batches` must be an iterable of batches: got {came}; for one batch write `\[\(xs, ys\)\]`",
        lambda batches=batches: fit(batches=batches),
    )
row(
    "evaluator-batches-of-the-step",
    TypeError,
    r"`batches` must be an iterable of batches: got function",
    lambda: jb.training.evaluator(MODEL, l2)(THETA, lambda k: (ones(T, B, d), ones(T, B, m))),
)
for what, batch, came in (
    ("dict", {"xs": ones(T, B, d), "ys": ones(T, B, m)}, r"an entry {'xs': 'float64\[5, 6, 3\]'"),
    ("array", ones(T, B, d), r"an entry float64\[5, 6, 3\]"),
    ("one", (ones(T, B, d),), "a tuple of 1"),
    ("three", (ones(T, B, d), ones(T, B, m), flags(T, B)), "a tuple of 3"),
):
    row(
        f"fit-batch-{what}",
        TypeError,
        rf"`batches` must hold tuples \(xs, ys\), or a Batch where there is more: got {came}.*`Batch\(xs, ys, h_0=…, "
        r"mask=…, lengths=…\)`, and for one batch `\[\(xs, ys\)\]`",
        lambda batch=batch: fit(batches=[batch]),
    )
row(
    "fit-batch-of-lists",
    TypeError,
    r"`batches` must hold tuples of arrays of NumPy or JAX: got a float in one; write `np.asarray",
    lambda: fit(batches=[([[1.0]], [[1.0]])]),
)
row(
    "fit-nothing-counts",
    ValueError,
    "`batches` must have a step that counts: got none in the whole run, and θ is as it was; True in a `mask` counts",
    lambda: fit(batches=[Batch(ones(T, B, d), ones(T, B, m), mask=~flags(T, B))] * 2),
)
row("fit-empty", ValueError, r"`batches` must yield at least one batch: got none", lambda: fit(batches=[]))
row("fit-used-up", ValueError, r"`batches` must yield at least one batch.*only once", lambda: fit(batches=iter(())))
row(
    "fit-mask",
    TypeError,
    r"`mask` must be boolean, or floating-point weights: got int32",
    lambda: fit(batches=[Batch(ones(T, B, d), ones(T, B, m), mask=ints(T, B))]),
)
row(
    "fit-h_0",
    ValueError,
    r"`h_0` must have shape .*\(6, 4\).*got \(6, 5\)",
    lambda: fit(batches=[Batch(ones(T, B, d), ones(T, B, m), ones(B, n + 1))]),
)

# An h_0 that would be ignored in silence trains on something else than what was given.
row("fit-h_0-no-stream", ValueError, r"`h_0` .*stream", lambda: fit(h_0=ones(B, n)))
row(
    "trainer.init-h_0-no-stream",
    ValueError,
    r"`h_0` .*stream",
    lambda: jb.training.trainer(BPTT, SGD).init(THETA, ones(B, n)),
)
row(
    "fit-h_0-in-a-batch-of-a-stream",
    ValueError,
    r"h_0.* stream",
    lambda: fit(streaming=True, h_0=ones(B, n), batches=[Batch(ones(T, B, d), ones(T, B, m), ones(B, n))]),
)
for name in ("step", "steps"):
    row(
        f"trainer.{name}-state",
        TypeError,
        r"`state` must be (a )?TrainState.*got Theta",
        lambda name=name: train(name, lambda state: state.theta, Batch(ones(T, B, d), ones(T, B, m))),
    )
row(
    "fit-estimator",
    TypeError,
    r"`estimator` must be a GradientEstimator or a function F: got Model",
    lambda: fit(estimator=MODEL),
)
row("fit-optimizer", TypeError, r"`optimizer` must be an optax optimiser: got str", lambda: fit(optimizer="adam"))


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
