"""When vanishing is certain: ‖∂h_t/∂h_k‖ against η^(t-k), η = γ σ_1(W_h), over σ_1 on both sides of 1/γ.

    c_t = diag(φ'(z_t)) W_h,  |φ'| ≤ γ (1 for tanh, ¼ for sigmoid)   ⟹   ‖c_t c_{t-1} … c_{k+1}‖₂ ≤ (γ σ_1)^(t-k)

 1. σ_1 < 1/γ is sufficient for vanishing, σ_1 > 1/γ necessary for exploding. W_h is a Gaussian or an orthogonal matrix,
    scaled to σ_1 = s/γ; the inputs are white. Every norm above η^(t-k) is counted, and the slope of log ‖∂h_t/∂h_k‖
    over the lag is fitted.
 2. The bound cannot be improved: with W_h orthogonal and b such that h rests where z = 0, φ' = γ, and the norm is
    η^(t-k) itself.
 3. σ_1 > 1/γ is not sufficient for exploding: at rest the tanh network explodes, and how many of the driven ones vanish
    all the same is reported.

Source: Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, eq. 6-7.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import lags, options, plots
from experiments.study import Report, Result, Study, Table, verdict

Activation = Literal["tanh", "sigmoid"]
GAMMA: dict[Activation, float] = {"tanh": 1.0, "sigmoid": 0.25}  # sup |φ'|, at z = 0
MATRICES = {"gaussian": jax.nn.initializers.normal(1.0), "orthogonal": jb.initializers.orthogonal()}
ROUNDING = 1e-9  # relative, of a float64 product of T matrices that may touch the bound
PUBLISHED = {
    "vanishing is certain below, exploding possible above": {
        "value": "σ₁(W_h) = 1/γ: 1 for tanh, 4 for the sigmoid",
        "source": "Pascanu, Mikolov and Bengio (2013), section 2.1, eq. 6-7",
        "tag": "read in the paper",
    }
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Norms of Jacobian products beside the bound (γ σ_1)^(t-k), in float64."""

    seed: int = 0
    """Of the first draw of W_h, W_x and the inputs."""
    quick: bool = False
    """A small network and short sequences: seconds."""
    out: Path | None = None
    """The output folder; results/jacobian_bound by default."""
    strengths: tuple[float, ...] = (0.5, 0.9, 0.99, 1.0, 1.1, 2.0)
    """s: σ_1(W_h) = s/γ, so that η = s."""
    hidden_size: int = 100
    """n."""
    input_size: int = 10
    """d."""
    steps: int = 200
    """T: the largest lag."""
    seeds: int = 5
    """Draws of each network."""

    def __post_init__(self):
        options.seed(self.seed)
        options.positive("strengths", *self.strengths)
        for name in ("hidden_size", "input_size"):
            options.at_least(name, getattr(self, name), 1)
        options.at_least("steps", self.steps, 2)
        options.at_least("seeds", self.seeds, 2)


class Norms(NamedTuple):
    """Of one network at one s.

    Attributes:
        norms: ``[seeds, T]``, ‖∂h_t/∂h_0‖₂ for t = 1 … T.
        eta: ``[seeds]``, γ σ_1(W_h) as `jaxbptt.diagnostics.jacobian_bound` finds it.
        certain: ``[seeds]``, whether it says that vanishing is certain.
    """

    norms: np.ndarray
    eta: np.ndarray
    certain: np.ndarray

    @property
    def bound(self) -> np.ndarray:
        """``[seeds, T]``, η^t."""
        return self.eta[:, None] ** np.arange(1, self.norms.shape[1] + 1)

    @property
    def violations(self) -> int:
        """How many norms lie above the bound."""
        return int(np.sum(self.norms > self.bound * (1 + ROUNDING)))

    @property
    def slopes(self) -> np.ndarray:
        """``[seeds]``, of the least-squares line through log ‖∂h_t/∂h_0‖ over t."""
        lag = np.arange(self.norms.shape[1])
        return np.polyfit(lag, np.log(self.norms).T, 1)[0]


@functools.partial(jax.jit, static_argnums=0)
def _products(phi, theta_h, xs, h_0):
    return jax.vmap(functools.partial(jb.jacobians.product, jb.cells.elman(phi)))(theta_h, xs, h_0)


def network(config: Config, phi: Activation, matrix: str, s: float, rests: bool) -> Norms:
    """The norms of one kind of network.

    Args:
        config: sizes and seed.
        phi: φ.
        matrix: of `MATRICES`.
        s: η.
        rests: no inputs, and a bias with which h_0, where z = 0, is a fixed point; else white inputs and no bias.

    Returns:
        The `Norms`. Two different s have the same matrices, but for their scale, and the same inputs.
    """
    n, d, T = config.hidden_size, config.input_size, config.steps

    def draw(key):
        key_h, key_x, key_xs = jax.random.split(key, 3)
        W_h = MATRICES[matrix](key_h, (n, n), jnp.float64)
        W_h = W_h * (s / GAMMA[phi] / jnp.linalg.norm(W_h, 2))
        W_x = jax.random.normal(key_x, (n, d), jnp.float64) / np.sqrt(d)
        xs = jax.random.normal(key_xs, (T, d), jnp.float64)
        h_0 = jnp.full(n, {"tanh": 0.0, "sigmoid": 0.5}[phi])  # φ(0)
        return jb.cells.ElmanParams(W_x, W_h, jnp.where(rests, -W_h @ h_0, 0.0)), jnp.where(rests, 0.0, xs), h_0

    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    theta_h, xs, h_0 = jax.vmap(draw)(keys)
    bound = jb.diagnostics.jacobian_bound(theta_h.W_h, GAMMA[phi])
    norms = lags.spectral(_products(phi, theta_h, xs, h_0))
    return Norms(norms, np.asarray(bound.eta), np.asarray(bound.vanishing_is_certain))


def run(config: Config, report: Report) -> Result:
    """Measures, counts, fits, and draws."""
    kinds: list[tuple[Activation, str]] = [(phi, matrix) for phi in GAMMA for matrix in MATRICES]
    # beyond s = 1 the fixed point is unstable: tanh(0) = 0 holds exactly, the sigmoid's ½ only to rounding
    at_rest: list[tuple[Activation, float]] = [
        (phi, s) for phi in GAMMA for s in config.strengths if s <= 1 or phi == "tanh"
    ]
    driven, resting, total = {}, {}, len(kinds) * len(config.strengths) + len(at_rest)
    with jax.enable_x64(True):
        for phi, matrix in kinds:
            for s in config.strengths:
                driven[phi, matrix, s] = network(config, phi, matrix, s, rests=False)
                report("measuring", len(driven), total)
        for phi, s in at_rest:
            resting[phi, s] = network(config, phi, "orthogonal", s, rests=True)
            report("measuring", len(driven) + len(resting), total)
    everything = [*driven.values(), *resting.values()]
    violations = sum(one.violations for one in everything)
    below = sum(one.violations for (_, _, s), one in driven.items() if s < 1)
    too_steep = sum(int(np.sum(one.slopes > np.log(one.eta) + ROUNDING)) for one in everything)
    uncertain = sum(int(np.sum(one.certain != (s < 1))) for (_, _, s), one in driven.items() if s != 1)
    slack = max((float(np.max(np.abs(one.norms / one.bound - 1))) for one in resting.values()), default=0.0)
    vanish = {
        f"{phi}, {matrix}, s = {s:g}": int(np.sum(one.slopes < 0)) for (phi, matrix, s), one in driven.items() if s > 1
    }
    numbers: dict[str, Any] = {
        "verdict": verdict(
            {
                f"{violations} norms exceed η^(t-k), {below} of them at s < 1": violations > 0,
                f"{too_steep} slopes of the log norm exceed log η": too_steep > 0,
                f"{uncertain} networks are on the other side of σ₁ = 1/γ than s says": uncertain > 0,
                f"at rest the bound is missed by {slack:.1e}": not slack <= ROUNDING,
            }
        ),
        "published": PUBLISHED,
        "violations": violations,
        "violations_where_vanishing_is_certain": below,
        "norms_compared": sum(one.norms.size for one in everything),
        "largest_relative_distance_from_the_bound_at_rest": slack,
        "vanishing_all_the_same": vanish,
        "slopes": {
            f"{phi}, {matrix}": {f"{s:g}": _slope(driven[phi, matrix, s]) for s in config.strengths}
            for phi, matrix in kinds
        },
    }
    return Result(numbers, _tables(config, numbers), {"jacobian_bound": _draw(config, driven, resting)})


def _slope(one):
    error = np.std(one.slopes, ddof=1) / np.sqrt(len(one.slopes))
    return {"log_eta": float(np.log(one.eta[0])), "mean": float(np.mean(one.slopes)), "standard_error": float(error)}


def _tables(config, numbers):
    columns = ("network", "s", "log η", "slope of log ‖∂h_t/∂h_k‖")
    slopes = tuple(
        (network, s, f"{fit['log_eta']:+.4f}", f"{fit['mean']:+.4f} ± {fit['standard_error']:.4f}")
        for network, row in numbers["slopes"].items()
        for s, fit in row.items()
    )
    slack = numbers["largest_relative_distance_from_the_bound_at_rest"]
    laws = (
        ("norms above η^(t-k)", f"{numbers['violations']} of {numbers['norms_compared']:,}"),
        ("of these where vanishing is certain, s < 1", str(numbers["violations_where_vanishing_is_certain"])),
        ("W_h orthogonal, at rest: norm = η^(t-k)", f"off by {slack:.1e}"),
        *(
            (f"vanish all the same: {name}", f"{count} of {config.seeds}")
            for name, count in numbers["vanishing_all_the_same"].items()
        ),
    )
    title = f"n = {config.hidden_size}, T = {config.steps}, {config.seeds} seeds: mean ± standard error"
    return Table(title, columns, slopes), Table("the bound", ("", "measured"), laws)


def _draw(config, driven, resting):
    figure, axes = plots.figure(len(GAMMA), len(MATRICES) + 1, width=12, height=7, sharey=True)
    lag = np.arange(1, config.steps + 1)
    for row, phi in zip(axes, GAMMA, strict=True):
        for panel, matrix in zip(row, (*MATRICES, "rest"), strict=True):
            for j, s in enumerate(config.strengths):
                at_rest = matrix == "rest"
                if at_rest and (phi, s) not in resting:
                    continue
                norms = np.sort((resting[phi, s] if at_rest else driven[phi, matrix, s]).norms, axis=0)
                plots.line(panel, lag, np.median(norms, axis=0), j, f"$s$ = {s:g}")
                panel.fill_between(lag, norms[0], norms[-1], color=plots.look(j).color, alpha=0.15, linewidth=0)
                panel.plot(lag, s**lag, color="0.25", linewidth=0.7, zorder=1)
            title = f"{phi}, at rest, orthogonal $W_h$" if matrix == "rest" else rf"{phi}, {matrix} $W_h$"
            y = r"$\|\partial h_t/\partial h_k\|_2$" if panel is row[0] else ""
            plots.label(panel, rf"{title}; thin: $\eta^{{\,t-k}}$", "lag $t-k$ (steps)", y)
            panel.set_yscale("log")
    axes[0, 0].set_ylim(bottom=max(1e-65, axes[0, 0].get_ylim()[0]))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    return figure


STUDY = Study(
    name="jacobian_bound",
    claim="‖∂h_t/∂h_k‖ ≤ (γ σ₁)^(t-k): gradients vanish for certain when σ₁(W_h) < 1/γ, and explode only above",
    config=Config,
    quick={"hidden_size": 20, "input_size": 3, "steps": 60, "seeds": 3},
    run=run,
)
