"""The page of the `estimator_zoo`: bias, noise, time, and the stacks."""

from typing import Any

import numpy as np

from experiments.kit import plots


def draw(draws: int, zoo: dict, per_step: dict, stacks: dict, bottom: dict) -> Any:
    """Four panels with one message each; the first three share the estimators as their rows."""
    made, axes = plots.figure(2, 2, width=11, height=8)
    (bias, noise), (time, cosine) = axes
    names = list(next(iter(zoo.values())))
    heights = {name: len(names) - k for k, name in enumerate(names)}
    for axis, values in (
        (bias, {cell: {name: row["bias"] for name, row in rows.items()} for cell, rows in zoo.items()}),
        (noise, {cell: {name: row["noise"] for name, row in rows.items()} for cell, rows in zoo.items()}),
        (time, per_step),
    ):
        _dots(axis, values, heights)
    for k, rows in enumerate(zoo.values()):
        for name, row in rows.items():
            if row["kind"] == "unbiased":
                at = row["noise"] / np.sqrt(draws), _height(heights[name], k)
                bias.plot(*at, color="0.25", marker="|", markersize=12, linestyle="none")
    bias.set_xscale("log")
    time.set_xlim(left=0)
    plots.label(
        bias,
        f"(a) bias, of the mean of {draws:,} draws",
        "bias; |: as much as the noise leaves in an unbiased mean",
        "",
    )
    plots.label(noise, "(b) noise of a single gradient", "noise", "")
    plots.label(time, "(c) time", "µs a step", "")
    _stacks(cosine, stacks, bottom)
    bias.legend(frameon=False, fontsize=9, loc="center")
    return made


def _dots(axis, values, heights):
    for k, (cell, row) in enumerate(values.items()):
        colour, _, marker = plots.look(k)
        at = [_height(heights[name], k) for name in row]
        axis.plot(list(row.values()), at, color=colour, marker=marker, linestyle="none", markersize=6, label=cell)
    axis.set_yticks(list(heights.values()), list(heights))


def _stacks(axis, stacks, bottom):
    depths = np.array(list(stacks))
    for k, of in enumerate("dW"):
        plots.line(axis, depths, np.array([values[0, k] for values in stacks.values()]), k, f"bottom layer, ${of}$")
        wanted = [bottom[depth][k] for depth in stacks]
        axis.plot(
            depths,
            wanted,
            color="0.25",
            marker="_",
            markersize=18,
            linestyle="none",
            zorder=1,
            label="" if k else "derived",
        )
    top = np.array([values[-1].mean() for values in stacks.values()])
    plots.line(axis, depths, top, 2, "top layer")
    axis.set_xticks(depths)
    axis.set_ylim(0, 1.08)
    plots.label(axis, "(d) a stack, one online trace a layer: exact at the top only", "layers", "cosine with BPTT")
    axis.legend(frameon=False, fontsize=9, loc="lower left")


def _height(row, k):
    return row + 0.12 * (1 - 2 * k)
