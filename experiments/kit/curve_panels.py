"""The figures of the studies on long memories: a measurement over updates, all seeds as a band."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots
from experiments.kit.over_seeds import Curves


def draw(panels: Mapping[str, tuple[Mapping[str, Curves], float]], measured: str) -> Any:
    """A panel each: the median of the seeds and all of them as a band, and the level without a memory.

    Args:
        panels: by title, the curves by label and the level of the best answer without a memory.
        measured: what the vertical axis shows.

    Returns:
        The figure.
    """
    figure, axes = plots.figure(1, len(panels), width=4 * len(panels), height=3.8)
    for letter, axis, (title, (curves, level)) in zip("abcdefghij", axes[0], panels.items(), strict=False):
        for k, (label, one) in enumerate(curves.items()):
            low, middle, high = (np.quantile(one.values, share, axis=1) for share in (0, 0.5, 1))
            plots.line(axis, one.at, middle, k, label)
            axis.fill_between(one.at, low, high, color=plots.look(k).color, alpha=0.15, linewidth=0)
        axis.axhline(level, color="0.4", linewidth=0.8, label="without memory")
        axis.set_yscale("log")
        axis.set_ylim(top=min(axis.get_ylim()[1], 20 * level))  # what is thrown off for a moment would dwarf the rest
        plots.label(axis, f"({letter}) {title}", "update", measured)
        axis.legend(frameon=False, fontsize=8)
    return figure
