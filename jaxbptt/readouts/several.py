"""Several heads: one state read by all of them.

    ŷ_t = {name: g_name(h_t; θ_o[name])}

Pullback: each head's own rule gives its θ_o_bar and its part of h_bar_t. The parts add up to h_bar_t.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.readouts import _errors, _over_time
from jaxbptt.readouts.mixed_precision import mixed_precision
from jaxbptt.types import PyTree, Readout


def several(*heads: Readout, **named: Readout) -> Readout:
    """Heads that read the same state, by position for tuples or by name for dicts.

    Parameters, predictions and their cotangents are then a tuple, or a dict, with one entry a head. A head may be
    `several` itself. Each head is differentiated by its own rule. As exact as the heads; costs their sum.

    Args:
        *heads: a `Readout` each, for tuples.
        **named: a `Readout` each, for dicts.

    Returns:
        A `Readout`. Its ``init`` takes one ``output_size`` for all heads, or a tuple or dict of them. Equal heads give
        the same object.

    Raises:
        TypeError: for no head, one that is not a `Readout`, or heads both by position and by name. From ``init``, for
            sizes of other heads.

    >>> import jaxbptt as jb
    >>> g = several(policy=jb.readouts.linear(), value=jb.readouts.linear())
    >>> theta_o = g.init(jax.random.key(0), hidden_size=5, output_size={"policy": 3, "value": 1})
    >>> jax.tree.map(jnp.shape, g.apply(theta_o, jnp.ones(5)))
    {'policy': (3,), 'value': (1,)}
    """
    _errors.heads(heads, named)
    names = tuple(sorted(named)) or None
    return _several(heads if names is None else tuple(named[name] for name in names), names)


@factory
def _several(heads, names):
    for head in heads:
        arguments.readout(head)
    pieces: Any = (_init, _apply, _vjp, _vjp_over_time, _check)
    init, apply, vjp, vjp_over_time, check = (functools.partial(piece, heads, names) for piece in pieces)
    mixed = functools.partial(_mixed, heads, names, (apply, vjp, vjp_over_time))
    return Readout(init, apply, vjp, vjp_over_time, check, mixed)


def _parts(names, tree):
    return tuple(tree) if names is None else tuple(tree[name] for name in names)


def _together(names, parts) -> PyTree:
    return tuple(parts) if names is None else dict(zip(names, parts, strict=True))


def _init(heads, names, key, hidden_size, output_size, dtype=jnp.float32):
    initialisation.key(key)
    if not isinstance(output_size, (tuple, dict)):
        output_size = _together(names, [output_size] * len(heads))
    _errors.of_heads("output_size", "one integer, or ", output_size, len(heads), names)
    drawn = zip(heads, jax.random.split(key, len(heads)), _parts(names, output_size), strict=True)
    return _together(names, (head.init(head_key, hidden_size, size, dtype) for head, head_key, size in drawn))


def _apply(heads, names, theta_o, h_t):
    read = zip(heads, _parts(names, theta_o), strict=True)
    return _together(names, (head.apply(theta, h_t) for head, theta in read))


def _pulled(heads, names, rule, theta_o, h, y_hat_bar):
    read = zip(heads, _parts(names, theta_o), _parts(names, y_hat_bar), strict=True)
    theta_bars, h_bars = zip(*(rule(head, theta, h, bar) for head, theta, bar in read), strict=True)
    return _together(names, theta_bars), functools.reduce(cotangents.add, h_bars)


def _vjp(heads, names, theta_o, h_t, y_hat_bar_t):
    return _pulled(heads, names, lambda head, *step: head.vjp(*step), theta_o, h_t, y_hat_bar_t)


def _vjp_over_time(heads, names, theta_o, hs, y_hat_bars):
    return _pulled(heads, names, _over_time.vjp_over_time, theta_o, hs, y_hat_bars)


def _check(heads, names, theta_o, hs):
    _errors.of_heads("theta.o", "", theta_o, len(heads), names)
    for head, theta in zip(heads, _parts(names, theta_o), strict=True):
        if head.check is not None:
            head.check(theta, hs)


def _mixed(heads, names, own, whole):
    if (whole.apply, whole.vjp, whole.vjp_over_time) != own:  # replaced by a user: the heads say nothing of it
        return mixed_precision(whole._replace(mixed=None))
    rounded = _several(tuple(map(mixed_precision, heads)), names)
    return rounded._replace(init=whole.init, check=whole.check, mixed=lambda readout: readout)
