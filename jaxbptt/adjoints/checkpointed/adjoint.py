"""The adjoint `checkpointed`: how much to keep, as the user says it."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax

from jaxbptt import _masks
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._time import blocks
from jaxbptt.adjoints import _errors
from jaxbptt.adjoints.checkpointed import rows, rule
from jaxbptt.types import Adjoint


@dataclasses.dataclass(frozen=True)
class Checkpointed:
    """The adjoint: how much to keep."""

    slots: int | None
    fraction: float | None
    budget: int | None
    block: int | None
    residuals: str
    keeps_forward_mode: ClassVar[bool] = False

    def __call__(self, cell, theta_h, xs, h_0):
        """(h_T, hs), with this rule for their gradient."""
        T = jax.tree.leaves(xs)[0].shape[0]
        h_T, outputs = self.read_in_blocks(_outputs, cell, theta_h, xs, h_0)
        return h_T, jax.tree.map(lambda leaf: leaf[:T], blocks.join(outputs))

    def read_in_blocks(self, read, cell, theta_h, xs, h_0, theta_o=(), ys=()) -> Any:
        """h_T, and ``read(theta_o, outputs, (ys, real))`` of each block, stacked; ``real`` says which steps are no
        padding, ``None`` where all are. Differentiated block by block as well.
        """
        terms = rows.terms(self, cell, theta_h, xs, h_0)
        K = blocks.even(terms.T, terms.block)
        real = None
        if terms.T % K:
            cell, xs, ys, real = _masks.padded(cell, xs, ys, -terms.T % K)
        xs, read_of = blocks.cut((xs, (ys, real)), K)
        return rule.recursion(cell, terms, read, theta_h, xs, h_0, theta_o, read_of)


def _outputs(theta_o, outputs, read_of):
    return outputs


@factory
def checkpointed(
    slots: int | None = None,
    fraction: float | None = None,
    budget: int | None = None,
    *,
    block: int | None = None,
    residuals: Literal["gates", "states"] = "gates",
) -> Adjoint:
    """Backpropagation through time that keeps `slots` of the T states and computes the others again.

    ``delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}``, then ``∂F/∂θ_h = Σ_t b_tᵀ delta_t``, as in `full`: exact, and the
    same products in the same number. What it costs besides is to run f again; with c slots,

        r·T - C(c + r, c + 1) steps      with r = min {r : C(c + r, c) ≥ T}

    are run in all (for ``block=1``, without gates), and one more for h_T, the fewest possible: for T = 1000 it is 1948
    with 50 slots, 3636 with 10, and 999 of them are the first sweep, which any gradient needs. With blocks of K steps
    it is some per cent more (5% with 50 slots of 1000, 16% with 10). Measured on a CPU with n ≥ 256 and 50 of 1000
    states kept, that is 1.2 to 1.35 times the time of `full` for batches from 32 on, up to 1.6 for smaller ones; on an
    H200, which computes a step in less time than it takes to begin a block, 2.2 times. The
    program runs the schedule as a loop over lists of integers: its size does not depend on T. With `slots` at least T
    nothing is run again, and beyond T there is only the padding of the last block.

    **What is kept** is ``slots + 1`` rows, each a state and, with ``residuals="gates"``, the gates of the step that
    starts there (LSTM, GRU: 4 numbers for each unit and sample beside 2 or 1; Elman, linear and user cells: none);
    further, what one block of K steps needs while it is reversed, ∂F/∂θ_h, and of a batch W_hᵀ. The *outputs*
    ``hs [T, *batch, n]`` are the caller's: a loss of ``h_T`` alone never has them, whereas a readout or a loss that
    reads all of them keeps them and makes their cotangents, two arrays of that size, whatever the adjoint. To have a
    loss of every step without these, carry it in the state: ``f((x_t, y_t), (h, F)) = (h_t, F + L(g(h_t), y_t))``
    through `cells.from_step`, and take F from h_T. `jaxbptt.plan` predicts the bytes.

    Reverse mode, once; a second derivative as forward over reverse (``jax.jvp`` of ``jax.grad``). ``jax.jvp`` and
    ``jax.grad`` of ``jax.grad`` raise JAX's error: use `tangent` or `autodiff` for forward mode, `full` or `autodiff`
    for reverse over reverse.

    Args:
        slots: c, the number of states kept, h_0 included. Of this and the next two give one at most. Without any,
            the two-level form: √(2T) slots, with which each step is run about twice in all.
        fraction: the same, as a share of T, ``0 < fraction <= 1``.
        budget: the same, as bytes for the rows kept (the rows only; see above for the rest).
        block: K ≤ slots, how many steps are reversed together, at most: the products for ∂F/∂θ_h and ∂F/∂x are one for
            K steps. ``None`` chooses one that costs little, larger for a small batch; at most 32, and at most a third
            of the slots, as what a block needs is memory too. T need not be a multiple: the last block is then padded,
            as in `full`.
        residuals: ``"gates"`` keeps gates with the states of a row, as `full` does by default: fastest. ``"states"``
            makes a row smaller (LSTM: a third, GRU: a fifth) and computes the gates of a block again.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: now, for more than one of slots, fraction and budget, or one out of its range; when the
            recursion is traced, for a budget without room for two rows (the message has the least) or a block
            larger than the slots.

    Source: Griewank and Walther (2000), Algorithm 799: revolve; for recurrent models, Gruslys et al. (2016),
    Memory-efficient backpropagation through time.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> def h_T(h_0):
    ...     return jb.unroll(jb.cells.linear(), theta_h, jnp.ones((9, 1)), h_0, adjoint=checkpointed(slots=2))[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist() == [0.5**9]
    True
    """
    _errors.one_memory(slots=slots, fraction=fraction, budget=budget)
    if block is not None:
        arguments.count("block", block)
    if residuals not in ("gates", "states"):
        arguments.one_of("residuals", residuals, ("gates", "states"), "there is nothing else to keep")
    return Checkpointed(slots, fraction, budget, block, residuals)
