"""The figure of the `mnist1d` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots


def draw(found: Mapping[str, Any], names: Mapping[str, str], published: Mapping[str, Any]) -> Any:
    """Accuracy over epochs: the mean over seeds, the range of the seeds, and what was published.

    Args:
        found: by order, what `study.train` returns.
        names: of the orders, as they are printed.
        published: the accuracies, in the same order.
    """
    figure, axes = plots.figure(1, 2, width=9, height=3.8, sharey=True)
    for axis, letter, part in zip(axes[0], "ab", ("test", "train"), strict=True):
        for k, (order, one) in enumerate(found.items()):
            percent = 100 * one[part]
            plots.line(axis, one["epoch"], np.mean(percent, axis=1), k, names[order])
            axis.fill_between(
                one["epoch"], percent.min(axis=1), percent.max(axis=1), color=plots.look(k).color, alpha=0.15
            )
        axis.axhline(10, color="0.4", linewidth=0.8)
        axis.text(1, 11, "chance", va="bottom", fontsize=8, color="0.3")
        axis.set_ylim(0, 102)
        what = {"test": "1000 signals for the test", "train": "4000 signals for training"}[part]
        plots.label(axis, f"({letter}) {what}", "epoch", "accuracy (%)")
    for k, entry in enumerate(published.values()):
        axes[0][0].axhline(100 * entry["value"], color=plots.look(k).color, linewidth=0.8, linestyle=":")
        axes[0][0].text(
            axes[0][0].get_xlim()[1], 100 * entry["value"] + 1, "published", ha="right", va="bottom", fontsize=8
        )
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure
