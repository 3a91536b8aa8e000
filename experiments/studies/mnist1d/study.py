"""MNIST-1D: ten digits as signals of 40 numbers, read one by one by a GRU; and the same numbers in a shuffled order.

    h_t = f(x_t, h_{t-1}; θ_h),   ŷ_T = g(h_T; θ_o),   F = L(ŷ_T, y)

What a network makes of a signal's neighbourhoods is gone when one permutation, the same for all signals, has been
applied: then far-apart steps belong together. A recurrent network loses most of its accuracy by that.

Source: Greydanus (2020), Scaling down deep learning; the signals are made by the package that came with it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import last_step, options, over_seeds, trained
from experiments.studies.mnist1d import figure as figures
from experiments.studies.mnist1d.task import Signals, signals
from experiments.study import Report, Result, Study, Table, verdict

CLASSES = 10
LEAST = 0.85  # mean accuracy in order: the published 91% less what another size and schedule may cost
PUBLISHED = {
    "accuracy in order": {"value": 0.91, "source": "Greydanus (2020), GRU", "tag": "read in the paper"},
    "accuracy shuffled": {"value": 0.57, "source": "Greydanus (2020), GRU", "tag": "read in the paper"},
}
ORDERS = {"in_order": "in order", "shuffled": "shuffled"}
MODEL = jb.rnn(jb.cells.gru(), jb.readouts.linear())


@dataclasses.dataclass(frozen=True)
class Config(trained.Flags):
    """MNIST-1D by a GRU, in order and shuffled."""

    seed: int = 0
    """Of the parameters and of the order of the signals; the signals are always the published ones."""
    quick: bool = False
    """Two seeds and a few epochs: the same code in seconds, short of the published values."""
    seeds: int = 5
    """Networks trained side by side."""
    epochs: int = 60
    """Passes over the 4000 signals for training."""
    hidden_size: int = 64
    """n."""
    batch_size: int = 100
    """B."""
    learning_rate: float = 0.005
    """The largest, of adamw with a cosine schedule."""
    clip_norm: float = 1.0
    """The largest norm of a gradient that is not scaled down."""
    weight_decay: float = 0.01
    """Of adamw."""

    def __post_init__(self):
        super().__post_init__()
        options.seed(self.seed)
        for name in ("seeds", "epochs", "hidden_size", "batch_size"):
            options.at_least(name, getattr(self, name), 1)
        options.positive("learning_rate", self.learning_rate)
        options.positive("clip_norm", self.clip_norm)
        options.at_least("weight_decay", self.weight_decay, 0)


def batches(config: Config, data: Signals) -> Callable[[int], jb.training.Batch]:
    """``[T, S, B, 1]`` by the number of the step, a seed's signals in its own order; the mask counts the last step."""
    size = len(data.train_labels)
    if config.batch_size > size:
        raise options.BadInputError(f"`--batch-size` must be at most {size}: got {config.batch_size}")
    # Seeds of different studies are apart by far more than there are networks in one.
    orders = [jb.training.shuffled(size, config.batch_size, seed=1000 * config.seed + s) for s in range(config.seeds)]
    T = len(data.train_xs)
    shape = (T, config.seeds, config.batch_size)
    last = np.broadcast_to((np.arange(T) == T - 1)[:, None, None], shape)

    def batch(k):
        chosen = np.stack([order.at(k) for order in orders])
        return jb.training.Batch(data.train_xs[:, chosen], np.broadcast_to(data.train_labels[chosen], shape), mask=last)

    return batch


@jax.jit
def accuracies(theta: jb.Theta, xs, labels):
    """The share of right answers of each seed, ``[S]``."""
    return jax.lax.map(lambda theta: last_step.evaluate(MODEL, theta, xs, labels)[1], theta)


def train(config: Config, order: str, report: Report) -> dict[str, Any]:
    """All seeds with the signals in one of the `ORDERS`: accuracies after some epochs and the last, ``[M, S]``."""
    data = signals(order == "shuffled")
    at_step = batches(config, data)
    per_epoch = len(data.train_labels) // config.batch_size
    schedule = optax.cosine_decay_schedule(config.learning_rate, per_epoch * config.epochs)
    epochs = sorted({*range(1, config.epochs + 1)[:: max(1, config.epochs // 15)], config.epochs})
    train_set, test_set = (tuple(map(jnp.asarray, part)) for part in (data[:2], data[2:]))

    def measure(theta):
        return [accuracy for part in (test_set, train_set) for accuracy in accuracies(theta, *part)]

    names = [f"{part}_accuracy_{s}" for part in ("test", "train") for s in range(config.seeds)]
    sizes = {"input_size": 1, "hidden_size": config.hidden_size, "output_size": CLASSES}
    fitted = trained.fit(
        config,
        over_seeds.estimator(trained.bptt(MODEL, last_step.LOSS, config.batch_size, config.devices)),
        over_seeds.optimizer(
            optax.chain(
                optax.clip_by_global_norm(config.clip_norm), optax.adamw(schedule, weight_decay=config.weight_decay)
            )
        ),
        over_seeds.init(MODEL, config.seed, config.seeds, **sizes),
        at_step,
        steps=per_epoch * config.epochs,
        steps_per_dispatch=per_epoch,
        observers=[trained.recorder(measure, [per_epoch * epoch for epoch in epochs], names)],
        report=report,
        name=order,
    )
    values = fitted.observed[0].values
    return {"epoch": np.array(epochs), "test": values[:, : config.seeds], "train": values[:, config.seeds :]}


def run(config: Config, report: Report) -> Result:
    """Trains on both orders, judges, and draws."""
    found = {order: train(config, order, report) for order in ORDERS}
    final = {order: one["test"][-1] for order, one in found.items()}
    numbers = {
        "verdict": verdict(failures({order: float(np.mean(values)) for order, values in final.items()})),
        "published": PUBLISHED,
        "test_accuracy": {
            order: {"mean": np.mean(values), "standard_error": over_seeds.standard_error(values), "seeds": values}
            for order, values in final.items()
        },
        "curves": found,
    }
    rows = tuple(
        (
            ORDERS[order],
            f"{published['value']:.0%}",
            f"{np.mean(values):.1%}" + ("" if len(values) == 1 else f" ± {over_seeds.standard_error(values):.1%}"),
            f"{np.mean(found[order]['train'][-1]):.1%}",
        )
        for (order, values), published in zip(final.items(), PUBLISHED.values(), strict=True)
    )
    table = Table(
        f"GRU, n = {config.hidden_size}, {config.epochs} epochs: mean of {config.seeds} seeds ± standard error",
        ("signals", "published", "test accuracy", "training accuracy"),
        rows,
    )
    return Result(numbers, (table,), {"mnist1d": figures.draw(found, ORDERS, PUBLISHED)})


def failures(means: dict[str, float]) -> dict[str, bool]:
    """What speaks against the claim, from the mean accuracies."""
    in_order, shuffled = (means[order] for order in ORDERS)
    return {
        f"in order the accuracy is {in_order:.1%}, below {LEAST:.0%}": not in_order >= LEAST,
        f"shuffled it is {shuffled:.1%}, not lower": not shuffled < in_order,
    }


STUDY = Study(
    name="mnist1d",
    claim="a GRU tells the digits of MNIST-1D by signals in order, and loses much when their steps are shuffled",
    config=Config,
    quick={"seeds": 2, "epochs": 4, "hidden_size": 24, "batch_size": 200},
    run=run,
)
