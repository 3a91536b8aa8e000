"""F: the losses of all steps, summed. ``jax.grad`` differentiates it by the chosen adjoint.

F = Σ_t w_t L(ŷ_t, y_t) / Σ_t w_t        w_t = 1 at every step, or what a mask says; 0 at a step that is not real
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import _axes, _keys, _masks, adjoints, losses, readouts
from jaxbptt._errors import arguments, initialisation, trees, words
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import checked, with_time_axis
from jaxbptt.layers import network
from jaxbptt.types import Adjoint, Cell, Loss, Model, Readout, Theta


class Aux(NamedTuple):
    """What F returns beside its value: ``y_hats [T, *batch, …]``, and ``h_T``, each member's last state.

    With ``at="last"`` y_hats has one step, ``[1, *batch, …]``.

    >>> Aux(y_hats=jnp.zeros((7, 4, 2)), h_T=jnp.zeros((4, 5))).h_T.shape
    (4, 5)
    """

    y_hats: Any
    h_T: Any


class Given(NamedTuple):
    """The arguments of F, checked.

    Attributes:
        cell: f; with lengths, its state stands still where a sequence is over.
        xs: its inputs.
        h_0: the initial state, as arrays.
        ys: ``[T, *batch, …]``; with ``at="last"``, ``[1, *batch, …]``.
        weights: w_t, ``[T, *batch]``, boolean or real; ``None`` where every step counts.
        batch: the batch axes.
        L_dtype: the dtype of the loss.
        real: which steps are, ``[T, *batch]``; ``None`` for all.
        key: for what draws random numbers.
    """

    cell: Cell
    xs: Any
    h_0: Any
    ys: Any
    weights: Any
    batch: tuple
    L_dtype: Any
    real: Any = None
    key: Any = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """F, as `objective` makes it.

    >>> import jaxbptt as jb
    >>> F = objective(jb.rnn(jb.cells.elman(), jb.readouts.linear()), jb.losses.l2_loss)
    >>> dataclasses.replace(F, adjoint=jb.adjoints.checkpointed()).adjoint.slots is None
    True
    """

    model: Model = dataclasses.field(repr=False)  # JAX asks for F's name whenever it is traced
    loss: Loss
    adjoint: Adjoint
    reduction: str
    at: str
    has_aux: bool

    def __call__(self, theta, xs, ys, h_0=None, *, mask=None, lengths=None, key=None):
        """F of ``theta`` for ``xs [T, *batch, d]`` and ``ys [T, *batch, …]``: see `jaxbptt.objective`."""
        given = check(self.model, self.loss, theta, xs, ys, h_0, mask, lengths, key, at=self.at)
        value, aux = evaluate(self, theta, given, keeps_y_hats=self.has_aux)
        return (value, aux) if self.has_aux else value


def check(model, loss, theta, xs, ys, h_0=None, mask=None, lengths=None, key=None, *, at="steps"):
    """The arguments of F as `Given`. Only shapes are computed, and h_0 if it was not given."""
    if not isinstance(theta, Theta):
        trees.theta(theta)
    T = _axes.time_axis("xs", xs)
    if at == "last":
        ys, mask = with_time_axis((ys, mask))
    elif _axes.time_axis("ys", ys) != T:
        raise ValueError(
            f"`xs` and `ys` must share their time axis: got xs={words.describe(xs)}, ys={words.describe(ys)}; "
            "F has one target a step"
        )
    if key is not None:
        initialisation.key(key)
    if mask is not None:
        _check_mask(mask, 1 if at == "last" else T)
    cell, weights, real = model.cell if model.layers is None else model.layers.cell, mask, None
    if h_0 is None:
        h_0 = cell.initial_state(theta.h, _axes.batch_shape_of(cell, theta.h, xs, ys, mask, lengths))
    if cell.draws is not None and key is not None:
        xs = _keys.of_steps(cell, xs, key, _axes.batch_shape(cell, theta.h, jax.tree.map(jnp.asarray, h_0)))
    if lengths is not None:
        _axes.check_lengths(cell, theta.h, xs, h_0, lengths)
        cell, xs, real = _masks.masked_by_lengths(cell, xs, lengths)
        weights = _masks.weights(mask, real[:1] if at == "last" else real)  # without a step there is no last one
    h_0 = checked(cell, theta.h, xs, h_0)
    batch = _axes.batch_shape(cell, theta.h, h_0)
    L_dtype = _check_loss(model, loss, theta, cell, h_0, ys, weights, batch)
    return Given(cell, xs, h_0, ys, weights, batch, L_dtype, real, key)


def divisor(F, xs, mask, lengths, dtype):
    """The divisor of F: Σ w, or the number of sequences that count; ``None`` where every step counts."""
    if mask is None and lengths is None:
        return None
    real = None if lengths is None else _masks.real(xs, lengths)
    if F.at == "last":
        mask, real = with_time_axis(mask), None if real is None else real[:1]
    weights = _masks.weights(mask, real)
    count = losses.count(weights, 0, (), dtype, each=F.reduction == "sequences")
    return jnp.sum(count != 0, dtype=dtype) if F.reduction == "sequences" else count


def evaluate(F, theta, given, *, keeps_y_hats=False):
    """F and its `Aux`. Its ŷ's are ``None`` where losses are read block by block."""
    cell, readout, y_hats = given.cell, F.model.readout, None
    recursion = cotangents.alike(theta.h, given.xs, given.h_0)
    if F.model.layers is not None:
        theta_h, xs, h_0 = recursion
        xs = xs if given.real is None else xs.x
        h_T, outputs = network.run(F.model.layers, F.adjoint, theta_h, xs, h_0, real=given.real, key=given.key)
        outputs = outputs if F.at == "steps" else network.last(outputs, given.real)
    elif hasattr(F.adjoint, "read_in_blocks") and F.at == "steps" and not keeps_y_hats:
        read_of = cotangents.alike(theta.o, (given.ys, given.weights), recursion)[:2]
        h_T, Ls = F.adjoint.read_in_blocks(_Losses(readout, F.loss), cell, *recursion, *read_of)
        outputs = None
    elif F.at == "last":
        h_T, _ = F.adjoint(cell._replace(output=_nothing), *recursion)
        outputs = with_time_axis(cell.output(h_T))
    else:
        h_T, outputs = F.adjoint(cell, *recursion)
    if outputs is not None:
        y_hats_of = readouts.by_jax if getattr(F.adjoint, "keeps_forward_mode", False) else readouts.over_time
        y_hats = y_hats_of(readout, *cotangents.alike(theta.o, outputs))
        Ls = losses.of_steps(F.loss, y_hats, given.ys, given.weights)
    steps = jax.tree.leaves(given.ys)[0].shape[0]
    value = losses.reduced(Ls, given.weights, steps, given.batch, F.reduction)
    return value.astype(given.L_dtype), Aux(y_hats, h_T)


def _nothing(h_t):
    """The output of a cell where only the last state is read."""
    return ()


@dataclasses.dataclass(frozen=True)
class _Losses:
    """The part of F in one block: Σ_t w_t L_t of each member. Nothing else is kept."""

    readout: Readout = dataclasses.field(repr=False)  # as above
    loss: Loss

    def __call__(self, theta_o, outputs, read_of):
        (ys, weights), real = read_of
        y_hats = readouts.over_time(self.readout, theta_o, outputs)
        if real is not None:
            batch = jax.eval_shape(jax.vmap(self.loss), y_hats, ys).shape[1:]
            weights = _masks.weights(weights, _masks.over_batch(real, batch))
        return jnp.sum(losses.of_steps(self.loss, y_hats, ys, weights), axis=0)


@factory
def objective(
    model: Model,
    loss: Loss,
    *,
    adjoint: Adjoint | None = None,
    reduction: Literal["mean", "sum", "sequences", "none"] = "mean",
    at: Literal["steps", "last"] = "steps",
    has_aux: bool = False,
) -> Objective:
    """``F(theta, xs, ys, h_0=None, *, mask=None, lengths=None, key=None) = Σ w_t L(ŷ_t, y_t) / Σ w_t``.

    Exact. Its gradient is as exact as the adjoint, and costs what the adjoint costs. With `adjoints.checkpointed`,
    readout and loss are evaluated block by block, forward and back: only the schedule's arrays span all of T.

    Args:
        model: f and g, from `jaxbptt.rnn`.
        loss: L, ``(y_hat_t, y_t) -> [*batch]``.
        adjoint: how the recursion is differentiated; `jaxbptt.adjoints.full` by default.
        reduction: ``"mean"`` over all steps and members together, or ``"sum"``; ``"none"``: each member's mean,
            ``[*batch]``; ``"sequences"``: the mean of these, over members with a step that counts.
        at: ``"last"``: F is the mean of L(ŷ_T, y), with ``ys [*batch, …]`` and ``mask [*batch]``. T is each member's
            last real step; a member of length 0 does not count.
        has_aux: whether F returns ``(value, Aux(y_hats, h_T))``, for ``jax.value_and_grad(F, has_aux=True)``.

    Returns:
        F. The same arguments give the same F. It takes:

        * ``theta``, a `Theta`; ``xs [T, *batch, d]``; ``ys`` with leaves ``[T, *batch, …]``.
        * ``h_0``: the model's initial state when ``None``.
        * ``mask [T, *batch]``: which real steps count: True, or a weight, ≥ 0 for a mean.
        * ``lengths [*batch]``: how many steps of each sequence are real. At the others the state stands still. They
          count nowhere, and their contents, NaN included, reach nothing.
        * ``key``: for a cell that draws random numbers.

        NaN in a real step shows, whether the step counts or not.

    Raises:
        TypeError, ValueError: for anything but a model, loss, adjoint or reduction. When F is traced, for shapes,
            dtypes and trees that don't fit.

    Notes:
        In float16 the cotangent of a step is its share, 1/(T·B). Beyond T·B = 16,000 that is no normal number. Take
        bfloat16, or the sum of a loss that you scale.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> F = objective(model, jb.losses.l2_loss)
    >>> grads = jax.grad(F)(theta, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)), lengths=jnp.array([7, 3, 5, 1]))
    >>> grads.h.W_h.shape
    (5, 5)
    """
    if not (isinstance(model, Model) and callable(loss)):
        arguments.model(model)
        arguments.callable_argument("loss", loss)
    if reduction not in ("mean", "sum", "sequences", "none"):
        arguments.one_of("reduction", reduction, ("mean", "sum", "sequences", "none"), "weigh the loss for others")
    if at not in ("steps", "last") or not isinstance(has_aux, bool):
        arguments.one_of("at", at, ("steps", "last"), "a mask counts any other steps")
        arguments.flag("has_aux", has_aux)
    adjoint = adjoints.full() if adjoint is None else adjoint
    if not callable(adjoint) or hasattr(adjoint, "is_factory"):
        arguments.adjoint(adjoint)
    return Objective(model, loss, adjoint, reduction, at, has_aux)


def _check_mask(mask, T):
    if not hasattr(mask, "dtype") or not (mask.dtype == bool or jnp.issubdtype(mask.dtype, jnp.floating)):
        came = mask.dtype if hasattr(mask, "dtype") else type(mask).__name__
        raise TypeError(
            f"`mask` must be boolean, or floating-point weights: got {came}; write `jnp.asarray(mask, bool)`"
        )
    if mask.ndim < 1 or mask.shape[0] != T:
        raise ValueError(f"`mask` must share the time axis of `xs`, T={T}: got mask.shape={mask.shape}")


def _check_loss(model, loss, theta, cell, h_0, ys, weights, batch):
    """The readout reads the state; loss and weights have one number a member. Returns the loss's dtype."""
    if 0 in batch:
        _axes.some_member(batch)
    y_hat_t, y_t = readouts.fits(model.readout, theta.o, jax.eval_shape(cell.output, h_0)), _axes.one_step(ys)
    L = _axes.traced("loss", loss, y_hat_t, y_t)
    if not hasattr(L, "shape"):
        raise TypeError(
            f"`loss` must return one array of the shape {batch}: got a {type(L).__name__}; what else is wanted "
            "of y_hats, such as an accuracy, compute from `model.apply`"
        )
    if L.shape != batch:
        raise ValueError(
            f"`loss` must return one number for each member of the batch, shape {batch}: got {words.shape(L)} "
            f"for y_hat_t={words.describe(y_hat_t)}, y_t={words.describe(y_t)}; "
            "sum over features, not over the batch"
        )
    if not jnp.issubdtype(L.dtype, jnp.floating):
        raise TypeError(f"`loss` must return real floating point: got {L.dtype}")
    if weights is not None:
        _check_weights(weights, ys, y_hat_t, batch)
    return L.dtype


def _check_weights(weights, ys, y_hat_t, batch):
    T = jax.tree.leaves(ys)[0].shape[0]
    if weights.shape != (T, *batch):
        raise ValueError(
            f"`mask` must have shape [T, *batch] = {(T, *batch)}: got {weights.shape}; "
            "use `jnp.broadcast_to` for one mask over the whole batch"
        )
    for name, tree, shape in (("ys", ys, weights.shape), ("y_hats", y_hat_t, batch)):
        for path, leaf in jax.tree.leaves_with_path(tree):
            if np.shape(leaf)[: len(shape)] != shape:
                came = np.shape(leaf) if name == "ys" else (T, *leaf.shape)
                raise ValueError(
                    f"`{name}{jax.tree_util.keystr(path)}` must begin with [T, *batch] = {(T, *batch)}, as a mask "
                    f"or lengths count its steps: got {came}; use `jnp.broadcast_to`"
                )
