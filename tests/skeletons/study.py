"""A study to copy: what one unit without an activation still knows of its start.

    h_t = λ h_{t-1} + w x_t          ∂h_T/∂h_0 = λ^T, whatever the inputs

Source: derived.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import options, plots
from experiments.study import Report, Result, Study, Table, verdict

TOLERANCE = 1e-12  # relative
PUBLISHED = {"∂h_T/∂h_0": {"value": "λ^T", "source": "the chain rule", "tag": "derived"}}


@dataclasses.dataclass(frozen=True)
class Config:
    """∂h_T/∂h_0 of one linear unit, against λ^T."""

    seed: int = 0
    """Of the inputs."""
    quick: bool = False
    """A short sequence: the same code in a moment."""
    out: Path | None = None
    """The output folder; results/skeleton by default."""
    decays: tuple[float, ...] = (0.5, 0.9, 0.99)
    """λ."""
    steps: int = 100
    """T."""

    def __post_init__(self):
        options.seed(self.seed)
        options.at_least("steps", self.steps, 1)
        options.positive("decays", *self.decays)


def gain(decay: float, xs: jax.Array) -> float:
    """∂h_T/∂h_0 by the library: the product of the Jacobians of all steps."""
    cell = jb.cells.linear()
    theta_h = jb.cells.LinearParams(W_x=jnp.ones((1, 1)), W_h=jnp.full((1, 1), decay))
    return float(jb.jacobians.product(cell, theta_h, xs, jnp.zeros(1))[-1, 0, 0])


def judge(gains: dict[float, float], steps: int) -> str:
    """The verdict, from ∂h_T/∂h_0 by λ."""
    off = {decay: abs(found / decay**steps - 1) for decay, found in gains.items()}
    return verdict({f"λ = {decay:g} is off by {error:.1e}": not error <= TOLERANCE for decay, error in off.items()})


def run(config: Config, report: Report) -> Result:
    """Measures, judges, and draws."""
    gains = {}
    with jax.enable_x64(True):
        xs = jax.random.normal(jax.random.key(config.seed), (config.steps, 1))
        for k, decay in enumerate(config.decays):
            gains[decay] = gain(decay, xs)
            report("measuring", k + 1, len(config.decays))
    numbers = {"verdict": judge(gains, config.steps), "published": PUBLISHED, "gains": gains}
    rows = tuple((f"{decay:g}", f"{found:.3e}", f"{decay**config.steps:.3e}") for decay, found in gains.items())
    table = Table(f"one linear unit, T = {config.steps}", ("λ", "∂h_T/∂h_0", "λ^T"), rows)
    return Result(numbers, (table,), {"skeleton": _draw(gains, config.steps)})


def _draw(gains, steps):
    figure, axes = plots.figure(1, 1, width=4.5, height=3.5)
    decays = np.array(list(gains))
    plots.line(axes[0, 0], decays, decays**steps, 0, r"$\lambda^T$")
    plots.line(axes[0, 0], decays, np.array(list(gains.values())), 1, "measured", linestyle="none")
    axes[0, 0].set_yscale("log")
    plots.label(axes[0, 0], f"(a) what is left after {steps} steps", r"$\lambda$", r"$\partial h_T/\partial h_0$")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


STUDY = Study(
    name="skeleton",
    claim="one linear unit remembers its start with the gain λ^T, whatever it reads",
    config=Config,
    quick={"steps": 10},
    run=run,
)
