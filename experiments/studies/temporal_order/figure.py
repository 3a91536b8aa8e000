"""The figure of the `temporal_order` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95% interval of the probability of success, from k successes of n (Wilson, 1927).

    >>> [round(end, 3) for end in wilson(5, 5)]
    [0.566, 1.0]
    """
    from scipy.stats import binomtest

    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return float(low), float(high)


def draw(found: Mapping[str, Mapping[int, Any]], names: Mapping[str, str], seeds: int, solved: float) -> Any:
    """Rates of success by length, and error rates at the greatest length.

    Args:
        found: by method and length, what `study.train` returns.
        names: of the methods, as they are printed.
        seeds: how many there are.
        solved: the error rate below which a run counts as a success.
    """
    figure, axes = plots.figure(1, 2, width=9.5, height=3.8)
    rates, errors = axes[0]
    for k, (method, rows) in enumerate(found.items()):
        lengths = np.array(sorted(rows))
        counts = [int(np.isfinite(rows[length]["updates_to_success"]).sum()) for length in lengths]
        low, high = 100 * np.array([wilson(count, seeds) for count in counts]).T
        share, beside = 100 * np.array(counts) / seeds, lengths + 0.6 * (k - 1)
        colour, dash, marker = plots.look(k)
        how = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 5, "linewidth": 1.5, "capsize": 3}
        rates.errorbar(
            beside, share, [np.maximum(share - low, 0), np.maximum(high - share, 0)], **how, label=names[method]
        )
        one = rows[lengths[-1]]
        for seed, values in enumerate(np.maximum(100 * one["error_rates"].T, 1e-9)):
            plots.line(
                errors, one["updates"], values, k, names[method] if seed == 0 else "_", linewidth=1, markersize=3
            )
    rates.set_xticks(lengths)
    rates.set_ylim(-4, 104)
    errors.set_yscale("symlog", linthresh=0.1)
    errors.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    errors.set_ylim(-0.02, 100)
    errors.axhline(100 * solved, color="0.4", linewidth=0.8)
    errors.text(errors.get_xlim()[1], 110 * solved, "success below", ha="right", va="bottom", fontsize=8, color="0.3")
    plots.label(rates, f"(a) successes of {seeds} seeds; 95% (Wilson)", "length $L$", "rate of success (%)")
    plots.label(errors, f"(b) $L$ = {lengths[-1]}, each seed", "updates", "wrong of the test sequences (%)")
    figure.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
