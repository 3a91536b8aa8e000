"""How long a string a sparse GRU learns to copy online, by how much of the past its gradient sees.

    a_t ≈ b_t + c_t a_{t-1},      θ updated at every step that has a loss, inside the sequence

L bits, a marker, then L blanks at which the bits are due. L grows by one when the running mean of the loss falls below
0.15 bits a symbol. So the length reached in a number of steps says how good the gradient is. What is kept of a_t:

    RTRL       all                                  SnAp-1     a unit's influence on itself
    SnAp-2     what two steps reach                 e-prop     the same, by the leak z_t alone
    UORO       all, as one random outer product

RFLO is of rate networks. What it does there, leave the recurrent weights out of c_t, is e-prop in a GRU.

Source: Menick et al. (2021), A practical sparse approximation for real time recurrent learning. The sizes are smaller
here, and the published lengths are no target: the order is.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import online, options, over_seeds, plots
from experiments.study import Report, Result, Study, Table, verdict

THRESHOLD = 0.15  # bits a symbol
MEMORY = 0.8  # of the running mean, a sequence
CLEAR = 2.0  # standard errors that a difference must exceed, and that "the same" must not
PUBLISHED = {
    "SnAp-1 against UORO": {
        "value": "SnAp-1 substantially outperforms UORO; SnAp-n is RTRL for a large n",
        "source": "Menick et al. (2021)",
        "tag": "read in the abstract",
    }
}
ORDER = (("SnAp-2", "SnAp-1"), ("SnAp-1", "e-prop"), ("SnAp-1", "UORO"))  # better, worse
_BITS, _MARKER, _BLANK = 2, 2, 3


@dataclasses.dataclass(frozen=True)
class Config:
    """The length that a sparse GRU learns to copy in a number of steps, for five gradients that are ready online."""

    seed: int = 0
    """Of mask, parameters and bits."""
    quick: bool = False
    """A few hundred steps: the same code in seconds."""
    out: Path | None = None
    """The output folder; results/copy_curriculum by default."""
    hidden_size: int = 32
    """Units of the GRU."""
    sparsity: float = 0.75
    """The share of the weights W_x and W_h that are zero for good."""
    steps: int = 24_000
    """Symbols read."""
    batch_size: int = 8
    """Strings at once, all of one length."""
    learning_rate: float = 3e-3
    """Of Adam."""
    longest: int = 60
    """The length at which the curriculum ends."""
    seeds: int = 5
    """Repetitions, for the error bars."""

    def __post_init__(self):
        options.seed(self.seed)
        options.at_least("hidden_size", self.hidden_size, 1)
        options.between("sparsity", self.sparsity, 0, 1)
        options.at_least("steps", self.steps, 1)
        options.at_least("batch_size", self.batch_size, 1)
        options.positive("learning_rate", self.learning_rate)
        options.at_least("longest", self.longest, 1)
        options.at_least("seeds", self.seeds, 2)


class Stream(NamedTuple):
    """Where the task stands.

    Attributes:
        position: of the next symbol in its string, 0 … 2L.
        length: L.
        bits: ``[longest, B]``, of this string.
        total: the loss of this string so far, in bits.
        average: the running mean of the loss a symbol, since L grew.
    """

    position: jax.Array
    length: jax.Array
    bits: jax.Array
    total: jax.Array
    average: jax.Array


def start(longest: int, batch_size: int) -> Stream:
    """Before the first string, of one bit."""
    return Stream(jnp.int32(0), jnp.int32(1), jnp.zeros((longest, batch_size), jnp.int32), jnp.zeros(()), jnp.ones(()))


def symbol(stream: Stream, key: jax.Array) -> tuple[Stream, jax.Array, jax.Array, jax.Array]:
    """The stream with its bits drawn, x_t ``[B, 4]``, y_t ``[B]``, and whether y_t is due."""
    new = jax.random.bernoulli(key, 0.5, stream.bits.shape).astype(jnp.int32)
    bits = jnp.where(stream.position == 0, new, stream.bits)
    is_due = stream.position > stream.length
    shown = jnp.where(is_due, _BLANK, jnp.where(stream.position == stream.length, _MARKER, bits[stream.position]))
    x_t = jax.nn.one_hot(jnp.broadcast_to(shown, bits.shape[1:]), _BITS + 2)
    return stream._replace(bits=bits), x_t, bits[stream.position - stream.length - 1].astype(x_t.dtype), is_due


def moved(stream: Stream, L_t: jax.Array, is_due: jax.Array) -> Stream:
    """After a symbol with the loss L_t: the next one of the string, or a new string, one longer where it is time."""
    total = stream.total + jnp.where(is_due, L_t, 0.0)
    is_end = stream.position == 2 * stream.length
    average = jnp.where(is_end, MEMORY * stream.average + (1 - MEMORY) * total / stream.length, stream.average)
    grows = is_end & (average < THRESHOLD) & (stream.length < len(stream.bits))
    return Stream(
        position=jnp.where(is_end, 0, stream.position + 1),
        length=stream.length + grows,
        bits=stream.bits,
        total=jnp.where(is_end, 0.0, total),
        average=jnp.where(grows, 1.0, average),
    )


def bits_of(logit_t: jax.Array, y_t: jax.Array) -> jax.Array:
    """-log₂ p(y_t), one number a member."""
    return optax.sigmoid_binary_cross_entropy(logit_t[..., 0], y_t) / jnp.log(2.0)


def network(config: Config) -> jb.Model:
    """The sparse GRU, with a mask that all seeds share, and one logit."""
    rng = np.random.default_rng(config.seed)
    n = config.hidden_size
    W_x, W_h = (rng.random((3 * n, columns)) >= config.sparsity for columns in (_BITS + 2, n))
    return jb.rnn(online.sparse_gru(W_x, W_h), jb.readouts.linear())


def estimators(model: jb.Model) -> dict[str, jb.GradientEstimator]:
    """By name, from the best that is expected to the worst."""
    of = functools.partial
    how = {
        "RTRL": jb.estimators.rtrl,
        "SnAp-2": of(jb.estimators.snap, order=2),
        "SnAp-1": of(jb.estimators.snap, order=1),
        "e-prop": online.local,
        "UORO": jb.estimators.uoro,
    }
    return {name: make(model, bits_of) for name, make in how.items()}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def learn(config: Config, model: jb.Model, estimator: jb.GradientEstimator, key: jax.Array) -> tuple[Any, jax.Array]:
    """θ at the end, and the length after each symbol, ``[steps]``, of one seed."""
    optimiser = optax.adam(config.learning_rate)
    key_theta, key_bits, key_draws = jax.random.split(key, 3)
    theta = model.init(key_theta, input_size=_BITS + 2, hidden_size=config.hidden_size, output_size=1)
    state = estimator.init(theta, model.initial_state(theta, (config.batch_size,)))

    def step(carry, k):
        theta, memory, state, stream = carry
        stream, x_t, y_t, is_due = symbol(stream, jax.random.fold_in(key_bits, k))
        state = jax.tree.map(lambda leaf: jnp.where(stream.position == 0, jnp.zeros_like(leaf), leaf), state)
        estimate, state = estimator.update(theta, state, x_t[None], y_t[None], key=jax.random.fold_in(key_draws, k))
        updates, updated = optimiser.update(estimate.grads, memory, theta)
        theta, memory = jax.tree.map(
            functools.partial(jnp.where, is_due), (optax.apply_updates(theta, updates), updated), (theta, memory)
        )
        stream = moved(stream, estimate.loss, is_due)
        return (theta, memory, state, stream), stream.length

    carry = theta, optimiser.init(theta), state, start(config.longest, config.batch_size)
    (theta, *_), lengths = jax.lax.scan(step, carry, jnp.arange(config.steps))
    return theta, lengths


def margin(better: np.ndarray, worse: np.ndarray) -> float:
    """The difference of two means in its standard errors; infinite or 0 where no seed differs from another.

    >>> round(margin(np.array([9.0, 10, 11]), np.array([7.0, 8, 9])), 2)  # 2 / √(1/3 + 1/3)
    2.45
    """
    difference = float(np.mean(better) - np.mean(worse))
    error = np.hypot(over_seeds.standard_error(better), over_seeds.standard_error(worse))
    return difference / float(error) if error else np.sign(difference) * np.inf if difference else 0.0


def judge(reached: dict[str, np.ndarray]) -> str:
    """The verdict, from the length that each seed reached, by name."""
    apart = margin(reached["RTRL"], reached["SnAp-2"])
    margins = {pair: margin(*(reached[name] for name in pair)) for pair in ORDER}
    return verdict(
        {f"RTRL and SnAp-2 differ by {apart:.1f} standard errors": not abs(apart) <= CLEAR}
        | {
            f"{better} beats {worse} by {by:.1f} standard errors only": not by > CLEAR
            for (better, worse), by in margins.items()
        }
    )


def run(config: Config, report: Report) -> Result:
    """Trains with each, judges, and draws."""
    model = network(config)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    lengths = {}
    for name, estimator in (found := estimators(model)).items():
        of_a_seed = functools.partial(learn, config, model, estimator)
        lengths[name] = np.asarray(jax.vmap(of_a_seed)(keys)[1])
        report("training", len(lengths), len(found), f"{name}: {np.mean(lengths[name][:, -1]):.1f}")
    reached = {name: values[:, -1] for name, values in lengths.items()}
    margins = {
        f"{better} over {worse}": margin(reached[better], reached[worse])
        for better, worse in (("RTRL", "SnAp-2"), *ORDER)
    }
    numbers = {
        "verdict": judge(reached),
        "published": PUBLISHED,
        "reached": reached,
        "mean": {name: float(np.mean(values)) for name, values in reached.items()},
        "standard_error": {name: over_seeds.standard_error(values) for name, values in reached.items()},
        "margins": margins,
    }
    rows = tuple(
        (name, f"{np.mean(values):.1f} ± {over_seeds.standard_error(values):.1f}", ", ".join(map(str, values)))
        for name, values in reached.items()
    )
    title = f"length reached after {config.steps:,} symbols: mean ± standard error of {config.seeds} seeds"
    apart = Table("differences", ("", "standard errors"), tuple((pair, f"{by:+.1f}") for pair, by in margins.items()))
    return Result(
        numbers,
        (Table(title, ("gradient", "length", "each seed"), rows), apart),
        {"copy_curriculum": _draw(lengths, config.steps)},
    )


def _draw(lengths, steps):
    figure, axes = plots.figure(1, 1, width=6, height=4)
    axis = axes[0, 0]
    at = np.unique(np.linspace(0, steps - 1, 200).astype(int))
    for k, (name, values) in enumerate(lengths.items()):
        colour, style, _ = plots.look(k)
        mean, error = values[:, at].mean(axis=0), values[:, at].std(axis=0, ddof=1) / np.sqrt(len(values))
        axis.plot(at + 1, mean, color=colour, linestyle=style, label=name)
        axis.fill_between(at + 1, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    plots.label(axis, "(a) length copied online; band: standard error", "symbols read", "length $L$")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


STUDY = Study(
    name="copy_curriculum",
    claim="a sparse GRU learns online to copy longer strings the more of RTRL's sensitivity is kept: SnAp-2 as RTRL, "
    "then SnAp-1, then local rules and UORO",
    config=Config,
    quick={"hidden_size": 8, "steps": 1000, "learning_rate": 0.03, "batch_size": 2, "seeds": 2, "longest": 8},
    run=run,
)
