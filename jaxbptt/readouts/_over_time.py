"""g at all steps at once, differentiated by its own rule."""

import functools

import jax

from jaxbptt._axes import one_step
from jaxbptt._errors.words import traced
from jaxbptt.types import Readout


def over_time(readout: Readout, theta_o, hs, *, by_jax=False):
    """ŷ_1 … ŷ_T, which ``jax.grad`` differentiates by the readout's own rule, or `by_jax`, in any mode."""
    return _apply_over_time(readout, theta_o, hs) if by_jax else _with_rule(readout, theta_o, hs)


def _apply_over_time(readout, theta_o, hs):
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs)


def vjp_over_time(readout: Readout, theta_o, hs, y_hat_bars):
    """(Σ_t θ_o_bar, h_bar_1 … h_bar_T), by the readout's own rule."""
    rule = readout.vjp_over_time
    if rule is None:
        rule = readout.vjp
    return rule(theta_o, hs, y_hat_bars)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _with_rule(readout, theta_o, hs):
    return _apply_over_time(readout, theta_o, hs)


def _forward(readout, theta_o, hs):
    return _apply_over_time(readout, theta_o, hs), (theta_o, hs)


def _backward(readout, kept, y_hat_bars):
    theta_o, hs = kept
    return vjp_over_time(readout, theta_o, hs, y_hat_bars)


_with_rule.defvjp(_forward, _backward)


def fits(g, theta_o, hs):
    """θ_o against what the cell puts out, ``hs [T, *batch, …]``, for any readout. Gives the shapes of ŷ_t."""
    if g.check is not None:
        g.check(theta_o, hs)
    return traced("readout.apply", g.apply, theta_o, one_step(hs))
