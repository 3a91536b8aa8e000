"""Orders of differentiating the recursion: one file each, all with the signature of `jaxbptt.unroll`.

An adjoint is called as ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. All give the same numbers and, under
``jax.grad``, the same gradient. They differ in time, in memory, and in the modes they allow:

* ``jax.grad``, ``jax.jvp`` of it and ``jax.hessian``: all. ``jax.grad`` of ``jax.grad``: all but `checkpointed`.
* ``jax.jvp`` and ``jax.linearize`` of F itself: `tangent` and `autodiff`. The others are rules for reverse mode, and
  JAX says so ("can't apply forward-mode …").
* ``jax.export`` for a batch of any size: all. For any T: `autodiff`, and `parallel` where nothing is differentiated.
"""

from jaxbptt.adjoints.autodiff import autodiff
from jaxbptt.adjoints.checkpointed import checkpointed
from jaxbptt.adjoints.full import full
from jaxbptt.adjoints.parallel import parallel
from jaxbptt.adjoints.tangent import tangent

__all__ = ["autodiff", "checkpointed", "full", "parallel", "tangent"]
