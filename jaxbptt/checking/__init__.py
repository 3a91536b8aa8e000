"""Hand-written rules against ``jax.vjp``, ``jax.grad`` and finite differences, for our cells and for yours.

In Python, `check_cell`, `check_readout` and `check_gradients`; from the shell, for a cell or readout of your own,
``python -m jaxbptt.checking path.to.module:CELL``.
"""

from jaxbptt.checking._errors import GradientMismatchError
from jaxbptt.checking.cell import check_cell
from jaxbptt.checking.gradients import check_gradients
from jaxbptt.checking.readout import check_readout
from jaxbptt.checking.report import Report, Row

__all__ = ["GradientMismatchError", "Report", "Row", "check_cell", "check_gradients", "check_readout"]
