"""The figures of the `digits` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import plots


def curves(measured: Any) -> Any:
    """Loss and accuracy over epochs, from `study.Curves`."""
    figure, axes = plots.figure(1, 2, width=9, height=3.6)
    loss, accuracy = axes[0]
    epochs = measured.epoch
    for k, part in enumerate(("train", "test")):
        label = {"train": "training images", "test": "test images"}[part]
        plots.line(loss, epochs, getattr(measured, f"{part}_loss"), k, label)
        plots.line(accuracy, epochs, 100 * getattr(measured, f"{part}_accuracy"), k, label)
    loss.set_yscale("log")
    plots.label(loss, "(a) loss", "epoch", "cross-entropy (nats)")
    plots.label(accuracy, f"(b) accuracy: {measured.test_accuracy[-1]:.1%} on test images", "epoch", "accuracy (%)")
    accuracy.axhline(10, color="0.4", linewidth=0.8)
    accuracy.text(epochs[-1], 11, "chance", ha="right", va="bottom", fontsize=8, color="0.3")
    accuracy.set_ylim(0, 102)
    for axis in (loss, accuracy):
        axis.legend(frameon=False)
    return figure


def delta_norms(norms: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """‖∂F/∂h_t‖ by step, before and after training: ``[T, N]`` by moment and by part of the state."""
    figure, axes = plots.figure(1, 2, width=9, height=3.8)
    absolute, relative = axes[0]
    lines = [(moment, part) for moment in norms for part in norms[moment]]
    for k, (moment, part) in enumerate(lines):
        values = norms[moment][part]
        steps = np.arange(1, len(values) + 1)
        label = rf"$\partial F/\partial {part}_t$, {moment}"
        plots.line(absolute, steps, np.median(values, axis=1), k, label)
        last = norms[moment]["h"][-1]
        ratios = values / np.where(last == 0, np.nan, last)
        low, middle, high = np.nanquantile(ratios, (0.25, 0.5, 0.75), axis=1)
        plots.line(relative, steps, middle, k, label)
        relative.fill_between(steps, low, high, where=low > 0, color=plots.look(k).color, alpha=0.15, linewidth=0)
    for axis in (absolute, relative):
        axis.set_yscale("log")
    step = "step $t$ (pixels read)"
    plots.label(absolute, "(a) median over test images", step, "gradient norm")
    ratio = r"gradient norm $/\;\|\partial F/\partial h_T\|$"
    plots.label(relative, "(b) relative to the last step: median, quartiles", step, ratio)
    figure.legend(*absolute.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
