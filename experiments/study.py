"""What a study is, and what it returns. No logic."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Report(Protocol):
    """``report(stage, done, total, note)``: how far a run has come. A study calls it; what it shows is the caller's."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """After `done` of `total` steps of a stage, with a word on how it goes."""


class Table(NamedTuple):
    """A title, the names of the columns, and rows of cells ready to print."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Result(NamedTuple):
    """What one run found.

    Attributes:
        numbers: for ``result.json``: a tree of dicts and lists of numbers and strings, NumPy's included. Has the keys
            ``verdict``, from `verdict`; and ``timing`` for whatever differs between two runs of one seed.
        tables: for the terminal and for the report.
        figures: matplotlib figures, by file name without the ending.
        devices: what it ran on, where that was not JAX's devices of this process.
    """

    numbers: Mapping[str, Any]
    tables: tuple[Table, ...]
    figures: Mapping[str, Any]
    devices: Sequence[str] | None = None


class Study(NamedTuple):
    """One study.

    Attributes:
        name: of the subcommand and of the file.
        claim: what is measured, in one line.
        config: a frozen dataclass: every flag with its default and its help. It has ``seed``, ``quick`` and ``out``,
            and raises `experiments.kit.options.BadInputError` for values that make no sense.
        quick: the defaults that ``--quick`` puts in place of the usual ones.
        run: ``(config, report) -> Result``. Reads no file, writes none, prints nothing; what a run keeps
            of itself while it goes on is `experiments.kit.trained`'s, or the benchmark's own, below
            ``config.out``, and none without that.
    """

    name: str
    claim: str
    config: Callable[..., Any]
    quick: Mapping[str, Any]
    run: Callable[[Any, Report], Result]


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """The `Report` that shows nothing."""


def verdict(failures: Mapping[str, bool]) -> str:
    """``"reproduced"``, or ``"not reproduced: "`` and every reason that holds.

    >>> verdict({"the norm is off": False}), verdict({"the norm is off": True, "it is slow": True})
    ('reproduced', 'not reproduced: the norm is off; it is slow')
    """
    reasons = [reason for reason, holds in failures.items() if holds]
    return f"not reproduced: {'; '.join(reasons)}" if reasons else "reproduced"


def unjudged(verdict: str) -> str:
    """What a quick run saw, in place of a verdict: the claim is of the full run.

    >>> unjudged("reproduced")
    'not judged: a quick run, in which the claim holds. The full run gives the verdict'
    >>> unjudged("not reproduced: the norm is off; it is slow")
    'not judged: a quick run, in which the norm is off; it is slow. The full run gives the verdict'
    """
    kind, _, reasons = verdict.partition(": ")
    if kind not in ("reproduced", "not reproduced"):
        return verdict
    return f"not judged: a quick run, in which {reasons or 'the claim holds'}. The full run gives the verdict"
