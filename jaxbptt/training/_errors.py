"""Estimators, optimisers, batches."""

import operator

import jax
import numpy as np

from jaxbptt import types
from jaxbptt._errors import words
from jaxbptt._errors.arguments import called_with
from jaxbptt._trees.cotangents import dtype_of, has_derivative
from jaxbptt.training._leaves import form, on_host


def estimator(value):
    if not isinstance(value, types.GradientEstimator) and not callable(value):
        remedy = "; make one with `jb.estimators.bptt(model, loss)`, for one"
        raise words.other("estimator", "a GradientEstimator or a function F", value, remedy)


def optimizer(value):
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise words.other_type("optimizer", "an optax optimiser", value, "; `optax.adam(1e-3)`, for one")


def trainable(theta):
    """Every leaf of θ has a derivative."""
    for path, leaf in jax.tree.leaves_with_path(theta):
        if not has_derivative(leaf):
            raise TypeError(
                f"`theta{jax.tree_util.keystr(path)}` must be floating point to be trained: got {dtype_of(leaf)}; keep "
                "what is not learned out of θ: in the functions of the cell, or in the state"
            )


def made_by(function, *given, **more):
    """What ``init`` or ``update`` of an optimiser returns."""
    try:
        return function(*given, **more)
    except words.OF_ARGUMENTS as error:
        raise TypeError(
            "`optimizer` must make its update of a gradient, θ and the loss alone: it got them and raised "
            f"{type(error).__name__} ({error!s:.200}); for one that evaluates F anew, as a line search does, or keeps "
            "a θ of its own form, as `lookahead` does, write the loop by hand"
        ) from error


def not_donated(name, value):
    """A step takes the arrays of its state."""
    if any(map(_is_deleted, jax.tree.leaves(value))):
        raise ValueError(
            f"`{name}` must be arrays that are still there: got some that were deleted, as `trainer.step` and `steps` "
            "donate the state they are given; use the one they return, or give a copy, `jax.tree.map(jnp.array, state)`"
        )


def _is_deleted(leaf):
    try:
        return isinstance(leaf, jax.Array) and leaf.is_deleted()
    except jax.errors.ConcretizationTypeError:  # a traced one is still there
        return False


def train_state(value, state_type):
    if not isinstance(value, state_type):
        raise words.other_type("state", "a TrainState", value, "; make one with `trainer.init(theta)`")


def state_without_stream(where):
    raise ValueError(
        f"`h_0` of {where} would be ignored: got a state, expected None; "
        "with `streaming=True` give h_0 once, to `init` or `fit`, and without it give each batch its own"
    )


def stream_without_state():
    raise ValueError(
        "`h_0` must be given for a stream, whose state is carried from batch to batch: got None; "
        "make one with `model.initial_state(theta, batch_shape)`"
    )


def no_state_beside_its_own(streaming, h_0):
    if h_0 is not None and not streaming:
        state_without_stream("`fit` without streaming")
    if h_0 is not None:
        raise ValueError(
            "`h_0` would be ignored: got one beside a `theta` that is a TrainState, whose stream has its own, expected "
            "None; begin the stream anew by `state._replace(estimator=estimator.init(state.theta, h_0))`"
        )


def no_key_beside_its_own(key):
    if key is not None:
        raise ValueError(
            "`key` would be ignored: got one beside a `theta` that is a TrainState and has its own, expected None; "
            "write `state._replace(key=key)`"
        )


def checkpoint_of_this_run(position, first):
    """A run that begins at `first` keeps that step at once: an earlier one is another run's."""
    if position < first:
        raise ValueError(
            f"`checkpoints` must hold a run that began where `theta` is, at step {first}: got one at step {position}, "
            "which would be gone on with instead; give each fit a folder of its own, or pass the θ that it began with"
        )


def same_key(given, kept):
    if given is None:
        return
    given, kept = (f"{on_host(key).tolist()} ({form(key).get('key', 'old style')})" for key in (given, kept))
    if given != kept:
        raise ValueError(
            f"`key` would be ignored: got one of {given}, and the run that `checkpoints` holds has its own, "
            f"of {kept}; leave it out to go on with that run, or give each fit a folder of its own"
        )


def not_beyond(position, end):
    """How many steps are left."""
    if position > end:
        raise ValueError(
            f"`steps` must end at or after the step that is kept: got an end at step {end}, and `checkpoints` with "
            f"step {position}; ask for more steps, or give each fit a folder of its own"
        )
    return end - position


def carried_on(before, after):
    """A stream hands on a new state, which is like the one that it got."""
    if after is before:
        raise TypeError(
            "`streaming=True` needs an estimator that carries a state from chunk to chunk: got one that returns the "
            "state it is given; take `estimators.bptt` or `estimators.rtrl`, and let an F of your own return "
            "`(value, aux)` with the state after the chunk as `aux.h_T`"
        )
    came, expected = words.describe(after), words.describe(before)
    trees = jax.tree.structure(after), jax.tree.structure(before)
    if trees[0] != trees[1] or jax.tree.leaves(came) != jax.tree.leaves(expected):
        raise TypeError(
            f"the state that a stream hands on must be like the one it gets: got {came}, expected {expected}; an F of "
            "your own returns an `aux.h_T` like its h_0"
        )


def stream_of(streaming, carried):
    """What a TrainState carries is that of a stream, or nothing."""
    if not streaming and jax.tree.leaves(carried):
        raise ValueError(
            "`state` must carry no state of an estimator without streaming: got that of a stream; pass "
            "`streaming=True`, or write `state._replace(estimator=())`"
        )


def batches(value, steps, checkpoints):
    if callable(value):
        if steps is None:
            raise ValueError(
                "`steps` must be given when `batches` is a function of the step, which has no end: got None; "
                "an observer such as `early_stopping` may still end the run before"
            )
        return
    evaluated(value)
    if checkpoints is not None:
        remedy = ", whose position cannot be gone back to; `lambda k: batches[k % len(batches)]`, or see `shuffled`"
        raise words.other_type("batches", "a function of the step with `checkpoints`", value, remedy)


def evaluated(value):
    """Batches that come to an end."""
    if not hasattr(value, "__iter__") or isinstance(value, (str, dict)) or hasattr(value, "_fields"):
        raise words.other_type("batches", "an iterable of batches", value, "; for one batch write `[(xs, ys)]`")


def batch(value, batch_type):
    if not isinstance(value, batch_type) and not (isinstance(value, (tuple, list)) and len(value) == 2):
        came = f"a tuple of {len(value)}" if isinstance(value, (tuple, list)) else f"an entry {words.describe(value)}"
        raise TypeError(
            f"`batches` must hold tuples (xs, ys), or a Batch where there is more: got {came}; write "
            "`Batch(xs, ys, h_0=…, mask=…, lengths=…)`, and for one batch `[(xs, ys)]`"
        )
    for leaf in jax.tree.leaves(value):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
            raise TypeError(
                f"`batches` must hold tuples of arrays of NumPy or JAX: got a {type(leaf).__name__} in one; write "
                "`np.asarray(…)`"
            )
    return value


def stacked(batches):
    """Several batches, along a leading axis of every leaf."""
    leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(leading) != 1 or () in leading:
        raise ValueError(
            f"`steps` must be given batches that are stacked along one leading axis: got {words.describe(batches)}; "
            "one batch goes to `step`, and `jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)` stacks several"
        )


def callback(value, observer_type):
    if not isinstance(value, observer_type):
        if not callable(value):
            raise words.other_type("callback", "a function or an Observer, or several", value)
        called_with("callback", value, "progress")


def saver(value, saver_type):
    if not isinstance(value, saver_type):
        remedy = "; make one with `jb.training.checkpoints.saver(folder, every=100)`"
        raise words.other_type("checkpoints", "a Saver", value, remedy)


def finite_steps(metrics, position, allowed, state):
    """More steps in a row that are not finite than allowed; `position` is that after the last of them."""
    over = np.flatnonzero(np.asarray(metrics.skipped) > allowed)
    if not len(over):
        return
    k = over[0]
    leaf, loss, norm = (np.asarray(values)[k] for values in (metrics.leaf, metrics.loss, metrics.gradient_norm))
    parts = {"∂F/∂θ at `theta": state.theta, "the updated θ at `theta": state.theta}
    parts |= {"what the optimiser keeps at `opt": state.opt}
    parts |= {"what the optimiser lost, as its own norm of so large a gradient is infinite, at `theta": state.theta}
    named = ((what, path) for what, tree in parts.items() for path, _ in jax.tree.leaves_with_path(tree))
    places = [f"{what}{jax.tree_util.keystr(path)}`" for what, path in named]
    where = "every leaf of its gradient is finite" if leaf < 0 else f"the first leaf is {places[leaf]}"
    raise FloatingPointError(
        f"step {position - len(np.asarray(metrics.skipped)) + k} (the first is 0) is not finite: {where}, with loss "
        f"{loss} and gradient norm {norm}; `skip_nonfinite` allows {allowed} in a row. θ is as before the step. Look "
        "at that batch, clip the gradient, lower the learning rate, or allow more"
    )


def scalar(name, value):
    if np.shape(value) != ():
        raise ValueError(f"`{name}` must return a scalar, the lower the better: got the shape {np.shape(value)}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must return a number, the lower the better: got {value!r:.80}") from None


def counted(total):
    if total == 0:
        raise ValueError(
            "`batches` must hold at least one step that counts: got none, or a mask without a True; an "
            "iterator can be used up only once"
        )
    return total


def batch_within(size, batch_size):
    if batch_size > size:
        raise ValueError(f"`batch_size` must be at most `size`: got batch_size={batch_size}, size={size}")


def natural(name, value):
    """As a Python integer; NumPy's and JAX's will do."""
    try:
        found = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = -1
    if found < 0:
        raise TypeError(f"`{name}` must be an integer of at least 0: got {value!r:.80}")
    return found


def new_scalar(name, taken):
    """The name of a measurement, which nothing else in the metrics has."""
    if not isinstance(name, str):
        raise TypeError(f"`name` of a measurement must be a str: got {name!r:.80}")
    if name in taken:
        raise ValueError(
            f"`name` of a measurement must be its own: got {name!r}, and there is one already among "
            f"{', '.join(map(repr, taken))}; `early_stopping(…, name=…)` gives another"
        )


def trained(history):
    if not history:
        raise ValueError("`batches` must yield at least one batch: got none; an iterator can be used up only once")
    if not any(np.any(metrics.finite) or np.any(metrics.skipped) for metrics in history):
        raise ValueError(
            "`batches` must have a step that counts: got none in the whole run, and θ is as it was; True in a `mask` "
            "counts a step, False leaves it out"
        )
