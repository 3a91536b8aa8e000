"""A layer that reads its sequence from both ends: z_t = [z_t of x_1 … x_t, z_t of x_T … x_t].

The backward cell reads x_T … x_1. A step that is not real leaves the state as it is: so read from the end, a sequence
begins at its last real step, wherever its padding lies.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells.combinators.masked import MaskedInput
from jaxbptt.cells.combinators.resettable import ResetInput
from jaxbptt.layers import _errors
from jaxbptt.types import Cell


class Directions(NamedTuple):
    """Parameters or states of a layer of two directions.

    >>> import jaxbptt as jb
    >>> model = jb.rnn((bidirectional(jb.cells.gru()),), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> theta.h[0].forward.W_h.shape, theta.o.W_o.shape
    ((15, 5), (2, 10))
    """

    forward: Any
    backward: Any


class Bidirectional(NamedTuple):
    """A layer of two directions, as `bidirectional` makes it.

    >>> import jaxbptt as jb
    >>> bidirectional(jb.cells.gru()).backward == jb.cells.gru()
    True
    """

    forward: Cell
    backward: Cell


@factory
def bidirectional(forward: Cell, backward: Cell | None = None) -> Bidirectional:
    """A layer that reads its sequence from both ends, ``z_t = [z_t of x_1 … x_t, z_t of x_T … x_t]``.

    For `jaxbptt.rnn`. Parameters and states are `Directions`. Exact; costs both cells. It wants whole sequences:
    `estimators.bptt` begins anew with each chunk, and other estimators refuse it. With ``lengths`` the backward cell
    begins at each sequence's last real step.

    Args:
        forward: the `Cell` that reads x_1 first.
        backward: the `Cell` that reads x_T first; by default another one of the same equations.

    Returns:
        A `Bidirectional`.

    Raises:
        TypeError: for what is no `Cell`.

    Source: Schuster and Paliwal (1997), Bidirectional recurrent neural networks.

    >>> import jaxbptt as jb
    >>> model = jb.rnn((bidirectional(jb.cells.lstm()), bidirectional(jb.cells.gru())), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> model.apply(theta, jnp.ones((7, 4, 3)), lengths=jnp.array([7, 3, 5, 1])).shape
    (7, 4, 2)
    """
    backward = forward if backward is None else backward
    arguments.cells("forward", (forward,))
    arguments.cells("backward", (backward,))
    return Bidirectional(forward, backward)


def reversed_in_time(xs: Any) -> Any:
    """x_T … x_1. Read from the end, a sequence begins where the next one does not yet."""
    if isinstance(xs, (ResetInput, MaskedInput)):
        x, flags = xs.x, jnp.asarray(xs[1])
        if isinstance(xs, ResetInput):
            flags = jnp.concatenate([flags[1:], jnp.zeros_like(flags[:1])])
        return type(xs)(reversed_in_time(x), jnp.flip(flags, 0))
    return jax.tree.map(lambda leaf: jnp.flip(leaf, 0), xs)


@functools.cache
def abreast(forward, backward) -> Cell:
    """Two cells that both read x_t: of the parameters, states and outputs of a layer of two directions."""
    pair = forward, backward
    return Cell(
        init=functools.partial(_init_both, pair),
        initial_state=functools.partial(_initial_states, pair),
        apply=functools.partial(_apply_both, pair),
        vjp=functools.partial(_vjp_both, pair),
        output=functools.partial(_side_by_side, pair),
        check=functools.partial(_check_both, pair),
    )


def _init_both(pair, key, input_size, hidden_size, dtype=jnp.float32):
    keys = jax.random.split(key)
    return Directions(*(cell.init(own, input_size, hidden_size, dtype) for cell, own in zip(pair, keys, strict=True)))


def _initial_states(pair, theta_h, batch_shape=()):
    _errors.directions(Directions, theta_h=theta_h)
    return Directions(*(cell.initial_state(theta, batch_shape) for cell, theta in zip(pair, theta_h, strict=True)))


def _apply_both(pair, theta_h, x_t, h_tm1):
    return Directions(*(cell.apply(theta, x_t, h) for cell, theta, h in zip(pair, theta_h, h_tm1, strict=True)))


def _vjp_both(pair, theta_h, x_t, h_tm1, h_t, h_bar_t):
    each = zip(pair, theta_h, h_tm1, h_t, h_bar_t, strict=True)
    bars = [cell.vjp(theta, x_t, h, h_new, bar) for cell, theta, h, h_new, bar in each]
    (theta_f, x_f, h_f), (theta_b, x_b, h_b) = bars
    return Directions(theta_f, theta_b), cotangents.add(x_f, x_b), Directions(h_f, h_b)


def _side_by_side(pair, h_t):
    return jnp.concatenate([cell.output(h) for cell, h in zip(pair, h_t, strict=True)], axis=-1)


def _check_both(pair, theta_h, xs, h_0):
    _errors.directions(Directions, theta_h=theta_h, h_0=h_0)
    for cell, theta, h in zip(pair, theta_h, h_0, strict=True):
        if cell.check is not None:
            cell.check(theta, xs, h)
