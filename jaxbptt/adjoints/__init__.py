"""Orders of differentiating the recursion: one file each, all with the signature of `jaxbptt.unroll`.

An adjoint is a function ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. All give the same numbers and, under
``jax.grad``, the same gradient; they differ in time, in memory, and in the modes they allow.
"""

from jaxbptt.adjoints.autodiff import autodiff
from jaxbptt.adjoints.checkpointed import checkpointed
from jaxbptt.adjoints.full import full
from jaxbptt.adjoints.parallel import parallel
from jaxbptt.adjoints.tangent import tangent


def keeps_forward_mode(adjoint):
    """Whether ``jax.jvp`` goes through; `jaxbptt.rnn` then leaves the readout to JAX as well.

    >>> keeps_forward_mode(autodiff()), keeps_forward_mode(full())
    (True, False)
    """
    return getattr(adjoint, "keeps_forward_mode", False)


__all__ = ["autodiff", "checkpointed", "full", "parallel", "tangent"]
