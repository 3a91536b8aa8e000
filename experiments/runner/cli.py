"""The command line: ``python -m experiments [list | run NAME flags | reproduce flags | bench flags]``."""

import contextlib
import io
import itertools
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.kit import devices, options, trained
from experiments.kit.options import BadInputError
from experiments.runner import running, terminal
from jaxbptt.checking import GradientMismatchError

_FOR_BENCH = ("tyro", "rich", "matplotlib")  # of the extras: a machine that is lent for it may have no others
_USAGE = """\
usage: python -m experiments [list]                    what there is
       python -m experiments run NAME [--quick] [--seed N] [--out DIR] [flags]
       python -m experiments run NAME … --resume        the same, going on with a training that was cut off
       python -m experiments run NAME --help            the flags of a study
       python -m experiments reproduce [--only NAME …] [--quick] [--seed N] [--resume] [--out DIR] [--data PATH]
       python -m experiments bench [--quick] [--gpu] [--resume] [--out DIR] [flags]    beside other libraries
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments; those of the process when ``None``.

    Returns:
        The exit status: 0 when the command ran, 1 when a gradient turned out wrong or a part of ``bench --gpu`` failed,
        2 for input that cannot be run and
        for what the disk or the numbers refuse, 130 after Ctrl-C, 141 when nobody reads any more.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else "list"
    try:
        options.require_extras(*([_FOR_BENCH] if command == "bench" else []))
        if command in ("-h", "--help"):
            sys.stdout.write(_USAGE)
            sys.stdout.flush()
            return 0
        if command not in _COMMANDS:
            raise BadInputError(f"there is no command `{command}`: {', '.join(_COMMANDS)} are")
        status = _COMMANDS[command](argv)
        sys.stdout.flush()  # here, where a reader who has left is understood
        return status
    except BadInputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except GradientMismatchError as wrong:
        sys.stderr.write(f"WRONG GRADIENT: {wrong}\n")
        return 1
    except BrokenPipeError:  # who reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return 128 + signal.SIGPIPE
    except (OSError, FloatingPointError) as error:  # a full disk; a training that left the numbers
        sys.stderr.write(f"error: {error}\n")
        return 2
    except trained.InterruptedRunError as interrupted:
        again = [*(flag for flag in argv if flag != "--resume"), "--resume"]
        sys.stderr.write(f"{interrupted}: go on with `{shlex.join(['python', '-m', 'experiments', *again])}`\n")
        return 130
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was written\n")
        return 130


def _list(argv):
    from experiments.catalogue import STUDIES

    if argv[1:]:
        raise BadInputError(f"`list` takes no arguments: got `{' '.join(argv[1:])}`")
    width = max(len(study.name) for study in STUDIES)
    for study in STUDIES:
        sys.stdout.write(f"{study.name:<{width}}  {study.claim}\n")
    return 0


def _run(argv):
    study = _study(argv[1] if len(argv) > 1 else None)
    config = _config(study, argv[2:])
    devices.make_cores_devices()
    if config is not None:
        _carry_out(study, config, argv)
    return 0


def _bench(argv):
    from experiments.benchmarks.command import STUDY
    from experiments.benchmarks.measuring import kept
    from experiments.benchmarks.reporting import report

    config = _config(STUDY, argv[1:], STUDY.name)
    if config is None:
        return 0
    if config.markdown is not None:
        sys.stdout.write(report.markdown(config.markdown))
        return 0
    try:
        result = _carry_out(STUDY, config, argv)
    except KeyboardInterrupt:  # once more, after it was told to end
        raise trained.InterruptedRunError("interrupted; what was measured is saved") from None
    if result.numbers["cut_off"]:
        raise trained.InterruptedRunError("interrupted; what was measured is saved")
    if result.numbers["failed"]:
        sys.stderr.write("some of it failed, see above; `--resume` measures that again\n")
        return 1
    kept.forget(config.out or _folder(STUDY))
    return 0


def _reproduce(argv):
    from experiments.catalogue import STUDIES
    from experiments.runner import reproduce

    config = _parsed(reproduce.Config, reproduce.Config(), argv[1:], "reproduce")
    devices.make_cores_devices()
    return 0 if config is None else reproduce.reproduce(config, argv, STUDIES)


def _carry_out(study, config, argv):
    result, paths = running.carry_out(study, config, config.out or _folder(study), argv)
    terminal.show(result)
    sys.stdout.write("".join(f"wrote {path}\n" for path in paths))
    return result


def _folder(study):
    return Path("results") / study.name


_COMMANDS = {"list": _list, "run": _run, "bench": _bench, "reproduce": _reproduce}


def _study(name):
    from experiments.catalogue import STUDIES

    studies = {study.name: study for study in STUDIES}
    if name in ("-h", "--help"):
        raise BadInputError(f"`run --help` needs a study before `--help`: {', '.join(studies)}")
    if name not in studies:
        what = f"there is no study `{name}`" if name else "`run` needs the name of a study"
        raise BadInputError(f"{what}: {', '.join(studies)} are there")
    return studies[name]


def _config(study, flags, command=None):
    """The study's dataclass from its flags; None when only help was asked for.

    ``--quick`` changes the defaults, so that a flag given beside it still wins.
    """
    quick = "--quick" in flags
    default = study.config(**(study.quick if quick else {}), quick=quick)
    return _parsed(study.config, default, flags, command or f"run {study.name}")


def _parsed(config, default, flags, command):
    """A dataclass from flags; None when only help was asked for."""
    import tyro

    for flag, value in itertools.pairwise([*flags, "--"]):
        if value == "" or (flag.startswith("--") and flag.endswith("=")):  # a folder of that name would be this one
            raise BadInputError(f"`{flag.removesuffix('=')}` needs a value: got an empty one")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            prog = f"python -m experiments {command}"
            return tyro.cli(config, args=flags, default=default, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            return None
        raise BadInputError(_one_line(complaint.getvalue())) from None


def _one_line(complaint):
    """What went wrong, out of a complaint of tyro's: a box, or sections between rules with the title for the first."""
    boxed = "╭" in complaint
    lines = [line.strip(" │") for line in complaint.splitlines() if not line.startswith(("╭", "╰"))]
    sections = re.split(r"\n[─-]{3,}\n", "\n".join(lines))
    return " ".join(sections[0 if boxed or len(sections) < 2 else 1].split())
