"""Copying: ten symbols are shown, and asked for again after a delay.

    x: s_1 … s_10, blanks, marker, blanks          y: T + 10 blanks, s_1 … s_10          F = -1/(T+20) Σ_t log p_t(y_t)

Without memory of the symbols the blanks can be known and each symbol costs log 8, so F = 10 log 8/(T+20) at best. A
tanh network comes down to that line and stays on it; a network whose W_h is unitary, so that products of its Jacobians
neither shrink nor grow (`network`), goes on below.

All seeds of a network are trained as one, each on sequences of its own that are never seen twice, with RMSprop and the
gradient clipped entry by entry, until F is below a twentieth of the line for every seed or the updates are used up.

Source: Arjovsky, Shah and Bengio (2016), Unitary evolution recurrent neural networks, section 5.1.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import curve_panels, memory, options, over_seeds, trained
from experiments.studies.copy_memory.network import UNITARY
from experiments.study import Report, Result, Study, Table, verdict

ON_THE_LINE = 0.02  # how far the tanh network may be off the line, relative; mean over the seeds, as the next
REMEMBERS = 0.5  # of the line: the unitary network is below
DONE = 0.05  # of the line: training ends here
LOSS = jb.losses.softmax_cross_entropy
PUBLISHED = {
    "cross-entropy a step without memory": {
        "value": "10 ln 8/(T+20): 0.1733, 0.0945, 0.0400, 0.0204 at T = 100, 200, 500, 1000",
        "source": "Arjovsky, Shah and Bengio (2016), section 5.1",
        "tag": "read in the paper",
    },
}


@dataclasses.dataclass(frozen=True)
class Config(trained.Flags):
    """Ten symbols to be said again after a delay, by a tanh network and by one with a unitary W_h."""

    seed: int = 0
    """Of all parameters and sequences."""
    quick: bool = False
    """A short delay, small networks and few updates: the same code in seconds, short of the claim."""
    seeds: int = 5
    """Networks of each kind, trained as one."""
    delays: tuple[int, ...] = (100, 200, 500)
    """T; a sequence has T + 20 steps."""
    hidden_size: int = 80
    """n of the tanh network."""
    unitary_hidden_size: int = 128
    """n of the unitary network, real and imaginary parts: even."""
    updates: int = 1200
    """Of each training, at most."""
    batch_size: int = 20
    """B of each seed."""
    learning_rate: float = 1e-3
    """Of RMSprop."""
    clip: float = 1.0
    """The largest magnitude of an entry of the gradient that is not cut off."""
    every: int = 50
    """So many updates are measured once."""
    test_size: int = 128
    """Sequences in the test."""

    def __post_init__(self):
        super().__post_init__()
        options.seed(self.seed)
        for name in ("seeds", "hidden_size", "batch_size", "every", "test_size"):
            options.at_least(name, getattr(self, name), 1)
        for name in ("learning_rate", "clip"):
            options.positive(name, getattr(self, name))
        options.positive("delays", *self.delays)
        if self.unitary_hidden_size < 2 or self.unitary_hidden_size % 2:
            raise options.BadInputError(
                f"`--unitary-hidden-size` must be even and at least 2: got {self.unitary_hidden_size}"
            )
        options.at_least("updates", self.updates, self.every)


class Network(NamedTuple):
    """A label for tables and figures, f, and n."""

    label: str
    cell: jb.Cell
    hidden_size: int


def networks(config: Config) -> dict[str, Network]:
    """Both, by name."""
    tanh = jb.cells.elman("tanh", W_h_init=jb.initializers.glorot_uniform)
    return {
        "tanh": Network("tanh", tanh, config.hidden_size),
        "unitary": Network("unitary", UNITARY, config.unitary_hidden_size),
    }


def train(config: Config, name: str, network: Network, T: int, report: Report) -> over_seeds.Curves:
    """All seeds of one network at one T, measured by F on the test."""
    model = jb.rnn(network.cell, jb.readouts.linear())
    F = jax.jit(jax.vmap(jb.objective(model, LOSS), in_axes=(0, None, None)))
    test = over_seeds.held_out(lambda rng: memory.copying(rng, T, (config.test_size,)), config.seed)

    def drawn(rng):
        return memory.copying(rng, T, (config.batch_size,))

    theta = over_seeds.init(
        model,
        config.seed,
        config.seeds,
        input_size=memory.SYMBOLS + 2,
        hidden_size=network.hidden_size,
        output_size=memory.SYMBOLS + 1,
    )
    return over_seeds.train(
        config,
        trained.bptt(model, LOSS, config.batch_size, config.devices),
        optax.chain(optax.clip(config.clip), optax.rmsprop(config.learning_rate)),
        theta,
        over_seeds.batches(drawn, config.seed, config.seeds),
        lambda theta: F(theta, test.xs, test.ys),
        report,
        name=name,
        steps=config.updates,
        every=config.every,
        solved=DONE * memory.copying_floor(T),
    )


def judge(shares: dict[int, dict[str, float]]) -> str:
    """The verdict.

    Args:
        shares: by T and by the name of the network, its mean F as a share of the line.
    """
    failures = {}
    for T, share in shares.items():
        off = share["tanh"] - 1
        failures[f"the tanh network is {off:+.1%} off the line at T = {T}"] = not abs(off) <= ON_THE_LINE
        unitary = f"the unitary network has {share['unitary']:.3g} of the line at T = {T}"
        failures[unitary] = not share["unitary"] < REMEMBERS
    return verdict(failures)


def run(config: Config, report: Report) -> Result:
    """Trains both networks at every T, and draws."""
    todo, lines = networks(config), {T: memory.copying_floor(T) for T in config.delays}
    curves = {
        T: {name: train(config, f"{name}_{T}", network, T, report) for name, network in todo.items()}
        for T in config.delays
    }
    last = {T: {name: one.values[-1] / lines[T] for name, one in both.items()} for T, both in curves.items()}
    numbers = {
        "verdict": judge({T: {name: float(np.mean(each)) for name, each in both.items()} for T, both in last.items()}),
        "published": PUBLISHED,
        "delays": {
            T: {
                "line": lines[T],
                "networks": {
                    name: {
                        "cross_entropy": one.values[-1],
                        "share_of_the_line": last[T][name],
                        "mean_share": np.mean(last[T][name]),
                        "standard_error": over_seeds.standard_error(last[T][name]),
                        "updates": one.at[-1],
                        "updates_to_half_the_line": over_seeds.first_below(one.at, one.values, REMEMBERS * lines[T]),
                    }
                    for name, one in both.items()
                },
            }
            for T, both in curves.items()
        },
        "curves": {
            T: {name: {"updates": one.at, "cross_entropy": one.values} for name, one in both.items()}
            for T, both in curves.items()
        },
    }
    panels = {f"T = {T}": ({todo[name].label: one for name, one in curves[T].items()}, lines[T]) for T in curves}
    figure = curve_panels.draw(panels, "cross-entropy a step (nats)")
    return Result(numbers, _tables(config, todo, numbers), {"copy_memory": figure})


def _tables(config, todo, numbers):
    rows = tuple(
        (
            str(T),
            f"{at['line']:.4f}",
            todo[name].label,
            f"{row['mean_share']:.3f} ± {row['standard_error']:.1g}",
            ", ".join(f"{share:.3f}" for share in row["share_of_the_line"]),
            str(row["updates"]),
        )
        for T, at in numbers["delays"].items()
        for name, row in at["networks"].items()
    )
    columns = ("T", "line, nats", "network", "share ± standard error", "each seed", "updates")
    return (Table(f"cross-entropy on {config.test_size} sequences, over that without memory", columns, rows),)


STUDY = Study(
    name="copy_memory",
    claim="after a delay a tanh network can repeat nothing of what it was shown, and a unitary one nearly all of it",
    config=Config,
    quick={
        "seeds": 3,
        "delays": (10, 20),
        "hidden_size": 20,
        "unitary_hidden_size": 64,
        "updates": 300,
        "every": 50,
        "test_size": 64,
    },
    run=run,
)
