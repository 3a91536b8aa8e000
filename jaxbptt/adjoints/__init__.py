"""Orders of differentiating the recursion: one file each, all with the signature of `jaxbptt.unroll`.

An adjoint is called as ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. All give the same numbers and, under
``jax.grad``, the same gradient; they differ in time, in memory, and in the modes they allow.
"""

from jaxbptt.adjoints.autodiff import autodiff
from jaxbptt.adjoints.checkpointed import checkpointed
from jaxbptt.adjoints.full import full
from jaxbptt.adjoints.parallel import parallel
from jaxbptt.adjoints.tangent import tangent

__all__ = ["autodiff", "checkpointed", "full", "parallel", "tangent"]
