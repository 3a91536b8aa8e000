"""Products with bfloat16 operands and float32 sums, as `jaxbptt.cells.mixed_precision`."""

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._precision import with_bfloat16_products
from jaxbptt.types import Readout


@factory
def mixed_precision(readout: Readout) -> Readout:
    """The same readout with bfloat16 operands in every product and float32 sums, forward and backward.

    It works as `jaxbptt.cells.mixed_precision` does, which says more.

    Args:
        readout: any `Readout`.

    Returns:
        A `Readout` with the same parameters.

    Raises:
        TypeError: when `readout` is not a `Readout`.

    >>> import jax, jax.numpy as jnp
    >>> from jaxbptt import readouts
    >>> g = mixed_precision(readouts.linear())
    >>> theta_o = g.init(jax.random.key(0), hidden_size=5, output_size=2)
    >>> g.apply(theta_o, jnp.ones(5)).dtype.name
    'float32'
    """
    arguments.readout(readout)
    if readout.mixed is not None:
        return readout.mixed(readout)
    apply, vjp = map(with_bfloat16_products, (readout.apply, readout.vjp))
    over_time = None if readout.vjp_over_time is None else with_bfloat16_products(readout.vjp_over_time)
    return readout._replace(apply=apply, vjp=vjp, vjp_over_time=over_time, mixed=lambda readout: readout)
