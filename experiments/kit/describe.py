"""A figure in words, for who cannot see it: made of its own titles, axes and legends."""

import re
from typing import Any

_SYMBOLS = {
    "partial": "∂", "lambda": "λ", "sigma": "σ", "rho": "ρ", "theta": "θ", "delta": "δ", "gamma": "γ", "eta": "η",
    "alpha": "α", "beta": "β", "epsilon": "ε", "mu": "μ", "pi": "π", "phi": "φ", "Omega": "Ω", "Delta": "Δ",
    "Sigma": "Σ", "sum": "Σ", "log": "log ", "ln": "ln ", "max": "max ", "min": "min ", "Vert": "‖", "|": "‖",
    "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "approx": "≈", "sim": "~", "propto": "∝", "pm": "±", "cdot": "·",
    "times": "×", "to": "→", "infty": "∞", "ell": "ℓ", "in": "∈", "dots": "…", "ldots": "…", "cdots": "⋯",
    "prime": "′", "circ": "∘", "odot": "⊙", "neq": "≠", "ne": "≠", "left": "", "right": "", "mathrm": "", "mathbf": "",
    "text": "", "bar": "", "hat": "", "quad": " ", ",": "", ";": " ", " ": " ", "%": "%", "{": "{", "}": "}",
}  # fmt: skip


def describe(figure: Any) -> str:
    r"""One sentence a panel: its title, what is drawn against what, and the names in its legend.

    >>> from experiments.kit import plots
    >>> figure, axes = plots.figure(1, 1, width=3, height=2)
    >>> plots.line(axes[0, 0], [1, 2], [3, 4], 0, r"$\|h_t\|$")
    >>> plots.label(axes[0, 0], "(a) growth", "step $t$", "norm")
    >>> describe(figure)
    '(a) growth: norm against step t, of ‖h_t‖.'
    """
    sentences = [spoken(figure.get_suptitle())] if figure.get_suptitle() else []
    for axes in figure.axes:
        title = " ".join(spoken(axes.get_title(where)) for where in ("left", "center", "right")).strip()
        x, y = spoken(axes.get_xlabel()), spoken(axes.get_ylabel())
        drawn = f"{y} against {x}" if x and y else x or y
        names = list(dict.fromkeys(map(spoken, axes.get_legend_handles_labels()[1])))
        if drawn and names:
            drawn += f", of {', '.join(names)}"
        sentences.append(": ".join(part for part in (title, drawn) if part))
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences if sentence)


def spoken(label: str) -> str:
    r"""Matplotlib's mathematics as plain text.

    >>> spoken(r"$\partial F/\partial h_t$, trained"), spoken(r"$\lambda_{1}$ of $10^{-3}$"), spoken(r"100\%")
    ('∂F/∂h_t, trained', 'λ_1 of 10^-3', '100%')
    """
    text = re.sub(r"\\([A-Za-z]+|.)\s*", lambda match: _SYMBOLS.get(match[1], match[1]), label)
    return " ".join(re.sub(r"[${}]", "", text).split())
