"""A readout from any function g; its pullback is derived by ``jax.vjp``."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees.cotangents import pullback
from jaxbptt.types import Readout


@factory
def from_apply(apply: Callable, init: Callable | None = None) -> Readout:
    """A `Readout` from ``y_hat_t = apply(theta_o, h_t)``, for any pytrees; the pullback comes from ``jax.vjp``.

    `apply` sees one step; over time it runs under ``jax.vmap``. The gradient is exact. Traced values must reach `apply`
    as arguments: pass what is differentiated through ``theta_o`` or ``h_t``.

    Args:
        apply: g, ``(theta_o, h_t) -> y_hat_t``, batch axes as in ``h_t``.
        init: ``(key, hidden_size, output_size, dtype) -> theta_o``; may be left out when you hold parameters.

    Returns:
        A `Readout`. The same functions give the same object; define them once, not in a loop.

    Raises:
        TypeError: when an argument is no function, or not one of these arguments.

    >>> g = from_apply(lambda theta_o, h_t: jnp.tanh(h_t @ theta_o))
    >>> g.apply(jnp.ones((5, 2)), jnp.zeros(5)).shape
    (2,)
    """
    arguments.called_with("apply", apply, "theta_o", "h_t")
    if init is not None:
        arguments.called_with("init", init, "key", "hidden_size", "output_size", "dtype")

    def vjp(theta_o, h_t, y_hat_bar_t):
        return pullback(apply, theta_o, h_t)[1](y_hat_bar_t)

    def vjp_over_time(theta_o, hs, y_hat_bars):
        return pullback(jax.vmap(apply, in_axes=(None, 0)), theta_o, hs)[1](y_hat_bars)

    remedy = "pass `init=` to `readouts.from_apply`, or make the parameters yourself"
    make = init or arguments.absent("init", remedy)

    def initial(key, hidden_size, output_size, dtype=jnp.float32):
        return make(key, hidden_size, output_size, dtype)

    return Readout(initial, apply, vjp, vjp_over_time)
