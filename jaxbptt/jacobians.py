"""a_t, b_t, c_t and their products, for any cell.

    b_t = ∂f(x_t, h_{t-1}; θ_h)/∂θ_h      c_t = ∂f(x_t, h_{t-1}; θ_h)/∂h_{t-1}      a_t = dh_t/dθ_h
    a_t = b_t + c_t a_{t-1},  a_0 = 0
    a_t = b_t + Σ_{i<t} (c_t c_{t-1} … c_{i+1}) b_i

As matrices these have a row for each number in the state and a column for each number in θ_h (P of them) or in
h_{t-1} (N): trees are laid out leaf after leaf, a complex number as its real and imaginary part. All sequences here
are without batch axes; use ``jax.vmap`` for a batch. `jvp` and `vjp` are c's products with a vector: they form no
matrix.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes
from jaxbptt._errors import trees
from jaxbptt._time import loop, sweeps
from jaxbptt._trees import cotangents, vectors
from jaxbptt.adjoints.autodiff import trajectory
from jaxbptt.cells._from_split import checked, split_of
from jaxbptt.types import Array, Cell, PyTree

__all__ = ["along", "b_and_c", "immediate", "jvp", "product", "recursion", "state", "vjp", "written_out"]


def immediate(cell: Cell, theta_h: PyTree, x_t: PyTree, h_tm1: PyTree) -> Array:
    """b_t = ∂f(x_t, h_{t-1}; θ_h)/∂θ_h with h_{t-1} held fixed, ``[N, P]``.

    Args:
        cell: f.
        theta_h: its parameters.
        x_t: one input, no batch axes.
        h_tm1: one state, no batch axes.

    Returns:
        b_t. Exact; N pullbacks of f by the cell's own rule.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.eye(2))
    >>> immediate(cells.linear(), theta_h, jnp.array([5.0]), jnp.array([7.0, 8.0])).tolist()
    [[5.0, 0.0, 7.0, 8.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0, 7.0, 8.0]]
    """
    return _one_step(cell, theta_h, x_t, h_tm1)[0]


def state(cell: Cell, theta_h: PyTree, x_t: PyTree, h_tm1: PyTree) -> Array:
    """c_t = ∂f(x_t, h_{t-1}; θ_h)/∂h_{t-1}, ``[N, N]``.

    Args:
        cell: f.
        theta_h: its parameters.
        x_t: one input, no batch axes.
        h_tm1: one state, no batch axes.

    Returns:
        c_t. Exact; N pullbacks of f by the cell's own rule.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> state(cells.linear(), theta_h, jnp.array([5.0]), jnp.array([7.0, 8.0])).tolist()  # W_h
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return _one_step(cell, theta_h, x_t, h_tm1)[1]


def along(cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree) -> tuple[Array, Array]:
    """b_1 … b_T and c_1 … c_T along the trajectory, ``[T, N, P]`` and ``[T, N, N]``.

    Args:
        cell: f.
        theta_h: its parameters.
        xs: ``[T, d]``.
        h_0: one state, no batch axes.

    Returns:
        ``(bs, cs)``. Exact; T·N pullbacks, all at once after the recursion.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> bs, cs = along(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1))
    >>> bs[:, 0].tolist(), cs[:, 0, 0].tolist()  # b_t = (x_t, h_{t-1})
    ([[1.0, 0.0], [1.0, 1.0], [1.0, 1.5]], [0.5, 0.5, 0.5])
    """
    h_0 = _unbatched(cell, theta_h, xs, h_0)
    steps = jax.vmap(lambda x_t, h_tm1, h_t: b_and_c(cell, theta_h, x_t, h_tm1, h_t))
    return steps(xs, *trajectory(cell, theta_h, xs, h_0))


def recursion(cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree) -> Array:
    """a_1 … a_T by the recursion ``a_t = b_t + c_t a_{t-1}``, a_0 = 0: ``[T, N, P]``.

    Args:
        cell: f.
        theta_h: its parameters.
        xs: ``[T, d]``.
        h_0: one state, no batch axes; does not depend on θ_h.

    Returns:
        a_t = dh_t/dθ_h for every t. Exact; O(T·N²·P) flops.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    Source: Williams and Zipser (1989), A learning algorithm for continually running fully recurrent neural networks.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> recursion(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1))[:, 0].tolist()
    [[1.0, 0.0], [1.5, 1.0], [1.75, 2.0]]
    """
    bs, cs = along(cell, theta_h, xs, h_0)
    return _each(lambda a_tm1, b_and_c: b_and_c[0] + b_and_c[1] @ a_tm1, jnp.zeros_like(bs[0]), (bs, cs))


def written_out(cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree) -> Array:
    """a_1 … a_T as the formula writes them, ``a_t = b_t + Σ_{i<t} (c_t c_{t-1} … c_{i+1}) b_i``: ``[T, N, P]``.

    The c's do not commute: later ones stand to the left. This is the oracle, exact and written for reading: T² products
    of matrices, unrolled into the program; `recursion` gives the same in O(T).

    Args:
        cell: f.
        theta_h: its parameters.
        xs: ``[T, d]``, T small.
        h_0: one state, no batch axes; does not depend on θ_h.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> written_out(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1))[:, 0].tolist()
    [[1.0, 0.0], [1.5, 1.0], [1.75, 2.0]]
    """
    bs, cs = along(cell, theta_h, xs, h_0)
    a = []
    for t in range(len(bs)):
        a_t = bs[t]
        product = jnp.eye(cs.shape[-1], dtype=cs.dtype)
        for i in reversed(range(t)):
            product = product @ cs[i + 1]  # c_t c_{t-1} … c_{i+1}
            a_t = a_t + product @ bs[i]
        a.append(a_t)
    return jnp.stack(a)


def product(cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree) -> Array:
    """∂h_t/∂h_0 = c_t c_{t-1} … c_1 for t = 1 … T, ``[T, N, N]``. For ∂h_t/∂h_k pass ``xs[k:]`` and h_k.

    Args:
        cell: f.
        theta_h: its parameters.
        xs: ``[T, d]``.
        h_0: one state, no batch axes.

    Returns:
        The products. Exact, but subject to over- and underflow like any long product; O(T·N³) flops.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    Source: Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, eq. 5.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> product(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1)).ravel().tolist()
    [0.5, 0.25, 0.125]
    """
    _, cs = along(cell, theta_h, xs, h_0)
    return _each(lambda product_tm1, c_t: c_t @ product_tm1, jnp.eye(cs.shape[-1], dtype=cs.dtype), cs)


def jvp(cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, h_0_dot: PyTree) -> PyTree:
    """Jacobian-vector products along time, ``h_dot_t = c_t h_dot_{t-1}``, without a matrix.

    Args:
        cell: f.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: the initial state.
        h_0_dot: a tangent of it: the same tree.

    Returns:
        h_dot_t = (∂h_t/∂h_0) h_0_dot for t = 1 … T, stacked. Exact; about twice the cost of the recursion.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does; for a tangent that doesn't fit.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> jvp(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1), jnp.ones(1)).ravel().tolist()
    [0.5, 0.25, 0.125]
    """
    h_0 = checked(cell, theta_h, xs, h_0)
    trees.like("h_0_dot", h_0_dot, "h_0", cotangents.differentiable(h_0))

    def step(h_and_dot, x_t):
        h_tm1, h_dot_tm1 = h_and_dot
        h_dot_tm1 = cotangents.to_jax(h_dot_tm1, h_tm1)
        h_t, h_dot_t = jax.jvp(lambda h: cell.apply(theta_h, x_t, h), (h_tm1,), (h_dot_tm1,))
        h_dot_t = cotangents.from_jax(h_dot_t)
        return (h_t, h_dot_t), h_dot_t

    _, h_dots = lax.scan(step, (h_0, h_0_dot), xs)
    return h_dots


def vjp(cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, h_bars: PyTree) -> tuple[PyTree, PyTree]:
    """Vector-Jacobian products along time, ``delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}``, without a matrix.

    Args:
        cell: f.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: the initial state.
        h_bars: ∂F/∂h_t by the direct path at every t, the tree of the state stacked over time. Zero but at
            step s, it gives ∂L_s/∂h_t for all t ≤ s.

    Returns:
        ``(h_0_bar, deltas)``: ∂F/∂h_0, and delta_t = ∂F/∂h_t along all paths for t = 1 … T. Exact; about twice the
        cost of the recursion, by the cell's own pullback.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does; for cotangents that don't fit.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> h_bars = jnp.array([[0.0], [0.0], [1.0]])
    >>> h_0_bar, deltas = vjp(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1), h_bars)
    >>> h_0_bar.tolist(), deltas.ravel().tolist()
    ([0.125], [0.25, 0.5, 1.0])
    """
    h_0 = checked(cell, theta_h, xs, h_0)
    hs_tm1, hs = trajectory(cell, theta_h, xs, h_0)
    trees.like("h_bars", h_bars, "hs", cotangents.differentiable(hs))
    by_vjp = split_of(cell._replace(split=None))  # whose z_bar_t is delta_t
    steps = sweeps.Steps(xs, hs_tm1, hs, ())
    return sweeps.reverse(by_vjp, loop.Weights(theta_h, None, None), steps, h_bars, cotangents.zeros(h_0))


def b_and_c(cell: Cell, theta_h: PyTree, x_t: PyTree, h_tm1: PyTree, h_t: PyTree) -> tuple[Array, Array]:
    """``(b_t, c_t)`` together, for use inside a loop: nothing is checked.

    Their rows are the pullbacks of the unit vectors: N calls of the cell's own rule, under ``jax.vmap``.

    Args:
        cell: f.
        theta_h: its parameters.
        x_t: one input, no batch axes.
        h_tm1: one state, no batch axes.
        h_t: ``cell.apply(theta_h, x_t, h_tm1)``.

    Returns:
        ``[N, P]`` and ``[N, N]``. Exact. Raises nothing: the functions that call it have checked.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> b_t, c_t = b_and_c(cells.linear(), theta_h, jnp.ones(1), jnp.ones(1), jnp.full(1, 1.5))
    >>> b_t.tolist(), c_t.tolist()
    ([[1.0, 1.0]], [[0.5]])
    """
    vector, _ = vectors.flatten(h_t)

    def rows(unit):
        h_bar_t = vectors.gradient(unit, h_t)
        theta_bar, _, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
        return vectors.gradient_vector(theta_bar), vectors.gradient_vector(h_bar_tm1)

    return jax.vmap(rows)(jnp.eye(vector.size, dtype=vector.dtype))


def _each(step, begin, inputs):
    """What `step` makes of its last result and of each input in turn, all of them stacked."""
    return lax.scan(lambda last, one: (step(last, one),) * 2, begin, inputs)[1]


def _one_step(cell, theta_h, x_t, h_tm1):
    """(b_t, c_t) of one step, checked."""
    xs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x_t)
    h_tm1 = _unbatched(cell, theta_h, xs, h_tm1)
    return b_and_c(cell, theta_h, x_t, h_tm1, cell.apply(theta_h, x_t, h_tm1))


def _unbatched(cell, theta_h, xs, h_0):
    h_0 = checked(cell, theta_h, xs, h_0)
    _axes.no_batch(_axes.batch_shape(cell, theta_h, h_0))
    return h_0
