"""The order of two symbols far apart: learned by plain gradient descent, with its norm clipped, and with Ω as well.

    SGD      θ ← θ - η ∂F/∂θ
    SGD-C    θ ← θ - η g min(1, 1/‖g‖),   g = ∂F/∂θ
    SGD-CR   the same with g = ∂F/∂θ + α/L ∂Ω/∂θ,   Ω = Σ_t (‖c_tᵀ δ_t‖ / ‖δ_t‖ - 1)²

Clipping is against gradients that explode, Ω against those that vanish: it asks every step to hand the cotangent on
with its length. The question for each length L is how many of the seeds learn the task, with fewer than 1% errors
among 10,000 new sequences, within so many updates.

Two things in which Ω could be read otherwise. The weight α = 4 belongs to the mean over the steps, as in the authors'
code, not to the sum in their equation 9. That code squares ‖c_tᵀ δ_t‖ / ‖δ_t‖ first; here, as in the equation, it
doesn't, which makes the same α four times weaker near 1.

Source: Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, section 4.1 and
figure 7, and their code (pascanur/trainingRNNs).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import options, over_seeds, trained
from experiments.kit.devices import sharing
from experiments.studies.temporal_order import figure as figures
from experiments.studies.temporal_order.networks import MODELS, guarded, objective
from experiments.studies.temporal_order.task import ORDERS, SYMBOLS, temporal_order
from experiments.study import Report, Result, Study, Table, verdict

METHODS = {"sgd": "SGD", "sgd_c": "SGD-C", "sgd_cr": "SGD-CR"}
SOLVED = 0.01  # of the test sequences wrong, fewer than that
JUDGED_LENGTH, JUDGED_SHARE = 50, 0.8  # SGD-CR solves L = 50 in 4 of 5 seeds
PUBLISHED = {
    "rate of success": {
        "value": "SGD ≤ SGD-C ≤ SGD-CR at every length; SGD-CR succeeds in 5 of 5 runs up to L = 200",
        "source": "Pascanu, Mikolov and Bengio (2013), figure 7; at L = 50 we ask for 4 of 5",
        "tag": "read in the paper",
    },
}


@dataclasses.dataclass(frozen=True)
class Config(trained.Flags):
    """The temporal order task, learned by SGD, clipped SGD, and clipped SGD with Pascanu's Ω."""

    seed: int = 0
    """Of the parameters and of every sequence."""
    quick: bool = False
    """The shortest length and few updates: the same code in seconds, without the judged length."""
    updates: int = 30_000
    """At most so many, of each training; it ends when all seeds have learned."""
    lengths: tuple[int, ...] = (10, 20, 30, 50)
    """L."""
    seeds: int = 5
    """Networks trained side by side by each method at each length."""
    initialisation: Literal["sigmoid", "basic_tanh", "smart_tanh"] = "basic_tanh"
    """Of the paper. The default is the one that neither vanishes for certain (sigmoid) nor is made to remember."""
    hidden_size: int = 50
    """n."""
    batch_size: int = 20
    """B."""
    learning_rate: float = 0.01
    """η."""
    clip_norm: float = 1.0
    """The largest norm of a clipped gradient."""
    omega_weight: float = 4.0
    """α, of the mean over the steps."""
    test_size: int = 10_000
    """New sequences, the same for all."""
    check_every: int = 1000
    """Updates from one test to the next."""

    def __post_init__(self):
        super().__post_init__()
        options.seed(self.seed)
        if not self.lengths:
            raise options.BadInputError("`--lengths` must be at least 10 each: got nothing")
        for length in self.lengths:
            options.at_least("lengths", length, 10)
        for name in ("updates", "seeds", "hidden_size", "batch_size", "test_size", "check_every"):
            options.at_least(name, getattr(self, name), 1)
        for name in ("learning_rate", "clip_norm"):
            options.positive(name, getattr(self, name))
        options.at_least("omega_weight", self.omega_weight, 0)


def batches(config: Config, length: int) -> Callable[[int], jb.training.Batch]:
    """``[L, S, B]`` by the number of the update; the mask counts the last step of a sequence alone."""

    def draw(rng):
        symbols, classes = temporal_order(rng, length, config.batch_size)
        last = np.arange(length)[:, None] == length - 1
        classes, mask = (np.broadcast_to(one, symbols.shape) for one in (classes, last))
        return jb.training.Batch(symbols, classes, mask=mask)

    return over_seeds.batches(draw, config.seed, config.seeds)


def test_set(config: Config, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols ``[L, test_size]`` and classes, drawn as those of one more seed."""
    return temporal_order(np.random.default_rng([config.seed, config.seeds, 0]), length, config.test_size)


@functools.partial(jax.jit, static_argnums=0)
def error_rates(model: jb.Model, theta: jb.Theta, symbols, classes):
    """The share of wrong answers of each seed, ``[S]``."""

    def of_one(theta):
        xs = jax.nn.one_hot(symbols, SYMBOLS)
        h_T, _ = jb.unroll(model.cell, theta.h, xs, model.initial_state(theta, classes.shape))
        return jnp.mean(jnp.argmax(model.readout.apply(theta.o, h_T), axis=-1) != classes)

    return jax.lax.map(of_one, theta)  # one after the other: the states of one fit the cache


def all_solved(names: Sequence[str]) -> jb.training.Observer:
    """Ends the run when each of these errors has been below `SOLVED`, at whatever time; its state says which have."""

    def update(solved, progress):
        solved = solved | np.array([progress.scalars.get(name, 1.0) < SOLVED for name in names])
        return solved, progress._replace(stop=progress.stop or bool(solved.all()))

    return jb.training.Observer(lambda theta: np.zeros(len(names), bool), update)


def train(config: Config, method: str, length: int, report: Report) -> dict[str, Any]:
    """All seeds of one method at one length: error rates along the way, and after how many updates each succeeded."""
    model = MODELS[config.initialisation]
    of_symbols = objective(model, config.omega_weight if method == "sgd_cr" else 0.0)
    chosen = sharing(config.batch_size, config.devices)
    single = jb.estimators.from_objective(jb.data_parallel(of_symbols, chosen) if len(chosen) > 1 else of_symbols)
    sgd = optax.sgd(config.learning_rate)
    if method != "sgd":
        sgd = optax.chain(optax.clip_by_global_norm(config.clip_norm), sgd)
    sizes = {"input_size": SYMBOLS, "hidden_size": config.hidden_size, "output_size": ORDERS}
    test = tuple(map(jnp.asarray, test_set(config, length)))
    at = [*range(config.check_every, config.updates, config.check_every), config.updates]
    names = [f"error_{s}" for s in range(config.seeds)]
    fitted = trained.fit(
        config,
        over_seeds.estimator(guarded(single)),
        over_seeds.optimizer(sgd),
        over_seeds.init(model, config.seed, config.seeds, **sizes),
        batches(config, length),
        steps=config.updates,
        steps_per_dispatch=math.gcd(config.check_every, 100),
        observers=[trained.recorder(lambda theta: error_rates(model, theta, *test), at, names), all_solved(names)],
        report=report,
        name=f"{method}_{length}",
    )
    record = fitted.observed[0]
    updates, errors = np.array(at[: record.count]), record.values[: record.count]
    return {
        "updates": updates,
        "error_rates": errors,
        "updates_to_success": over_seeds.first_below(updates, errors, SOLVED),
    }


def run(config: Config, report: Report) -> Result:
    """Trains every method at every length, counts, judges, and draws."""
    lengths = sorted(set(config.lengths))
    found = {method: {length: train(config, method, length, report) for length in lengths} for method in METHODS}
    successes = {
        method: {length: int(np.isfinite(one["updates_to_success"]).sum()) for length, one in rows.items()}
        for method, rows in found.items()
    }
    numbers = {
        "verdict": verdict(failures(successes, config.seeds)),
        "published": PUBLISHED,
        "seeds": config.seeds,
        "runs": {
            method: {
                str(length): {
                    "successes": successes[method][length],
                    "interval_95": figures.wilson(successes[method][length], config.seeds),
                    **one,
                }
                for length, one in rows.items()
            }
            for method, rows in found.items()
        },
    }
    figure = figures.draw(found, METHODS, config.seeds, SOLVED)
    return Result(numbers, _tables(config, numbers), {"temporal_order": figure})


def failures(successes: dict[str, dict[int, int]], seeds: int) -> dict[str, bool]:
    """What speaks against the claim, from the number of successes by method and length."""
    reasons = {}
    for worse, better in itertools.pairwise(METHODS):
        for length, k in successes[worse].items():
            reason = f"{METHODS[worse]} beats {METHODS[better]} at L = {length}, {k} to {successes[better][length]}"
            reasons[reason] = k > successes[better][length]
    k = successes["sgd_cr"].get(JUDGED_LENGTH)
    reasons[f"L = {JUDGED_LENGTH} was not run"] = k is None
    reasons[f"SGD-CR solves L = {JUDGED_LENGTH} in {k} of {seeds}"] = k is not None and k < JUDGED_SHARE * seeds
    return reasons


def _tables(config, numbers):
    rows = []
    for method, by_length in numbers["runs"].items():
        for length, one in by_length.items():
            taken = np.sort(one["updates_to_success"])
            low, high = one["interval_95"]
            rows.append(
                (
                    METHODS[method],
                    length,
                    f"{one['successes']} of {config.seeds} ({low:.0%} to {high:.0%})",
                    ", ".join(f"{k:,.0f}" if np.isfinite(k) else "-" for k in taken),
                    f"{np.median(one['error_rates'][-1]):.1%}",
                )
            )
    title = (
        f"{config.initialisation}, n = {config.hidden_size}, at most {config.updates:,} updates of {config.batch_size}"
    )
    heads = ("method", "L", "successes (95%)", "updates to success, by seed", "median error at the end")
    return (Table(title, heads, tuple(rows)),)


STUDY = Study(
    name="temporal_order",
    claim="the order of two symbols far apart: clipping the gradient's norm helps SGD to learn it, and Ω helps further",
    config=Config,
    quick={"updates": 600, "lengths": (10,), "test_size": 1000, "check_every": 200},
    run=run,
)
