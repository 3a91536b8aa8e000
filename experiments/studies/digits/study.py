"""Handwritten digits read one pixel at a time, by a cell trained with the hand-written gradient.

    h_t = f(x_t, h_{t-1}; θ_h),  t = 1 … 64          ŷ_64 = g(h_64; θ_o)          F = -log softmax(ŷ_64)[digit]

The only target is at the end, so the gradient of the first pixel has 64 Jacobians in it. Besides the accuracy: the
gradient of this very model and data against ``jax.grad``, ‖∂F/∂h_t‖ before and after training, and how many training
steps a second the hand-written rule makes next to ``jax.grad`` of the plain scan.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import last_step, options, timing, trained
from experiments.studies.digits import figure as figures
from experiments.studies.digits import task as data
from experiments.study import Report, Result, Study, Table, verdict

ACCURACY = 0.95
GRADIENT_ERROR = 1e-10
CELLS = {"lstm": jb.cells.lstm, "gru": jb.cells.gru, "elman": jb.cells.elman}


@dataclasses.dataclass(frozen=True)
class Config(trained.Flags):
    """Real 8×8 digits, one pixel a step, trained with the hand-written gradient."""

    seed: int = 0
    """Of the split, the parameters, the order of the images and their shifts."""
    quick: bool = False
    """A few epochs: the same code in seconds, short of the accuracy."""
    cell: Literal["lstm", "gru", "elman"] = "lstm"
    """f."""
    hidden_size: int = 64
    """n."""
    epochs: int = 160
    """Passes over the training images."""
    batch_size: int = 64
    """B."""
    learning_rate: float = 0.01
    """At the start; a cosine takes it to 0."""
    weight_decay: float = 1e-4
    """Of adamw."""
    clip_norm: float = 1.0
    """The largest global norm of a gradient that is not scaled down."""
    shift: int = 1
    """Training images move by up to so many pixels, at random."""
    rounds: int = 9
    """Of timing; each runs one epoch by both rules."""

    def __post_init__(self):
        super().__post_init__()
        options.seed(self.seed)
        for name in ("hidden_size", "epochs", "batch_size", "rounds"):
            options.at_least(name, getattr(self, name), 1)
        options.positive("learning_rate", self.learning_rate)
        options.positive("clip_norm", self.clip_norm)
        options.at_least("weight_decay", self.weight_decay, 0)
        options.between("shift", self.shift, -1, data.SIDE)


class Curves(NamedTuple):
    """At some epochs and the last: F and accuracy on the training images, not shifted, and on the test images."""

    epoch: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray


def batches(config: Config, split: data.Split) -> Callable[[int], jb.training.Batch]:
    """Shuffled, shifted batches by the number of the step; the mask counts the last step of a sequence alone."""
    per = per_epoch(config, split)
    order = jb.training.shuffled(len(split.train_images), config.batch_size, seed=config.seed)
    shape = (data.PIXELS, config.batch_size)
    last = np.broadcast_to(np.arange(data.PIXELS)[:, None] == data.PIXELS - 1, shape)

    @functools.lru_cache(maxsize=1)
    def moved(epoch):
        return data.shifted(split.train_images, np.random.default_rng([config.seed, epoch, 1]), config.shift)

    def batch(k):
        chosen = order.at(k)
        labels = np.broadcast_to(split.train_labels[chosen], shape)
        return jb.training.Batch(data.pixel_by_pixel(moved(k // per)[chosen]), labels, mask=last)

    return batch


def per_epoch(config: Config, split: data.Split) -> int:
    """Whole batches in one pass."""
    if len(split.train_images) < config.batch_size:
        raise options.BadInputError(
            f"`--batch-size` must be at most {len(split.train_images)}: got {config.batch_size}"
        )
    return len(split.train_images) // config.batch_size


def train(config, model, estimator, optimizer, theta, split, report) -> tuple[jb.training.Fit, Curves, float]:
    """Trains; returns the fit, the curves and the seconds that it took here without evaluation."""
    train_set, test_set = (
        (jnp.asarray(data.pixel_by_pixel(images)), jnp.asarray(labels)) for images, labels in (split[:2], split[2:])
    )
    per, evaluating = per_epoch(config, split), 0.0
    epochs = sorted({*range(1, config.epochs + 1)[:: max(1, config.epochs // 40)], config.epochs})

    def measure(theta):
        nonlocal evaluating
        jax.block_until_ready(theta)
        start = time.perf_counter()
        measured = (*last_step.evaluate(model, theta, *train_set), *last_step.evaluate(model, theta, *test_set))
        numbers = [float(number) for number in measured]
        evaluating += time.perf_counter() - start
        return numbers

    start = time.perf_counter()
    result = trained.fit(
        config,
        estimator,
        optimizer,
        theta,
        batches(config, split),
        steps=per * config.epochs,
        steps_per_dispatch=per,
        observers=[trained.recorder(measure, [per * epoch for epoch in epochs], Curves._fields[1:])],
        report=report,
    )
    jax.block_until_ready(result.theta)
    seconds = time.perf_counter() - start - evaluating
    return result, Curves(np.array(epochs, float), *result.observed[0].values.T), seconds


def run(config: Config, report: Report) -> Result:
    """Checks, trains, checks again, times, and draws."""
    split = data.digits(config.seed)
    steps = per_epoch(config, split) * config.epochs
    model = jb.rnn(CELLS[config.cell](), jb.readouts.linear())
    estimator = trained.bptt(model, last_step.LOSS, config.batch_size, config.devices)
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm), optax.adamw(schedule, weight_decay=config.weight_decay)
    )
    theta_0 = model.init(
        jax.random.key(config.seed), input_size=1, hidden_size=config.hidden_size, output_size=data.CLASSES
    )
    fitted, curves, seconds = train(config, model, estimator, optimizer, theta_0, split, report)
    theta = fitted.theta

    test_xs, test_labels = jnp.asarray(data.pixel_by_pixel(split.test_images)), jnp.asarray(split.test_labels)
    first = jax.tree.map(jnp.asarray, batches(config, split)(0))
    checks, norms = {}, {}
    for k, (moment, parameters) in enumerate((("initial", theta_0), ("trained", theta))):
        checks[moment] = last_step.check(model, parameters, first.xs, first.ys, mask=first.mask)
        norms[moment] = jax.tree.map(np.asarray, last_step.delta_norms(model, parameters, test_xs, test_labels))
        report("checking gradients", k + 1, 2)
    first_pass = map(batches(config, split), range(per_epoch(config, split)))
    epoch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *first_pass)
    one_device = jb.estimators.bptt(model, last_step.LOSS)
    estimators = {"hand_written": one_device, "jax_grad": timing.plain_jax(model, last_step.LOSS)}
    if estimator != one_device:
        estimators["hand_written_on_all_devices"] = estimator
    rates = timing.steps_per_second(estimators, optimizer, theta, epoch, config.rounds, report)

    worst = max(row.autodiff for rows in checks.values() for row in rows.values())
    accuracy = float(curves.test_accuracy[-1])
    numbers = {
        "verdict": verdict(
            {
                f"test accuracy {accuracy:.1%} is below {ACCURACY:.0%}": not accuracy >= ACCURACY,
                f"the gradient is off jax.grad by {worst:.1e}": not worst <= GRADIENT_ERROR,
            }
        ),
        "test_accuracy": accuracy,
        "test_images": len(split.test_labels),
        "training_steps": steps,
        "worst_gradient_error": worst,
        "gradient_errors": {
            moment: {
                leaf: {"jax_grad": row.autodiff, "differences": row.differences, "uncertainty": row.uncertainty}
                for leaf, row in rows.items()
            }
            for moment, rows in checks.items()
        },
        "curves": curves._asdict(),
        "median_delta_norm_by_step": {
            moment: {part: np.median(values, axis=1) for part, values in parts.items()}
            for moment, parts in norms.items()
        },
        "timing": {
            "training_seconds": seconds,
            "steps_in_that_time": len(fitted.metrics.loss),  # fewer than all when the run was gone on with
            "steps_per_second": {
                name: {**timing.spread(values)._asdict(), "rounds": values} for name, values in rates.items()
            },
            "ratio_hand_written_to_jax_grad": timing.spread(rates["hand_written"] / rates["jax_grad"])._asdict(),
        },
    }
    drawn = {"curves": figures.curves(curves), "gradient_by_step": figures.delta_norms(norms)}
    return Result(numbers, _tables(config, numbers), drawn)


_REFERENCES = ("jax.grad", "differences", "uncertain by")
_LABELS = ("hand-written", "jax.grad", "hand-written on all devices")


def _tables(config, numbers):
    curves, times = numbers["curves"], numbers["timing"]
    outcome = (
        ("test accuracy", f"{numbers['test_accuracy']:.2%} of {numbers['test_images']}"),
        ("training accuracy", f"{curves['train_accuracy'][-1]:.2%}"),
        ("training", f"{times['steps_in_that_time']} steps in {times['training_seconds']:.1f} s with compiling"),
        *(
            (f"steps a second, {label}", f"{rate['median']:.1f} ({rate['low']:.1f} to {rate['high']:.1f})")
            for label, rate in zip(_LABELS, times["steps_per_second"].values(), strict=False)
        ),
    )
    initial, trained = numbers["gradient_errors"].values()
    errors = tuple(
        (leaf, *(f"{moment[leaf][reference]:.1e}" for moment in (initial, trained) for reference in row))
        for leaf, row in initial.items()
    )
    return (
        Table(f"{config.cell}, n = {config.hidden_size}, {config.epochs} epochs", ("", "measured"), outcome),
        Table(
            "hand-written gradient in float64, worst relative error against jax.grad and against central differences, "
            "and what these are uncertain by",
            ("leaf", *(f"{moment}: {what}" for moment in ("initial", "trained") for what in _REFERENCES)),
            errors,
        ),
    )


STUDY = Study(
    name="digits",
    claim="an LSTM reads real handwritten digits pixel by pixel, trained with the hand-written gradient",
    config=Config,
    quick={"epochs": 14, "rounds": 3},
    run=run,
)
