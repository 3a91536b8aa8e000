"""One training step: an estimate of the gradient, then an optax update. Pure, jitted, its state donated.

A step whose loss, gradient or new θ is not finite leaves θ, the optimiser and the stream as they were and is counted:
a NaN in θ spoils all that follows, and a file of it is worse than none. So does one whose gradient is finite and its
square is not: Adam would never move such a weight again, and a clip makes 0 of it. How many such steps a run may have
is `jaxbptt.training.fit`'s to say.

A batch of which no step counts leaves θ and the optimiser as they were, too: momentum would move θ by it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbptt import _masks
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt.estimators.from_objective import from_objective
from jaxbptt.training import _errors, _finite
from jaxbptt.types import Array, GradientEstimator, PyTree


class Batch(NamedTuple):
    """What one step learns from: ``xs [T, *batch, d]``, ``ys``, and as for `jaxbptt.objective` h_0, mask, lengths.

    >>> Batch(jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2))).mask is None
    True
    """

    xs: PyTree
    ys: PyTree
    h_0: PyTree = None
    mask: PyTree = None
    lengths: PyTree = None


class Skipped(NamedTuple):
    """Steps left out: ``in_a_row``, up to now, as something was not finite; ``total``, those of which none counts too.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> train = trainer(jb.estimators.bptt(model, jb.losses.l2_loss), optax.sgd(0.1))
    >>> state, _ = train.step(train.init(theta), Batch(jnp.full((7, 4, 3), jnp.nan), jnp.ones((7, 4, 2))))
    >>> state.skipped.total.item(), bool(jnp.all(state.theta.h.W_h == theta.h.W_h))
    (1, True)
    """

    in_a_row: Array
    total: Array


class TrainState(NamedTuple):
    """All that a step changes. ``estimator`` is carried from batch to batch in a stream and empty otherwise.

    ``step`` counts batches, the skipped ones too, so it is also the position in the data.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> train = trainer(jb.estimators.bptt(model, jb.losses.l2_loss), optax.sgd(0.1))
    >>> state = train.init(theta)
    >>> state.step.item(), state.skipped.total.item()
    (0, 0)
    """

    theta: PyTree
    opt: PyTree
    estimator: PyTree
    step: Array
    key: Array
    skipped: Skipped


class Metrics(NamedTuple):
    """Of one step: F before the update, the global norm of its gradient, and whether the update was made.

    Attributes:
        loss: F.
        gradient_norm: ‖∂F/∂θ‖ over all leaves, however large.
        finite: False when the step was skipped, as something was not finite or no step of its batch counts.
        skipped: how many steps in a row were not finite, this one included; 0 where ``finite``.
        leaf: the index of the first leaf that is not finite; -1 for none. Counted through ∂F/∂θ, the updated θ, what
            the optimiser keeps (an array that was finite before), and θ once more: there the optimiser has lost the
            gradient, as its own norm of it is infinite.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> train = trainer(jb.estimators.bptt(model, jb.losses.l2_loss), optax.sgd(0.1))
    >>> _, metrics = train.step(train.init(theta), Batch(jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2))))
    >>> metrics.finite.item(), metrics.skipped.item(), metrics.leaf.item()
    (True, 0, -1)
    """

    loss: Array
    gradient_norm: Array
    finite: Array
    skipped: Array
    leaf: Array


class Trainer(NamedTuple):
    """``init(theta, h_0=None, *, key=None) -> TrainState``, ``step(state, batch) -> (state, Metrics)``, and ``steps``,
    the same for batches stacked along a new leading axis, in one dispatch.

    `step` takes the first axis as time. `steps` takes the first as batches and the second as time. Shapes can't tell
    one batch ``[T, B, d]`` from T stacked sequences ``[B, d]``.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> train = trainer(jb.estimators.bptt(model, jb.losses.l2_loss), optax.sgd(0.1))
    >>> stacked = Batch(jnp.ones((6, 7, 4, 3)), jnp.ones((6, 7, 4, 2)))  # six batches, one dispatch
    >>> state, metrics = train.steps(train.init(theta), stacked)
    >>> state.step.item(), metrics.loss.shape
    (6, (6,))
    """

    init: Callable[..., TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    steps: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@factory
def trainer(
    estimator: GradientEstimator | Callable,
    optimizer: optax.GradientTransformation,
    *,
    streaming: bool = False,
) -> Trainer:
    """The train step ``θ ← θ + optimizer(estimate of ∂F/∂θ)``, for any tree θ of floating-point leaves.

    Args:
        estimator: what makes the gradient, such as ``jaxbptt.estimators.bptt(model, loss)``; or an F of your own, which
            stands for `jaxbptt.estimators.from_objective` of it.
        optimizer: any optax optimiser; it gets the loss as ``value=``. One that evaluates F anew (a line search,
            ``contrib.sam``) or keeps a θ of its own form (``lookahead``) is an error. A learning rate that changes is
            an optax schedule given to it. For the gradient of k batches in one update wrap it,
            ``optax.MultiSteps(optimizer, k)``. When the batches count equally many steps, that is the update of the one
            big batch. Only an optimiser that reads the loss differs: it gets that of the last. (Sums are in float32
            unless ``accumulator_dtype`` says otherwise.)
        streaming: whether a batch goes on where the last one ended (the estimator's state is carried; pass h_0 to
            ``init``) or starts anew (the default; each batch may bring its own h_0).

    Returns:
        A `Trainer`. ``step`` and ``steps`` are jitted and donate the state: use the one they return. To compile ahead,
        ``jax.jit(train.step).lower(…)``. ``steps`` runs its batches by ``lax.scan``. A step that is not finite changes
        nothing but ``step`` and ``skipped``; ``Metrics`` says so. A batch of which no step counts leaves θ and the
        optimiser alone; a stream goes on. The same arguments give the same object.

    Raises:
        TypeError, ValueError: for what is not an estimator or an optimiser. From ``init``: for a leaf of θ that is not
            floating point, and a stream without h_0. When traced: for a stream of an estimator that carries no state,
            an optimiser that wants more than a gradient, and as the estimator does. For a state that a step was given
            before.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> train = trainer(jb.estimators.bptt(model, jb.losses.l2_loss), optax.sgd(0.1))
    >>> state, metrics = train.step(train.init(theta), Batch(jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2))))
    >>> int(state.step), metrics.loss.shape
    (1, ())
    """
    _errors.estimator(estimator)
    _errors.optimizer(optimizer)
    arguments.flag("streaming", streaming)
    gradient: Any = from_objective(estimator) if callable(estimator) else estimator
    says_what_counts = not callable(estimator) or hasattr(estimator, "reduction")  # the mask of another F is its own

    def init(theta, h_0=None, *, key=None):
        _errors.trainable(theta)
        _errors.not_donated("theta", theta)
        if streaming and h_0 is None:
            _errors.stream_without_state()
        if not streaming and h_0 is not None:
            _errors.state_without_stream("`init` without streaming")
        key = jax.random.key(0) if key is None else key
        initialisation.key(key)
        theta, h_0, key = jax.tree.map(jnp.array, (theta, h_0, key))  # copies: the state will be donated
        begun = gradient.init(theta, h_0)  # which looks at θ, in a stream or not
        begun_opt = _errors.made_by(optimizer.init, theta)
        opt = jax.tree.map(jnp.array, begun_opt)  # some keep θ itself, and nothing can be donated twice
        none = Skipped(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
        return TrainState(theta, opt, begun if streaming else (), jnp.zeros((), jnp.int32), key, none)

    # Some, such as `reduce_on_plateau`, want the loss; of `MultiSteps`, which is no GradientTransformation, one inside.
    takes_more = isinstance(optimizer, optax.MultiSteps)
    update: Any = (optimizer if takes_more else optax.with_extra_args_support(optimizer)).update

    def one(state, batch):
        _errors.train_state(state, TrainState)
        _errors.stream_of(streaming, state.estimator)
        xs, ys, h_0, mask, lengths = Batch(*_errors.batch(batch, Batch))
        if streaming and h_0 is not None:
            _errors.state_without_stream("a batch in a stream")
        before = state.estimator if streaming else gradient.init(state.theta, h_0)
        key = jax.random.fold_in(state.key, state.step)
        estimate, after = gradient.update(state.theta, before, xs, ys, mask=mask, lengths=lengths, key=key)
        if streaming:
            _errors.carried_on(before, after)
        # Of a complex z = x + iy ``jax.grad`` gives ∂F/∂x - i ∂F/∂y; F falls against ∂F/∂x + i ∂F/∂y.
        uphill = jax.tree.map(jnp.conj, estimate.grads)

        def updated(c):
            smaller = uphill if c is None else jax.tree.map(lambda bar: bar / c.astype(bar.dtype), uphill)
            return _errors.made_by(update, smaller, state.opt, state.theta, value=estimate.loss)

        updates, opt = updated(None)
        theta: Any = optax.apply_updates(state.theta, updates)
        norm, leaf = _finite.examined(estimate.grads, theta, opt, state.opt, updates, lambda c: updated(c)[0])
        counts = _counts(mask, lengths) if says_what_counts else jnp.array(True)
        finite = jnp.isfinite(estimate.loss) & (leaf < 0)
        carried, old = (after, before) if streaming else ((), ())
        carried = _select(finite, carried, old)  # time passes in a chunk of which no step counts
        made = finite & counts
        theta, opt = _select(made, (theta, opt), (state.theta, state.opt))
        in_a_row = jnp.where(finite, jnp.where(counts, 0, state.skipped.in_a_row), state.skipped.in_a_row + 1)
        skipped = Skipped(in_a_row, state.skipped.total + (~made).astype(jnp.int32))
        metrics = Metrics(estimate.loss, norm, made, skipped.in_a_row, leaf)
        return TrainState(theta, opt, carried, state.step + 1, state.key, skipped), metrics

    def many(state, batches):
        _errors.stacked(_errors.batch(batches, Batch))
        return jax.lax.scan(one, state, batches)

    return Trainer(init, *(functools.partial(_run, jax.jit(program, donate_argnums=0)) for program in (one, many)))


def _run(program, state, batch):
    """One of the two, on a state that is still there."""
    _errors.not_donated("state", state)
    return program(state, batch)


def _counts(mask, lengths):
    """Whether any step of the batch does. A mask may be a tree, where an estimator of the user's own takes one."""
    if hasattr(mask, "shape") and hasattr(lengths, "shape") and lengths.shape in (mask.shape, mask.shape[1:]):
        real = lengths > 0 if lengths.shape == mask.shape else _masks.real(mask, lengths)  # of the last step, or of all
        mask, lengths = real & mask.astype(bool), None
    flags = (
        [jnp.any(leaf.astype(bool)) for leaf in jax.tree.leaves(mask)],
        [jnp.any(n > 0) for n in jax.tree.leaves(lengths)],
    )
    return jnp.all(jnp.array([jnp.any(jnp.array(any_of)) for any_of in flags if any_of], bool))


def _select(condition, a, b):
    return jax.tree.map(lambda leaf_a, leaf_b: jnp.where(condition, leaf_a, leaf_b), a, b)
