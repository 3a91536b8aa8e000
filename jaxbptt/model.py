"""A cell and a readout: ŷ_t = g(h_t; θ_o) on top of h_t = f(x_t, h_{t-1}; θ_h)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxbptt import _axes, _masks, readouts
from jaxbptt._errors import arguments, initialisation, trees
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.types import Cell, Model, Policy, Readout, Theta
from jaxbptt.unroll import unroll


@factory
def rnn(cell: Cell, readout: Readout, *, policy: Policy | None = None) -> Model:
    """The model ``h_t = f(x_t, h_{t-1}; θ_h)``, ``ŷ_t = g(h_t; θ_o)``.

    Args:
        cell: f.
        readout: g.
        policy: the precision to compute in, such as `jaxbptt.policies.mixed_precision()`. ``None``: that of θ.

    Returns:
        A `Model`. The same arguments give the same object. Its functions:

        * ``init(key, *, input_size, hidden_size, output_size, dtype=float32)`` makes a `Theta`.
        * ``initial_state(theta, batch_shape=())`` makes h_0.
        * ``apply(theta, xs, h_0=None, *, mask=None, lengths=None, key=None, adjoint=None, return_state=False)`` gives
          ``y_hats [T, *batch, m]``, or ``(y_hats, h_T)``. With lengths, h_T is each member's last real state.
        * ``step(theta, x_t, h_tm1, *, key=None)`` gives ``(y_hat_t, h_t)``.

    Raises:
        TypeError: when an argument is not a `Cell`, a `Readout` or a `Policy`.

    Notes:
        Under ``jax.grad`` the readout is differentiated by its own rule. With `adjoints.autodiff` and
        `adjoints.tangent` JAX differentiates it, so that forward mode goes through.

    >>> import jaxbptt as jb
    >>> model = rnn(jb.cells.lstm(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> model.apply(theta, jnp.ones((7, 4, 3))).shape
    (7, 4, 2)
    """
    arguments.cells("cell", (cell,))
    arguments.readout(readout)
    if policy is not None:
        arguments.policy(policy)
        cell, readout = policy.cell(cell), policy.readout(readout)
        arguments.cells("policy.cell(cell)", (cell,))
        arguments.readout(readout)

    pieces: Any = (_init, _initial_state, _apply, _step)
    init, initial_state, apply, step = (functools.partial(piece, cell, readout) for piece in pieces)
    return Model(init, initial_state, apply, cell, readout, step)


def _init(cell, readout, key, *other, input_size=None, hidden_size=None, output_size=None, dtype=jnp.float32):
    """A `Theta` drawn by the initialisers of cell and readout."""
    initialisation.key(key)
    if other or any(size is None for size in (input_size, hidden_size, output_size)):
        came = f"{other} by position" if other else f"{input_size=}, {hidden_size=}, {output_size=}"
        raise TypeError(
            f"sizes of a model must be keywords, all three: got {came}; write "
            "`model.init(key, input_size=…, hidden_size=…, output_size=…)`"
        )
    key_h, key_o = jax.random.split(key)
    return Theta(
        h=cell.init(key_h, input_size, hidden_size, dtype), o=readout.init(key_o, hidden_size, output_size, dtype)
    )


def _initial_state(cell, readout, theta, batch_shape=()):
    """h_0 for a batch of this shape, as the cell begins."""
    trees.theta(theta)
    return cell.initial_state(theta.h, batch_shape)


def _apply(cell, readout, theta, xs, h_0=None, *, mask=None, lengths=None, key=None, adjoint=None, return_state=False):
    """``y_hats [T, *batch, m]`` for ``xs [T, *batch, d]``: see `jaxbptt.rnn`."""
    trees.theta(theta)
    if key is not None:
        initialisation.key(key)
    if h_0 is None:
        h_0 = cell.initial_state(theta.h, _axes.batch_shape_of(cell, theta.h, xs, (), mask, lengths))
    if lengths is not None:
        _axes.check_lengths(cell, theta.h, xs, h_0, lengths)
        cell, xs, _ = _masks.masked_by_lengths(cell, xs, lengths)
    h_T, hs = unroll(cell, theta.h, xs, h_0, adjoint=adjoint)
    readouts.fits(readout, theta.o, _axes.one_step(hs))
    y_hats_of = readouts.by_jax if getattr(adjoint, "keeps_forward_mode", False) else readouts.over_time
    y_hats = y_hats_of(readout, *cotangents.alike(theta.o, hs))
    return (y_hats, h_T) if return_state else y_hats


def _step(cell, readout, theta, x_t, h_tm1, *, key=None):
    """``(y_hat_t, h_t)`` of one step: see `jaxbptt.rnn`."""
    trees.theta(theta)
    if key is not None:
        initialisation.key(key)
    h_t = cell.apply(theta.h, x_t, h_tm1)
    return readout.apply(theta.o, cell.output(h_t)), h_t
