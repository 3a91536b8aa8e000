"""The figure of the `cliff` study."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.kit import plots


def draw(
    w: np.ndarray, b: np.ndarray, norms: np.ndarray, runs: Mapping[str, Any], wall: Callable, states: tuple
) -> Any:
    """Three panels: ‖∂E/∂(w, b)‖ with one start's paths on it, E along all runs, and the stable states over b.

    Args:
        w: of the grid.
        b: of the grid.
        norms: ``[b, w]``.
        runs: `study.Descent` by name.
        wall: from w to b.
        states: b ``[M]``, the lowest and highest stable state ``[M, 2]``, and the ends of the interval found.

    Returns:
        The figure.
    """
    figure, axes = plots.figure(1, 3, width=12, height=4)
    surface, along, branches = axes[0]
    image = surface.pcolormesh(w, b, np.log10(norms), cmap="Greys", shading="nearest", rasterized=True)
    figure.colorbar(image, ax=surface, label=r"$\log_{10}\,\|\partial E/\partial(w, b)\|$")
    surface.plot(w, wall(w), color="0.5", linewidth=0.7, linestyle=(0, (1, 2)))
    shown = int(np.argmax(runs["unclipped"].left))  # the first that leaves, if any does
    for k, (name, one) in enumerate(runs.items()):
        colour, dash, marker = plots.look(1 - k)
        path = one.theta.w[shown], one.theta.b[shown]
        surface.plot(*path, color=colour, linestyle=dash, linewidth=1.3, label=name)
        surface.plot(path[0][0], path[1][0], color=colour, marker=marker, fillstyle="none", linestyle="none")
        median, low, high = (np.quantile(one.E, share, axis=0) for share in (0.5, 0.25, 0.75))
        updates = np.arange(len(median))
        plots.line(along, updates, median, 1 - k, name)
        along.fill_between(updates, low, high, color=colour, alpha=0.15, linewidth=0)
    surface.set_xlim(w[0], w[-1])
    surface.set_ylim(b[0], b[-1])
    surface.legend(fontsize=8, loc="lower left")
    plots.label(surface, "(a) the wall, and two runs from one start", "$w$", "$b$")
    surface.grid(False)
    along.set_yscale("log")
    along.legend(frameon=False, fontsize=8)
    plots.label(along, "(b) all runs: median and quartiles", "update", "$E$")
    some_b, limits, interval = states
    for k, name in enumerate(("from below", "from above")):
        plots.line(branches, some_b, limits[:, k], k, name)
    branches.axvspan(*interval, color="0.93", zorder=0)
    plots.label(branches, f"(c) two stable states: ({interval[0]:.4f}, {interval[1]:.4f})", "$b$", r"$x_\infty$")
    branches.legend(frameon=False, fontsize=8)
    return figure
