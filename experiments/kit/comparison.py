"""What `jaxbptt.estimators.compare` found, as a figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.kit.style import figure, label, look
from jaxbptt.estimators import Comparison


def comparison(found: Comparison) -> Any:
    """Bias and noise of each estimator, with standard errors, and the cosines of their mean gradients.

    Args:
        found: from `jaxbptt.estimators.compare`.

    Returns:
        The figure.
    """
    names = [row.name for row in found.rows]
    made, axes = figure(1, 2, width=11, height=1.8 + 0.35 * len(names))
    errors, aligned = axes[0]
    heights = np.arange(len(names))[::-1]
    whole = [row.whole for row in found.rows]
    colour, _, marker = look(0)
    how = {"color": colour, "marker": marker, "linestyle": "none", "capsize": 3, "label": "bias"}
    errors.errorbar([of.bias for of in whole], heights, xerr=[of.bias_error for of in whole], **how)
    colour, _, marker = look(1)
    noise = [of.variance**0.5 for of in whole]
    errors.plot(noise, heights - 0.2, color=colour, marker=marker, linestyle="none", label="noise of one gradient")
    errors.set_yticks(heights, names)
    label(errors, "(a) errors", r"in units of $\|\partial F/\partial\theta\|$", "")
    errors.legend(frameon=False, fontsize=8)
    cosines(aligned, names, found.alignment, "(b) cosines of their means")
    return made


def cosines(axes: Any, names: Sequence[str], matrix: np.ndarray, title: str) -> None:
    """A matrix of cosines, each written in its cell."""
    axes.imshow(matrix, vmin=-1, vmax=1, cmap="PuOr")
    for i, row in enumerate(matrix):
        for j, cosine in enumerate(row):
            ink = "white" if abs(cosine) > 0.6 else "black"
            axes.text(j, i, f"{cosine:.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
