"""Products with bfloat16 operands and float32 sums; everything else stays as it is.

    W h  becomes  Σ_k bf16(W_ik) bf16(h_k), summed in float32

Parameters, states, gates and cotangents keep their dtype, so small increments are not lost over many steps. A product
is linear in each operand. Its pullback is two products of the same kind, summed in float32:

    W_bar = Σ bf16(z_bar) bf16(h)ᵀ      h_bar = bf16(W)ᵀ bf16(z_bar)
"""

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._precision import with_bfloat16_products
from jaxbptt.cells._from_split import own_split, rounded
from jaxbptt.types import Cell


@factory
def mixed_precision(cell: Cell) -> Cell:
    """The same cell with bfloat16 operands in every product, forward and backward; `jaxbptt.policies` for a model.

    Parameters, states, sums, gates, cotangents and gradients stay float32. The gradient is that of the cell to about
    the two digits of bfloat16: 0.75% off at worst over the shapes of the benchmarks. It is faster only on a machine
    with matrix units for bfloat16: on a CPU 1.5 to 2.4 times for n ≥ 256. On an H200, whose float32 has operands of 10
    bits, it is 1.1 times for n = 256 and 1.3 to 1.4 for n = 1024.

    Args:
        cell: any `Cell`.

    Returns:
        A `Cell` with the same parameters, inputs and states.

    Raises:
        TypeError: when `cell` is not a `Cell`.

    Notes:
        JAX transposes `adjoints.autodiff` and `adjoints.tangent`. Both round the cotangents of operands to bfloat16
        once more.

        Second derivatives have the same two digits, with one exception: ``jax.grad`` of ``jax.grad`` by these two. Here
        JAX sums a weight's cotangents over time in bfloat16. That sum stands still after some hundred steps. Take
        ``jax.jvp`` of ``jax.grad``, or `adjoints.full`.

        Built-in cells and their combinations round the operands themselves. A cell of yours rounds where
        ``jax.default_backend()`` is a GPU or a TPU: it is traced under
        ``jax.default_matmul_precision("BF16_BF16_F32")``. On a CPU it is left as it is, as JAX takes the setting for a
        lower bound there. A program exported from a CPU does not round either.

    Source: Micikevicius et al. (2018), Mixed precision training, section 3, with bfloat16 for float16. Its range is
    that of float32, so the loss needs no scaling.

    >>> import jax.numpy as jnp
    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((1, 1)), W_h=jnp.full((1, 1), 1 / 3))
    >>> h_t = mixed_precision(cells.linear()).apply(theta_h, jnp.zeros(1), jnp.ones(1))
    >>> h_t.dtype.name, h_t.item() * 3  # 1/3 to 8 bits
    ('float32', 1.001953125)
    """
    arguments.cells("cell", (cell,))
    split = own_split(cell)
    if cell.mixed is not None and (split is not None or cell.split is None):  # it rounds its own pair
        return cell.mixed(cell)
    return rounded(cell, with_bfloat16_products, split and split.operands)


def with_members_of(cell: Cell, combined: Cell) -> Cell:
    """`combined`, made of mixed cells, with the functions that a user may have replaced in `cell`; for combinators."""
    return combined._replace(
        init=cell.init, initial_state=cell.initial_state, output=cell.output, check=cell.check, mixed=lambda cell: cell
    )
