"""The figure of the `checkpoint_cost` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots, revolve


def draw(
    T: int, exact_T: int, tolerance: float, counted: Mapping[int, Mapping[str, int]], rows: Mapping[int, Any]
) -> Any:
    """Forward steps, time and temporaries by the number of states kept.

    Args:
        T: of what was timed.
        exact_T: of what was counted.
        tolerance: of the time, relative.
        counted: by states kept, what `study.counts` returns.
        rows: by states kept, the times and the temporaries.
    """
    figure, axes = plots.figure(1, 3, width=12, height=3.8)
    steps, times, memory = axes[0]
    some = np.unique(np.geomspace(5, 200, 40).astype(int))
    steps.plot(some, [revolve.steps(exact_T, c) for c in some], color="0.25", linewidth=0.9, zorder=1)
    for k, (name, shift) in enumerate((("planned", 0), ("gruslys", exact_T))):
        label = "planned" if name == "planned" else "Gruslys' recursion - T"
        how = {"linestyle": "none", "markersize": 9 - 5 * k, "fillstyle": "full" if k else "none"}
        found = np.array([row[name] - shift for row in counted.values()])
        plots.line(steps, np.array(list(counted)), found, k, label, **how)
    slots = np.array(list(rows))
    wanted = np.array([row["expected"] for row in rows.values()])
    spreads = [row["over_full"] for row in rows.values()]
    median, low, high = (np.array([spread[part] for spread in spreads]) for part in ("median", "low", "high"))
    times.fill_between(slots, wanted * (1 - tolerance), wanted * (1 + tolerance), color="0.9", linewidth=0, zorder=0)
    plots.line(times, slots, wanted, 4, "(t/T + 2)/3; grey: 15%", marker="")
    own = np.array([row["expected_at_own_cost"] for row in rows.values()])
    plots.line(times, slots, own, 1, "with a forward sweep's own time")
    colour, _, marker = plots.look(0)
    how = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 5, "capsize": 2}
    times.errorbar(slots, median, (median - low, high - median), label="measured, quartiles", **how)
    if all(row["memory"] is not None for row in rows.values()):
        plots.line(memory, slots, np.array([row["memory"] for row in rows.values()]), 0, "temporaries")
    plots.line(memory, slots, np.minimum(1, (slots + 1) / T), 4, "(states + 1) / T", marker="")
    plots.label(steps, f"(a) forward steps, T = {exact_T}; thin: formula", "states kept", "steps")
    plots.label(times, "(b) time / time of full", "states kept", "")
    plots.label(memory, "(c) memory / memory of full", "states kept", "")
    memory.set_yscale("log")
    for axis in axes[0]:
        axis.set_xscale("log")
        axis.legend(frameon=False, fontsize=8)
    return figure
