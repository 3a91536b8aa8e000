"""What a gradient in bounded memory costs: the count of steps exactly, and whether time and memory follow it.

    r·T - C(c + r, c + 1) forward steps with c states kept,  r = min {r : C(c + r, c) ≥ T}          (revolve)
    C(t, m) = min_{1 ≤ y < t} y + C(t - y, m - 1) + C(y, m),  C(t, 1) = ½ t (t + 1),  C(1, m) = 1   (Gruslys et al.)

 1. The schedule of `jaxbptt.adjoints.checkpointed`, one step to a block, runs exactly as many forward steps as the
    formula says: 3636, 2472, 1948, 1898 at T = 1000 with 10, 30, 50, 100 states.
 2. The recursion, solved here by dynamic programming, counts each step's own forward for its reverse too: T more.
 3. A gradient that keeps everything runs T steps forward and T backward; with a step backward taken for two forward,
    the time beside it is (steps / T + 2) / 3: with 50 states 1.32, "95% of the memory for a third more time". It is
    measured on whole gradients, with the blocks that the library chooses; so are the temporaries, from the compiler.
    Where a step forward costs another share than a third, the time is that of full and of the extra steps at their own
    cost, which is given beside it.

Sources: Griewank and Walther (2000), Algorithm 799: revolve; Gruslys, Munos, Danihelka, Lanctot and Graves (2016),
Memory-efficient backpropagation through time, eq. 1 and abstract.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

import jaxbptt as jb
from experiments.kit import clock, options, revolve
from experiments.studies.checkpoint_cost import figure as figures
from experiments.studies.checkpoint_cost.gradients import CELLS, measure
from experiments.study import Report, Result, Study, Table, verdict

TOLERANCE = 0.15  # relative, of time against (steps/T + 2)/3
EXACT_T = 1000
EXACT_STEPS = {10: 3636, 30: 2472, 50: 1948, 100: 1898}
PUBLISHED = {
    "forward steps at T = 1000 with 10, 30, 50, 100 states": {
        "value": "3636, 2472, 1948, 1898",
        "source": "the formula of Griewank and Walther (2000)",
        "tag": "derived",
    },
    "memory saved at T = 1000, and the time it takes": {
        "value": "95% for a third more time",
        "source": "Gruslys et al. (2016)",
        "tag": "read in the abstract",
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Forward steps, time and temporaries of checkpointed gradients against the states kept; F reads h_T alone."""

    seed: int = 0
    """Of weights and inputs."""
    quick: bool = False
    """A small cell and few rounds: the same code in seconds; its times mean little."""
    out: Path | None = None
    """The output folder; results/checkpoint_cost by default."""
    cell: Literal["elman", "gru", "lstm"] = "lstm"
    """f."""
    batch_size: int = 16
    """B."""
    steps: int = 1000
    """T of what is timed."""
    hidden_size: int = 256
    """n, and d."""
    slots: tuple[int, ...] = (10, 30, 50, 100)
    """How many states are kept."""
    rounds: int = 7
    """Of timing: each calls everybody once."""
    seconds: float = 8.0
    """The most for all rounds of one number of states; something slow takes part in fewer of them."""

    def __post_init__(self):
        options.seed(self.seed)
        options.at_least("steps", self.steps, 2)
        for name in ("batch_size", "hidden_size", "rounds"):
            options.at_least(name, getattr(self, name), 1)
        options.positive("slots", *self.slots)
        options.positive("seconds", self.seconds)


def planned(T: int, slots: int) -> int:
    """Forward steps of `jaxbptt.adjoints.checkpointed` with one step to a block, h_T computed once."""
    adjoint = jb.adjoints.checkpointed(slots=slots, block=1, residuals="states")
    return revolve.planned(jb.cells.elman(), adjoint, T, 1, 1, 1)


def gruslys(T: int, slots: int) -> np.ndarray:
    """C(t, m) for t ≤ T and m ≤ slots, ``[slots + 1, T + 1]`` with rows and columns 0 unused.

    >>> C = gruslys(30, 4)
    >>> int(C[1, 30]), int(C[4, 4]), int(C[3, 10])  # ½·30·31; 2t - 1 once everything is kept
    (465, 7, 25)
    """
    t = np.arange(T + 1)
    C = np.zeros((slots + 1, T + 1), np.int64)
    C[1] = t * (t + 1) // 2
    for m in range(2, slots + 1):
        C[m, 1] = 1
        for length in range(2, T + 1):
            y = t[1:length]
            C[m, length] = np.min(y + C[m - 1, length - y] + C[m, y])
    return C


def expected(steps: int, T: int) -> float:
    """Time beside a gradient that keeps everything.

    >>> round(expected(1948, 1000), 3)
    1.316
    """
    return (steps / T + 2) / 3


def counts() -> dict[int, dict[str, int]]:
    """Forward steps at T = 1000 by number of states: by the formula, as planned, by Gruslys' recursion, and its worst.

    ``gruslys_off`` is the largest |C(t, c) - t - formula| over all t ≤ 1000.
    """
    C = gruslys(EXACT_T, max(EXACT_STEPS))
    return {
        c: {
            "formula": revolve.steps(EXACT_T, c),
            "planned": planned(EXACT_T, c),
            "gruslys": int(C[c, EXACT_T]),
            "gruslys_off": max(abs(int(C[c, t]) - t - revolve.steps(t, c)) for t in range(1, EXACT_T + 1)),
        }
        for c in EXACT_STEPS
    }


def run(config: Config, report: Report) -> Result:
    """Counts, times, compares, and draws."""
    counted = counts()
    report("counting", 1, 1)
    found = measure(config, report)
    full = found["full"]
    forward = clock.ratio(found["forward"].seconds, full.seconds).median
    rows = {c: _row(config, c, found[str(c)], full, forward) for c in sorted(set(config.slots))}
    reasons = {
        **{
            f"{row['planned']} steps planned with {c} states, not {EXACT_STEPS[c]}": row["planned"] != EXACT_STEPS[c]
            or row["formula"] != EXACT_STEPS[c]
            for c, row in counted.items()
        },
        **{
            f"C(t, {c}) is off the formula + t by up to {row['gruslys_off']}": row["gruslys_off"] > 0
            for c, row in counted.items()
        },
        **{
            f"{c} states take {row['over_full']['median']:.2f} times full's time, not {row['expected']:.2f} ± 15%": (
                not abs(row["over_full"]["median"] / row["expected"] - 1) <= TOLERANCE
            )
            for c, row in rows.items()
        },
    }
    numbers: dict[str, Any] = {
        "verdict": verdict(reasons),
        "published": PUBLISHED,
        "tolerance": TOLERANCE,
        "steps": {"T": EXACT_T, "by_states": counted},
        "temporaries": {
            "full_bytes": full.temporaries,
            "by_states": {c: {"bytes": row["bytes"], "over_full": row["memory"]} for c, row in rows.items()},
        },
        "timing": {"forward_sweep_over_full": forward, "by_states": rows},
    }
    figure = figures.draw(config.steps, EXACT_T, TOLERANCE, counted, rows)
    return Result(numbers, _tables(config, counted, rows, forward), {"checkpoint_cost": figure})


def _row(config, c, one, full, forward):
    T, n = config.steps, config.hidden_size
    run = revolve.planned(CELLS[config.cell](), jb.adjoints.checkpointed(slots=c), T, config.batch_size, n, n)
    known = one.temporaries is not None and full.temporaries
    return {
        "over_full": clock.ratio(one.seconds, full.seconds)._asdict(),
        "median_seconds": clock.spread(one.seconds).median,
        "expected": expected(revolve.steps(T, c), T),
        "expected_at_own_cost": 1 + (run - (T - 1)) / T * forward,
        "steps_run": run,
        "gradient_error": one.error,
        "bytes": one.temporaries,
        "memory": one.temporaries / full.temporaries if known else None,
    }


def _tables(config, counted, rows, forward):
    steps = tuple(
        (str(c), str(row["formula"]), str(row["planned"]), str(row["gruslys"] - EXACT_T)) for c, row in counted.items()
    )
    times = tuple(
        (
            str(c),
            f"{row['expected']:.3f}",
            "{median:.3f} ({low:.3f} to {high:.3f})".format(**row["over_full"]),
            f"{row['over_full']['median'] / row['expected'] - 1:+.0%}",
            f"{row['expected_at_own_cost']:.3f}",
            "not known" if row["memory"] is None else f"{row['memory']:.1%}",
        )
        for c, row in rows.items()
    )
    shape = f"{config.cell}, B = {config.batch_size}, T = {config.steps}, n = {config.hidden_size}"
    return (
        Table(
            f"forward steps, T = {EXACT_T}",
            ("states kept", "formula (derived)", "planned", "Gruslys' recursion - T"),
            steps,
        ),
        Table(
            f"{shape}: beside adjoints.full, medians and quartiles; a forward sweep alone is {forward:.2f} of it",
            ("states kept", "(t/T + 2)/3", "time measured", "off by", "with that sweep's time", "temporaries"),
            times,
        ),
    )


STUDY = Study(
    name="checkpoint_cost",
    claim="with c states kept a gradient takes r·T - C(c+r, c+1) forward steps: 95% less memory, a third more time",
    config=Config,
    quick={"hidden_size": 16, "batch_size": 2, "steps": 200, "slots": (10, 30), "rounds": 3, "seconds": 0.3},
    run=run,
)
