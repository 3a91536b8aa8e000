"""Truncation bias: what a window of K steps leaves out falls geometrically with K.

    relative bias(K) = ‖∂F/∂θ_h - g_K‖ / ‖∂F/∂θ_h‖,      g_K: the loss of each step sees K steps

One linear unit, h_t = λ h_{t-1} + w x_t with x_t = 1 and the loss at step T alone:

    ∂h_T/∂w = Σ_{k<T} λ^k,   cut Σ_{k<K} λ^k             ⟹   relative bias(K) = (λ^K - λ^T)/(1 - λ^T) → λ^K

An LSTM has no such formula. There the measure is how straight the logarithm of the bias is over K. Then the window that
`jaxbptt.estimators.adaptive` takes for a tolerance is compared with the bias that it has. Its bound is one of lengths
of ∂L_t/∂h_{t-k}: where the shares of short lags cancel in the gradient, the bias is larger. That is shown, not judged.

Source: Aicher, Foti and Fox (2019), Adaptively truncating backpropagation through time to control gradient bias.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import options, plots
from experiments.study import Report, Result, Study, Table, verdict

EXACT = 1e-10  # relative, of λ^K
STRAIGHT = 0.99  # R² of log bias over K, for each seed
_FORGOTTEN = 1e-18  # λ^T, of the linear unit
PUBLISHED = {
    "relative bias of one linear unit": {"value": "λ^K", "source": "the sum above", "tag": "derived"},
    "relative bias of an LSTM": {
        "value": "falls geometrically, of the order of β^K",
        "source": "Aicher, Foti and Fox (2019)",
        "tag": "read in the paper",
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The relative bias of truncated gradients over the window, and the window of a tolerance, in float64."""

    seed: int = 0
    """Of parameters and data."""
    quick: bool = False
    """Few windows of a small network: a few seconds."""
    out: Path | None = None
    """The output folder; results/truncation_bias by default."""
    lambdas: tuple[float, ...] = (0.5, 0.9, 0.99)
    """λ, each between 0 and 1."""
    lags: int = 30
    """The largest window K."""
    hidden_size: int = 50
    """Units of the LSTM."""
    steps: int = 100
    """T of the LSTM's sequences."""
    batch_size: int = 64
    """Sequences."""
    tolerances: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05, 0.01)
    """What the adaptive window may leave out."""
    seeds: int = 5
    """Repetitions of the LSTM."""

    def __post_init__(self):
        options.seed(self.seed)
        options.positive("lambdas", *self.lambdas)
        for value in self.lambdas:
            options.between("lambdas", value, 0, 1)
        options.at_least("lags", self.lags, 3)
        options.positive("hidden_size", self.hidden_size)
        options.at_least("steps", self.steps, self.lags + 1)
        options.at_least("batch_size", self.batch_size, 1)
        options.positive("tolerances", *self.tolerances)
        options.at_least("seeds", self.seeds, 1)


class Network(NamedTuple):
    """A model with the data of its sum F, and where in it the losses are."""

    model: jb.Model
    theta: jb.Theta
    xs: jax.Array
    ys: jax.Array
    mask: jax.Array | None


def unit(lam: float, longest: float) -> Network:
    """The linear unit, from h_0 = 0 until λ^T is forgotten for the longest memory."""
    T = int(np.ceil(np.log(_FORGOTTEN) / np.log(longest)))
    theta_h = jb.cells.LinearParams(W_x=jnp.ones((1, 1)), W_h=jnp.full((1, 1), lam))
    model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    return Network(model, jb.Theta(theta_h, ()), jnp.ones((T, 1)), jnp.zeros((T, 1)), jnp.arange(T) == T - 1)


def lstm(config: Config, seed: int) -> Network:
    """An LSTM at its initial parameters; white inputs and targets."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed), 3)
    model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    theta = model.init(keys[0], input_size=4, hidden_size=config.hidden_size, output_size=2, dtype=jnp.float64)
    shape = (config.steps, config.batch_size)
    return Network(model, theta, jax.random.normal(keys[1], (*shape, 4)), jax.random.normal(keys[2], (*shape, 2)), None)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _estimate(estimator, model, theta, xs, ys, mask):
    estimate, _ = estimator.update(theta, estimator.init(theta), xs, ys, mask=mask)
    return estimate.grads.h, estimate.info


def estimate(make, network: Network, **how):
    """∂F/∂θ_h by an estimator, and its info."""
    return _estimate(make(network.model, jb.losses.l2_loss, **how), *network)


def relative_bias(found: Any, exact: Any, of=lambda theta_h: theta_h) -> float:
    """‖found - exact‖/‖exact‖, all parameters as one vector, or one of them."""
    found, exact = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(of(tree))]) for tree in (found, exact))
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def line(biases: np.ndarray) -> tuple[float, float]:
    """The rate β and R² of log bias over K, by least squares.

    >>> [round(value, 6) for value in line(3 * 0.8 ** np.arange(1, 31))]
    [0.8, 1.0]
    """
    K, y = np.arange(1, len(biases) + 1), np.log(biases)
    slope, start = np.polyfit(K, y, 1)
    return float(np.exp(slope)), float(1 - np.sum((y - start - slope * K) ** 2) / np.sum((y - np.mean(y)) ** 2))


def judge(units: dict[str, list[float]], rows: list[dict[str, Any]], adapted: list[dict[str, float]]) -> str:
    """The verdict, from the biases by λ, the LSTMs' lines, and the adaptive windows."""
    off = {lam: _off(float(lam), biases) for lam, biases in units.items()}
    crooked = {f"seed {k}: R² is {row['r2']:.4f}": not row["r2"] >= STRAIGHT for k, row in enumerate(rows)}
    grows = {
        f"seed {k}: the bias does not fall, β = {row['rate']:.3f}": not row["rate"] < 1 for k, row in enumerate(rows)
    }
    above = {
        f"the bound {one['bound']:.3f} is above the tolerance {one['tolerance']:g}": not one["bound"]
        <= one["tolerance"]
        for one in adapted
    }
    wrong = {f"λ = {lam} is off λ^K by {error:.1e}": not error <= EXACT for lam, error in off.items()}
    return verdict(wrong | crooked | grows | above)


def _off(lam, biases):
    return float(np.max(np.abs(np.array(biases) / lam ** np.arange(1, len(biases) + 1) - 1)))


def run(config: Config, report: Report) -> Result:
    """Measures, judges, and draws."""
    units, rows, adapted = {}, [], []
    windows, total = range(1, config.lags + 1), len(config.lambdas) + config.seeds
    with jax.enable_x64(True):
        for lam in config.lambdas:
            network = unit(lam, max(config.lambdas))
            exact, _ = estimate(jb.estimators.bptt, network)
            cut = [estimate(jb.estimators.windowed, network, window=K)[0] for K in windows]
            units[f"{lam:g}"] = [relative_bias(g, exact, lambda theta_h: theta_h.W_x) for g in cut]
            report("measuring", len(units), total)
        for seed in range(config.seeds):
            network = lstm(config, seed)
            exact, _ = estimate(jb.estimators.bptt, network)
            cut = [estimate(jb.estimators.windowed, network, window=K)[0] for K in windows]
            biases = [relative_bias(g, exact) for g in cut]
            rate, r2 = line(np.array(biases))
            rows.append({"biases": biases, "rate": rate, "r2": r2})
            adapted += [_adapted(network, exact, seed, tolerance) for tolerance in config.tolerances]
            report("measuring", len(units) + len(rows), total)
    numbers = {
        "verdict": judge(units, rows, adapted),
        "published": PUBLISHED,
        "off": {lam: _off(float(lam), biases) for lam, biases in units.items()},
        "units": units,
        "lstm": rows,
        "adaptive": adapted,
    }
    return Result(numbers, _tables(config, units, rows, adapted), {"truncation_bias": _draw(units, rows, adapted)})


def _adapted(network, exact, seed, tolerance):
    g, info = estimate(jb.estimators.adaptive, network, tolerance=tolerance)
    bias = relative_bias(g, exact)
    measured = {"lag": int(info.lag), "decay": float(info.decay), "bound": float(info.bound), "bias": bias}
    return {"seed": seed, "tolerance": tolerance} | measured


def _tables(config, units, rows, adapted):
    exact = tuple(
        (lam, f"{biases[-1]:.6e}", f"{float(lam) ** config.lags:.6e}", f"{_off(float(lam), biases):.1e}")
        for lam, biases in units.items()
    )
    lines = tuple(
        (f"{k}", f"{row['rate']:.4f}", f"{row['r2']:.5f}", f"{row['biases'][0]:.3g}", f"{row['biases'][-1]:.3g}")
        for k, row in enumerate(rows)
    )
    windows = tuple(
        (f"{one['seed']}", f"{one['tolerance']:g}", f"{one['lag']}", f"{one['decay']:.3f}", f"{one['bound']:.3g}",
         f"{one['bias']:.3g}")
        for one in adapted
    )  # fmt: skip
    return (
        Table(f"one linear unit, K = {config.lags}", ("λ", "relative bias", "λ^K", "largest deviation, all K"), exact),
        Table("LSTM", ("seed", "β", "R²", "bias at K = 1", f"at K = {config.lags}"), lines),
        Table("the adaptive window", ("seed", "tolerance", "K", "β of the deltas", "bound", "relative bias"), windows),
    )


def _draw(units, rows, adapted):
    figure, axes = plots.figure(1, 2, width=9, height=3.8)
    biases, bounds = axes[0]
    for k, (lam, values) in enumerate(units.items()):
        K = np.arange(1, len(values) + 1)
        plots.line(biases, K, np.array(values), k, rf"one unit, $\lambda={lam}$", linestyle="none")
        biases.plot(K, float(lam) ** K, color="0.25", linewidth=0.7, zorder=1)
    for k, row in enumerate(rows):
        colour, _, _ = plots.look(len(units))
        biases.plot(np.arange(1, len(row["biases"]) + 1), row["biases"], color=colour, label="" if k else "LSTM")
    colour, _, marker = plots.look(0)
    bound, bias = (np.array([one[name] for one in adapted]) for name in ("bound", "bias"))
    bounds.plot(bound, bias, color=colour, marker=marker, linestyle="none")
    ends = np.array([min(bound.min(), bias.min()), max(bound.max(), bias.max())])
    bounds.plot(ends, ends, color="0.25", linewidth=0.7, zorder=1)
    for axis in (biases, bounds):
        axis.set_yscale("log")
    bounds.set_xscale("log")
    plots.label(biases, r"(a) what a window leaves out; thin: $\lambda^K$", "window $K$", "relative bias")
    plots.label(bounds, "(b) the adaptive window; thin: bias = bound", "bound", "relative bias")
    biases.legend(frameon=False, fontsize=8)
    return figure


STUDY = Study(
    name="truncation_bias",
    claim="what truncated BPTT leaves out falls geometrically with its window K: as λ^K for one linear unit",
    config=Config,
    quick={
        "lags": 4,
        "hidden_size": 8,
        "steps": 24,
        "batch_size": 4,
        "seeds": 1,
        "tolerances": (0.2,),
        "lambdas": (0.5,),
    },
    run=run,
)
