"""The recursion. Start reading here.

    h_t = f(x_t, h_{t-1}; θ_h),   t = 1 … T

`unroll` evaluates it as ``jax.lax.scan`` does. The adjoint says how it is differentiated: in which order to evaluate
the one double sum

    a_t = b_t + c_t a_{t-1}   ⟹   ∂F/∂θ_h = 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) [b_t + Σ_{i<t} (c_t c_{t-1} … c_{i+1}) b_i]

From right to left this is backpropagation through time, `jaxbptt.adjoints.full`. From left to right it is real-time
recurrent learning, `jaxbptt.estimators.rtrl`. Written out, it is `jaxbptt.jacobians.written_out`.
"""

from jaxbptt import adjoints
from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import checked
from jaxbptt.types import Adjoint, Cell, PyTree


def unroll(
    cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, *, adjoint: Adjoint | None = None
) -> tuple[PyTree, PyTree]:
    """h_1 … h_T from x_1 … x_T and h_0: ``h_t = f(x_t, h_{t-1}; θ_h)``.

    Args:
        cell: f.
        theta_h: the parameters, as ``cell.init`` makes them.
        xs: inputs, leaves ``[T, *batch, …]`` with T ≥ 1.
        h_0: the initial state, leaves ``[*batch, …]``, of the dtype of ``theta_h``; has a gradient too.
        adjoint: how to differentiate; `jaxbptt.adjoints.full` by default.

    Returns:
        ``(h_T, hs)`` like ``jax.lax.scan``: the last state, and ``cell.output(h_t)`` stacked, ``[T, *batch, n]``.
        Exact. It takes T sequential steps. The memory of a gradient is the adjoint's.

    Raises:
        TypeError: for something that is not a `Cell`, integer or mixed dtypes, another tree.
        ValueError: for empty sequences, ranks and sizes that don't fit, axes of time or batch that differ.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> cell = jb.cells.gru()
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> h_T, hs = unroll(cell, theta_h, jnp.ones((7, 2, 3)), cell.initial_state(theta_h, (2,)))
    >>> h_T.shape, hs.shape
    ((2, 5), (7, 2, 5))
    """
    adjoint = adjoints.full() if adjoint is None else adjoint
    arguments.adjoint(adjoint)
    h_0 = checked(cell, theta_h, xs, h_0)
    return adjoint(cell, *cotangents.alike(theta_h, xs, h_0))
