"""Bach's chorales: which of 88 pitches sound next, from all that sounded before, by three cells of equal size.

    ŷ_t = g(h_t; θ_o),   h_t = f(x_t, h_{t-1}; θ_h)          F = 1/Σ_k T_k  Σ_k Σ_t L(ŷ_t, roll_{t+1})  over pieces k

L is the cross-entropy summed over pitches, in nats. The pieces have lengths of their own: they are padded at the end,
and F averages over the steps that they have. Each training ends when the pieces for validation have not got better for
long, and the θ that was best on those is measured on the test pieces. So few pieces are soon learned by heart: noise on
the weights holds against it.

Sources: Boulanger-Lewandowski, Bengio and Vincent (2012), Modeling temporal dependencies in high-dimensional
sequences, for the split and the measure; Chung, Gulcehre, Cho and Bengio (2014), Empirical evaluation of gated
recurrent neural networks on sequence modeling, for the cells and their sizes.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import options, over_seeds, trained
from experiments.studies.chorales import figure as figures
from experiments.studies.chorales import music
from experiments.study import Report, Result, Study, Table, verdict

CELLS = {"elman": jb.cells.elman(), "gru": jb.cells.gru(), "lstm": jb.cells.lstm()}
UNITS = {"elman": 100, "gru": 46, "lstm": 36}  # about 20,000 weights each, as Chung et al. (2014)
JUDGE = {"elman": 9.3, "gru": 8.8, "lstm": 8.8}  # nats on the test pieces, mean over seeds; the margins are ours
NAMES = {"elman": "tanh", "gru": "GRU", "lstm": "LSTM"}
LOSS = jb.losses.sigmoid_binary_cross_entropy
_CHUNG = "Chung et al. (2014), JSB Chorales, test set"
_BAI = "Bai, Kolter and Koltun (2018), JSB Chorales, networks of 300,000 weights"
PUBLISHED = {
    "NLL of tanh, 100 units": {"value": 9.10, "source": _CHUNG, "tag": "read second-hand"},
    "NLL of GRU, 46 units": {"value": 8.54, "source": _CHUNG, "tag": "read second-hand"},
    "NLL of LSTM, 36 units": {"value": 8.67, "source": _CHUNG, "tag": "read second-hand"},
    "NLL of tanh, GRU, LSTM, larger": {"value": "8.91, 8.43, 8.45", "source": _BAI, "tag": "read in the paper"},
}


@dataclasses.dataclass(frozen=True)
class Config(trained.Flags):
    """JSB chorales by a tanh network, a GRU and an LSTM, each with early stopping."""

    seed: int = 0
    """Of the parameters and of the order of the pieces."""
    quick: bool = False
    """One seed and a few epochs: the same code in seconds, short of the published values."""
    data: Path | None = None
    """JSB_Chorales.mat, or the folder that it is in; downloaded once when it isn't given."""
    seeds: int = 5
    """Trainings of each cell."""
    epochs: int = 300
    """The most passes over the training pieces."""
    patience: int = 20
    """After so many passes without a better validation a training ends."""
    batch_size: int = 16
    """B, pieces of similar lengths."""
    devices: int | None = 1
    """How many devices share a batch, as far as they divide it; so small a batch gains nothing by more than one."""
    learning_rate: float = 0.007
    """Of adam."""
    clip_norm: float = 1.0
    """The largest global norm of a gradient that is not scaled down."""
    weight_noise: float = 0.075
    """Standard deviation of the noise on every weight while learning, drawn anew for each batch."""

    def __post_init__(self):
        super().__post_init__()
        options.seed(self.seed)
        for name in ("seeds", "epochs", "patience", "batch_size"):
            options.at_least(name, getattr(self, name), 1)
        options.positive("learning_rate", self.learning_rate)
        options.positive("clip_norm", self.clip_norm)
        options.at_least("weight_noise", self.weight_noise, 0)


class Trained(NamedTuple):
    """One training.

    Attributes:
        valid: nats on the validation pieces after each epoch, NaN after the end.
        best: the epoch of the best.
        test: nats on the test pieces, of θ at that epoch.
        weights: how many numbers θ has.
    """

    valid: np.ndarray
    best: int
    test: float
    weights: int


def train(config: Config, cell: str, k: int, rolls: music.Rolls, report: Report) -> Trained:
    """The training of a cell from the k-th seed."""
    model = jb.rnn(CELLS[cell], jb.readouts.linear())
    theta = model.init(
        jax.random.fold_in(jax.random.key(config.seed), k),
        input_size=music.PITCHES,
        hidden_size=UNITS[cell],
        output_size=music.PITCHES,
    )
    per_epoch = len(rolls.train) // config.batch_size
    evaluate = jb.training.evaluator(model, LOSS)
    valid, test = ([music.padded(pieces)] for pieces in (rolls.valid, rolls.test))
    stopping = jb.training.early_stopping(
        lambda theta: evaluate(theta, valid), every=per_epoch, patience=config.patience
    )
    fitted = trained.fit(
        config,
        noisy(trained.bptt(model, LOSS, config.batch_size, config.devices), config.weight_noise),
        _optimizer(config.learning_rate, config.clip_norm),
        theta,
        music.batches(rolls.train, config.batch_size, (config.seed, k)),
        steps=per_epoch * config.epochs,
        steps_per_dispatch=1,  # lengths change from batch to batch
        observers=[stopping, trained.history("validation_loss", config.epochs)],
        report=report,
        name=f"{cell}_{k}",
        key=jax.random.fold_in(jax.random.key(config.seed), config.seeds + k),
    )
    best, record = fitted.observed
    weights = sum(leaf.size for leaf in jax.tree.leaves(theta))
    return Trained(record.values[:, 0], int(best.step) // per_epoch, evaluate(best.theta, test), weights)


@functools.cache  # the same object for every seed: compiled once a cell
def noisy(estimator: jb.GradientEstimator, scale: float) -> jb.GradientEstimator:
    """The estimator at θ + scale · ε, ε ~ N(0, 1) anew for each batch: F averaged over θ's neighbourhood.

    Source: Graves (2011), Practical variational inference for neural networks, with a variance that stays as it is.
    """

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key: Any = None):
        leaves, treedef = jax.tree.flatten(theta)
        keys = jax.random.split(key, len(leaves))
        moved = [
            leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
        ]
        return estimator.update(treedef.unflatten(moved), state, xs, ys, mask=mask, lengths=lengths, key=key)

    return jb.GradientEstimator(estimator.init, update)


@functools.cache  # the same object for every seed: compiled once a cell
def _optimizer(learning_rate, clip_norm):
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate))


def run(config: Config, report: Report) -> Result:
    """Reads the pieces, trains each cell from each seed, and measures beside the two floors."""
    rolls = music.load(music.JSB, config.data)
    if len(rolls.train) < config.batch_size:
        raise options.BadInputError(f"`--batch-size` must be at most {len(rolls.train)}: got {config.batch_size}")
    floors = music.floors(rolls.train, rolls.test)
    runs = {cell: [train(config, cell, k, rolls, report) for k in range(config.seeds)] for cell in CELLS}
    nats = {cell: np.array([one.test for one in runs[cell]]) for cell in CELLS}
    numbers = {
        "verdict": judged({cell: float(tests.mean()) for cell, tests in nats.items()}),
        "published": PUBLISHED
        | {
            f"NLL of {name}": {
                "value": round(value, 4),
                "source": f"fitted to the training pieces: {how}",
                "tag": "derived",
            }
            for name, value, how in (
                ("unigram", floors.unigram, "how often each pitch sounds"),
                ("Markov", floors.markov, "how often it does after itself and after its silence"),
            )
        },
        "floors": floors._asdict(),
        "test_nll": {
            cell: {
                "mean": tests.mean(),
                "standard_error": over_seeds.standard_error(tests),
                "seeds": tests,
                "at_most": JUDGE[cell],
            }
            for cell, tests in nats.items()
        },
        "validation_nll": {cell: [np.nanmin(one.valid) for one in ones] for cell, ones in runs.items()},
        "best_epoch": {cell: [one.best for one in ones] for cell, ones in runs.items()},
        "weights": {cell: ones[0].weights for cell, ones in runs.items()},
        "pieces": {part: len(pieces) for part, pieces in rolls._asdict().items()},
        "steps_predicted_in_test": sum(len(roll) - 1 for roll in rolls.test),
    }
    curves = {NAMES[cell]: np.array([one.valid for one in ones]) for cell, ones in runs.items()}
    published = {NAMES[cell]: entry["value"] for cell, entry in zip(CELLS, PUBLISHED.values(), strict=False)}
    figure = figures.draw(curves, {NAMES[cell]: tests for cell, tests in nats.items()}, floors, published)
    return Result(numbers, (_table(config, numbers),), {"chorales": figure})


def judged(means: dict[str, float]) -> str:
    """The verdict on mean test nats by cell."""
    return verdict(
        {
            f"{NAMES[cell]} needs {mean:.2f} nats a step, more than {JUDGE[cell]}": not mean <= JUDGE[cell]
            for cell, mean in means.items()
        }
    )


def _table(config, numbers):
    floors = numbers["floors"]
    rows = [("unigram", "", "", f"{floors['unigram']:.2f}"), ("Markov, each pitch", "", "", f"{floors['markov']:.2f}")]
    for (cell, found), published in zip(numbers["test_nll"].items(), PUBLISHED.values(), strict=False):
        error = "" if math.isnan(found["standard_error"]) else f" ± {found['standard_error']:.2f}"
        weights = f"{numbers['weights'][cell]:,}"
        rows.append(
            (f"{NAMES[cell]}, {UNITS[cell]} units", weights, f"{published['value']:.2f}", f"{found['mean']:.2f}{error}")
        )
    title = f"test pieces, nats a step: mean of {config.seeds} seed{'s' * (config.seeds > 1)} ± standard error"
    return Table(title, ("", "weights", "Chung et al. (2014)", "measured"), tuple(rows))


STUDY = Study(
    name="chorales",
    claim="gated cells predict Bach's chorales to the published likelihood, a tanh network a little worse",
    config=Config,
    quick={"seeds": 1, "epochs": 4},
    run=run,
)
