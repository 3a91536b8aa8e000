"""One call a diagnostic: from what `jaxbptt.diagnostics` returns to a figure. Batches are shown by their median."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.kit.style import figure, label, line, look
from jaxbptt import diagnostics

_FLOAT32_TINY = float(np.finfo(np.float32).tiny)
_SMALL = {"frameon": False, "fontsize": 8}


def gradient_flow(flow: diagnostics.GradientFlow, steps: Sequence[int] | None = None) -> Any:
    """‖∂F/∂h_t‖ along time; ‖∂L_s/∂h_{s-k}‖ by lag for some s; each lag's share of each parameter's gradient.

    Args:
        flow: from `jaxbptt.diagnostics.gradient_flow`.
        steps: the s to show; by default three, spread over the sequence.

    Returns:
        The figure.
    """
    import jax

    made, axes = figure(1, 3, width=11, height=3.6)
    along, by_lag, shares = axes[0]
    deltas = _over_batch(flow.delta_norms, 1)
    line(along, np.arange(len(deltas)), deltas, 0, "")
    label(along, "(a) the gradient along time", "step $t$", r"$\|\partial F/\partial h_t\|$")
    norms = _over_batch(flow.lag_norms, 2)
    T, K = norms.shape
    for k, s in enumerate(sorted({max(1, T // 3), max(1, 2 * T // 3), T}) if steps is None else steps):
        lags = np.arange(min(s, K))
        line(by_lag, lags, norms[s - 1, : len(lags)], k, f"$s$ = {s}")
    label(by_lag, "(b) one step's loss, by lag", "lag $k$", r"$\|\partial L_s/\partial h_{s-k}\|$")
    by_lag.legend(**_SMALL)
    for k, (path, share) in enumerate(jax.tree.leaves_with_path(flow.shares)):
        name = jax.tree_util.keystr(path).lstrip(".") or r"\theta_h"
        line(shares, np.arange(len(share)), share, k, name if path else f"${name}$")
    shares.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    label(
        shares,
        rf"(c) shares by lag, the last of all $\geq$ {K}",
        "lag $k$",
        r"$\langle G_k, G\rangle/\langle G, G\rangle$",
    )
    shares.legend(**_SMALL)
    for axis in (along, by_lag):
        axis.set_yscale("log")
    return made


def jacobian_spectrum(spectrum: diagnostics.JacobianSpectrum) -> Any:
    """Singular values of c_t and growth of those of the products along time; eigenvalues in the plane if there are any.

    Args:
        spectrum: from `jaxbptt.diagnostics.jacobian_spectrum`.

    Returns:
        The figure.
    """
    with_eigenvalues = spectrum.eigenvalues is not None
    made, axes = figure(1, 2 + with_eigenvalues, width=7.5 + 3.7 * with_eigenvalues, height=3.7)
    values = _over_batch(spectrum.singular_values, 1, 1)
    logs = _over_batch(spectrum.product_log_singular_values, 1, 1) / np.log(10)
    T, N = values.shape
    t = np.arange(1, T + 1)
    for k, i in enumerate(_spread(N)):
        line(axes[0, 0], t, values[:, i], k, rf"$\sigma_{{{i + 1}}}$")
        axes[0, 1].plot(t, logs[:, i], color=look(k).color, linestyle=look(k).linestyle, linewidth=1.5)
    axes[0, 0].set_yscale("log")
    axes[0, 1].axhline(0, color="0.6", linewidth=0.8, zorder=1)
    if logs.min() < np.log10(_FLOAT32_TINY):
        axes[0, 1].axhline(np.log10(_FLOAT32_TINY), color="0.6", linewidth=0.8, zorder=1)
        axes[0, 1].text(t[0], np.log10(_FLOAT32_TINY), "float32 ends", fontsize=8, color="0.3", va="bottom")
    label(axes[0, 0], "(a) each step", "step $t$", r"$\sigma_i(c_t)$")
    label(axes[0, 1], r"(b) products $c_t \cdots c_1$", "step $t$", r"$\log_{10}\,\sigma_i$")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, **_SMALL)
    if with_eigenvalues:
        _plane(axes[0, 2], spectrum.eigenvalues, 0, "eigenvalues")
        label(axes[0, 2], "(c) eigenvalues of $c_t$", "real part", "imaginary part")
    return made


def power_iteration(found: diagnostics.PowerIteration) -> Any:
    """‖c_t‖ and the spectral radius of c_t along time.

    Args:
        found: from `jaxbptt.diagnostics.power_iteration`.

    Returns:
        The figure.
    """
    made, axes = figure(1, 1, width=5, height=3.5)
    norms, radii = _over_batch(found.norms, 1), _over_batch(found.radii, 1)
    t = np.arange(1, len(norms) + 1)
    line(axes[0, 0], t, norms, 0, r"$\|c_t\|_2$")
    line(axes[0, 0], t, radii, 1, r"largest |eigenvalue|")
    axes[0, 0].axhline(1, color="0.6", linewidth=0.8, zorder=1)
    label(axes[0, 0], "the Jacobian of each step", "step $t$", "")
    axes[0, 0].legend(**_SMALL)
    return made


def lyapunov_spectrum(found: diagnostics.LyapunovSpectrum) -> Any:
    """The exponents by their index, with two standard errors; 0 is neither vanishing nor exploding.

    Args:
        found: from `jaxbptt.diagnostics.lyapunov_spectrum`.

    Returns:
        The figure.
    """
    made, axes = figure(1, 1, width=5, height=3.5)
    exponents, errors = np.atleast_1d(found.exponents), np.atleast_1d(found.standard_errors)
    colour, _, marker = look(0)
    i = np.arange(1, len(exponents) + 1)
    two = 2 * np.nan_to_num(errors)
    axes[0, 0].errorbar(i, exponents, two, color=colour, marker=marker, markersize=4, linestyle="none", capsize=2)
    axes[0, 0].axhline(0, color="0.6", linewidth=0.8, zorder=1)
    dimension = float(diagnostics.kaplan_yorke_dimension(found.exponents))
    label(axes[0, 0], f"Lyapunov spectrum, dimension {dimension:.3g}", "index $i$", r"$\lambda_i$ (per step)")
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    return made


def fixed_points(found: diagnostics.FixedPoints) -> Any:
    """The distinct fixed points in their first two principal components, and their eigenvalues about the unit circle.

    Args:
        found: from `jaxbptt.diagnostics.fixed_points`.

    Returns:
        The figure.
    """
    import jax

    made, axes = figure(1, 2, width=8, height=3.8)
    chosen = np.asarray(found.distinct)
    leaves = [np.asarray(leaf)[chosen] for leaf in jax.tree.leaves(found.h)]
    points = np.concatenate([leaf.reshape(len(leaf), int(np.prod(leaf.shape[1:]))) for leaf in leaves], axis=1)
    centred = points - points.mean(axis=0) if len(points) else points
    components = np.linalg.svd(centred, full_matrices=False)[2][:2] if len(points) else np.zeros((0, points.shape[1]))
    places = np.zeros((len(points), 2))
    places[:, : len(components)] = centred @ components.T
    stable = np.asarray(found.stable)[chosen]
    for k, (kind, rows) in enumerate((("stable", stable), ("unstable", ~stable))):
        colour, _, marker = look(k)
        how = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 6}
        axes[0, 0].plot(*places[rows].T, label=f"{kind}: {rows.sum()}", fillstyle="none" if k else "full", **how)
        _plane(axes[0, 1], np.asarray(found.eigenvalues)[chosen][rows], k, kind)
    label(axes[0, 0], "(a) fixed points", "principal component 1", "principal component 2")
    label(axes[0, 1], "(b) eigenvalues of $c$ there", "real part", "imaginary part")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, **_SMALL)
    return made


def _plane(axes, eigenvalues, k, name):
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=0.8, zorder=1)
    mu = np.ravel(np.asarray(eigenvalues))
    colour, _, marker = look(k)
    how = {"color": colour, "marker": marker, "linestyle": "none", "label": name}
    how |= {"markersize": 6, "fillstyle": "none"} if k else {"markersize": 3, "alpha": 0.6}  # the first shows through
    axes.plot(np.real(mu), np.imag(mu), **how)
    axes.margins(0.08)  # or what lies farthest out is cut in half
    axes.set_aspect("equal", adjustable="datalim")


def _over_batch(values, before, after=0):
    """The median over the batch axes, which stand after the first `before` axes and before the last `after`."""
    values = np.asarray(values, float)
    return np.median(values, axis=tuple(range(before, values.ndim - after)))


def _spread(N):
    """Up to four indices from the first to the last."""
    return sorted({0, N // 3, 2 * N // 3, N - 1})
