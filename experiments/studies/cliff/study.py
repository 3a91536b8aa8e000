"""The cliff: where a bifurcation puts a wall into the error surface, and what clipping the norm does there.

    x_t = w σ(x_{t-1}) + b,   x_0 = ½          E(w, b) = (σ(x_50) - 0.7)²

 1. x = wσ(x) + b has two stable solutions for w > 4 and b between two folds, where wσ'(x) = 1. With σ' = σ(1 - σ) that
    is σ = ½ (1 ± √(1 - 4/w)), b = ln(σ/(1-σ)) - wσ: for w = 5, b ∈ (-2.6556, -2.3444). Measured without the formula:
    f is increasing, so from far below and far above x falls to the lowest and highest solution, and b lies between the
    folds when these differ.
 2. Where x_0 is the unstable solution between them, x_50 jumps from one to the other: b = ½ - wσ(½) is a wall of E. On
    a grid of (w, b) the largest norm of the gradient is compared with the median.
 3. Gradient descent starts beside the wall. Unclipped, a single step off the wall throws it out of the region; with
    the norm clipped the same runs come to the bottom.

All gradients are the library's reverse rule through 50 steps of a cell given by its f alone.

Source: Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, figures 3 and 6.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import options
from experiments.studies.cliff import figure as figures
from experiments.study import Report, Result, Study, Table, verdict

X_0, TARGET = 0.5, 0.7
RATIO = 100.0  # largest gradient norm over the median
SOLVED = 1e-3  # E
FOLD_TOLERANCE = 1e-4  # of b, half a unit of the digits published
PUBLISHED = {
    "interval of b with two stable states, w = 5": {
        "value": "(-2.6556, -2.3444)",
        "source": "folds of x = 5σ(x) + b, the case of Pascanu, Mikolov and Bengio (2013), figure 3",
        "tag": "derived",
    },
    "a wall in E(w, b), which clipping survives": {
        "value": "largest gradient norm > 100 medians; clipped ends with E < 1e-3, unclipped leaves",
        "source": "Pascanu, Mikolov and Bengio (2013), figure 6; the thresholds are ours",
        "tag": "read in the paper",
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Folds, error surface and descent of x_t = w σ(x_{t-1}) + b, in float64."""

    seed: int = 0
    """Of where descent starts."""
    quick: bool = False
    """A coarser grid and fewer starts: the same code in seconds."""
    out: Path | None = None
    """The output folder; results/cliff by default."""
    grid: int = 200
    """Points along w and along b."""
    steps: int = 50
    """t at which E reads x_t."""
    starts: int = 32
    """Runs of gradient descent."""
    updates: int = 3000
    """Of each run."""
    learning_rate: float = 0.03
    """Of plain gradient descent."""
    clip_norm: float = 1.0
    """The largest norm of a clipped gradient."""
    distance: float = 0.05
    """The farthest start from the wall, along b."""
    fold_w: float = 5.0
    """w at which the folds are located; above 4."""

    def __post_init__(self):
        options.seed(self.seed)
        options.at_least("grid", self.grid, 2)
        for name in ("steps", "starts", "updates"):
            options.at_least(name, getattr(self, name), 1)
        for name in ("learning_rate", "clip_norm", "distance"):
            options.positive(name, getattr(self, name))
        options.between("fold_w", self.fold_w, 4, 20)


class Region(NamedTuple):
    """The square of (w, b) that is looked at."""

    w: tuple[float, float] = (4.0, 7.0)
    b: tuple[float, float] = (-4.5, -1.5)


class Parameters(NamedTuple):
    """θ_h = (w, b)."""

    w: Any
    b: Any


class Descent(NamedTuple):
    """Of every run: ``[starts, updates + 1]`` E and θ_h along the way, ``[starts]`` whether it ever left the region."""

    E: np.ndarray
    theta: Parameters
    left: np.ndarray


def step(theta_h, x_t, h_tm1):
    """f: no input, x_t of the formula is the state."""
    return theta_h.w * jax.nn.sigmoid(h_tm1) + theta_h.b


CELL = jb.cells.from_step(step)


def error(theta_h: Parameters, steps: int) -> jax.Array:
    """E(w, b).

    >>> round(float(error(Parameters(0.0, 0.847298), 3)), 9)  # σ(0.8473) = 0.7
    0.0
    """
    theta_h = jax.tree.map(jnp.asarray, theta_h)
    x_T, _ = jb.unroll(CELL, theta_h, jnp.zeros(steps), jnp.full_like(theta_h.b, X_0))
    return jnp.square(jax.nn.sigmoid(x_T) - TARGET)


def wall(w: np.ndarray | float) -> Any:
    """The b for which x_0 is a solution of x = wσ(x) + b: beyond w = 4.26 an unstable one."""
    return X_0 - w / (1 + math.exp(-X_0))


def folds(w: float) -> tuple[float, float]:
    """Both ends of the interval of b with two stable states, by the formula.

    >>> [round(b, 4) for b in folds(5.0)]
    [-2.6556, -2.3444]
    """
    s = np.array([1, -1]) * math.sqrt(1 - 4 / w) / 2 + 0.5
    low, high = np.log(s / (1 - s)) - w * s
    return float(low), float(high)


@functools.partial(jax.jit, static_argnums=2)
def limits(w: jax.Array, b: jax.Array, steps: int) -> jax.Array:
    """Where x goes from far below and from far above, ``[..., 2]`` for b ``[...]``."""
    h_0 = jnp.broadcast_to(jnp.array([-40.0, 40.0], b.dtype), (*b.shape, 2))
    theta_h = Parameters(jnp.broadcast_to(w, h_0.shape), jnp.broadcast_to(b[..., None], h_0.shape))
    return jax.lax.fori_loop(0, steps, lambda _, h: CELL.apply(theta_h, None, h), h_0)


def measured_folds(w: float, steps: int = 20_000, halvings: int = 22) -> tuple[float, float]:
    """Both ends of the interval of b with two stable states, by bisection on whether the two limits differ.

    Args:
        w: above 4.
        steps: until x counts as arrived; beside a fold it takes of the order of 1/√(distance).
        halvings: of an interval of the size of w.

    Returns:
        ``(low, high)``.
    """
    middle = -w / 2  # x = 0 is the unstable solution: two stable states for every w > 4
    inside, outside = np.full(2, middle), np.array([middle - 1, middle + 1])
    while np.any(_apart(w, outside, steps)):
        outside = outside + (outside - middle)
    for _ in range(halvings):
        between = (inside + outside) / 2
        two = _apart(w, between, steps)
        inside, outside = np.where(two, between, inside), np.where(two, outside, between)
    low, high = (inside + outside) / 2
    return float(low), float(high)


def _apart(w, b, steps):
    low, high = np.asarray(limits(jnp.asarray(w), jnp.asarray(b), steps)).T
    return high - low > 1e-4


@functools.partial(jax.jit, static_argnums=1)
def gradient_norms(theta_h: Parameters, steps: int) -> jax.Array:
    """‖∂E/∂(w, b)‖ at many points, ``[M]``."""
    return jnp.hypot(*jax.vmap(lambda theta_h: jax.grad(error)(theta_h, steps))(theta_h))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _paths(theta_h, steps, updates, optimizer):
    def run(theta_h):
        def update(carry, _):
            theta_h, state = carry
            E, bars = jax.value_and_grad(error)(theta_h, steps)
            change, state = optimizer.update(bars, state)
            return (optax.apply_updates(theta_h, change), state), (E, theta_h)

        (last, _), (E, path) = jax.lax.scan(update, (theta_h, optimizer.init(theta_h)), length=updates)
        whole = jax.tree.map(lambda along, end: jnp.append(along, end), path, last)
        return jnp.append(E, error(last, steps)), whole

    return jax.vmap(run)(theta_h)


def descend(config: Config, theta_h: Parameters, clipped: bool) -> Descent:
    """Gradient descent from each of the points `theta_h`."""
    sgd = _optimizer(config.learning_rate, config.clip_norm if clipped else None)
    E, path = jax.tree.map(np.asarray, _paths(theta_h, config.steps, config.updates, sgd))
    region = Region()
    outside = (path.w < region.w[0]) | (path.w > region.w[1]) | (path.b < region.b[0]) | (path.b > region.b[1])
    return Descent(E, path, outside.any(axis=1))


@functools.cache
def _optimizer(learning_rate, clip_norm):
    sgd = optax.sgd(learning_rate)
    return sgd if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), sgd)


def starts(config: Config) -> Parameters:
    """Points beside the wall, on both sides, where it is steep."""
    rng = np.random.default_rng(config.seed)
    w = rng.uniform(5.0, 6.5, config.starts)
    return Parameters(jnp.asarray(w), jnp.asarray(wall(w) + rng.uniform(-1, 1, config.starts) * config.distance))


def run(config: Config, report: Report) -> Result:
    """Locates the folds, maps the gradient, descends, and draws."""
    region = Region()
    w, b = np.linspace(*region.w, config.grid), np.linspace(*region.b, config.grid)
    mesh = Parameters(*(np.ravel(axis) for axis in np.meshgrid(w, b)))
    with jax.enable_x64(True):
        interval = measured_folds(config.fold_w)
        report("measuring", 1, 4)
        norms = np.asarray(gradient_norms(jax.tree.map(jnp.asarray, mesh), config.steps))
        report("measuring", 2, 4)
        runs = {}
        for k, clipped in enumerate((False, True)):
            runs["clipped" if clipped else "unclipped"] = descend(config, starts(config), clipped)
            report("measuring", 3 + k, 4)
        some_b = np.linspace(interval[0] - 0.3, interval[1] + 0.3, 121)
        branches = np.asarray(limits(jnp.asarray(config.fold_w), jnp.asarray(some_b), 20_000))
    exact = folds(config.fold_w)
    off = max(abs(found - wanted) for found, wanted in zip(interval, exact, strict=True))
    ratio = float(norms.max() / np.median(norms))
    solved = {name: int(np.sum(one.E[:, -1] < SOLVED)) for name, one in runs.items()}
    left = {name: int(np.sum(one.left)) for name, one in runs.items()}
    peak = int(norms.argmax())
    numbers = {
        "verdict": verdict(
            {
                f"the folds are off by {off:.1e}": not off <= FOLD_TOLERANCE,
                f"the largest gradient norm is only {ratio:.3g} medians": not ratio > RATIO,
                f"only {solved['clipped']} of {config.starts} clipped runs end with E < {SOLVED:g}": solved["clipped"]
                < config.starts,
                f"{left['clipped']} clipped runs leave": left["clipped"] > 0,
                f"only {left['unclipped']} of {config.starts} unclipped runs leave": not left["unclipped"]
                > config.starts / 2,
            }
        ),
        "published": PUBLISHED,
        "folds": {"w": config.fold_w, "measured": interval, "exact": exact, "off_by": off},
        "gradient_norm": {
            "largest": float(norms.max()),
            "median": float(np.median(norms)),
            "ratio": ratio,
            "at": {"w": mesh.w[peak], "b": mesh.b[peak], "from_the_wall": mesh.b[peak] - wall(mesh.w[peak])},
        },
        "descent": {
            name: {
                "solved": solved[name],
                "left": left[name],
                "runs": config.starts,
                "final_E_quartiles": np.quantile(one.E[:, -1], (0.25, 0.5, 0.75)),
            }
            for name, one in runs.items()
        },
    }
    figure = figures.draw(w, b, norms.reshape(config.grid, config.grid), runs, wall, (some_b, branches, interval))
    return Result(numbers, _tables(config, numbers), {"cliff": figure})


def _tables(config, numbers):
    two, norm = numbers["folds"], numbers["gradient_norm"]
    laws = (
        (
            f"two stable states, w = {two['w']:g}: b from, to",
            ", ".join(f"{end:.4f}" for end in two["exact"]) + " (derived)",
            ", ".join(f"{end:.4f}" for end in two["measured"]),
        ),
        (f"largest / median gradient norm, {config.grid}² points", f"> {RATIO:g}", f"{norm['ratio']:,.0f}"),
        ("where: distance from the wall, along b", "0", f"{norm['at']['from_the_wall']:+.3f}"),
    )
    descent = tuple(
        (
            name,
            f"{row['solved']} of {row['runs']}",
            f"{row['left']} of {row['runs']}",
            ", ".join(f"{value:.1e}" for value in row["final_E_quartiles"]),
        )
        for name, row in numbers["descent"].items()
    )
    title = f"gradient descent, rate {config.learning_rate:g}, {config.updates} updates"
    return (
        Table("x_t = wσ(x_{t-1}) + b, E = (σ(x_50) - 0.7)²", ("", "expected", "measured"), laws),
        Table(title, ("gradient", f"end with E < {SOLVED:g}", "left the region", "quartiles of E at the end"), descent),
    )


STUDY = Study(
    name="cliff",
    claim="a bifurcation puts a wall into the error surface: gradient descent is thrown off it, clipped it is not",
    config=Config,
    quick={"grid": 60, "starts": 8, "updates": 2000},
    run=run,
)
