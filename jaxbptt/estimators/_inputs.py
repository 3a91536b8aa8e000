"""One input, known before any came."""

import jax


def example(cell, theta_h, inputs):
    """The shapes of one input x_t of one member; ``None`` where nothing says them."""
    if inputs is not None:
        return inputs
    W_x = getattr(theta_h, "W_x", None)
    return None if W_x is None else jax.ShapeDtypeStruct(W_x.shape[-1:], W_x.dtype)
