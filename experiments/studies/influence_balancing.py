"""Influence balancing: a parameter whose late effects outweigh the early ones leads every short truncation astray.

    s_t = A s_{t-1} + θ (1, …, 1, -1, …, -1)ᵀ        A = ½ I + ½ superdiagonal, 23 units, the sign is + for 10 of them
    L_t = ½ (s_t[1] - 1)²

θ reaches s[1] at once from the units with +, and later, and more of it, from those with -: at rest ds[1]/dθ = -6.

 1. At rest s = θ (I - A)⁻¹ σ, so s[1] = -6 θ and the loss is least at θ = -1/6.
 2. Truncated to K steps, ds[1]/dθ is Σ_{i<K} (Aⁱ σ)[1]. That is positive up to K = 40, and its mean over the steps of
    a window up to K = 109: descent walks away from the minimum, faster the further it is.

Source: Tallec and Ollivier (2017), Unbiasing truncated backpropagation through time; the thresholds are derived above.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import options, plots
from experiments.study import Report, Result, Study, Table, verdict

UNITS, POSITIVE = 23, 10
MINIMUM = -1 / 6
TOLERANCE = 0.01  # of θ at the end
THRESHOLDS = {"end": 40, "mean": 109}  # the largest K that points the wrong way
PUBLISHED = {
    "θ of the least loss": {"value": "-1/6", "source": "the fixed point at rest", "tag": "derived"},
    "largest K with the wrong direction": {
        "value": "40 with the loss at the window's end, 109 with its mean over the window",
        "source": "the setting of Tallec and Ollivier (2017)",
        "tag": "derived",
    },
}
_LONGEST = 128  # window whose direction is asked for
_POINTS = 300  # of a curve


@dataclasses.dataclass(frozen=True)
class Config:
    """θ of the influence-balancing problem by RTRL, UORO and truncated backpropagation, in float64."""

    seed: int = 0
    """Of UORO's signs."""
    quick: bool = False
    """Fewer repetitions and windows: a few seconds."""
    out: Path | None = None
    """The output folder; results/influence_balancing by default."""
    steps: int = 30_000
    """Of the stream; RTRL and UORO update at each."""
    start: float = 0.5
    """θ_0."""
    learning_rate: float = 1e-4
    """Of RTRL and of truncated backpropagation."""
    uoro_learning_rate: float = 1e-5
    """Of UORO."""
    windows: tuple[int, ...] = (1, 10, 40, 100)
    """K of the truncated streams, up to 109: with the mean over a window, and up to 40 with the loss at its end too."""
    seeds: int = 10
    """Repetitions of UORO."""

    def __post_init__(self):
        options.seed(self.seed)
        options.positive("learning_rate", self.learning_rate)
        options.positive("uoro_learning_rate", self.uoro_learning_rate)
        options.positive("windows", *self.windows)
        for K in self.windows:
            options.between("windows", K, 0, THRESHOLDS["mean"] + 1)
        options.at_least("steps", self.steps, max(self.windows))
        options.at_least("seeds", self.seeds, 1)


def _signs():
    return jnp.where(jnp.arange(UNITS) < POSITIVE, 1.0, -1.0)


def _step(theta_h, x_t, s_tm1):
    A = 0.5 * jnp.eye(UNITS) + 0.5 * jnp.eye(UNITS, k=1)
    return s_tm1 @ A.T + theta_h * _signs()


def _output(s_t):
    return s_t[..., :1]


def _initial_state(theta_h, batch_shape=()):
    return jnp.ones((*batch_shape, UNITS))


MODEL = jb.rnn(jb.cells.from_step(_step, initial_state=_initial_state, output=_output), jb.readouts.identity())


def directions(start: float) -> dict[str, np.ndarray]:
    """∂F/∂θ of a window of 1 … 128 steps that begins at rest, by truncated backpropagation.

    Returns:
        ``end``: F is the loss of the window's last step, ``[128]``; ``mean``: of all its steps.
    """
    estimator = jb.estimators.bptt(MODEL, jb.losses.l2_loss)
    theta, t = jb.Theta(jnp.float64(start), ()), jnp.arange(_LONGEST)
    rest = start * jnp.linalg.solve(0.5 * jnp.eye(UNITS) - 0.5 * jnp.eye(UNITS, k=1), _signs())
    xs, ys = jnp.zeros((_LONGEST, 0)), jnp.ones((_LONGEST, 1))

    def of(mask):  # what does not count reaches nothing: a window ends where its mask does
        return estimator.update(theta, estimator.init(theta, rest), xs, ys, mask=mask)[0].grads.h

    of_each = jax.jit(jax.vmap(of))
    masks = {"end": t == t[:, None], "mean": t <= t[:, None]}
    return {loss: np.asarray(of_each(mask)) for loss, mask in masks.items()}


def largest_wrong(gradients: np.ndarray) -> int:
    """The K up to which descent walks away from θ = -1/6, from above: K where the gradient is negative.

    >>> largest_wrong(np.array([-1.0, -2.0, 3.0]))
    2
    """
    right = np.flatnonzero(gradients > 0)
    return int(right[0]) if len(right) else len(gradients)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def walk(estimator, steps, window, start, rate, mask, key):
    """θ after each update of an online stream, ``[steps // window]``, by plain gradient descent."""
    xs, ys = jnp.zeros((window, 0)), jnp.ones((window, 1))

    def chunk(carry, k):
        theta, state = carry
        estimate, state = estimator.update(theta, state, xs, ys, mask=mask, key=jax.random.fold_in(key, k))
        theta = jax.tree.map(lambda p, g: p - rate * g, theta, estimate.grads)
        return (theta, state), theta.h

    theta = jb.Theta(start, ())
    begun = theta, estimator.init(theta, _initial_state(theta.h))
    return jax.lax.scan(chunk, begun, jnp.arange(steps // window))[1]


def walks(config: Config, report: Report) -> dict[str, np.ndarray]:
    """θ over time of every estimator: ``[updates]``; for UORO ``[seeds, updates]``."""
    loss, start = jb.losses.l2_loss, jnp.float64(config.start)
    key, rate, ones = jax.random.key(config.seed), config.learning_rate, functools.partial(jnp.ones, dtype=bool)
    bptt, uoro = jb.estimators.bptt(MODEL, loss), jb.estimators.uoro(MODEL, loss)
    found = {"RTRL": walk(jb.estimators.rtrl(MODEL, loss), config.steps, 1, start, rate, ones(1), key)}
    each_seed = functools.partial(walk, uoro, config.steps, 1, start, config.uoro_learning_rate, ones(1))
    found["UORO"] = jax.vmap(each_seed)(jax.random.split(key, config.seeds))
    for k, window in enumerate(config.windows):
        report("walking", k + 1, len(config.windows))
        run = functools.partial(walk, bptt, config.steps, window, start, rate)
        if window <= THRESHOLDS["end"]:
            found[f"truncated, K = {window}, end"] = run(jnp.arange(window) == window - 1, key)
        found[f"truncated, K = {window}, mean"] = run(ones(window), key)
    return {name: np.asarray(thetas) for name, thetas in found.items()}


def judge(wrong_up_to: dict[str, int], ends: dict[str, list[float]], start: float) -> str:
    """The verdict, from the largest K with the wrong direction, and from θ at the end of each walk."""
    exact = {name for name in ends if not name.startswith("truncated")}
    found = {
        f"the {loss} of a window points the wrong way up to K = {wrong_up_to[loss]}, not {K}": wrong_up_to[loss] != K
        for loss, K in THRESHOLDS.items()
    }
    for name, thetas in ends.items():
        if name in exact:
            off = float(np.max(np.abs(np.array(thetas) - MINIMUM)))
            found[f"{name} ends {off:.3f} from -1/6"] = not off <= TOLERANCE
        else:
            found[f"{name}: ends at {thetas[0]:.3f}, nearer to -1/6 than it started"] = not thetas[0] > start
    return verdict(found)


def run(config: Config, report: Report) -> Result:
    """Asks for directions, walks, judges, and draws."""
    with jax.enable_x64(True):
        gradients = directions(config.start)
        thetas = walks(config, report)
    wrong_up_to = {loss: largest_wrong(of) for loss, of in gradients.items()}
    ends = {name: np.atleast_1d(values[..., -1]).tolist() for name, values in thetas.items()}
    numbers: dict[str, Any] = {
        "verdict": judge(wrong_up_to, ends, config.start),
        "published": PUBLISHED,
        "tolerance": TOLERANCE,
        "largest_K_with_the_wrong_direction": wrong_up_to,
        "theta_at_the_end": ends,
    }
    rows = tuple(
        (name, _said(values), f"{np.max(np.abs(np.array(values) - MINIMUM)):.2g}") for name, values in ends.items()
    )
    tables = (
        Table(
            "the largest K whose direction is wrong",
            ("loss of a window", "measured", "derived"),
            tuple((loss, str(K), str(THRESHOLDS[loss])) for loss, K in wrong_up_to.items()),
        ),
        Table(f"θ from {config.start:g}, after {config.steps:,} steps", ("estimator", "θ", "furthest from -1/6"), rows),
    )
    return Result(numbers, tables, {"influence_balancing": _draw(gradients, thetas, config)})


def _said(values):
    return f"{values[0]:.5g}" if len(values) == 1 else f"{min(values):.5g} … {max(values):.5g} ({len(values)} seeds)"


def _draw(gradients: dict[str, np.ndarray], thetas: dict[str, np.ndarray], config: Config) -> Any:
    figure, axes = plots.figure(1, 2, width=9, height=3.8)
    direction, walked = axes[0]
    K = np.arange(1, _LONGEST + 1)
    for k, (loss, of) in enumerate(gradients.items()):
        colour, _, _ = plots.look(k)
        label = "loss at the window's end" if loss == "end" else "mean over the window"
        direction.plot(K, of, color=colour, label=label)
        direction.plot(THRESHOLDS[loss] + 0.5, 0, color=colour, marker="o", markersize=5)
    direction.axhline(0, color="0.25", linewidth=0.7)
    plots.label(
        direction,
        "(a) truncated at rest: below 0 is wrong; dots: derived",
        "window K (steps)",
        r"$\partial F/\partial\theta$",
    )
    direction.legend(frameon=False, fontsize=8)
    drawn = {name.removesuffix(", mean"): of for name, of in thetas.items() if not name.endswith("end")}
    for k, (name, values) in enumerate(drawn.items()):
        colour, style, _ = plots.look(k)
        values = np.atleast_2d(values)
        at = np.unique(np.linspace(0, values.shape[1] - 1, _POINTS).astype(int))
        for seed, of in enumerate(values):
            steps = (at + 1) * (config.steps // values.shape[1])
            walked.plot(steps, of[at], color=colour, linestyle=style, label=None if seed else name)
    walked.axhline(MINIMUM, color="0.25", linewidth=0.7)
    walked.set_ylim(-0.5, 2.5)
    plots.label(walked, r"(b) online; thin: $\theta = -1/6$", "steps", r"$\theta$")
    walked.legend(frameon=False, fontsize=8)
    return figure


STUDY = Study(
    name="influence_balancing",
    claim="truncated to K ≤ 40 steps (109 for their mean) descent walks away from θ = -1/6; RTRL and UORO reach it",
    config=Config,
    quick={"seeds": 2, "windows": (1, 10)},
    run=run,
)
