"""Layers: layer k reads the output of layer k-1 at the same step.

    h_t^1 = f_1(x_t, h_{t-1}^1),      h_t^k = f_k(output(h_t^{k-1}), h_{t-1}^k)

Pullback, from the top layer down: h_t^k reaches F along time, and through layer k+1 at the same step.
``delta_t^{k-1}`` therefore gains the input cotangent of layer k. Each layer's own rule does the rest.
"""

import functools

import jax
import jax.numpy as jnp

from jaxbptt import _axes
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of, with_time_axis, without_time_axis
from jaxbptt.cells.combinators.mixed_precision import mixed_precision, with_members_of
from jaxbptt.types import Cell, TimeSplit


@factory
def stacked(*layers: Cell) -> Cell:
    """Layers of cells, each reading the output of the one below at the same step.

    Parameters and states are tuples, one entry a layer; the readout sees the last layer's output. The first layer
    has ``input_size`` inputs, every other one ``hidden_size``. As exact as the layers, and costs their sum.

    Args:
        *layers: at least one `Cell`, the first one nearest to the input.

    Returns:
        A `Cell` with state ``(h of layer 1, h of layer 2, …)``.

    Raises:
        TypeError: when there is no layer, or one is not a `Cell`.

    >>> from jaxbptt import cells
    >>> cell = stacked(cells.gru(), cells.lstm())
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> [type(layer).__name__ for layer in theta_h]
    ['GRUParams', 'LSTMParams']
    """
    arguments.cells("layers", layers)
    splits = tuple(split_of(layer) for layer in layers)
    pieces = (_project, _step, _residuals, _step_vjp, _param_vjp, _input_vjp)
    rounds = any(split.operands is not None for split in splits)
    return cell_from_split(
        TimeSplit(
            *(functools.partial(piece, layers, splits) for piece in pieces),
            operands=functools.partial(_operands, splits) if rounds else None,
        ),
        init=functools.partial(_init, layers),
        initial_state=functools.partial(_initial_state, layers),
        check=functools.partial(_check, layers),
        output=lambda h_t: layers[-1].output(h_t[-1]),
        mixed=lambda whole: with_members_of(whole, stacked(*map(mixed_precision, layers))),
    )


def _init(layers, key, input_size, hidden_size, dtype=jnp.float32):
    initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
    sizes = (input_size,) + (hidden_size,) * (len(layers) - 1)
    keys = jax.random.split(key, len(layers))
    return tuple(
        layer.init(layer_key, size, hidden_size, dtype)
        for layer, layer_key, size in zip(layers, keys, sizes, strict=True)
    )


def _initial_state(layers, theta_h, batch_shape=()):
    return tuple(layer.initial_state(theta, batch_shape) for layer, theta in zip(layers, theta_h, strict=True))


def _inputs(layers, x, h):
    """What each layer reads, at a step or at a stack of them: x, then the outputs of the layers below."""
    return (x, *(layer.output(h_k) for layer, h_k in zip(layers[:-1], h[:-1], strict=True)))


def _project(layers, splits, theta_h, xs):
    return splits[0].project(theta_h[0], xs)  # only the first layer's inputs are known before the scan


def _step(layers, splits, theta_h, u_t, h_tm1):
    h_t, residuals_t = [], []
    for k, split in enumerate(splits):
        if k > 0:
            x_t = layers[k - 1].output(h_t[k - 1])
            u_t = without_time_axis(split.project(theta_h[k], with_time_axis(x_t)))
        h_k, residuals_k = split.step(theta_h[k], u_t, h_tm1[k])
        h_t.append(h_k)
        residuals_t.append(residuals_k)
    return tuple(h_t), tuple(residuals_t)


def _residuals(layers, splits, theta_h, us, hs_tm1, hs):
    inputs = jax.vmap(functools.partial(_inputs, layers))((), hs)
    projected = (
        us,
        *(split.project(theta, x) for split, theta, x in zip(splits[1:], theta_h[1:], inputs[1:], strict=True)),
    )
    return tuple(split.residuals(theta_h[k], projected[k], hs_tm1[k], hs[k]) for k, split in enumerate(splits))


def _step_vjp(layers, splits, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    z_bar_t, h_bar_tm1 = [None] * len(layers), [None] * len(layers)
    inputs_t, delta_k = _inputs(layers, x_t, h_t), delta_t[-1]
    for k in reversed(range(len(layers))):
        step_k = inputs_t[k], residuals_t[k], h_tm1[k], h_t[k]
        z_bar_t[k], h_bar_tm1[k] = splits[k].step_vjp(theta_h[k], *step_k, delta_k)
        if k > 0:  # delta of the layer below gains what flows through this layer's input
            x_k, residuals_k, h_tm1_k, h_k, z_bar_k = with_time_axis((*step_k, z_bar_t[k]))
            x_bar = splits[k].input_vjp(theta_h[k], x_k, h_tm1_k, h_k, residuals_k, z_bar_k)
            _, pull_output = cotangents.pullback(layers[k - 1].output, h_t[k - 1])
            delta_k = cotangents.add(delta_t[k - 1], pull_output(without_time_axis(x_bar))[0])
    return tuple(z_bar_t), tuple(h_bar_tm1)


def _param_vjp(layers, splits, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    upper = jax.vmap(functools.partial(_inputs, layers))((), hs)[1:]
    stacks = zip(theta_h, (xs, *upper), hs_tm1, hs, residuals, z_bars, strict=True)
    return tuple(split.param_vjp(*stack) for split, stack in zip(splits, stacks, strict=True))


def _input_vjp(layers, splits, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    return splits[0].input_vjp(theta_h[0], xs, hs_tm1[0], hs[0], residuals[0], z_bars[0])


def _operands(splits, theta_h):
    return tuple(
        theta if split.operands is None else split.operands(theta) for split, theta in zip(splits, theta_h, strict=True)
    )


def _check(layers, theta_h, xs, h_0):
    _errors.layers(theta_h, h_0, len(layers))
    T = _axes.time_axis("xs", xs)
    for k, layer in enumerate(layers):
        if layer.check is not None and k == 0:
            layer.check(theta_h[k], xs, h_0[k])
        elif layer.check is not None:
            _errors.upper_layer(layer.check, k, theta_h[k], xs, h_0[k])
        h_k = jax.eval_shape(layer.output, h_0[k])
        xs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((T, *leaf.shape), leaf.dtype), h_k)
