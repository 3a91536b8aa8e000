"""Many training steps: batches by number or from an iterator, several a dispatch; watched, and kept on disk."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbptt._errors import arguments
from jaxbptt.training import _disk_errors, _errors, _leaves
from jaxbptt.training.observers import Callback, Observer, Progress, in_turn
from jaxbptt.training.step import Batch, Metrics, TrainState, trainer
from jaxbptt.types import Array, GradientEstimator, PyTree


class Run(NamedTuple):
    """Everything about a run between two dispatches, hence all that a checkpoint holds.

    Attributes:
        train: θ, the optimiser's and the estimator's states, the position in the data, the key.
        observed: the state of each callback.
        stopped: whether an observer has ended it.

    >>> Run(train=None, observed=(), stopped=np.array(False)).observed
    ()
    """

    train: TrainState
    observed: tuple
    stopped: Any


class Saver(NamedTuple):
    """Where a run is kept. `jaxbptt.training.checkpoints.saver` makes one; any two functions will do.

    Attributes:
        every: `save` is called at the first end of a dispatch at or after each multiple of so many steps.
        save: ``(step, run) -> None``.
        restore: ``run -> run``, with the tree of the one given; ``None`` when nothing is kept yet.
        alone: makes what a fit stays in, as by ``with``, from before ``restore`` to its end; it refuses a second run.

    >>> kept = {}
    >>> in_memory = Saver(every=16, save=kept.__setitem__, restore=lambda run: kept[max(kept)] if kept else None)
    >>> in_memory.save(16, "a run")
    >>> in_memory.restore(None)
    'a run'
    """

    every: int
    save: Callable[[int, Run], None]
    restore: Callable[[Run], Run | None]
    alone: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


class Fit(NamedTuple):
    """What came out.

    Attributes:
        theta: the parameters after the last step; a copy, for `Trainer` takes the arrays of a state it is given.
        state: all that is needed to go on.
        metrics: of every step that this call made, on the host.
        observed: the state of the callback, or of each of them when several were given.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> batch = (jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> result = fit(jb.estimators.bptt(model, jb.losses.l2_loss), optax.sgd(0.1), theta, [batch] * 3)
    >>> result.metrics.loss.shape, int(result.state.step)
    ((3,), 3)
    """

    theta: PyTree
    state: TrainState
    metrics: Metrics
    observed: Any


def fit(
    estimator: GradientEstimator | Callable,
    optimizer: optax.GradientTransformation,
    theta: PyTree | TrainState,
    batches: Iterable | Callable[[int], Any],
    *,
    steps: int | None = None,
    steps_per_dispatch: int = 8,
    callback: Callback | Sequence[Callback] | None = None,
    checkpoints: Saver | None = None,
    h_0: PyTree = None,
    key: Array | None = None,
    streaming: bool = False,
    skip_nonfinite: int | None = None,
) -> Fit:
    """Trains: one optax update for each batch, as `trainer` makes them.

    Several batches of equal shapes are stacked and run by one ``lax.scan``. A batch of another shape, or a rest at the
    end, runs one by one. So there are at most two programs for each shape of batch. With F split over devices there are
    three: the first dispatch finds θ on one of them.

    A run follows from the arguments alone. With ``batches`` a function of the step (`shuffled` makes the order), two
    runs give the same bits. So does one that was cut off and begun again, any number of times.

    Args:
        estimator: what makes the gradient; or an F of your own, ``(theta, xs, ys, h_0, …) -> scalar``, which stands for
            `jaxbptt.estimators.from_objective` of it.
        optimizer: any optax optimiser; see `trainer` for schedules and for accumulation. Make it once: a second
            ``optax.adam(1e-3)`` is another object, and its programs are compiled anew.
        theta: the parameters to start from, any tree of floating-point leaves; or the `TrainState` of an earlier fit.
            It is copied either way.
        batches: a function, ``k -> batch``, of the number of steps made before; or an iterable. A batch is a tuple
            ``(xs, ys)`` or a `Batch`. Don't overwrite one after it is yielded: several are gathered before they run.
        steps: how many batches to take, counted from `theta`, with those taken before a restored checkpoint. An
            iterable may end before, and ``None`` takes all of it: ``len(metrics.loss)`` says how many there were.
        steps_per_dispatch: how many steps run between two calls of `callback`.
        callback: called after each dispatch with a `Progress`: a function, which returns True to pause the run; an
            `Observer`, such as `early_stopping` and `metrics.jsonl`; or a sequence of both, called in turn.
        checkpoints: keeps the run before the first step, every so many, and at the end. A run that it kept goes on, or
            is returned at once if it was over. A run that a function paused is not over.
        h_0: the state that a stream starts from: with ``streaming=True`` needed where `theta` is no `TrainState`,
            and an error without. A `TrainState` has its own.
        key: a random key for the estimator; step k sees ``fold_in(key, k)``. A `TrainState` has its own, and so has a
            run that `checkpoints` hold. Beside these, only the key that the run began with is no error.
        streaming: see `trainer`.
        skip_nonfinite: how many steps in a row may be skipped; one more is an error. ``None`` allows none. A step is
            skipped, and never reaches θ, if loss, gradient, new θ or the optimiser's state is not finite, or if the
            optimiser's own norm of the gradient overflows.

    Returns:
        A `Fit`.

    Raises:
        FloatingPointError: when steps were not finite, with the step and the leaf.
        TypeError, ValueError: for a bad count, a batch that is no tuple, an iterator without a batch, and as `trainer`.

    Notes:
        The arrays of a `Progress` may still be on their way: wait for them with ``jax.block_until_ready``. `fit` prints
        nothing. An iterator used again after a pause may have lost one batch: `fit` took it to see its shape.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> batch = (jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> result = fit(jb.estimators.bptt(model, jb.losses.l2_loss), optax.adam(0.01), theta, [batch] * 50)
    >>> bool(result.metrics.loss[-1] < 0.2 * result.metrics.loss[0])
    True

    Without a model, by an F and a θ of your own:

    >>> def F(theta, xs, ys, h_0=None):
    ...     return jnp.mean((xs @ theta["W"] - ys) ** 2)
    >>> result = fit(F, optax.adam(0.1), {"W": jnp.zeros((3, 2))}, [batch] * 50)
    >>> bool(result.metrics.loss[-1] < 0.2 * result.metrics.loss[0])
    True
    """
    _check(steps, steps_per_dispatch, skip_nonfinite, checkpoints, batches)
    several = isinstance(callback, (list, tuple)) and not isinstance(callback, Observer)
    callbacks: Any = callback if several else () if callback is None else (callback,)
    watch = in_turn(tuple(callbacks))
    _errors.estimator(estimator)  # before the factory asks whether they are hashable
    _errors.optimizer(optimizer)
    train = trainer(estimator, optimizer, streaming=streaming)
    state = _beginning(train, theta, h_0, key, streaming)
    begun, first = Run(state, watch.init(jax.tree.map(jnp.array, state.theta)), np.array(False)), int(state.step)
    with contextlib.nullcontext() if checkpoints is None else checkpoints.alone():
        restored = _restored(checkpoints, begun, first, key)
        run = begun if restored is None else restored
        position = int(run.train.step)
        left = None if steps is None else _errors.not_beyond(position, first + steps)
        groups = _groups(_taken(batches, position, left), steps_per_dispatch)
        try:
            if restored is None:
                watch.begin()
                _keep(checkpoints, position, run)  # what the folder cannot take is known before the first step
            run, history = _gone_on(train, watch, run, groups, steps_per_dispatch, skip_nonfinite or 0, checkpoints)
        finally:
            watch.end()
    if restored is None:
        _errors.trained(history)
    collected = jax.tree.map(lambda *leaves: np.concatenate(leaves), *history) if history else _NO_STEPS
    last: Any = jax.tree.map(jnp.array, run.train.theta)
    return Fit(last, run.train, collected, run.observed if several else run.observed[:1] and run.observed[0])


def _check(steps, steps_per_dispatch, skip_nonfinite, checkpoints, batches):
    """The options, before anything is made of them."""
    if steps is not None:
        arguments.count("steps", steps)
    arguments.count("steps_per_dispatch", steps_per_dispatch)
    if skip_nonfinite is not None:
        arguments.count("skip_nonfinite", skip_nonfinite)
    if checkpoints is not None:
        _errors.saver(checkpoints, Saver)
    _errors.batches(batches, steps, checkpoints)


def _beginning(train, theta, h_0, key, streaming):
    """The state that `fit` is called with: a copy of the one given, or a new one."""
    if not isinstance(theta, TrainState):
        return train.init(theta, h_0, key=key)
    _errors.no_state_beside_its_own(streaming, h_0)
    _errors.no_key_beside_its_own(key)
    _errors.not_donated("theta", theta)
    return jax.tree.map(jnp.array, theta)


def _restored(checkpoints, begun, first, key):
    """The run that is kept, if any, and is this one."""
    if checkpoints is None or (kept := checkpoints.restore(begun)) is None:
        return None
    _errors.checkpoint_of_this_run(int(kept.train.step), first)
    _errors.same_key(key, kept.train.key)
    return _copied(kept)


def _taken(batches, position, left):
    """The batches from `position` on, `left` of them."""
    source = (batches(k) for k in itertools.count(position)) if callable(batches) else batches
    return (Batch(*_errors.batch(batch, Batch)) for batch in itertools.islice(source, left))


def _gone_on(train, watch, run, groups, size, allowed, checkpoints):
    """The run after all dispatches, and the metrics of each."""
    position = kept = int(run.train.step)
    pause, history = bool(run.stopped), []
    while not pause and (group := next(groups, None)) is not None:
        state, metrics = _dispatch(train, run.train, group, whole=len(group) == size > 1)
        _check_finite(history, position, allowed, run)  # the dispatch before, while this one runs
        position += len(group)
        history.append(metrics)
        observed, progress, pause = watch.update(run.observed, Progress(position, metrics, state, {}))
        if checkpoints is not None:
            _disk_errors.same_observed(_forms(run.observed), _forms(observed))
        run, pause = Run(state, observed, np.array(progress.stop)), pause or progress.stop
        if checkpoints is not None and position // checkpoints.every > kept // checkpoints.every:
            _check_finite(history, position, allowed, run)
            _keep(checkpoints, position, run)
            kept = position
    _check_finite(history, position, allowed, run)
    if kept < position:
        _keep(checkpoints, position, run)
    return run, history


def _check_finite(history, position, allowed, run):
    """The last dispatch, which ended at `position`; waits for it."""
    if history:
        _errors.finite_steps(history[-1], position, allowed, run.train)


def _keep(checkpoints, position, run):
    if checkpoints is not None:
        checkpoints.save(position, _copied(run))


_NO_STEPS = Metrics._make(np.zeros(0, dtype) for dtype in (np.float32, np.float32, bool, np.int32, np.int32))


def _forms(observed):
    return {name: _leaves.form(leaf) for name, leaf in _leaves.named(observed).items()}


def _copied(run):
    """With a state of its own: the next dispatch takes the arrays of this one."""
    return run._replace(train=jax.tree.map(jnp.array, run.train))


def _dispatch(train, state, group, whole):
    if whole:
        return train.steps(state, _stack(group))
    collected = []
    for batch in group:
        state, metrics = train.step(state, batch)
        collected.append(metrics)
    return state, _stack(collected)


def _stack(trees):
    return jax.tree.map(lambda *leaves: (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves), *trees)


def _groups(batches, size):
    """Runs of at most `size` batches whose trees, shapes and dtypes agree."""

    def form(batch):
        leaves, treedef = jax.tree.flatten(batch)
        return treedef, tuple((np.shape(leaf), leaf.dtype) for leaf in leaves)

    for _, alike in itertools.groupby(batches, key=form):
        while group := list(itertools.islice(alike, size)):
            yield group
