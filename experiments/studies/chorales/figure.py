"""The figure of the `chorales` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots


def draw(
    curves: Mapping[str, np.ndarray], tests: Mapping[str, np.ndarray], floors: Any, published: Mapping[str, float]
) -> Any:
    """Nats over epochs on the validation pieces, and on the test pieces beside floors and published values.

    Args:
        curves: ``[seeds, epochs]`` by name, NaN after the end of a training.
        tests: ``[seeds]`` by name.
        floors: `music.Floors`.
        published: by name.

    Returns:
        The figure.
    """
    figure, axes = plots.figure(1, 2, width=9, height=3.8)
    along, final = axes[0]
    low = min(
        floors.markov, *published.values(), *(np.nanmin(values) for values in (*curves.values(), *tests.values()))
    )
    for k, (name, values) in enumerate(curves.items()):
        epochs = np.arange(1, values.shape[1] + 1)
        best = np.fmin.accumulate(values, axis=1)  # NaN after the end: the best stays
        reached = epochs[: max(1, int(np.sum(np.any(np.isfinite(values), axis=0))))]
        best = best[:, : len(reached)]
        plots.line(along, reached, best.mean(axis=0), k, name)
        along.fill_between(
            reached, best.min(axis=0), best.max(axis=0), color=plots.look(k).color, alpha=0.15, linewidth=0
        )
        final.plot(np.full(len(tests[name]), k - 0.12), tests[name], **_marks(k), fillstyle="none")
        final.plot([k], [tests[name].mean()], **_marks(k))
        final.plot(
            [k + 0.2], [published[name]], color="black", marker="_", markersize=14, markeredgewidth=2, linestyle=""
        )
    for axis in (along, final):
        for name, height in (("unigram", floors.unigram), ("Markov, each pitch by itself", floors.markov)):
            axis.axhline(height, color="0.4", linewidth=0.8)
            axis.text(
                0.98,
                height,
                name,
                ha="right",
                va="bottom",
                fontsize=8,
                color="0.3",
                transform=axis.get_yaxis_transform(),
            )
        axis.set_ylim(low - 0.3, floors.unigram + 0.5)
    final.set_xticks(range(len(tests)), list(tests))
    final.set_xlim(-0.5, len(tests) - 0.5)
    along.legend(frameon=False)
    plots.label(along, "(a) validation, best so far: mean and range", "epoch", "nats a step")
    plots.label(final, "(b) test: seeds, mean; bar: published", "", "nats a step")
    return figure


def _marks(k):
    colour, _, marker = plots.look(k)
    return {"color": colour, "marker": marker, "linestyle": "", "markersize": 6}
