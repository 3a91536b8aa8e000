"""Figures that survive print and colour blindness: how they look, and one call for each diagnostic's result."""

from experiments.kit.comparison import comparison, cosines
from experiments.kit.describe import describe
from experiments.kit.diagnostics import (
    fixed_points,
    gradient_flow,
    jacobian_spectrum,
    lyapunov_spectrum,
    power_iteration,
)
from experiments.kit.style import LOOKS, Look, figure, label, line, look

__all__ = [
    "LOOKS",
    "Look",
    "comparison",
    "cosines",
    "describe",
    "figure",
    "fixed_points",
    "gradient_flow",
    "jacobian_spectrum",
    "label",
    "line",
    "look",
    "lyapunov_spectrum",
    "power_iteration",
]
