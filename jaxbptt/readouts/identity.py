"""The state itself as the prediction."""

import jax.numpy as jnp

from jaxbptt._errors import initialisation
from jaxbptt._factory import factory
from jaxbptt.types import Readout


@factory
def identity() -> Readout:
    """The state itself, ``ŷ_t = h_t``: no parameters (``()``), ``output_size`` equal to the hidden size, no cost.

    Returns:
        A `Readout`, whose pullback is the identity too. The same object at each call.

    Raises:
        ValueError: from ``init``, for an output size that is not the hidden size.

    >>> identity().apply((), jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def init(key, hidden_size, output_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, hidden_size=hidden_size, output_size=output_size)
        if output_size != hidden_size:
            raise ValueError(
                "`output_size` must equal `hidden_size` for the identity readout: "
                f"got output_size={output_size}, hidden_size={hidden_size}"
            )
        return ()

    def apply(theta_o, h_t):
        return h_t

    def vjp(theta_o, h_t, y_hat_bar_t):
        return (), y_hat_bar_t

    return Readout(init, apply, vjp)
