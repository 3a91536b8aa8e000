"""Layers, each over all of its sequence before the next: h^k_{1..T} from h^{k-1}_{1..T}.

    h_t^1 = f_1(x_t, h_{t-1}^1),      h_t^k = f_k(D(z_t^{k-1}), h_{t-1}^k),      z_t^k = output(h_t^k)

D is dropout. A layer may read its sequence from both ends (`jaxbptt.layers.bidirectional`).

All inputs of a layer are there before its recursion begins. So W_x x_t of every layer is one product over time.
`cells.stacked` is the same network as one causal cell, which takes all layers at each step.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import _axes, _keys, adjoints
from jaxbptt._errors import arguments, initialisation
from jaxbptt.cells import _errors as of_cells
from jaxbptt.cells.combinators.masked import MaskedInput, masked
from jaxbptt.cells.combinators.resettable import ResetInput
from jaxbptt.cells.combinators.stacked import stacked
from jaxbptt.layers import _errors
from jaxbptt.layers.bidirectional import Bidirectional, Directions, abreast, reversed_in_time
from jaxbptt.types import Cell


class Layers(NamedTuple):
    """The layers of a model, and what goes between them.

    Attributes:
        layers: each a `Cell` or a `Bidirectional`.
        cell: a cell of the same parameters, states and output at a step. It has both directions read x_t: its shapes
            are those of the network.
        dropout: the share of z_t^k that is dropped.
        per: ``"step"`` or ``"sequence"``: how long what is dropped stays so.
        residual: whether z_t^k = output(h_t^k) + z_t^{k-1}, where these are of one size.

    >>> import jaxbptt as jb
    >>> jb.rnn((jb.cells.gru(), jb.cells.lstm()), jb.readouts.linear(), dropout=0.1).layers.dropout
    0.1
    """

    layers: tuple
    cell: Cell
    dropout: float
    per: str
    residual: bool


def made(layers, dropout, per, residual) -> Layers:
    """The `Layers` of these."""
    _errors.layers(layers, Bidirectional)
    _errors.dropout(dropout, per)
    arguments.flag("residual", residual)
    cells = tuple(abreast(*layer) if isinstance(layer, Bidirectional) else layer for layer in layers)
    pieces = {"init": _init, "apply": _at_a_step, "check": _check}
    whole = stacked(*cells)._replace(**{name: functools.partial(piece, cells) for name, piece in pieces.items()})
    return Layers(layers, whole, dropout, per, residual)


def causal(network: Layers) -> Cell | None:
    """The cell that takes all layers at each step; ``None`` where there is none."""
    if network.residual or any(isinstance(layer, Bidirectional) for layer in network.layers):
        return None
    return stacked(*network.layers)


def goes_on(model) -> bool:
    """Whether a state at the end of one chunk is where the next one begins."""
    return model.layers is None or not any(isinstance(layer, Bidirectional) for layer in model.layers.layers)


def one_cell(who, model) -> Any:
    """The model's cell, for what takes one step at a time."""
    if model.cell is None:
        _errors.no_cell(who, model.layers.residual)
    return model.cell


def undisturbed(who, model):
    """Refuses layers with dropout, for what evaluates ``model.cell``: that cell drops nothing."""
    if one_cell(who, model) is not None and model.layers is not None and model.layers.dropout:
        _errors.no_dropout(who, model.layers.dropout)


def only_of_layers(dropout, residual):
    """Refuses what goes between layers, where there are none."""
    if dropout or residual:
        _errors.nothing_between(dropout, residual)


def run(network: Layers, adjoint, theta_h, xs, h_0, *, real=None, key=None):
    """``(h_T, outputs)`` as `jaxbptt.unroll` gives them. `real` says which steps are, where some are not."""
    adjoint, h_T = adjoints.full() if adjoint is None else adjoint, []
    below: Any = None
    outputs: Any = None
    for k, layer in enumerate(network.layers):
        h_k, outputs = _layer(adjoint, layer, theta_h[k], xs, h_0[k], real, key, 2 * k)
        h_T.append(h_k)
        if network.residual and k > 0 and outputs.shape == below.shape:
            outputs = outputs + below
        if k < len(network.layers) - 1:
            below = outputs
            xs = _with_flags(xs, _dropped(network, key, k, outputs))
    return tuple(h_T), outputs


def last(outputs, real):
    """``[1, *batch, …]``: the outputs at each member's last real step; at its first where none is."""
    if real is None:
        return jax.tree.map(lambda leaf: leaf[-1:], outputs)
    at = jnp.maximum(jnp.sum(real, axis=0) - 1, 0)
    return jax.tree.map(functools.partial(_taken, at), outputs)


def _taken(at, leaf):
    at = at.reshape((1, *at.shape) + (1,) * (leaf.ndim - 1 - at.ndim))
    return jnp.take_along_axis(leaf, at, axis=0)


def _layer(adjoint, layer, theta, xs, h_0, real, key, k):
    if isinstance(layer, Bidirectional):
        h_f, forward = _layer(adjoint, layer.forward, theta.forward, xs, h_0.forward, real, key, k)
        read_back = reversed_in_time(xs), h_0.backward, None if real is None else jnp.flip(real, 0)
        h_b, backward = _layer(adjoint, layer.backward, theta.backward, *read_back, key, k + 1)
        return Directions(h_f, h_b), jnp.concatenate([forward, jnp.flip(backward, 0)], axis=-1)
    if layer.draws is not None and key is not None:
        xs = _keys.of_steps(layer, xs, key, _axes.batch_shape(layer, theta, h_0), k)
    if real is not None:
        layer, xs = masked(layer), MaskedInput(xs, real)
    return adjoint(layer, theta, xs, h_0)


def _with_flags(xs, outputs):
    """Outputs as the inputs of the next layer: the flags of a `MaskedInput` or a `ResetInput` go with them."""
    return xs._replace(x=_with_flags(xs.x, outputs)) if isinstance(xs, (MaskedInput, ResetInput)) else outputs


def _dropped(network, key, k, outputs):
    """D(z): what stays is as much larger as makes up for what is dropped. Without a key, z."""
    if key is None or network.dropout == 0:
        return outputs
    shape = outputs.shape if network.per == "step" else outputs.shape[1:]
    stays = jax.random.bernoulli(jax.random.fold_in(key, k), 1 - network.dropout, shape)
    return jnp.where(stays, outputs / (1 - network.dropout), jnp.zeros_like(outputs))


def _init(cells, key, input_size, hidden_size, dtype=jnp.float32):
    sizes = hidden_size if isinstance(hidden_size, tuple) else (hidden_size,) * len(cells)
    _errors.one_size_each(sizes, len(cells))
    for size in sizes:
        initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=size)
    theta_h = []
    for cell, own, size in zip(cells, jax.random.split(key, len(cells)), sizes, strict=True):
        theta_h.append(cell.init(own, input_size, size, dtype))
        input_size = width(cell, theta_h[-1], size)
    return tuple(theta_h)


def _at_a_step(cells, theta_h, x_t, h_tm1):
    h_t = []
    for cell, theta, h in zip(cells, theta_h, h_tm1, strict=True):
        h_t.append(cell.apply(theta, x_t, h))
        x_t = _with_flags(x_t, cell.output(h_t[-1]))
    return tuple(h_t)


def _check(cells, theta_h, xs, h_0):
    of_cells.layers(theta_h, h_0, len(cells))
    T = _axes.time_axis("xs", xs)
    for k, cell in enumerate(cells):
        if cell.check is not None and k == 0:
            cell.check(theta_h[0], xs, h_0[0])
        elif cell.check is not None:
            of_cells.upper_layer(cell.check, k, theta_h[k], xs, h_0[k])
        z = jax.eval_shape(cell.output, h_0[k])
        xs = _with_flags(xs, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((T, *leaf.shape), leaf.dtype), z))


def width(cell, theta_h, hidden_size) -> int:
    """How many numbers the cell's output has at a step; `hidden_size` where that is no vector."""
    z = jax.eval_shape(cell.output, _axes.state_without_batch(cell, theta_h))
    return z.shape[0] if hasattr(z, "shape") and len(z.shape) == 1 else hidden_size
