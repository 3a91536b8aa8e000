"""θ_h as a loop over time reads it: what a step would compute of it is computed once, before the loop."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._trees import cotangents


def operands(split, theta_h):
    """θ_h as the products read it, made once: what takes it from here has nothing to compute of it in a loop.

    Its transpose sums the cotangents of all steps in the dtype of the operands; that of `for_pullbacks` does not.
    """
    # The barrier, or a compiler may take it back into the loop.
    return theta_h if split.operands is None else lax.optimization_barrier(split.operands(theta_h))


def for_pullbacks(split, theta_h):
    """``() -> `` the same, to be called in each step: its derivative is that of operands made in each step.

    With bfloat16 operands the cotangents of all steps, in a second derivative, are then summed in float32.
    """
    return _reader(split, theta_h, lambda leaf: False)


def for_steps(split, theta_h, h_0):
    """``() -> `` the same for ``split.step``, which of a batch has each tall W [k, n] as Wᵀ, written once.

    W_h h of a batch is a product of h [B, n] with W_hᵀ [n, k]. The transpose is read along its rows; that of a
    W_h [k, n] would be gathered again in every step. Measured on a CPU: 5 to 20% of the time of a small batch, nothing
    of a large one. A vector alone is better off with the rows of W_h: many times.
    """
    is_batch = any(size != 1 for leaf in jax.tree.leaves(h_0) for size in leaf.shape[:-1])
    return _reader(split, theta_h, _is_tall if is_batch else lambda leaf: False)


def _reader(split, theta_h, is_transposed):
    made = theta_h if split.operands is None else lax.stop_gradient(split.operands(theta_h))
    leaves, structure = jax.tree.flatten(made)
    chosen = [is_transposed(leaf) for leaf in leaves]
    if split.operands is None and not any(chosen):
        return lambda: theta_h
    # The barrier, or a compiler may take the computation back into the loop.
    held = lax.optimization_barrier(_transposed(leaves, chosen))

    def read():
        made = structure.unflatten(_transposed(held, chosen))
        return made if split.operands is None else _read(theta_h, made)

    return read


@jax.custom_jvp
def _read(theta_h, made):
    return made


@_read.defjvp
def _read_pushforward(primals, dots):
    (_, made), (theta_dot, _) = primals, dots
    made_dot = jax.tree.map(
        lambda dot, leaf: dot.astype(leaf.dtype) if cotangents.has_derivative(leaf) else dot, theta_dot, made
    )
    return made, made_dot


def _transposed(leaves, chosen):
    return [leaf.T if is_chosen else leaf for leaf, is_chosen in zip(leaves, chosen, strict=True)]


def _is_tall(leaf):
    """Whether it can be the W of W h with all gates in its rows. A wide one is multiplied from the other side."""
    return jnp.ndim(leaf) == 2 and leaf.shape[0] >= leaf.shape[1]
