"""Pascanu's Ω: a regulariser that asks every step to keep the length of the cotangent it passes on.

Ω = Σ_t ( ‖c_tᵀ δ_t‖ / ‖δ_t‖ - 1 )²,      δ_t = ∂F/∂h_t along all paths
"""

import jax
import jax.numpy as jnp

from jaxbptt import _axes, jacobians
from jaxbptt._trees import cotangents, vectors
from jaxbptt.adjoints.autodiff import trajectory
from jaxbptt.diagnostics import _members
from jaxbptt.diagnostics.gradient_flow import direct
from jaxbptt.estimators import _chunk
from jaxbptt.types import Array, Loss, Model, PyTree, Theta


def omega(
    model: Model,
    loss: Loss,
    theta: Theta,
    xs: PyTree,
    ys: PyTree,
    h_0: PyTree = None,
    *,
    mask: Array | None = None,
    lengths: Array | None = None,
    immediate: bool = True,
) -> Array:
    """``Ω = Σ_t (‖c_tᵀ δ_t‖ / ‖δ_t‖ - 1)²`` over t = 1 … T, averaged over the batch.

    To be added to F with a weight, and differentiated by ``jax.grad``. The paper's gradient is the immediate one: θ_h
    enters through c_t = ∂f(x_t, h_{t-1}; θ_h)/∂h_{t-1} alone, while h_{t-1} and δ_t are held fixed. Then Ω costs about
    two gradients of F and its own gradient as much again (less for an Elman cell). The total gradient goes through the
    states and the δ's as well.

    Args:
        model: f and g.
        loss: L.
        theta: `Theta`.
        xs: ``[T, *batch, d]``.
        ys: leaves ``[T, *batch, …]``.
        h_0: the model's initial state when ``None``.
        mask: ``[T, *batch]``, True where a step counts in F. A step with δ_t = 0 adds nothing to Ω.
        lengths: ``[*batch]``, how many steps are real.
        immediate: whether the gradient of Ω is the immediate one. Its value is the same.

    Returns:
        Ω, a scalar. Exact. The reduction of F doesn't matter to it.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does.

    Source: Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, eq. 9-11.
    (Their state is the value before φ; here it is h_t, whatever the cell.)

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    >>> theta = jb.Theta(jb.cells.LinearParams(W_x=jnp.eye(2), W_h=0.5 * jnp.eye(2)), ())
    >>> regulariser = lambda theta: omega(model, jb.losses.l2_loss, theta, jnp.ones((3, 2)), jnp.zeros((3, 2)))
    >>> round(regulariser(theta).item(), 5)  # 3 (0.5 - 1)²
    0.75
    >>> bool(jnp.trace(jax.grad(regulariser)(theta).h.W_h) < 0)  # against the gradient: W_h grows
    True
    """
    _chunk.check_factory(model, loss, "sum")
    _chunk.of_one_cell("omega", model)
    given, _ = _chunk.begin(model, loss, theta, h_0, xs, ys, mask, lengths, None)
    cell, xs, h_0 = given.cell, given.xs, given.h_0
    batch = _axes.batch_shape(model.cell, theta.h, h_0, each=True)
    hs_tm1, hs = trajectory(cell, theta.h, xs, h_0)
    _, h_bars = direct(model, loss, theta, given, hs)
    _, deltas = jacobians.vjp(cell, theta.h, xs, h_0, h_bars)
    if immediate:
        hs_tm1, deltas = jax.tree.map(
            lambda leaf: jax.lax.stop_gradient(leaf) if cotangents.has_derivative(leaf) else leaf, (hs_tm1, deltas)
        )

    def term(x_t, h_tm1, delta_t):
        direction, length = _members.unit(vectors.gradient_vector(delta_t))
        h_t = cell.apply(theta.h, x_t, h_tm1)
        ratio = _members.norm(_members.pull(cell, theta.h, x_t, h_tm1, h_t, direction))
        return jnp.where(length == 0, jnp.zeros_like(ratio), jnp.square(ratio - 1))

    terms = jax.vmap(lambda *step: _axes.over_members(term, batch, *step))(xs, hs_tm1, deltas)
    return jnp.mean(jnp.sum(terms, axis=0))
