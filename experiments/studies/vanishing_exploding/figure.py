"""The figure of the `vanishing_exploding` study."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.kit import lags, plots

_LOW, _HIGH = 1e-65, 1e40
_FLOAT32_TINY = float(np.finfo(np.float32).tiny)
_LAG, _K, _JACOBIAN = "lag $t-k$ (steps)", "lag $k$ (steps)", r"$\|\partial h_t/\partial h_k\|_2$"


def draw(config: Any, found: Mapping[str, Mapping[float, lags.Measured]], W_h_to: lags.Powers, gamma: Mapping) -> Any:
    """Six panels: the linear cell, its ∂F/∂W_x by lag, the non-normal W_h, and the three activations."""
    figure, axes = plots.figure(2, 3, width=11, height=7)
    jacobian, share, powers, *elman = axes.ravel()
    k = np.arange(config.steps + 1)
    for j, rho in enumerate(config.rhos):
        m = found["linear"][rho]
        plots.line(jacobian, k[1:], np.median(m.norms, axis=0), j, rf"$\rho$ = {rho:g}")
        plots.line(share, k[:-1], np.median(m.contributions, axis=0), j, "")
        for axis in (jacobian, share):
            _thin(axis, k, rho**k)
        for axis, phi in zip(elman, gamma, strict=True):
            plots.line(axis, k[1:], np.median(found[phi][rho].norms, axis=0), j, "")
            _thin(axis, k, (gamma[phi] * rho) ** k)
    plots.label(jacobian, r"(a) linear, $W_h=\rho Q$; thin: $\rho^{t-k}$", _LAG, _JACOBIAN)
    ratio = r"$\|\bar z_{T-k}\,x_{T-k}^\top\| \;/\; \|\delta_T\|\,\|x_{T-k}\|$"
    plots.label(share, r"(b) linear, terms of $\partial F/\partial W_x$; thin: $\rho^k$", _K, ratio)
    for axis, letter, phi in zip(elman, "def", gamma, strict=True):
        bound = r"\rho" if gamma[phi] == 1 else rf"({gamma[phi]:g}\,\rho)"
        plots.label(axis, rf"({letter}) {phi}; thin: the bound ${bound}^{{\,t-k}}$", _LAG, _JACOBIAN)
    for axis in (jacobian, share, *elman):
        axis.set_yscale("log")
        axis.set_ylim(_LOW, _HIGH)
        axis.axhspan(_LOW, _FLOAT32_TINY, color="0.93", zorder=0)
    jacobian.text(0.03, 0.03, "too small for float32", transform=jacobian.transAxes, color="0.3", fontsize=8)
    _draw_powers(powers, config, W_h_to)
    figure.legend(*jacobian.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    return figure


def _draw_powers(axis, config, W_h_to):
    k = np.arange(1, config.non_normal_steps + 1)
    plots.line(axis, k, W_h_to.norms, 5, "measured")
    _thin(axis, k, W_h_to.exact, "exact")
    plots.line(axis, k, config.eigenvalue**k, 6, r"a normal matrix: $\lambda^k$", marker="")
    axis.axhline(1, color="0.6", linewidth=0.8, zorder=1)
    axis.set_yscale("log")
    axis.set_ylim(1e-11, max(10.0, 100 * W_h_to.peak_gain))
    axis.annotate(
        f"{W_h_to.peak_gain:,.3g} at lag {W_h_to.peak_lag}".replace("e+0", "e"),
        (W_h_to.peak_lag, W_h_to.peak_gain),
        (0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    title = rf"(c) non-normal $W_h$, all $\lambda$ = {config.eigenvalue:g}"
    plots.label(axis, title, _K, r"$\|W_h^k\|_2$")
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def _thin(axis, x, y, label=None):
    axis.plot(x, y, color="0.25", linewidth=0.7, zorder=1, label=label)
