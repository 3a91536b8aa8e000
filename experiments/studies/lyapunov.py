"""Lyapunov exponents against two closed forms: random networks in the limit N → ∞, and products of Gaussian matrices.

 1. h_t = J tanh(h_{t-1}), J_ij ~ N(0, g²/N). For N → ∞ the numbers in h_t are Gaussian with a variance q, independent
    of those of h_{t-1}, and so
        q = g² E[tanh²(√q z)],      λ_1 = ½ log(g² E[tanh'(√q z)²]),      z ~ N(0, 1):
    log g for g ≤ 1, where q = 0, and above 0, chaos, for g > 1. Measured with one tangent at a finite N.
 2. h_t = J_t h_{t-1} with a new J_t, J_ij ~ N(0, 1/N), every step. By rotation the numbers log |R_t|_ii of the QR are
    independent, N |R_t|_ii² is chi-squared with N - i + 1 degrees of freedom, and so, exactly at every N,
        λ_i = ½ [log(2/N) + ψ((N - i + 1)/2)],      Σ_i λ_i = E log |det J_t|.
    All N exponents are compared, each in units of its standard error: 3 is the limit, which one of 32 exponents exceeds
    by chance in about every tenth draw.

Sources: Sompolinsky, Crisanti and Sommers (1988), Chaos in random neural networks; Engelken, Wolf and Abbott (2023),
Lyapunov spectra of chaotic recurrent neural networks; Newman (1986), The distribution of Lyapunov exponents: exact
results for random matrices.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import options, plots
from experiments.study import Report, Result, Study, Table, verdict

TOLERANCE = 0.03  # of λ_1 against the limit N → ∞
ERRORS = 3.0  # standard errors, of each λ_i
ROUNDING = 1e-9  # of Σ λ_i against the mean of log |det J_t|
PUBLISHED = {
    "λ_1(g), N → ∞": {
        "value": "g = 0.5: -0.6931; 0.9: -0.1054; 1.5: 0.0652; 2: 0.1547; 3: 0.3102; 10: 0.8564",
        "source": "mean-field theory of Sompolinsky et al. (1988), in discrete time as in Engelken et al. (2023)",
        "tag": "derived",
    },
    "λ_i of products of Gaussian matrices, N = 32": {
        "value": "λ_1 = -0.01579, …, λ_32 = -2.36805, sum -16.9354",
        "source": "Newman (1986)",
        "tag": "derived",
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Lyapunov exponents of random networks and of products of random matrices, in float64."""

    seed: int = 0
    """Of the matrices and the first states."""
    quick: bool = False
    """Smaller networks and shorter runs: seconds."""
    out: Path | None = None
    """The output folder; results/lyapunov by default."""
    gains: tuple[float, ...] = (0.5, 0.9, 1.5, 2.0, 3.0, 10.0)
    """g."""
    hidden_size: int = 400
    """N of the networks."""
    steps: int = 2000
    """T of the networks, after the transient."""
    transient: int = 200
    """Steps that don't count."""
    seeds: int = 5
    """Networks for each g."""
    matrix_size: int = 32
    """N of the products."""
    factors: int = 500
    """T of the products."""
    products: int = 64
    """How many of them."""

    def __post_init__(self):
        options.seed(self.seed)
        options.positive("gains", *self.gains)
        for name in ("hidden_size", "steps", "matrix_size", "factors"):
            options.at_least(name, getattr(self, name), 1)
        options.at_least("transient", self.transient, 0)
        options.at_least("seeds", self.seeds, 2)
        options.at_least("products", self.products, 2)


def random_network(J, x_t, h_tm1):
    """h_t = J tanh(h_{t-1}), without input."""
    return jnp.tanh(h_tm1) @ J.T


def product(theta_h, J_t, h_tm1):
    """h_t = J_t h_{t-1}: the input is the matrix, and there are no parameters."""
    return jnp.matvec(J_t, h_tm1)


NETWORK, PRODUCT = jb.cells.from_step(random_network), jb.cells.from_step(product)


_Z = np.linspace(-12, 12, 6001)  # the trapezoidal rule: exact to rounding for what is smooth and dies out
_WEIGHTS = np.exp(-(_Z**2) / 2) * (_Z[1] - _Z[0]) / math.sqrt(2 * math.pi)


def mean_field(g: float) -> float:
    """λ_1 for N → ∞.

    >>> [round(mean_field(g), 4) for g in (0.5, 1.5, 10.0)]
    [-0.6931, 0.0652, 0.8564]
    """
    if g <= 1:
        return math.log(g)
    low, high = 0.0, g * g  # g² E[tanh²(√q z)] - q is positive below the solution and negative above
    for _ in range(60):
        q = (low + high) / 2
        above = g * g * np.sum(_WEIGHTS * np.tanh(math.sqrt(q) * _Z) ** 2) < q
        low, high = (low, q) if above else (q, high)
    slope = 1 - np.tanh(math.sqrt(high) * _Z) ** 2
    return 0.5 * math.log(g * g * np.sum(_WEIGHTS * slope**2))


def ginibre(N: int) -> np.ndarray:
    """λ_1 … λ_N of products of N×N matrices with entries N(0, 1/N).

    >>> ginibre(32)[[0, -1]].round(5).tolist(), round(float(ginibre(32).sum()), 4)
    ([-0.01579, -2.36805], -16.9354)
    """
    degrees = np.arange(N, 0, -1)
    return 0.5 * (math.log(2 / N) + np.array([_digamma_of_half(k) for k in degrees]))


def _digamma_of_half(k):
    """ψ(k/2), by ψ(x + 1) = ψ(x) + 1/x from ψ(1) = -γ and ψ(½) = -γ - 2 log 2."""
    first = 1.0 if k % 2 == 0 else 0.5
    start = -np.euler_gamma - (0.0 if k % 2 == 0 else 2 * math.log(2))
    return start + float(np.sum(1 / np.arange(first, k / 2)))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def largest(key: jax.Array, g: jax.Array, N: int, transient: int, steps: int) -> jax.Array:
    """λ_1 of one network."""
    key_J, key_h = jax.random.split(key)
    J = g / math.sqrt(N) * jax.random.normal(key_J, (N, N), jnp.float64)
    h_0 = jax.random.normal(key_h, (N,), jnp.float64)
    xs = jnp.zeros(transient + steps)
    return jb.diagnostics.largest_exponent(NETWORK, J, xs, h_0, transient=transient).exponents


_spectrum = jax.jit(lambda Js: jb.diagnostics.lyapunov_spectrum(PRODUCT, (), Js, jnp.zeros(Js.shape[1:3])))


def products(key: jax.Array, N: int, T: int, R: int) -> tuple[jb.diagnostics.LyapunovSpectrum, float]:
    """All exponents of R products of T matrices, and the mean of log |det J_t|.

    The determinants are NumPy's: in one program, XLA's batched LU and the QR of the scan can wait for each other for
    good on a CPU of two cores (jax 0.10.2).
    """
    Js = jax.random.normal(key, (T, R, N, N), jnp.float64) / math.sqrt(N)
    return jax.block_until_ready(_spectrum(Js)), float(np.mean(np.linalg.slogdet(np.asarray(Js)).logabsdet))


def run(config: Config, report: Report) -> Result:
    """Measures both, compares with the closed forms, and draws."""
    keys = jax.random.split(jax.random.key(config.seed), config.seeds + 1)
    rows = {}
    with jax.enable_x64(True):
        for g in config.gains:
            sizes = config.hidden_size, config.transient, config.steps
            values = np.array([float(largest(key, jnp.float64(g), *sizes)) for key in keys[1:]])
            error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
            wanted = mean_field(g)
            mean = float(np.mean(values))
            rows[g] = {"exact": wanted, "mean": mean, "standard_error": error, "difference": mean - wanted}
            report("measuring", len(rows), len(config.gains) + 1)
        spectrum, log_det = products(keys[0], config.matrix_size, config.factors, config.products)
        report("measuring", len(rows) + 1, len(config.gains) + 1)
    exponents, errors = np.asarray(spectrum.exponents), np.asarray(spectrum.standard_errors)
    exact = ginibre(config.matrix_size)
    scores = (exponents - exact) / errors
    sums = np.sum(np.asarray(spectrum.per_sequence), axis=-1)
    sum_error = float(np.std(sums, ddof=1) / math.sqrt(len(sums)))
    sum_score = float((np.mean(sums) - exact.sum()) / sum_error)
    identity = float(abs(np.sum(exponents) - log_det))
    numbers: dict[str, Any] = {
        "verdict": verdict(
            {
                **{
                    f"λ_1 at g = {g:g} is off by {row['difference']:+.3f}": not abs(row["difference"]) <= TOLERANCE
                    for g, row in rows.items()
                },
                f"{np.sum(np.abs(scores) > ERRORS)} of {len(scores)} exponents of the products are off by more than "
                f"{ERRORS:g} standard errors": not np.all(np.abs(scores) <= ERRORS),
                f"their sum is off by {sum_score:+.1f} standard errors": not abs(sum_score) <= ERRORS,
                f"their sum is off the mean log |det| by {identity:.1e}": not identity <= ROUNDING,
            }
        ),
        "published": PUBLISHED,
        "tolerance": TOLERANCE,
        "networks": {f"{g:g}": row for g, row in rows.items()},
        "products": {
            "exact": exact,
            "exponents": exponents,
            "standard_errors": errors,
            "largest_deviation_in_standard_errors": float(np.max(np.abs(scores))),
            "sum": {"exact": exact.sum(), "mean": np.mean(sums), "standard_error": sum_error},
            "sum_minus_mean_log_det": identity,
        },
    }
    figure = _draw(config, rows, exact, exponents, errors)
    return Result(numbers, _tables(config, numbers), {"lyapunov": figure})


def _tables(config, numbers):
    networks = tuple(
        (g, f"{row['exact']:+.4f}", f"{row['mean']:+.4f} ± {row['standard_error']:.4f}", f"{row['difference']:+.4f}")
        for g, row in numbers["networks"].items()
    )
    found = numbers["products"]
    one = tuple(
        (
            f"λ_{i + 1}",
            f"{found['exact'][i]:+.5f}",
            f"{found['exponents'][i]:+.5f} ± {found['standard_errors'][i]:.5f}",
        )
        for i in sorted({0, (config.matrix_size - 1) // 2, config.matrix_size - 1})
    )
    total = found["sum"]
    products = (
        *one,
        ("sum", f"{total['exact']:+.4f}", f"{total['mean']:+.4f} ± {total['standard_error']:.4f}"),
        ("largest deviation, standard errors", f"≤ {ERRORS:g}", f"{found['largest_deviation_in_standard_errors']:.2f}"),
        ("sum - mean log |det|", "0", f"{found['sum_minus_mean_log_det']:.1e}"),
    )
    of = "mean ± standard error"
    return (
        Table(
            f"λ_1 of J tanh(h), N = {config.hidden_size}, T = {config.steps}, {config.seeds} seeds: {of}",
            ("g", "N → ∞ (derived)", "measured", "off by"),
            networks,
        ),
        Table(
            f"{config.products} products of {config.factors} Gaussian matrices, N = {config.matrix_size}: {of}",
            ("", "exact (derived)", "measured"),
            products,
        ),
    )


def _draw(config, rows, exact, exponents, errors):
    figure, axes = plots.figure(1, 3, width=12, height=3.8)
    networks, products, scores = axes[0]
    gains = np.geomspace(min(rows), max(rows), 120)
    networks.plot(gains, [mean_field(g) for g in gains], color="0.25", linewidth=0.9, zorder=1, label=r"$N\to\infty$")
    colour, _, marker = plots.look(0)
    how = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 4, "capsize": 2}
    mean, error = (np.array([row[part] for row in rows.values()]) for part in ("mean", "standard_error"))
    networks.errorbar(list(rows), mean, 2 * error, label=f"$N$ = {config.hidden_size}", **how)
    networks.set_xscale("log")
    networks.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    networks.legend(frameon=False)
    i = np.arange(1, len(exact) + 1)
    products.plot(i, exact, color="0.25", linewidth=0.9, zorder=1, label="exact")
    products.errorbar(i, exponents, 2 * errors, label="measured", **how)
    products.legend(frameon=False)
    scores.axhspan(-ERRORS, ERRORS, color="0.93", zorder=0)
    scores.axhline(0, color="0.25", linewidth=0.7, zorder=1)
    scores.plot(i, (exponents - exact) / errors, color=colour, marker=marker, markersize=4, linestyle="none")
    plots.label(networks, r"(a) $J\tanh(h)$; 2 standard errors", "$g$", r"$\lambda_1$ (per step)")
    plots.label(products, "(b) products of Gaussian matrices", "index $i$", r"$\lambda_i$ (per step)")
    plots.label(scores, "(c) their deviation; grey: 3", "index $i$", "standard errors")
    return figure


STUDY = Study(
    name="lyapunov",
    claim="Lyapunov exponents of random networks follow mean-field theory, those of Gaussian products Newman's formula",
    config=Config,
    quick={"steps": 1000, "seeds": 3, "factors": 200, "products": 32},
    run=run,
)
