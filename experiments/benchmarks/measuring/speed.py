"""One row of the benchmark: a cell and a shape, everybody timed beside the products that nobody can do without."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.benchmarks.measuring import products
from experiments.benchmarks.measuring.side_by_side import Timed, side_by_side
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender
from experiments.kit import clock
from experiments.study import Report


class Row(NamedTuple):
    """A cell and a shape.

    Attributes:
        cell: which.
        shape: (B, T, d, n).
        timed: by contender.
        left_out: who is missing, and why.
        gemm: flops a second of a large product, see `products.Products`.
        gemm_of_a_step: flops a second of the product of one step.
    """

    cell: works.CellName
    shape: works.Shape
    timed: dict[str, Timed]
    left_out: dict[str, str]
    gemm: float
    gemm_of_a_step: float


def row(work: works.Work, contestants: Sequence[Contender], rounds: int, limit: float, report: Report) -> Row:
    """Everybody at one shape.

    Args:
        work: what to do.
        contestants: who.
        rounds: how often.
        limit: seconds for one contender; slow ones take part in fewer rounds.
        report: of progress; the note is whose turn it is.

    Returns:
        The `Row`.

    Raises:
        GradientMismatchError: when a gradient of this library is wrong; a peer's leaves that peer out.
    """
    own = products.products(work.cell, work.shape)  # the first to take memory: theirs is at nobody's expense
    extra = {"1024": own.square, "step": own.step}
    found = side_by_side(work, contestants, rounds, limit, report, what="speed, this row", extra=extra)
    rates = (
        flops / clock.spread(found.extra[name]).median
        for name, flops in (("1024", own.square_flops), ("step", own.step_flops))
    )
    return Row(work.cell, work.shape, found.timed, found.left_out, *rates)
