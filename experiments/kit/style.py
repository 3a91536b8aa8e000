"""Figures that survive print and colour blindness: every line differs in colour, in dash and in marker."""

from typing import Any, NamedTuple

import numpy as np


class Look(NamedTuple):
    """How one line is drawn."""

    color: str
    linestyle: Any
    marker: str


LOOKS = (  # the palette of Okabe and Ito (2008), without the yellow that vanishes on paper
    Look("#0072B2", "-", "o"),
    Look("#D55E00", (0, (5, 2)), "s"),
    Look("#009E73", (0, (1, 1.2)), "^"),
    Look("#CC79A7", (0, (5, 1.5, 1, 1.5)), "D"),
    Look("#000000", (0, (8, 2)), "v"),
    Look("#56B4E9", (0, (3, 1, 1, 1, 1, 1)), "P"),
    Look("#E69F00", (0, (2, 2)), "X"),
    Look("#7F7F7F", (0, (6, 1, 1, 1)), "*"),  # a grey beside it
)


def look(k: int) -> Look:
    """The k-th look, around again after the last."""
    return LOOKS[k % len(LOOKS)]


def figure(rows: int, columns: int, *, width: float, height: float, sharey: bool = False) -> tuple[Any, np.ndarray]:
    """A figure and its axes ``[rows, columns]``; no window, no global state.

    Args:
        rows: of panels.
        columns: of panels.
        width: in inches.
        height: in inches.
        sharey: whether all panels have one vertical scale.

    Returns:
        ``(figure, axes)``.
    """
    from matplotlib.figure import Figure  # without pyplot, a figure renders with Agg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    made = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    return made, made.subplots(rows, columns, squeeze=False, sharey=sharey)


def label(axes: Any, title: str, x: str, y: str) -> None:
    """Title, axis labels, a light grid and no box."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def line(axes: Any, x: np.ndarray, y: np.ndarray, k: int, label: str, **how) -> None:
    """A line in the k-th look with about eight markers; zeros are left out, for logarithmic axes."""
    colour, dash, marker = look(k)
    x, y = np.asarray(x), np.asarray(y, float)
    style = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.5, **how}
    every = max(1, len(x) // 8)
    axes.plot(x, np.where(y == 0, np.nan, y), label=label, markevery=(k * every // len(LOOKS), every), **style)
