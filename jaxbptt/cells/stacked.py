"""Layers: layer k reads the output of layer k-1 at the same step.

    h_t^1 = f_1(x_t, h_{t-1}^1),      h_t^k = f_k(output(h_t^{k-1}), h_{t-1}^k)

Pullback: h_t^k reaches F along time and through layer k+1 at the same step, so from the top layer down
``delta_t^{k-1}`` gains the input cotangent of layer k, and each layer's own rule does the rest.
"""

import jax
import jax.numpy as jnp

from jaxbptt import _axes
from jaxbptt import _cotangents as cotangents
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of, with_time_axis, without_time_axis
from jaxbptt.cells.mixed_precision import mixed_precision, with_members_of
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
    upper = range(1, len(layers))

    def init(key, input_size, hidden_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
        sizes = (input_size,) + (hidden_size,) * (len(layers) - 1)
        keys = jax.random.split(key, len(layers))
        return tuple(
            layer.init(layer_key, size, hidden_size, dtype)
            for layer, layer_key, size in zip(layers, keys, sizes, strict=True)
        )

    def initial_state(theta_h, batch_shape=()):
        return tuple(layer.initial_state(theta, batch_shape) for layer, theta in zip(layers, theta_h, strict=True))

    def inputs_above(xs, hs):  # what each layer reads: xs, then the outputs of the layers below
        return (xs, *(jax.vmap(layers[k - 1].output)(hs[k - 1]) for k in upper))

    def project(theta_h, xs):
        return xs, splits[0].project(theta_h[0], xs)  # only the first layer's inputs are known before the scan

    def step(theta_h, projected_t, h_tm1):
        x_t, u_t = projected_t
        h_t, gates_t = [], []
        for k, split in enumerate(splits):
            if k > 0:
                x_t = layers[k - 1].output(h_t[k - 1])
                u_t = without_time_axis(split.project(theta_h[k], with_time_axis(x_t)))
            h_k, gates_k = split.step(theta_h[k], u_t, h_tm1[k])
            h_t.append(h_k)
            gates_t.append((x_t, gates_k))
        return tuple(h_t), tuple(gates_t)

    def gates(theta_h, projected, hs_tm1, hs):
        xs, us = projected
        inputs = inputs_above(xs, hs)
        projections = (us, *(splits[k].project(theta_h[k], inputs[k]) for k in upper))
        return tuple(
            (inputs[k], split.gates(theta_h[k], projections[k], hs_tm1[k], hs[k])) for k, split in enumerate(splits)
        )

    def step_vjp(theta_h, gates_t, h_tm1, h_t, delta_t):
        z_bar_t, h_bar_tm1 = [None] * len(layers), [None] * len(layers)
        delta_k = delta_t[-1]
        for k in reversed(range(len(layers))):
            x_t, gates_k = gates_t[k]
            z_bar_t[k], h_bar_tm1[k] = splits[k].step_vjp(theta_h[k], gates_k, h_tm1[k], h_t[k], delta_k)
            if k > 0:  # delta of the layer below gains what flows through this layer's input
                stack = with_time_axis((x_t, h_tm1[k], gates_k, z_bar_t[k]))
                x_bar_t = without_time_axis(splits[k].input_vjp(theta_h[k], *stack))
                _, pull_output = cotangents.pullback(layers[k - 1].output, h_t[k - 1])
                delta_k = cotangents.add(delta_t[k - 1], pull_output(x_bar_t)[0])
        return tuple(z_bar_t), tuple(h_bar_tm1)

    def param_vjp(theta_h, xs, hs_tm1, gates, z_bars):
        return tuple(
            split.param_vjp(theta_h[k], gates[k][0], hs_tm1[k], gates[k][1], z_bars[k])
            for k, split in enumerate(splits)
        )

    def input_vjp(theta_h, xs, hs_tm1, gates, z_bars):
        return splits[0].input_vjp(theta_h[0], xs, hs_tm1[0], gates[0][1], z_bars[0])

    def operands(theta_h):
        return tuple(
            theta if split.operands is None else split.operands(theta)
            for split, theta in zip(splits, theta_h, strict=True)
        )

    def check(theta_h, xs, h_0):
        _errors.layers(theta_h, h_0, len(layers))
        T = _axes.time_axis("xs", xs)
        for k, layer in enumerate(layers):
            if layer.check is not None:
                layer.check(theta_h[k], xs, h_0[k])
            h_k = jax.eval_shape(layer.output, h_0[k])
            xs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((T, *leaf.shape), leaf.dtype), h_k)

    rounds = any(split.operands is not None for split in splits)
    split = TimeSplit(project, step, gates, step_vjp, param_vjp, input_vjp, operands if rounds else None)
    return cell_from_split(
        split,
        init=init,
        initial_state=initial_state,
        check=check,
        output=lambda h_t: layers[-1].output(h_t[-1]),
        mixed=lambda whole: with_members_of(whole, stacked(*map(mixed_precision, layers))),
    )
