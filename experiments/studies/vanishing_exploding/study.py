"""Vanishing and exploding: ‖∂h_t/∂h_k‖, and what each lag adds to ∂F/∂W_x.

    ∂h_t/∂h_k = c_t c_{t-1} … c_{k+1},  c_t = diag(φ'(z_t)) W_h       ∂F/∂W_x = Σ_k z_bar_{T-k} x_{T-k}ᵀ

 1. Linear cell, W_h = ρQ, Q orthogonal: ‖∂h_t/∂h_k‖ = ρ^(t-k) exactly, and with F = ½‖h_T - y‖² the term of lag k is
    ‖z_bar_{T-k} x_{T-k}ᵀ‖ = ρᵏ ‖δ_T‖ ‖x_{T-k}‖. Both are compared.
 2. Elman cell: |φ'| ≤ γ (1 for tanh and relu, ¼ for sigmoid), so ‖∂h_t/∂h_k‖ ≤ (γρ)^(t-k). Violations are counted.
 3. W_h not normal, all eigenvalues λ < 1: ‖W_hᵏ‖ grows at first and vanishes in the end.

Sources: Zhang, Lipton, Li and Smola, Dive into deep learning, section 9.7; Pascanu, Mikolov and Bengio (2013), On the
difficulty of training recurrent neural networks, eq. 5-7; Trefethen and Embree (2005), Spectra and pseudospectra.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import lags, options
from experiments.studies.vanishing_exploding import figure as figures
from experiments.study import Report, Result, Study, Table, verdict

Activation = Literal["tanh", "relu", "sigmoid"]
TOLERANCE = 1e-6  # relative, of the exact laws
ROUNDING = 1e-9  # relative, of a bound that a float64 product of T matrices may touch
GAMMA: dict[Activation, float] = {"tanh": 1.0, "relu": 1.0, "sigmoid": 0.25}  # sup |φ'|


@dataclasses.dataclass(frozen=True)
class Config:
    """Norms of Jacobian products and contributions to ∂F/∂W_x by lag, in float64."""

    seed: int = 0
    """Of Q, W_x, the inputs and the target."""
    quick: bool = False
    """A small network and short sequences: seconds."""
    out: Path | None = None
    """The output folder; results/vanishing_exploding by default."""
    rhos: tuple[float, ...] = (0.5, 0.9, 1.0, 1.1, 1.5)
    """ρ, the spectral radius of W_h = ρQ."""
    hidden_size: int = 64
    """n."""
    input_size: int = 8
    """d."""
    steps: int = 200
    """T: the largest lag."""
    burn_in: int = 50
    """Steps from h = 0 before h_0, so that the states are typical."""
    trajectories: int = 4
    """Random input sequences; norms are medians over them."""
    eigenvalue: float = 0.5
    """λ of the non-normal W_h."""
    strength: float = 0.6
    """How far that W_h is from normal: the weight of its shift."""
    non_normal_steps: int = 220
    """Its largest lag."""

    def __post_init__(self):
        options.seed(self.seed)
        options.positive("rhos", *self.rhos)
        for name in ("hidden_size", "input_size", "trajectories"):
            options.at_least(name, getattr(self, name), 1)
        options.at_least("steps", self.steps, 2)
        options.at_least("non_normal_steps", self.non_normal_steps, 2)
        options.at_least("burn_in", self.burn_in, 1)
        options.between("eigenvalue", self.eigenvalue, 0, 1)
        options.at_least("strength", self.strength, 0)


def measure(config: Config, report: Report) -> dict[str, dict[float, lags.Measured]]:
    """`lags.Measured` by cell and ρ, with one Q, one W_x and the same inputs for all."""
    cells = {"linear": jb.cells.linear, **{phi: functools.partial(jb.cells.elman, phi) for phi in GAMMA}}
    keys = jax.random.split(jax.random.key(config.seed), 4)
    n, d, R = config.hidden_size, config.input_size, config.trajectories
    burn_in_xs = jax.random.normal(keys[0], (config.burn_in, R, d), jnp.float64)
    xs = jax.random.normal(keys[1], (config.steps, R, d), jnp.float64)
    y = jax.random.normal(keys[2], (R, n), jnp.float64)
    found, total = {}, len(cells) * len(config.rhos)
    for name, make in cells.items():
        found[name] = {}
        for rho in config.rhos:
            theta_h = make(W_h_init=jb.initializers.orthogonal(rho)).init(keys[3], d, n, jnp.float64)
            found[name][rho] = lags.measure(make(), theta_h, burn_in_xs, xs, y)  # one program for all ρ
            report("measuring", sum(map(len, found.values())), total)
    return found


def run(config: Config, report: Report) -> Result:
    """Measures, compares with the exact laws, and draws."""
    with jax.enable_x64(True):
        found = measure(config, report)
        W_h_to = lags.non_normal_powers(
            jax.random.key(config.seed),
            config.eigenvalue,
            config.strength,
            config.hidden_size,
            config.non_normal_steps,
        )
    k = np.arange(config.steps + 1)
    linear = found["linear"].items()
    norms_off = max(float(np.max(np.abs(m.norms / rho ** k[1:] - 1))) for rho, m in linear)
    contributions_off = max(float(np.max(np.abs(m.contributions / rho ** k[:-1] - 1))) for rho, m in linear)
    violations = {
        phi: sum(int(np.sum(m.norms > (gamma * rho) ** k[1:] * (1 + ROUNDING))) for rho, m in found[phi].items())
        for phi, gamma in GAMMA.items()
    }
    sum_off = max(float(np.max(m.sum_error)) for row in found.values() for m in row.values())
    end = float(W_h_to.norms[-1])
    numbers = {
        "verdict": verdict(
            {
                f"‖∂h_t/∂h_k‖ is off ρ^(t-k) by {norms_off:.1e}": not norms_off <= TOLERANCE,
                f"the lags of ∂F/∂W_x are off ρᵏ by {contributions_off:.1e}": not contributions_off <= TOLERANCE,
                f"the lags sum to jax.grad only to {sum_off:.1e}": not sum_off <= TOLERANCE,
                f"{sum(violations.values())} norms exceed (γρ)^(t-k)": any(violations.values()),
                f"the non-normal W_h never gains more than {W_h_to.peak_gain:.3g}": not W_h_to.peak_gain > 1,
                f"the non-normal W_h ends at a gain of {end:.3g}": not end < 1,
            }
        ),
        "tolerance": TOLERANCE,
        "linear": {
            "max_relative_deviation_of_norms": norms_off,
            "max_relative_deviation_of_contributions": contributions_off,
        },
        "max_relative_error_of_sum_over_lags": sum_off,
        "bound_violations": violations,
        "non_normal": {
            "eigenvalue": config.eigenvalue,
            "strength": config.strength,
            "peak_gain": W_h_to.peak_gain,
            "peak_lag": W_h_to.peak_lag,
            "gain_at_largest_lag": end,
            "relative_deviation_from_exact_at_peak": float(
                np.abs(W_h_to.norms / W_h_to.exact - 1)[W_h_to.peak_lag - 1]
            ),
        },
        "by_lag": {cell: {str(rho): _by_lag(m) for rho, m in row.items()} for cell, row in found.items()},
    }
    figure = figures.draw(config, found, W_h_to, GAMMA)
    return Result(numbers, _tables(config, numbers), {"vanishing_exploding": figure})


def _by_lag(measured):
    """Medians over trajectories at a few lags, and the mean factor a step, ‖∂h_T/∂h_0‖^(1/T)."""
    norms, contributions = np.median(measured.norms, axis=0), np.median(measured.contributions, axis=0)
    T = len(norms)
    some = [lag for lag in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if lag < T]
    return {
        "factor_a_step": norms[-1] ** (1 / T),
        "norms": {lag: norms[lag - 1] for lag in [*some, T]},
        "contributions": {lag: contributions[lag] for lag in [0, *some]},
    }


def _tables(config, numbers):
    T = str(config.steps)
    rows = tuple(
        (cell, rho, f"{entry['norms'][config.steps]:.2e}", f"{entry['factor_a_step']:.4f}")
        for cell, row in numbers["by_lag"].items()
        for rho, entry in row.items()
    )
    linear, powers = numbers["linear"], numbers["non_normal"]
    laws = (
        ("linear: ‖∂h_t/∂h_k‖ = ρ^(t-k)", f"off by {linear['max_relative_deviation_of_norms']:.1e}"),
        ("linear: lag k of ∂F/∂W_x = ρᵏ", f"off by {linear['max_relative_deviation_of_contributions']:.1e}"),
        ("all lags of ∂F/∂W_x sum to jax.grad", f"off by {numbers['max_relative_error_of_sum_over_lags']:.1e}"),
        *(
            (f"{phi}: ‖∂h_t/∂h_k‖ ≤ (γρ)^(t-k), γ = {GAMMA[phi]:g}", f"{count} violations")
            for phi, count in numbers["bound_violations"].items()
        ),
        (f"non-normal, λ = {powers['eigenvalue']:g}: peak", f"{powers['peak_gain']:.3g} at lag {powers['peak_lag']}"),
        (f"non-normal: lag {config.non_normal_steps}", f"{powers['gain_at_largest_lag']:.1e}"),
    )
    return (
        Table(f"W_h = ρQ, n = {config.hidden_size}, T = {T}", ("cell", "ρ", f"‖∂h_{T}/∂h_0‖", "factor a step"), rows),
        Table("laws", ("law", "measured"), laws),
    )


STUDY = Study(
    name="vanishing_exploding",
    claim="‖∂h_t/∂h_k‖ vanishes or explodes as ρ^(t-k): exactly, bounded through φ, and not at first",
    config=Config,
    quick={"hidden_size": 16, "steps": 60, "burn_in": 10, "trajectories": 2, "non_normal_steps": 150},
    run=run,
)
