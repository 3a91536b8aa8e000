"""The recursion. Start reading here.

    h_t = f(x_t, h_{t-1}; θ_h),   t = 1 … T

`unroll` evaluates it as ``jax.lax.scan`` does, and leaves open how it is differentiated: that is the adjoint,
an order of evaluating the one double sum

    a_t = b_t + c_t a_{t-1}   ⟹   ∂F/∂θ_h = 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) [b_t + Σ_{i<t} (c_t c_{t-1} … c_{i+1}) b_i]

From right to left it is backpropagation through time (`jaxbptt.adjoints.full`), from left to right real-time
recurrent learning (`jaxbptt.estimators.rtrl`), written out it is `jaxbptt.jacobians.written_out`.
"""

import functools

import jax
import jax.numpy as jnp

from jaxbptt import _axes, adjoints
from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import split_of, take_step
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
        Exact. Takes T sequential steps; the memory of a gradient is the adjoint's.

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


def checked(cell, theta_h, xs, h_0):
    """Checks the arguments of the recursion; returns h_0 as arrays."""
    if not isinstance(cell, Cell):
        arguments.cells("cell", (cell,))
    _axes.time_axis("xs", xs)
    if h_0 is None:
        raise TypeError("`h_0` must be a state: got None; make one with `cell.initial_state(theta_h, batch_shape)`")
    h_0 = jax.tree.map(jnp.asarray, h_0)
    if cell.check is not None:
        cell.check(theta_h, xs, h_0)
    single = _axes.state_without_batch(cell, theta_h)
    if single is not None and jax.tree.structure(h_0) != jax.tree.structure(single):
        _axes.state_tree(cell, theta_h, h_0)
    step = functools.partial(take_step, split_of(cell))
    _, h_1, _ = _axes.traced("cell.apply", step, theta_h, _axes.one_step(xs), h_0)
    if jax.tree.structure(h_1) != jax.tree.structure(h_0):
        raise TypeError(
            f"f must return the tree of its state: got {jax.tree.structure(h_1)}, "
            f"expected that of h_0, {jax.tree.structure(h_0)}"
        )
    for (path, before), after in zip(jax.tree.leaves_with_path(h_0), jax.tree.leaves(h_1), strict=True):
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            raise (TypeError if before.shape == after.shape else ValueError)(
                f"`h_0{jax.tree_util.keystr(path)}` must have the shape and dtype that f returns, "
                f"{after.dtype}{list(after.shape)}: got {before.dtype}{list(before.shape)}"
            )
    return h_0
