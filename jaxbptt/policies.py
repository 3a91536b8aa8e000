"""Policies, given to `jaxbptt.rnn`: the precision a model computes in."""

from jaxbptt import cells, readouts
from jaxbptt._factory import factory
from jaxbptt.types import Policy

__all__ = ["mixed_precision"]


@factory
def mixed_precision() -> Policy:
    """Products with bfloat16 operands and float32 sums; parameters, states, cotangents and gradients in float32.

    It makes f a `jaxbptt.cells.mixed_precision`, which says more, and g a `jaxbptt.readouts.mixed_precision`. It works
    with any adjoint. The gradient is that of float32 to about the two digits of bfloat16.

    Returns:
        A `Policy` for ``jaxbptt.rnn(cell, readout, policy=…)``. The same object at each call.

    >>> import jax, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.gru(), jb.readouts.linear(), policy=mixed_precision())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> theta.h.W_h.dtype.name
    'float32'
    """
    return Policy(cell=cells.mixed_precision, readout=readouts.mixed_precision)
