"""``python -m experiments reproduce``: every study of the catalogue, one after another, and one report on all.

Each study has its own folder, as if run alone. The report is made of what is read back from those folders, and is
written anew after each study: whatever happens later, what has run is there, and ``--resume`` goes on from it.
"""

import contextlib
import dataclasses
import shlex
import sys
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.kit import options, output, trained
from experiments.kit.options import BadInputError, NoDataError
from experiments.runner import report_markdown, report_page, rows, running
from experiments.runner.rows import Row
from experiments.study import Study
from jaxbptt.checking import GradientMismatchError

_ABOUT_FILES = {"out", "resume", "tensorboard"}  # flags that change where and how a run writes, not what it finds


@dataclasses.dataclass(frozen=True)
class Config:
    """Runs the studies and writes report.html and report.md: tables, figures, configurations, versions, verdicts."""

    only: tuple[str, ...] | None = None
    """Names of studies; all of them by default."""
    quick: bool = False
    """The quick form of each: small set-ups, under a minute a study, and not judged."""
    seed: int = 0
    """Of every study."""
    out: Path = Path("results/reproduce")
    """The folder of the report; each study has its own below."""
    resume: bool = False
    """Keep what studies with the same flags found in that folder; run only the rest."""
    data: Path | None = None
    """For the studies that read a file: it, or a folder with all of them; each downloads its own when not given."""

    def __post_init__(self):
        options.seed(self.seed)
        if self.only == ():
            raise BadInputError("`--only` needs the name of a study")


def chosen(config: Config, studies: Sequence[Study]) -> list[tuple[Study, Any]]:
    """The studies that are asked for, each with its own configuration, in the order of the catalogue.

    Raises:
        BadInputError: for a name that isn't there, and for data that no study is to read.
    """
    names = [study.name for study in studies]
    for name in config.only or ():
        if name not in names:
            raise BadInputError(f"`--only`: there is no study `{name}`: {', '.join(names)} are there")
    asked = [study for study in studies if config.only is None or study.name in config.only]
    if config.data is not None and not any(_takes(study, "data") for study in asked):
        raise BadInputError(f"`--data`: none of {', '.join(study.name for study in asked)} reads a file")
    return [(study, _own(study, config)) for study in asked]


def reproduce(config: Config, command: Sequence[str], studies: Sequence[Study]) -> int:
    """Runs the studies and writes the report.

    Args:
        config: the flags.
        command: the arguments of ``python -m experiments``, for the record.
        studies: to choose from.

    Returns:
        The exit status: 0 when all ran, whatever their verdicts; 1 when one failed, or was not run for want of its
        data; 130 after Ctrl-C.

    Raises:
        BadInputError: for a name that isn't there, when the report can't be written, and when another run writes it.
    """
    runs = chosen(config, studies)
    output.prepare(config.out)
    with output.alone(config.out):
        return _reproduce(runs, config, command)


def _reproduce(runs, config, command):
    table = [Row(study.name, study.claim) for study, _ in runs]
    paths = _write(config.out, table, command)
    for k, (study, own) in enumerate(runs):
        sys.stderr.write(f"[{k + 1}/{len(runs)}] {study.name}\n")
        row = (_kept(study, own) if config.resume else None) or _attempt(study, own)
        table[k] = row
        paths = _write(config.out, table, command)
        seconds = rows.duration(row.found.seconds if row.found else None)
        sys.stdout.write(f"{study.name}: {row.outcome} ({seconds})\n")
        if row.state == "interrupted":
            break
    sys.stdout.write(f"{rows.tally(table)}\n" + "".join(f"wrote {path}\n" for path in paths))
    states = {row.state for row in table}
    if "interrupted" in states:
        again = ["python", "-m", "experiments", *(flag for flag in command if flag != "--resume"), "--resume"]
        sys.stderr.write(f"interrupted: go on with `{shlex.join(again)}`\n")
    return 130 if "interrupted" in states else 1 if states & {"failed", "not run"} else 0


def _own(study, config):
    """The configuration of one study: what ``run NAME --quick --seed N --out DIR --data PATH`` would give it."""
    asked = {"quick": config.quick, "seed": config.seed, "out": config.out / study.name}
    if config.resume and _takes(study, "resume"):
        asked["resume"] = True  # a training that was cut off goes on
    if config.data is not None and _takes(study, "data"):
        asked["data"] = config.data
    return study.config(**{**(study.quick if config.quick else {}), **asked})


def _takes(study, flag):
    return flag in {field.name for field in dataclasses.fields(study.config)}


def _kept(study, own):
    """The row of a run that is there already, with the same flags; None when there is none, or not a whole one."""
    try:
        found = rows.read(own.out)
    except (OSError, ValueError):
        return None
    same = _telling(study, found.flags) == _telling(study, output.flags(own))
    return Row(study.name, study.claim, "ran", found) if same else None


def _telling(study, flags):
    """The flags that a result depends on: those that name a file or a folder say where, not what."""
    types = typing.get_type_hints(study.config)
    where = {name for name, kind in types.items() if kind is Path or Path in typing.get_args(kind)}
    return {name: value for name, value in flags.items() if name not in where | _ABOUT_FILES}


def _attempt(study, own):
    row = Row(study.name, study.claim)
    command = ["run", study.name, *["--quick"] * own.quick, "--seed", str(own.seed), "--out", str(own.out)]
    if getattr(own, "data", None) is not None:
        command += ["--data", str(own.data)]
    try:
        output.prepare(own.out)
        with output.alone(own.out):
            for name in ("result.json", "error.txt"):  # of an earlier run: must not pass for this one's
                (own.out / name).unlink(missing_ok=True)
        running.carry_out(study, own, own.out, command)
        return row._replace(state="ran", found=rows.read(own.out))
    except (KeyboardInterrupt, trained.InterruptedRunError) as error:
        return row._replace(state="interrupted", reason=_one_line(error).removeprefix("interrupted").lstrip("; "))
    except NoDataError as error:  # no failure of the study's
        return row._replace(reason=_one_line(error))
    except BadInputError as error:  # of the study's own: flags that don't fit, a folder that can't be written to
        return row._replace(state="failed", reason=_one_line(error))
    except Exception as error:
        kind = "WRONG GRADIENT" if isinstance(error, GradientMismatchError) else type(error).__name__
        details = traceback.format_exc()
        with contextlib.suppress(OSError):  # a full disk may be the very reason; the report has the traceback too
            output.save(own.out / "error.txt", details.encode(errors="replace"))
        return row._replace(state="failed", reason=f"{kind}: {_one_line(error)}", traceback=details)


def _one_line(error, most=300):
    """The first line of what an error says."""
    text = next(iter(str(error).strip().splitlines()), "")
    return text if len(text) <= most else text[: most - 1] + "…"


def _write(folder, table, command):
    shown = shlex.join(["python", "-m", "experiments", *command])
    files = {
        folder / "report.md": report_markdown.markdown(table, shown),
        folder / "report.html": report_page.page(table, shown),
    }
    for path, text in files.items():
        try:
            output.save(path, text.encode(errors="replace"))
        except OSError as error:
            raise BadInputError(f"cannot write `{path}`: {error.strerror}") from error
    return list(files)
