"""Studies that do next to nothing, write down how they ran, and say what is unkind to a page."""

import dataclasses
from pathlib import Path

import numpy as np

from experiments.kit import plots
from experiments.runner import reproduce
from experiments.study import Result, Study, Table, verdict

CLAIM = '‖a_t‖ < |b| & "c" <script>alert(1)</script> | *d*'
CELL = '<img src="http://example.org/a.png"> \x1b[31m'
PUBLISHED = {
    "the <i>norm</i>": {"value": "1/6", "source": "Someone & others (2013), eq. 7", "tag": "read in the paper"},
    "the time": {"value": "17 hours", "source": "a memory", "tag": "recalled, unchecked"},
}
REASON = "the <b>norm</b> is off | by 3 > 2"


@dataclasses.dataclass(frozen=True)
class Flags:
    """Of a study that does next to nothing."""

    seed: int = 0
    quick: bool = False
    out: Path | None = None
    size: int = 4
    data: Path | None = None

    def __post_init__(self):
        assert self.seed != 99


@dataclasses.dataclass(frozen=True)
class NoFileFlags:
    """Of a study that reads no file."""

    seed: int = 0
    quick: bool = False
    out: Path | None = None
    size: int = 4


@dataclasses.dataclass(frozen=True)
class TrainedFlags(Flags):
    """Of a study that trains."""

    resume: bool = False


class Fakes:
    """Studies that write down with which configuration they ran; what one raises can be changed."""

    def __init__(self, **errors):
        self.errors, self.ran = errors, []
        self.studies = tuple(self.study(name) for name in errors)

    def study(self, name, config=Flags):
        def run(config, report):
            self.ran.append((name, config))
            report("working", 1, 1)
            if error := self.errors[name]:
                raise error
            figure, axes = plots.figure(1, 1, width=2, height=1)
            plots.line(axes[0, 0], np.arange(config.size), np.arange(config.size), 0, r"$\rho^k$")
            plots.label(axes[0, 0], '(a) "growth" <b>', "lag $k$", r"$\|h_k\|$")
            table = Table(f"sizes of {name} <", ("what", "value"), (("size", str(config.size)), (CELL, "1.5")))
            numbers = {"verdict": verdict({REASON: name == "worse"}), "published": PUBLISHED}
            return Result(numbers, (table,), {f"of_{name}": figure})

        return Study(name, CLAIM, config, {"size": 2}, run)

    @property
    def names(self):
        return [name for name, _ in self.ran]

    def reproduce(self, out, **flags):
        self.ran.clear()
        return reproduce.reproduce(reproduce.Config(out=out, **flags), ["reproduce", "--x"], self.studies)
