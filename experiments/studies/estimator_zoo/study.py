"""All gradient estimators on one page: what each is worth, and what it costs.

    bias = ‖E[g] - ∂F/∂θ_h‖/‖∂F/∂θ_h‖        noise = √E‖g - E[g]‖²/‖∂F/∂θ_h‖

One sequence each, θ as it is drawn: an Elman network, for which all are defined, and a sparse GRU. The exact gradient
is ``jax.grad`` of a scan. Beside them stands what a stack loses with one online trace a layer (`stack`).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.kit import options, timing
from experiments.studies.estimator_zoo import figure, measure, stack
from experiments.study import Report, Result, Study, Table, verdict

EXACT = {"float32": 1e-6, "float64": 1e-12}  # 1 - cosine
UNBIASED = 5.0  # standard errors, of every component
DIFFERS = 1e-3  # relative bias of what is biased
TOP = 1e-12  # 1 - cosine of the top layer
NEAR = 0.05  # of the derived cosines
BOTTOM = {2: (0.78, 0.69), 3: (0.53, 0.38), 4: (0.31, 0.21)}  # layers: of d, of W
PUBLISHED = {
    "cosine of the bottom layer (d, W)": {
        "value": "2 layers .78, .69; 3 layers .53, .38; 4 layers .31, .21",
        "source": "a measurement with 20 seeds; its start is not known",
        "tag": "derived",
    }
}
CELLS = ("Elman", "GRU")


@dataclasses.dataclass(frozen=True)
class Config:
    """Bias, noise and time of every estimator, and the cosines of a stack with one online trace a layer."""

    seed: int = 0
    """Of parameters, data and draws."""
    quick: bool = False
    """A small network and few draws: a few seconds."""
    out: Path | None = None
    """The output folder; results/estimator_zoo by default."""
    hidden_size: int = 16
    """Units of both networks."""
    steps: int = 20
    """T."""
    draws: int = 2000
    """Gradients drawn of an estimator that is random."""
    rounds: int = 15
    """How many times each is timed."""
    seeds: int = 400
    """Stacks of each depth."""

    def __post_init__(self):
        options.seed(self.seed)
        options.at_least("hidden_size", self.hidden_size, 2)
        options.at_least("steps", self.steps, 6)
        options.at_least("draws", self.draws, 2)
        options.at_least("rounds", self.rounds, 1)
        options.at_least("seeds", self.seeds, 2)


def judge(zoo: dict[str, dict[str, dict[str, Any]]], stacks: dict[int, np.ndarray]) -> str:
    """The verdict, from what was measured by cell and estimator, and the mean cosines ``[depth, 2]`` by depth."""
    failures = {}
    for cell, rows in zoo.items():
        for name, row in rows.items():
            where = f"{cell}, {name}"
            if row["kind"] == "exact":
                for dtype, cosine in row["cosines"].items():
                    failures[f"{where}: 1 - cosine is {1 - cosine:.1e} in {dtype}"] = not 1 - cosine <= EXACT[dtype]
            elif row["kind"] == "unbiased":
                failures[f"{where}: the mean is off by {row['off']:.1f} standard errors"] = not row["off"] <= UNBIASED
            else:
                failures[f"{where}: the bias is {row['bias']:.1e} only"] = not row["bias"] > DIFFERS
    for depth, cosines in stacks.items():
        top = float(np.max(np.abs(1 - cosines[-1])))
        failures[f"{depth} layers: 1 - cosine of the top one is {top:.1e}"] = not top <= TOP
        for found, wanted, of in zip(cosines[0], BOTTOM[depth], "dW", strict=True):
            failures[f"{depth} layers: the bottom cosine of {of} is {found:.3f}, not {wanted}"] = (
                not abs(found - wanted) <= NEAR
            )
    return verdict(failures)


def run(config: Config, report: Report) -> Result:
    """Measures, times, judges, and draws."""
    zoo, calls = {}, {}
    with jax.enable_x64(True):
        for cell in CELLS:
            zoo[cell], calls[cell] = _measured(config, cell, report)
        each = {depth: stack.cosines(config.seed, depth, config.seeds) for depth in BOTTOM}
        times = {cell: timing.interleaved(calls[cell], config.rounds, report) for cell in CELLS}
    per_step = {
        cell: {name: 1e6 * timing.spread(seconds).median / config.steps for name, seconds in rows.items()}
        for cell, rows in times.items()
    }
    stacks = {depth: values.mean(axis=0) for depth, values in each.items()}
    numbers = {
        "verdict": judge(zoo, stacks),
        "published": PUBLISHED,
        "estimators": zoo,
        "stacks": {str(depth): values for depth, values in stacks.items()},
        "stacks_standard_error": {
            str(depth): values.std(axis=0, ddof=1) / np.sqrt(len(values)) for depth, values in each.items()
        },
        "timing": {"microseconds_a_step": per_step},
    }
    tables = (*(_table(config, cell, zoo[cell], per_step[cell]) for cell in CELLS), _stacks(each))
    return Result(numbers, tables, {"estimator_zoo": figure.draw(config.draws, zoo, per_step, stacks, BOTTOM)})


def _measured(config, cell, report):
    """What `measure.compare` finds of each way, and calls to time."""
    rows, calls = {}, {}
    network, rounded = (
        measure.network(cell, config.hidden_size, config.steps, config.seed, dtype)
        for dtype in (jnp.float64, jnp.float32)
    )
    g, ways = measure.exact(network), measure.ways(cell, network.model)
    for name, way in ways.items():
        row: dict[str, Any] = {"kind": way.kind, **measure.compare(way, network, g, config.draws, config.seed)}
        if way.kind == "exact":
            row["cosines"] = {"float64": row["cosine"], "float32": _cosine_of_rounded(way, rounded)}
        rows[name], calls[name] = row, _call(way, network)
        report(f"measuring, {cell}", len(rows), len(ways), name)
    return rows, calls


def _cosine_of_rounded(way, network):
    return measure.compare(way, network, measure.exact(network), 1, 0)["cosine"]


def _call(way, network):
    key = jax.random.key(0)
    return lambda: measure.draw(way.estimator, *network[1:], key)


def _table(config, cell, rows, per_step):
    def off(row):
        return f"{row['off']:.1f}" if row["kind"] == "unbiased" else ""

    lines = tuple(
        (name, row["kind"], f"{row['bias']:.2g}", off(row), f"{row['noise']:.2g}", f"{row['cosine']:.3f}",
         f"{per_step[name]:.1f}")
        for name, row in rows.items()
    )  # fmt: skip
    title = f"{cell}, n = {config.hidden_size}, T = {config.steps}; {config.draws:,} draws of what is random"
    columns = ("estimator", "is said to be", "bias", "worst, in standard errors", "noise", "cosine", "µs a step")
    return Table(title, columns, lines)


def _stacks(each):
    lines = []
    for depth, values in each.items():
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
        bottom = (f"{mean[0, k]:.3f} ± {error[0, k]:.3f} ({BOTTOM[depth][k]})" for k in (0, 1))
        lines.append((str(depth), *bottom, f"{np.max(np.abs(1 - values[:, -1])):.1e}"))
    columns = ("layers", "bottom, d (derived)", "bottom, W (derived)", "top: |1 - cosine| at most")
    return Table(f"one online trace a layer: cosine with BPTT, {len(values)} stacks", columns, tuple(lines))


STUDY = Study(
    name="estimator_zoo",
    claim="each gradient estimator is exact, unbiased or biased as it says; in a stack, one online trace a layer is "
    "exact in the top layer only",
    config=Config,
    quick={"hidden_size": 4, "steps": 8, "draws": 200, "rounds": 1, "seeds": 20},
    run=run,
)
