"""The adjoint `checkpointed`: how much to keep, as the user says it."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._time import blocks
from jaxbptt.adjoints import _errors
from jaxbptt.adjoints.checkpointed import rows, rule
from jaxbptt.cells.combinators.masked import masked
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
        """h_T, and ``read(theta_o, outputs, (ys, real))`` of each block, stacked; differentiated block by block too.

        ``real`` says which steps are no padding; ``None``: all.
        """
        terms = rows.terms(self, cell, theta_h, xs, h_0)
        if terms.T % blocks.even(terms.T, terms.block):
            cell = masked(cell)
        xs, ys = jax.tree.map(jnp.asarray, (xs, ys))
        return rule.recursion(cell, terms, read, theta_h, xs, h_0, theta_o, ys)


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

    ``delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}``, then ``∂F/∂θ_h = Σ_t b_tᵀ delta_t``, as in `full`, with the same
    products. Exact. f is run again, as seldom as c slots allow:

        r·T - C(c + r, c + 1) steps      with r = min {r : C(c + r, c) ≥ T}

    in all, for ``block=1`` without residuals (1948 for T = 1000 and 50 slots). Any gradient needs T - 1 of them.
    Memory: ``slots + 1`` rows, and the work space of one block. A row is a state and the residuals of a step. The
    program does not grow with T.

    Under `jaxbptt.objective` readout and loss are evaluated block by block, forward and back: no array has the size
    T·B·n. Under `jaxbptt.unroll` and ``model.apply`` the outputs ``[T, *batch, n]`` and their cotangents are the
    caller's. `jaxbptt.plan` says the bytes.

    Args:
        slots: c, the number of states kept, h_0 included. Give at most one of `slots`, `fraction` and `budget`. The
            default is √(2T) slots: each step runs about twice in all.
        fraction: the same, as a share of T, ``0 < fraction <= 1``.
        budget: the same, as bytes for the rows.
        block: K ≤ slots, the most steps reversed together; ``None`` chooses. T need not be a multiple.
        residuals: ``"gates"`` keeps residuals with the states of a row: fastest. ``"states"`` computes them again. Its
            rows are smaller (LSTM: a third, GRU: a fifth; Elman, linear: the same).

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: for more than one of slots, fraction and budget, or one out of its range. When traced,
            for a block above the slots, or a budget below two rows (the message says the least).

    Notes:
        Reverse mode, once. A second derivative is forward over reverse, ``jax.jvp`` of ``jax.grad``. ``jax.jvp`` and
        ``jax.grad`` of ``jax.grad`` raise JAX's error. Take `tangent` or `autodiff` there; for the latter also `full`.

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
