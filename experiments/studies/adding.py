"""The adding problem: which recurrent networks carry a number over a long gap, and what chrono initialisation buys.

    x_t = (u_t, m_t), u_t uniform on 0 … 1, m_t = 1 at two steps, one in each half          y = Σ_t m_t u_t

 1. Without memory of the marked numbers the best answer is the mean, 1, and the mean squared error is
    Var(u_1 + u_2) = 2/12 = 1/6. A tanh network is compared with the IRNN, relu with W_h = I to begin with, and the GRU.
 2. Chrono initialisation draws an LSTM's forget biases so that memories last 1 … T steps, b_f = log U(1, T - 1) and
    b_i = -b_f. How many updates it needs is compared with the same LSTM with b_f = 1 and b_i = 0.

All seeds of a network are trained as one, each on sequences of its own that are never seen twice, with Adam and the
norm of the gradient clipped, and until the error of each seed is below 2e-3 or the updates are used up. The errors
that are reported and judged are then measured on other sequences, so that this choice does not favour them.

Sources: Hochreiter and Schmidhuber (1997), section 5.4; Le, Jaitly and Hinton (2015), A simple way to initialize
recurrent networks of rectified linear units; Tallec and Ollivier (2018), Can recurrent neural networks warp time?
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import curve_panels, memory, options, over_seeds, trained
from experiments.study import Report, Result, Study, Table, verdict

LEARNED = 0.01  # mean squared error of a network that remembers; mean over the seeds, as the next
FAILED = 0.1  # of one that doesn't
SOLVED = 0.02  # what updates are counted to
FASTER = 2.0  # updates of the LSTM over those with chrono initialisation, at the largest T
DONE = 2e-3  # training ends here
PUBLISHED = {
    "mean squared error without memory": {
        "value": "1/6 = 0.1667",
        "source": "Var(u_1 + u_2), u uniform on 0 … 1",
        "tag": "derived",
    },
    "mean squared error at T = 600": {
        "value": "LSTM 0.164, GRU 5.3e-5, RNN 0.177",
        "source": "Bai, Kolter and Koltun (2018)",
        "tag": "read in the paper",
    },
    "chrono initialisation, T = 750": {
        "value": "about 7 times faster",
        "source": "Tallec and Ollivier (2018)",
        "tag": "read in the paper",
    },
}


@dataclasses.dataclass(frozen=True)
class Config(trained.Flags):
    """Two marked numbers to be added at the end, by five networks."""

    seed: int = 0
    """Of all parameters and sequences."""
    quick: bool = False
    """Short sequences and few updates: the same code in seconds, short of the claim."""
    seeds: int = 5
    """Networks of each kind, trained as one."""
    length: int = 150
    """T for the tanh network, the IRNN and the GRU."""
    chrono_lengths: tuple[int, ...] = (100, 200)
    """T for the LSTM with and without chrono initialisation."""
    hidden_size: int = 32
    """n."""
    irnn_hidden_size: int = 64
    """n of the IRNN."""
    updates: int = 6000
    """Of each training, at most."""
    batch_size: int = 32
    """B of each seed."""
    learning_rate: float = 5e-3
    """Of Adam."""
    irnn_learning_rate: float = 2e-4
    """At the start, for the IRNN, whose Adam is without momentum; a cosine takes it to 0 at the last update."""
    clip_norm: float = 1.0
    """The largest norm of a gradient that is not scaled down."""
    every: int = 50
    """So many updates are measured once."""
    watch_size: int = 512
    """Sequences that are measured on while it trains."""
    test_size: int = 4096
    """Sequences in the test at the end."""

    def __post_init__(self):
        super().__post_init__()
        options.seed(self.seed)
        for name in ("seeds", "hidden_size", "irnn_hidden_size", "batch_size", "every", "watch_size", "test_size"):
            options.at_least(name, getattr(self, name), 1)
        for name in ("learning_rate", "irnn_learning_rate", "clip_norm"):
            options.positive(name, getattr(self, name))
        options.at_least("length", self.length, 2)
        options.positive("chrono_lengths", *self.chrono_lengths)
        for length in self.chrono_lengths:
            options.at_least("chrono_lengths", length, 3)
        options.at_least("updates", self.updates, self.every)


class Training(NamedTuple):
    """One network at one T: a label for tables and figures, T, f, n, and the optimiser of clipped gradients."""

    label: str
    T: int
    cell: jb.Cell
    hidden_size: int
    adam: optax.GradientTransformation


def trainings(config: Config) -> dict[str, Training]:
    """Every training of the study, by its name."""
    initial, n, adam = jb.initializers, config.hidden_size, optax.adam(config.learning_rate)
    tanh = jb.cells.elman("tanh", W_h_init=initial.glorot_uniform)
    irnn = jb.cells.elman("relu", W_h_init=initial.identity())
    decay = optax.cosine_decay_schedule(config.irnn_learning_rate, config.updates)
    calm = optax.adam(decay, b1=0)  # steps in one direction add up, and W_h of an IRNN is soon large
    made = {
        "tanh": Training("tanh", config.length, tanh, n, adam),
        "irnn": Training("IRNN", config.length, irnn, config.irnn_hidden_size, calm),
        "gru": Training("GRU", config.length, jb.cells.gru(), n, adam),
    }
    for T in config.chrono_lengths:
        made[f"lstm_{T}"] = Training("LSTM", T, jb.cells.lstm(), n, adam)
        made[f"chrono_{T}"] = Training("LSTM, chrono", T, jb.cells.lstm(b_init=initial.chrono(T)), n, adam)
    return made


def train(config: Config, name: str, training: Training, report: Report) -> tuple[over_seeds.Curves, np.ndarray]:
    """All seeds of one training: their mean squared errors while they train, and in the test ``[S]``."""
    model = jb.rnn(training.cell, jb.readouts.linear())
    F = jb.objective(model, jb.losses.l2_loss)
    watched, test = (
        over_seeds.held_out(lambda rng, size=size: memory.adding(rng, training.T, (size,)), config.seed, which)
        for which, size in enumerate((config.watch_size, config.test_size))
    )

    @jax.jit
    def error(theta, batch):  # L is half the square
        return 2 * jax.vmap(lambda one: F(one, batch.xs, batch.ys, mask=batch.mask))(theta)

    def drawn(rng):
        return memory.adding(rng, training.T, (config.batch_size,))

    theta = over_seeds.init(
        model, config.seed, config.seeds, input_size=2, hidden_size=training.hidden_size, output_size=1
    )
    curves = over_seeds.train(
        config,
        trained.bptt(model, jb.losses.l2_loss, config.batch_size, config.devices),
        optax.chain(optax.clip_by_global_norm(config.clip_norm), training.adam),
        theta,
        over_seeds.batches(drawn, config.seed, config.seeds),
        lambda theta: error(theta, watched),
        report,
        name=name,
        steps=config.updates,
        every=config.every,
        solved=DONE,
    )
    return curves, np.asarray(error(curves.theta, test))


def ratio(plain: np.ndarray, chrono: np.ndarray, updates: int) -> float:
    """Median updates of the LSTM over those with chrono initialisation; NaN when the latter is not solved.

    An LSTM that is not solved counts with the updates it had, so that the ratio is then a lower bound.

    >>> ratio(np.array([900.0, np.inf, np.inf]), np.array([300.0, 200.0, 500.0]), 1200)
    4.0
    """
    needed = np.median(chrono)
    return float(np.median(np.minimum(plain, updates)) / needed) if np.isfinite(needed) else math.nan


def judge(errors: dict[str, np.ndarray], ratios: dict[int, float]) -> str:
    """The verdict, from the errors of each seed in the test, by the name of the training, and ratios by T."""
    gru, irnn, tanh = (float(np.mean(errors[name])) for name in ("gru", "irnn", "tanh"))
    T = max(ratios)
    faster = f"is {ratios[T]:.2g} times as fast" if np.isfinite(ratios[T]) else f"does not get to {SOLVED}"
    return verdict(
        {
            f"the GRU's error is {gru:.3g}": not gru < LEARNED,
            f"the IRNN's error is {irnn:.3g}": not irnn < LEARNED,
            f"the tanh network's error is {tanh:.3g}": not tanh > FAILED,
            f"with chrono initialisation the LSTM {faster} at T = {T}": not ratios[T] >= FASTER,
        }
    )


def run(config: Config, report: Report) -> Result:
    """Trains every network, counts updates, and draws."""
    todo = trainings(config)
    found = {name: train(config, name, training, report) for name, training in todo.items()}
    curves = {name: one for name, (one, _) in found.items()}
    errors = {name: each for name, (_, each) in found.items()}
    solved = {name: over_seeds.first_below(one.at, one.values, SOLVED) for name, one in curves.items()}
    ratios = {T: ratio(solved[f"lstm_{T}"], solved[f"chrono_{T}"], config.updates) for T in config.chrono_lengths}
    numbers = {
        "verdict": judge(errors, ratios),
        "published": PUBLISHED,
        "floor": memory.ADDING_FLOOR,
        "trainings": {
            name: {
                "T": training.T,
                "hidden_size": training.hidden_size,
                "error": errors[name],
                "mean_error": np.mean(errors[name]),
                "standard_error": over_seeds.standard_error(errors[name]),
                "updates_to_0.02": solved[name],
                "updates": curves[name].at[-1],
            }
            for name, training in todo.items()
        },
        "lstm_over_chrono": ratios,
        "curves": {name: {"updates": one.at, "error": one.values} for name, one in curves.items()},
    }
    return Result(numbers, _tables(config, todo, numbers), {"adding": _figure(config, todo, curves)})


def _tables(config, todo, numbers):
    rows = tuple(
        (
            todo[name].label,
            str(row["T"]),
            f"{row['mean_error']:.3g} ± {row['standard_error']:.1g}",
            ", ".join(f"{error:.2g}" for error in row["error"]),
            ", ".join(f"{steps:.0f}" if np.isfinite(steps) else "–" for steps in row["updates_to_0.02"]),
        )
        for name, row in numbers["trainings"].items()
    )
    title = f"mean squared error on {config.test_size} sequences, without memory {memory.ADDING_FLOOR:.4f}"
    ratios = tuple(
        (str(T), f"{value:.2f}" if np.isfinite(value) else "–") for T, value in numbers["lstm_over_chrono"].items()
    )
    return (
        Table(title, ("network", "T", "mean ± standard error", "each seed", f"updates to {SOLVED:g}"), rows),
        Table("median updates, LSTM / with chrono initialisation", ("T", "ratio"), ratios),
    )


def _figure(config, todo, curves):
    def panel(*names):
        return {todo[name].label: curves[name] for name in names}, memory.ADDING_FLOOR

    panels = {f"three networks, T = {config.length}": panel("tanh", "irnn", "gru")}
    for T in config.chrono_lengths:
        panels[f"chrono initialisation, T = {T}"] = panel(f"lstm_{T}", f"chrono_{T}")
    return curve_panels.draw(panels, "mean squared error")


STUDY = Study(
    name="adding",
    claim="the GRU and the IRNN add two numbers far apart where a tanh network cannot, and chrono initialisation makes"
    " the LSTM faster",
    config=Config,
    quick={
        "seeds": 3,
        "length": 20,
        "chrono_lengths": (10, 20),
        "hidden_size": 12,
        "irnn_hidden_size": 16,
        "updates": 200,
        "every": 20,
        "watch_size": 128,
        "test_size": 512,
    },
    run=run,
)
