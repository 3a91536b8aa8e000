"""The curse of memory: the longer a unit remembers, the more its state depends on how long it remembers.

    h_t = λ h_{t-1} + x_t,   x white with variance 1          a_t = dh_t/dλ = h_{t-1} + λ a_{t-1}

With h and a stationary, and x_t independent of both:

 1. E[h²]  = λ² E[h²] + 1                                   ⟹   E[h²]  = 1/(1 - λ²)
 2. E[h_t a_t] = λ E[h²] + λ² E[h a]                        ⟹   E[h a] = λ/(1 - λ²)²
 3. E[a²]  = E[h²] + 2λ E[h a] + λ² E[a²]                   ⟹   E[a²]  = (1 + λ²)/(1 - λ²)³

So no Jacobian explodes, λ < 1, yet dh/dλ does, as the third power where the state grows as the first. Measured over
many sequences with a_t carried forward through `jaxbptt.unroll` by forward mode: no closed form enters.

Source: Zucchet and Orvieto (2024), Recurrent neural networks: vanishing and exploding gradients are not the end of the
story; the formula for white inputs is derived above.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import options, plots
from experiments.study import Report, Result, Study, Table, verdict

TOLERANCE = 0.05  # relative, of the mean over seeds
PUBLISHED = {
    "E[(dh/dλ)²] for white inputs": {
        "value": "(1 + λ²)/(1 - λ²)³: 263.9 at λ = 0.9, 251,263 at λ = 0.99",
        "source": "the setting of Zucchet and Orvieto (2024)",
        "tag": "derived",
    }
}
_FORGOTTEN = 1e-12  # what is left of h_0 = 0, a_0 = 0 in the second moments


@dataclasses.dataclass(frozen=True)
class Config:
    """Second moments of h and of dh/dλ for the unit h_t = λ h_{t-1} + x_t, in float64."""

    seed: int = 0
    """Of the inputs."""
    quick: bool = False
    """Short memories and few sequences: a second or two."""
    out: Path | None = None
    """The output folder; results/curse_of_memory by default."""
    lambdas: tuple[float, ...] = (0.5, 0.7, 0.9, 0.95, 0.99)
    """λ, each between 0 and 1."""
    sequences: int = 2048
    """At once, for each λ and seed."""
    spans: int = 20
    """How long each runs after it has forgotten h_0 = 0, in units of 1/(1 - λ) steps."""
    seeds: int = 5
    """Repetitions, for the error bars."""

    def __post_init__(self):
        options.seed(self.seed)
        options.positive("lambdas", *self.lambdas)
        for value in self.lambdas:
            options.between("lambdas", value, 0, 1)
        options.at_least("sequences", self.sequences, 1)
        options.at_least("spans", self.spans, 1)
        options.at_least("seeds", self.seeds, 2)


class Moments(NamedTuple):
    """Means over time and sequences, ``[seeds]`` each: E[h²] and E[(dh/dλ)²]."""

    h: np.ndarray
    a: np.ndarray


def exact(lam: float) -> tuple[float, float]:
    """E[h²] and E[(dh/dλ)²].

    >>> [round(value, 1) for value in exact(0.9)]
    [5.3, 263.9]
    """
    return 1 / (1 - lam**2), (1 + lam**2) / (1 - lam**2) ** 3


def transient(lam: float) -> int:
    """Steps from h_0 = 0 until the second moments are the stationary ones.

    What is left after t steps is of the order t² λ^(2t).

    >>> transient(0.5) < 40, transient(0.99) > 2000
    (True, True)
    """
    t = math.ceil(math.log(_FORGOTTEN) / (2 * math.log(lam)))
    while t**2 * lam ** (2 * t) > _FORGOTTEN:
        t += max(1, t // 20)
    return t


def sensitivities(lam: jax.Array, xs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """h_1 … h_T and dh_1/dλ … dh_T/dλ from h_0 = 0, which doesn't depend on λ.

    Args:
        lam: λ, a scalar.
        xs: ``[T, R]``.

    Returns:
        ``(hs, a)``, ``[T, R]`` each.
    """
    cell, adjoint = jb.cells.linear(), jb.adjoints.tangent()

    def states(lam):
        theta_h = jb.cells.LinearParams(W_x=jnp.ones((1, 1), lam.dtype), W_h=jnp.reshape(lam, (1, 1)))
        _, hs = jb.unroll(cell, theta_h, xs[..., None], jnp.zeros((xs.shape[1], 1), lam.dtype), adjoint=adjoint)
        return hs[..., 0]

    return jax.jvp(states, (lam,), (jnp.ones_like(lam),))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _moments(key, lam, start, steps, sequences):
    hs, a = sensitivities(lam, jax.random.normal(key, (start + steps, sequences), lam.dtype))
    return jnp.mean(jnp.square(hs[start:])), jnp.mean(jnp.square(a[start:]))


def measure(config: Config, lam: float) -> Moments:
    """The moments at one λ, once a seed."""
    steps = math.ceil(config.spans / (1 - lam))
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    each = [_moments(key, jnp.float64(lam), transient(lam), steps, config.sequences) for key in keys]
    return Moments(*np.array(each).T)


def run(config: Config, report: Report) -> Result:
    """Measures, compares with the closed form, and draws."""
    found = {}
    with jax.enable_x64(True):
        for lam in config.lambdas:
            found[lam] = measure(config, lam)
            report("measuring", len(found), len(config.lambdas))
    rows = {lam: _row(lam, moments) for lam, moments in found.items()}
    numbers: dict[str, Any] = {
        "verdict": verdict(
            {
                f"E[{what}²] at λ = {lam:g} is off by {row[name]['relative_error']:.1%}": not abs(
                    row[name]["relative_error"]
                )
                <= TOLERANCE
                for lam, row in rows.items()
                for name, what in (("sensitivity", "(dh/dλ)"), ("state", "h"))
            }
        ),
        "published": PUBLISHED,
        "tolerance": TOLERANCE,
        "by_lambda": {f"{lam:g}": row for lam, row in rows.items()},
    }
    columns = ("λ", "exact (derived)", "E[(dh/dλ)²] measured", "off by", "E[h²] exact", "measured")
    table = tuple(
        (
            f"{lam:g}",
            f"{row['sensitivity']['exact']:,.6g}",
            f"{row['sensitivity']['mean']:,.6g} ± {row['sensitivity']['standard_error']:,.2g}",
            f"{row['sensitivity']['relative_error']:+.2%}",
            f"{row['state']['exact']:.4g}",
            f"{row['state']['mean']:.4g} ± {row['state']['standard_error']:.2g}",
        )
        for lam, row in rows.items()
    )
    title = f"{config.seeds} seeds of {config.sequences} sequences: mean ± standard error"
    return Result(numbers, (Table(title, columns, table),), {"curse_of_memory": _draw(rows)})


def _row(lam, moments):
    return {
        name: {
            "exact": wanted,
            "mean": float(np.mean(values)),
            "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values))),
            "relative_error": float(np.mean(values) / wanted - 1),
        }
        for name, values, wanted in zip(("state", "sensitivity"), moments, exact(lam), strict=True)
    }


def _draw(rows: dict[float, dict[str, dict[str, float]]]) -> Any:
    figure, axes = plots.figure(1, 2, width=9, height=3.8)
    moments, ratio = axes[0]
    rates = 1 / (1 - np.array(list(rows)))
    lam = 1 - 1 / np.geomspace(rates.min(), rates.max(), 200)
    for k, (name, label) in enumerate((("sensitivity", r"$E[(dh/d\lambda)^2]$"), ("state", "$E[h^2]$"))):
        mean, error = (np.array([row[name][part] for row in rows.values()]) for part in ("mean", "standard_error"))
        wanted = np.array([row[name]["exact"] for row in rows.values()])
        colour, _, marker = plots.look(k)
        how = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 5}
        moments.plot(rates, mean, label=label, **how)
        moments.plot(1 / (1 - lam), exact(lam)[1 - k], color="0.25", linewidth=0.7, zorder=1)
        offset = 1 + 0.03 * (2 * k - 1)  # so that neither hides the other
        ratio.errorbar(rates * offset, mean / wanted, 2 * error / wanted, capsize=2, label=label, **how)
    ratio.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color="0.93", zorder=0)
    ratio.axhline(1, color="0.25", linewidth=0.7, zorder=1)
    for axis in (moments, ratio):
        axis.set_xscale("log")
    moments.set_yscale("log")
    memory = r"memory $1/(1-\lambda)$ (steps)"
    plots.label(moments, "(a) second moments; thin: exact", memory, "")
    plots.label(ratio, "(b) measured / exact, 2 standard errors; grey: 5%", memory, "")
    moments.legend(frameon=False)
    return figure


STUDY = Study(
    name="curse_of_memory",
    claim="E[(dh/dλ)²] = (1+λ²)/(1-λ²)³: a long memory is sensitive to its own decay though no Jacobian explodes",
    config=Config,
    quick={"sequences": 512, "lambdas": (0.5, 0.9)},
    run=run,
)
