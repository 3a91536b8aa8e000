"""A cell or layers, and a readout: ŷ_t = g(h_t; θ_o) on top of h_t = f(x_t, h_{t-1}; θ_h)."""

import functools
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxbptt import _axes, _keys, _masks, readouts
from jaxbptt._errors import arguments, initialisation, trees
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import checked
from jaxbptt.generation import generate
from jaxbptt.layers import Bidirectional, network
from jaxbptt.types import Cell, Model, Policy, Readout, Theta
from jaxbptt.unroll import unroll


@factory
def rnn(
    cell: Cell | Bidirectional | tuple[Cell | Bidirectional, ...],
    readout: Readout,
    *,
    dropout: float = 0.0,
    dropout_per: Literal["step", "sequence"] = "step",
    residual: bool = False,
    policy: Policy | None = None,
) -> Model:
    """The model ``h_t = f(x_t, h_{t-1}; θ_h)``, ``ŷ_t = g(h_t; θ_o)``; or layers, each over all of its sequence.

    Args:
        cell: f. Or a layer, or a tuple of layers, each a `Cell` or a `jaxbptt.bidirectional`: the first reads x, every
            other one the output of the one below. The same as ``cells.stacked`` of them, with W_x x_t of every layer
            before its scan.
        readout: g, of the last layer.
        dropout: the share of each layer's output that is dropped before the next. Only with a key.
        dropout_per: ``"step"``: drawn anew at each step. ``"sequence"``: once for a sequence (Gal and Ghahramani 2016).
        residual: whether a layer's output has that of the one below added, where they are of one size.
        policy: the precision to compute in, such as `jaxbptt.policies.mixed_precision()`. ``None``: that of θ.

    Returns:
        A `Model`. The same arguments give the same object. Its functions:

        * ``init(key, *, input_size, hidden_size, output_size, dtype=float32)`` makes a `Theta`. Of layers,
          `hidden_size` may be a tuple. ``theta.h`` and h_0 are then tuples, one entry a layer.
        * ``initial_state(theta, batch_shape=())`` makes h_0.
        * ``apply(theta, xs, h_0=None, *, mask=None, lengths=None, key=None, adjoint=None, return_state=False)`` gives
          ``y_hats [T, *batch, m]``, or ``(y_hats, h_T)``. With lengths, h_T is each member's last real state.
        * ``step(theta, x_t, h_tm1, *, key=None)`` gives ``(y_hat_t, h_t)``.
        * ``generate(theta, x_0, h_0=None, *, steps, key=None, sample=None)`` gives ``y_hats [steps, *batch, m]`` in
          closed loop: x_{t+1} is ŷ_t, or ``sample(key_t, y_hat_t)``. JAX differentiates it. With the same inputs
          `apply` gives the same: fed with targets instead, it is teacher forcing.

    Raises:
        TypeError, ValueError: when an argument is not a `Cell`, layers, a `Readout` or a `Policy`; for a dropout
            beyond [0, 1), or one without layers.

    Notes:
        Under ``jax.grad`` the readout is differentiated by its own rule. With `adjoints.autodiff` and
        `adjoints.tangent` JAX differentiates it, so that forward mode goes through.

        Layers keep the outputs of each, T·n numbers a member, whatever the adjoint. `adjoints.checkpointed` keeps fewer
        of ``cells.stacked``. Each layer is masked by `lengths`. Layers that are `cells.masked` or `cells.resettable`
        get the flags of the input, so take such layers throughout.

    >>> import jaxbptt as jb
    >>> model = rnn(jb.cells.lstm(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> model.apply(theta, jnp.ones((7, 4, 3))).shape
    (7, 4, 2)
    >>> deep = rnn((jb.cells.gru(), jb.bidirectional(jb.cells.gru())), jb.readouts.linear(), dropout=0.2)
    >>> theta = deep.init(jax.random.key(0), input_size=3, hidden_size=(5, 6), output_size=2)
    >>> deep.apply(theta, jnp.ones((7, 4, 3)), key=jax.random.key(1)).shape
    (7, 4, 2)
    """
    arguments.readout(readout)
    if policy is not None:
        arguments.policy(policy)
    layers, f = None, cast(Any, cell)
    cell = (cell,) if isinstance(cell, Bidirectional) else cell
    if type(cell) is tuple:  # a Cell is one as well
        layers = network.made(tuple(_in_precision(policy, layer) for layer in cell), dropout, dropout_per, residual)
        f = network.causal(layers)
    else:
        arguments.cells("cell", (cell,))
        network.only_of_layers(dropout, residual)
        f = cast(Any, _in_precision(policy, cell))
        arguments.cells("policy.cell(cell)", (f,))
    if policy is not None:
        readout = policy.readout(readout)
        arguments.readout(readout)
    of, pieces = _Of(f, readout, layers), (_init, _initial_state, _apply, _step, generate)
    init, initial_state, apply, step, closed = cast(Any, tuple(functools.partial(piece, of) for piece in pieces))
    return Model(init, initial_state, apply, f, readout, step, layers, closed)


class _Of(NamedTuple):
    """What the functions of a model are made of, under a `Model`'s names."""

    cell: Any
    readout: Readout
    layers: Any


def _in_precision(policy, layer):
    if policy is None:
        return layer
    if isinstance(layer, Bidirectional):
        return Bidirectional(*map(policy.cell, layer))
    return policy.cell(layer)


def _init(model, key, *other, input_size=None, hidden_size=None, output_size=None, dtype=jnp.float32):
    """A `Theta` drawn by the initialisers of cell and readout."""
    initialisation.key(key)
    if other or any(size is None for size in (input_size, hidden_size, output_size)):
        came = f"{other} by position" if other else f"{input_size=}, {hidden_size=}, {output_size=}"
        raise TypeError(
            f"sizes of a model must be keywords, all three: got {came}; write "
            "`model.init(key, input_size=…, hidden_size=…, output_size=…)`"
        )
    key_h, key_o = jax.random.split(key)
    cell = _axes.whole(model)
    theta_h = cell.init(key_h, input_size, hidden_size, dtype)
    width = network.width(cell, theta_h, hidden_size)
    return Theta(h=theta_h, o=model.readout.init(key_o, width, output_size, dtype))


def _initial_state(model, theta, batch_shape=()):
    """h_0 for a batch of this shape, as the cell begins."""
    trees.theta(theta)
    return _axes.whole(model).initial_state(theta.h, batch_shape)


def _apply(model, theta, xs, h_0=None, *, mask=None, lengths=None, key=None, adjoint=None, return_state=False):
    """``y_hats [T, *batch, m]`` for ``xs [T, *batch, d]``: see `jaxbptt.rnn`."""
    trees.theta(theta)
    if key is not None:
        initialisation.key(key)
    cell, readout = _axes.whole(model), model.readout
    if h_0 is None:
        h_0 = cell.initial_state(theta.h, _axes.batch_shape_of(cell, theta.h, xs, (), mask, lengths))
    if cell.draws is not None and key is not None:
        xs = _keys.of_steps(cell, xs, key, _axes.batch_shape(cell, theta.h, h_0))
    real, read = None, xs
    if lengths is not None:
        _axes.check_lengths(cell, theta.h, xs, h_0, lengths)
        cell, read, real = _masks.masked_by_lengths(cell, xs, lengths)
    if model.layers is None:
        h_T, hs = unroll(cell, theta.h, read, h_0, adjoint=adjoint)
    else:
        h_0 = checked(cell, theta.h, read, h_0)
        h_T, hs = network.run(model.layers, adjoint, *cotangents.alike(theta.h, xs, h_0), real=real, key=key)
    readouts.fits(readout, theta.o, _axes.one_step(hs))
    y_hats_of = readouts.by_jax if getattr(adjoint, "keeps_forward_mode", False) else readouts.over_time
    y_hats = y_hats_of(readout, *cotangents.alike(theta.o, hs))
    return (y_hats, h_T) if return_state else y_hats


def _step(model, theta, x_t, h_tm1, *, key=None):
    """``(y_hat_t, h_t)`` of one step: see `jaxbptt.rnn`."""
    trees.theta(theta)
    if key is not None:
        initialisation.key(key)
    cell = network.one_cell("model.step", model)
    h_t = cell.apply(theta.h, _keys.of_a_step(cell, x_t, key), h_tm1)
    return model.readout.apply(theta.o, cell.output(h_t)), h_t
