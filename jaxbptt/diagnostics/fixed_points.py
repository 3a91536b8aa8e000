"""Fixed points h = f(x, h) of a cell under a constant input, from many first guesses, and their stability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxbptt import _axes
from jaxbptt._errors import arguments
from jaxbptt._trees import vectors
from jaxbptt.diagnostics import _errors, _members
from jaxbptt.types import Array, Cell, PyTree

_NEWTON_STEPS = 10


class FixedPoints(NamedTuple):
    """One row for each first guess; the shapes don't depend on how many points there are.

    Attributes:
        h: the tree of the state, leaves ``[S, …]``.
        residuals: ``[S]``, ‖h - f(x, h)‖.
        converged: ``[S]``, whether that is within the tolerance.
        distinct: ``[S]``, True for the first guess that led to each point: choose rows with it, on the host.
        eigenvalues: ``[S, N]``, complex, of c at h, largest modulus first.
        stable: ``[S]``, whether all |eigenvalues| < 1; False where not converged.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = fixed_points(cells.linear(), theta_h, jnp.ones(1), jnp.ones((3, 2)))
    >>> found.h[found.distinct].round(4).tolist(), found.stable.tolist()  # h = 1 + h/2
    ([[2.0, 2.0]], [True, True, True])
    """

    h: PyTree
    residuals: Array
    converged: Array
    distinct: Array
    eigenvalues: Array
    stable: Array


def fixed_points(
    cell: Cell,
    theta_h: PyTree,
    x: PyTree,
    h_0: PyTree,
    *,
    solver: optax.GradientTransformation | None = None,
    steps: int = 200,
    tolerance: float | None = None,
    separation: float | None = None,
) -> FixedPoints:
    """Minimises ``½‖h - f(x, h)‖²`` from every first guess, then takes Newton steps: stable points and saddles alike.

    The solver runs a fixed number of steps for all guesses together. Ten steps ``h ← h - (I - c)⁻¹ (h - f(x, h))``
    follow, each only where it brings h nearer, and double the digits. Where I - c is singular (a line of fixed points)
    the solver's digits stay. Some fixed points may be missed: give more guesses, states of trajectories among them. A
    minimum that is no fixed point is reported as not converged.

    Args:
        cell: f, any.
        theta_h: its parameters.
        x: one input, no batch axes.
        h_0: S first guesses, leaves ``[S, …]``.
        solver: from optax; ``optax.lbfgs()`` by default.
        steps: of the solver.
        tolerance: of ``‖h - f(x, h)‖ / (1 + ‖h‖)``; ε^⅔ by default, 2.4e-5 in float32 and 3.7e-11 in float64.
        separation: two points nearer than that, relative to ``1 + ‖h‖``, are one; ε^⅓ by default, 4.9e-3 and 6.1e-6.

    Returns:
        A `FixedPoints`. For ``jax.jit`` and ``jax.vmap``; not differentiable. The eigenvalues want a CPU or a GPU, as
        in `jaxbptt.diagnostics.jacobian_spectrum`.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does. For several inputs, first guesses without their one axis S, no
            optax solver, or numbers that are not positive.

    Source: Sussillo and Barak (2013), Opening the black box, section 2.

    >>> from jaxbptt import cells
    >>> theta_h = cells.ElmanParams(W_x=jnp.ones((1, 1)), W_h=jnp.full((1, 1), 2.0), b=jnp.zeros(1))
    >>> found = fixed_points(cells.elman(), theta_h, jnp.zeros(1), jnp.array([[-1.0], [0.01], [0.5], [0.9]]))
    >>> h = found.h[found.distinct]  # h = tanh(2h): two attractors and a saddle between
    >>> sorted((round(point.item(), 4), stable.item()) for point, stable in zip(h, found.stable[found.distinct]))
    [(-0.9575, True), (0.0, False), (0.9575, True)]
    """
    solver = optax.lbfgs() if solver is None else solver
    _errors.solver(solver)
    arguments.count("steps", steps)
    for name, value in (("tolerance", tolerance), ("separation", separation)):
        if value is not None:
            _errors.more_than(name, value, 0)
    arguments.cells("cell", (cell,))
    S = _errors.first_guesses(h_0, _errors.one_input(cell, theta_h, x))
    xs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, S, *jnp.shape(leaf))), x)
    h_0, batch, N, dtype = _members.begin(cell, theta_h, xs, h_0)
    _errors.one_batch_axis(batch)
    epsilon = float(jnp.finfo(dtype).eps)
    small = epsilon ** (2 / 3) if tolerance is None else tolerance
    near = epsilon ** (1 / 3) if separation is None else separation

    def search(h_0):
        vector, unflatten = vectors.flatten(h_0)

        def residual(v):  # h - f(x, h)
            return v - vectors.flatten(cell.apply(theta_h, x, unflatten(v)))[0].astype(v.dtype)

        def jacobian(v):
            return _members.push(cell, theta_h, x, unflatten(v), jnp.eye(N, dtype=dtype))

        v = _minimise(solver, lambda v: 0.5 * jnp.sum(jnp.square(residual(v))), vector.astype(dtype), steps)
        v = _newton(residual, jacobian, v)
        return unflatten(v), v, _members.norm(residual(v)), jacobian(v)

    h, points, residuals, cs = _axes.over_members(search, batch, h_0)
    sizes = 1 + jax.vmap(_members.norm)(points)
    converged = residuals <= small * sizes
    eigenvalues = jnp.linalg.eigvals(cs)
    eigenvalues = jnp.take_along_axis(eigenvalues, jnp.argsort(-jnp.abs(eigenvalues), axis=-1), axis=-1)
    stable = converged & (jnp.abs(eigenvalues[:, 0]) < 1)
    return FixedPoints(h, residuals, converged, _first(points, sizes, converged, near), eigenvalues, stable)


def _minimise(solver, q, v, steps):
    solver = optax.with_extra_args_support(solver)

    def step(carry, _):
        v, state = carry
        value, grad = jax.value_and_grad(q)(v)
        updates, state = solver.update(grad, state, v, value=value, grad=grad, value_fn=q)
        return (optax.apply_updates(v, updates), state), None

    # optax's solvers rely on the promotion that a user, and our tests, may have forbidden
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (v, _), _ = lax.scan(step, (v, solver.init(v)), None, length=steps)
    return v


def _newton(residual, jacobian, v):
    def step(_, v):
        r = residual(v)
        nearer = v - jnp.linalg.solve(jnp.eye(len(v), dtype=v.dtype) - jacobian(v), r)
        return jnp.where(_members.norm(residual(nearer)) < _members.norm(r), nearer, v)

    return lax.fori_loop(0, _NEWTON_STEPS, step, v)


def _first(points, sizes, converged, separation):
    """True where no earlier row that converged is the same point."""
    distance = jax.vmap(lambda a: jax.vmap(lambda b: _members.norm(a - b))(points))(points)
    same = (distance <= separation * sizes[:, None]) & converged[None, :]
    return converged & ~jnp.any(jnp.tril(same, -1), axis=1)
