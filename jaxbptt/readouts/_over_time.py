"""g at all steps at once, differentiated by its own rule."""

import functools

import jax

from jaxbptt._axes import traced
from jaxbptt.types import Readout


def by_jax(readout: Readout, theta_o, hs):
    """ŷ_1 … ŷ_T, differentiated by JAX, in any mode."""
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def over_time(readout: Readout, theta_o, hs):
    """ŷ_1 … ŷ_T, differentiated by the readout's own rule."""
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs)


def _forward(readout, theta_o, hs):
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs), (theta_o, hs)


def _backward(readout, kept, y_hat_bars):
    return (readout.vjp_over_time or readout.vjp)(*kept, y_hat_bars)


over_time.defvjp(_forward, _backward)


def vjp_over_time(readout: Readout, theta_o, hs, y_hat_bars):
    """(Σ_t θ_o_bar, h_bar_1 … h_bar_T), by the readout's own rule."""
    return _backward(readout, (theta_o, hs), y_hat_bars)


def fits(g, theta_o, h_t):
    """Checks θ_o against the cell's output at a step, for any readout. Returns the shapes of ŷ_t."""
    if g.check is not None:
        leaves, structure = jax.tree.flatten(h_t)
        g.check(theta_o, structure.unflatten([jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype) for leaf in leaves]))
    return traced("readout.apply", g.apply, theta_o, h_t)
