"""The figure of the `flossing` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots


def draw(runs: Mapping[str, Any], exponents: Mapping[str, np.ndarray], k: int, solved: float) -> Any:
    """Accuracy of each seed along training, and the spectra before and after.

    Args:
        runs: by name, ``updates`` and ``accuracy [checks, S]``.
        exponents: by moment, ``[S, N]``.
        k: how many of them were pushed to zero.
        solved: the accuracy of a success.
    """
    figure, axes = plots.figure(1, 2, width=9.5, height=3.8)
    accuracy, spectrum = axes[0]
    for look, (name, one) in enumerate(runs.items()):
        for seed, values in enumerate(100 * one["accuracy"].T):
            plots.line(accuracy, one["updates"], values, look, name if seed == 0 else "_", linewidth=1.1, markersize=3)
    accuracy.axhline(100 * solved, color="0.4", linewidth=0.8)
    accuracy.axhline(50, color="0.4", linewidth=0.8)
    accuracy.text(0, 48.5, "chance", va="top", fontsize=8, color="0.3")
    accuracy.set_xlim(0)  # where the word stands; outside, it would squeeze the axes out of the figure
    accuracy.set_ylim(40, 102)
    accuracy.legend(frameon=False, loc="center right")
    for look, (moment, values) in enumerate(exponents.items()):
        plots.line(spectrum, np.arange(1, values.shape[1] + 1), values.mean(axis=0), look, moment)
    spectrum.axhline(0, color="0.4", linewidth=0.8)
    spectrum.axvline(k + 0.5, color="0.4", linewidth=0.8)
    spectrum.legend(frameon=False, loc="lower left")
    plots.label(accuracy, "(a) each seed", "updates", "right bits (%)")
    plots.label(spectrum, f"(b) mean spectra; the first {k} were pushed", "index $i$", r"$\lambda_i$ (per step)")
    return figure
