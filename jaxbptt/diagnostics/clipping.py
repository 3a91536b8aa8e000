"""Two remedies that cut: the state's cotangent inside the reverse pass, and the singular values of a weight.

(The gradient of the parameters is clipped by optax: ``optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))``,
``optax.clip`` for each number.)
"""

import dataclasses
from typing import ClassVar, cast

import jax
import jax.numpy as jnp

from jaxbptt import _axes, adjoints
from jaxbptt._algebra import wide
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import vectors
from jaxbptt.cells._from_split import split_of
from jaxbptt.diagnostics import _errors, _members
from jaxbptt.types import Adjoint, Array, Cell


@factory
def _clipped(cell: Cell, norm: float | None, value: float | None) -> Cell:
    """The cell with ``c_tᵀ clip(delta_t)`` for its pullback. For `adjoints.full` only: not linear in delta."""
    split = split_of(cell)

    def by_norm(delta_t):
        length = _members.norm(vectors.gradient_vector(delta_t))
        largest = cast(float, norm)
        factor = jnp.where(length > largest, largest / jnp.where(length == 0, jnp.ones_like(length), length), 1)
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), delta_t)

    def by_value(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return jax.lax.complex(by_value(jnp.real(leaf)), by_value(jnp.imag(leaf)))
        return jnp.clip(leaf, -cast(float, value), value)

    def step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
        if norm is not None:
            batch = _axes.batch_shape(cell, theta_h, h_t, each=True)
            delta_t = _axes.over_members(by_norm, batch, delta_t)
        if value is not None:
            delta_t = jax.tree.map(by_value, delta_t)
        return split.step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t)

    return cell._replace(split=split._replace(step_vjp=step_vjp))


@dataclasses.dataclass(frozen=True)
class ClippedDelta:
    """The adjoint `clipped_delta`: the largest norm, or the largest number."""

    norm: float | None
    value: float | None
    keeps_forward_mode: ClassVar[bool] = False

    def __call__(self, cell, theta_h, xs, h_0):
        """(h_T, hs), with this rule for their gradient."""
        return adjoints.full()(_clipped(cell, self.norm, self.value), theta_h, xs, h_0)


@factory
def clipped_delta(*, norm: float | None = None, value: float | None = None) -> Adjoint:
    """Backpropagation through time with delta clipped at every step, before it goes on to the past and to θ_h.

    ``delta_t = clip(h_bar_t + c_{t+1}ᵀ delta_{t+1})``, then ``∂F/∂θ_h ≈ Σ_t b_tᵀ delta_t``. Where nothing is clipped it
    is `jaxbptt.adjoints.full`, exact. Where something is, the gradient is biased, but no exploding product of c's
    reaches it: clipping the finished gradient keeps a direction that the explosion has chosen. With F a mean over time
    and batch, delta is of the order 1/(T·B): so must the threshold be.

    Args:
        norm: the largest ‖delta_t‖ of each member of the batch, the whole state together.
        value: the largest |number| in delta_t. Give one of the two.

    Returns:
        An adjoint for `jaxbptt.unroll` and `jaxbptt.objective`. The same object for equal arguments. Costs what `full`
        costs. Reverse mode, first order.

    Raises:
        TypeError, ValueError: for both or neither, or for one that is no positive number.

    Source: Pascanu, Mikolov and Bengio (2013), section 3.2, clip the whole gradient; element-wise inside the reverse
    pass, Graves (2013), Generating sequences with recurrent neural networks, section 2.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=2.0 * jnp.eye(1))
    >>> adjoint = clipped_delta(norm=3.0)
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((9, 1)), h_0, adjoint=adjoint)[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist()  # 2 · 3 instead of 2⁹
    [6.0]
    """
    _errors.one_threshold(norm=norm, value=value)
    return ClippedDelta(norm, value)


def spectral_clipping(W_h: Array, sigma: float, *, gates: int = 1) -> Array:
    """W_h with its singular values cut at σ: the nearest matrix with ``‖W_h‖₂ ≤ σ``.

    To be applied to a weight after a step of the optimiser. With γσ ≤ 1 an Elman network can't explode
    (`jacobian_bound`).

    Args:
        W_h: ``[gates · n, n]``.
        sigma: the largest singular value allowed.
        gates: blocks of rows that are cut each for itself: 3 for a GRU, 4 for an LSTM.

    Returns:
        The matrix, of the same shape and dtype. One SVD of each block, O(n³).

    Raises:
        TypeError, ValueError: for a σ that is no positive number, or a matrix that gates don't divide or
            that holds integers.

    Source: nearness in the Frobenius norm, Higham (1989), Matrix nearness problems and applications.

    >>> spectral_clipping(jnp.diag(jnp.array([3.0, 0.5])), 1.0).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    _errors.more_than("sigma", sigma, 0)
    arguments.count("gates", gates)
    _errors.gate_blocks("W_h", W_h, gates)
    W_h = jnp.asarray(W_h)
    blocks = W_h.reshape(gates, -1, W_h.shape[1]).astype(wide(W_h.dtype))
    U, values, Vh = jnp.linalg.svd(blocks, full_matrices=False)
    cut = U @ (jnp.minimum(values, sigma)[..., None] * Vh)
    return cut.reshape(W_h.shape).astype(W_h.dtype)
