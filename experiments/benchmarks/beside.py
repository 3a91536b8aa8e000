"""Measurements in a process beside this one: what ends that process, or never returns, costs one measurement.

A GPU's driver may end the process that uses it, and an error there stays for all that come after in that process. So
the process is kept from one measurement to the next while all goes well, and replaced after anything else.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from experiments.study import Report

_PATIENCE = 30.0  # seconds for the end of a process that is killed
SILENCE = 600.0  # seconds without a report after which a measurement counts as hanging


class LostError(Exception):
    """The measurement raised an exception, the process ended, or it hung.

    Attributes:
        at: the note of the last report: what it was at.
    """

    def __init__(self, message: str, at: str):
        super().__init__(message)
        self.at = at


@contextlib.contextmanager
def beside(begin: Callable[[], Any], report: Report, silence: float = SILENCE) -> Iterator[Callable[..., Any]]:
    """``measure(function, *arguments)`` is ``function(*arguments, report)``, called in the other process.

    Args:
        begin: called there first.
        report: of progress; the function's reports arrive here.
        silence: seconds without one after which the process is ended.

    Yields:
        ``measure``. It raises `LostError`. Function, arguments, reports and result must pickle.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads in it may hang
    process: Any = None
    line: Any = None

    def end():
        nonlocal process
        if process is not None:
            line.close()
            process.kill()
            process.join(_PATIENCE)
        process = None

    def measure(function, *arguments):
        nonlocal process, line
        if process is None:
            line, other_end = context.Pipe()
            process = context.Process(target=_serve, args=(other_end, begin), daemon=True)
            process.start()
            other_end.close()  # or its end would never be seen
        note, good = "", False
        try:
            while True:
                if not line.poll(silence):
                    raise LostError(f"no sign of life for {silence:.0f} seconds", note)
                what, value = line.recv()
                if what == "ready":  # to one that never is, sending much would wait for good
                    line.send((function, arguments))
                elif what == "report":
                    _, _, _, note = value
                    report(*value)
                elif what == "result":
                    good = True
                    return value
                else:
                    raise LostError(value, note)
        except (EOFError, ConnectionError):
            process.join(_PATIENCE)
            raise LostError(_ended(process.exitcode), note) from None
        finally:
            if not good:
                end()

    try:
        yield measure
    finally:
        end()


def _serve(line, begin):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other one decides
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    begin()

    def report(stage, done, total, note=""):
        line.send(("report", (stage, done, total, note)))

    while True:
        line.send(("ready", None))
        try:
            function, arguments = line.recv()
        except EOFError:
            return
        try:
            line.send(("result", function(*arguments, report)))
        except Exception as error:
            line.send(("failed", f"{type(error).__name__}: {error}"))


def _end_with_the_other():
    """Where that is killed, nobody else would end one that hangs, and holds the memory of a GPU."""
    other: Any = multiprocessing.parent_process()
    other.join()
    os._exit(1)


def _ended(exitcode):
    """What became of a process.

    >>> _ended(3), _ended(-6)
    ('its process ended with status 3', 'its process was ended by SIGABRT')
    """
    if exitcode is None:
        return "its process closed the line and went on"
    if exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with status {exitcode}"
