"""The figures of ``python -m experiments bench``, from the numbers of ``result.json``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.reporting import report
from experiments.kit import plots


def over_floor(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Time over the floor by shape, a panel a cell; filled: this library, half filled: split over the devices."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    names = report.in_order(rows)
    kinds = {name: one for row in rows for name, one in row["contenders"].items()}
    own = [name for name in names if kinds[name]["kind"] == "ours" and not kinds[name]["split"]]
    peers = [name for name in names if kinds[name]["kind"] != "ours"]
    figure, axes = plots.figure(1, len(cells), width=2 + 4 * len(cells), height=6, sharey=True)
    for axis, letter, cell in zip(axes[0], "abc", cells, strict=False):
        here = [row for row in rows if row["cell"] == cell]
        for k, name in enumerate(names):
            found = [
                (x, row["contenders"][name]["over_floor"]) for x, row in enumerate(here) if name in row["contenders"]
            ]
            alike = name.removesuffix(", split")
            look = plots.look(peers.index(name) if name in peers else own.index(alike) if alike in own else k)
            axis.plot(
                [x + 0.7 * ((k + 0.5) / len(names) - 0.5) for x, _ in found],
                [over for _, over in found],
                linestyle="none",
                marker=look.marker,
                color=look.color,
                markeredgecolor="0.3" if kinds[name]["split"] else look.color,  # a cross has no half to fill
                markerfacecolor="none" if name in peers else look.color,
                markerfacecoloralt="white",
                fillstyle="left" if kinds[name]["split"] else "full",
                markersize=5,
                label=name if name in peers else f"ours: {name}",
            )
        shapes = [", ".join(map(str, row["shape"].values())) for row in here]
        axis.set_xticks(range(len(shapes)), shapes, rotation=40, ha="right", fontsize=8)
        axis.set_xlim(-0.6, len(shapes) - 0.4)
        axis.set_yscale("log")
        axis.axhline(1, color="0.4", linewidth=0.8)
        plots.label(axis, f"({letter}) {cell}", "B, T, d, n", "")
        axis.grid(False, axis="x")
        for x in range(1, len(shapes)):
            axis.axvline(x - 0.5, color="0.9", linewidth=0.6, zorder=0)
    axes[0, 0].set_ylabel("time / time of the products alone")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def lengths(found: Mapping[str, Any]) -> Any:
    """Time, temporaries and compile time against T."""
    figure, axes = plots.figure(1, 3, width=12, height=4)
    for k, (name, points) in enumerate(found["points"].items()):
        T = [point["T"] for point in points]
        values = (
            [point["median_ms"] for point in points],
            [np.nan if point["temporaries_bytes"] is None else point["temporaries_bytes"] / 2**20 for point in points],
            [point["compile_seconds"] for point in points],
        )
        for axis, y in zip(axes[0], values, strict=True):
            plots.line(axis, np.array(T), np.array(y), k, name)
    B, _, d, n = found["shape"].values()
    quantities = ("loss and gradient (ms)", "temporaries (MiB)", "compile time (s)")
    for axis, letter, quantity in zip(axes[0], "abc", quantities, strict=True):
        axis.set_xscale("log")
        axis.set_yscale("log")
        plots.label(axis, f"({letter}) {found['cell']}, B = {B}, d = {d}, n = {n}", "steps $T$", quantity)
    low, high = axes[0, 2].get_ylim()
    axes[0, 2].set_ylim(min(low, 0.1), max(high, 10))  # at least two decades, or noise looks like growth
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def checkpoints(found: Mapping[str, Any]) -> Any:
    """Slots against time and temporaries, beside the formula."""
    figure, axes = plots.figure(1, 2, width=9, height=3.8)
    time, memory = axes[0]
    B, T, _, n = found["shape"].values()
    slots = np.array([one["slots"] for one in found["slots"]])
    ratios = [one["over_full"] for one in found["slots"]]
    plots.line(time, slots, np.array([ratio["median"] for ratio in ratios]), 0, "measured: median, quartiles")
    low, high = (np.array([ratio[end] for ratio in ratios]) for end in ("low", "high"))
    time.fill_between(slots, low, high, color=plots.look(0).color, alpha=0.15, linewidth=0)
    formula = np.array([one["time_by_formula"] for one in found["slots"]])
    plots.line(time, slots, formula, 1, r"revolve: $(\mathrm{steps}/T + 2)/3$")
    full = found["full"]["temporaries_bytes"] or np.nan
    share = np.array([(one["temporaries_bytes"] or np.nan) / full for one in found["slots"]], float)
    plots.line(memory, slots, share, 0, "measured, all temporaries")
    plots.line(memory, slots, np.minimum(1, (slots + 1) / T), 1, "states kept: $(c+1)/T$")
    shape = f"{found['cell']}, B = {B}, T = {T}, n = {n}"
    plots.label(time, f"(a) {shape}", "slots $c$", "time / full")
    plots.label(memory, "(b) temporaries", "slots $c$", "temporaries / full's")
    for axis in (time, memory):
        axis.set_xscale("log")
        axis.set_xticks(slots, [str(c) for c in slots])  # those of a logarithmic axis run into one another
        axis.set_xticks([], minor=True)
        axis.legend(frameon=False, fontsize=8)
    memory.set_yscale("log")
    return figure
