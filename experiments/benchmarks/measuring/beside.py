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
from typing import Any, NamedTuple

from experiments.study import Report

_PATIENCE = 30.0  # seconds for the end of a process that is killed
SILENCE = 180.0  # seconds without a report, of which there is one a contender, after which it counts as hanging


class LostError(Exception):
    """The measurement raised an exception, the process ended, or it hung.

    Attributes:
        at: the note of the last report: what it was at.
    """

    def __init__(self, message: str, at: str):
        super().__init__(message)
        self.at = at


class Beside(NamedTuple):
    """The other process.

    Attributes:
        measure: ``(function, *arguments) -> function(*arguments, report)``, called there. Raises `LostError`.
        end: ends it, with the memory that it holds; it begins anew with the next measurement.
    """

    measure: Callable[..., Any]
    end: Callable[[], None]


@contextlib.contextmanager
def beside(begin: Callable[[], Any], report: Report, silence: float = SILENCE) -> Iterator[Beside]:
    """A process to measure in.

    Args:
        begin: called there first.
        report: of progress; the function's reports arrive here.
        silence: seconds without one after which the process is ended.

    Yields:
        The `Beside`. Function, arguments, reports and result must pickle.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads in it may hang
    child: Any = None
    pipe: Any = None

    def start():
        nonlocal child, pipe
        mine, its = context.Pipe()
        process = context.Process(target=_serve, args=(its, begin), daemon=True)
        try:
            process.start()
        finally:
            its.close()  # or the end of the child would never be seen
        child, pipe = process, mine

    def end():
        nonlocal child
        if child is not None:
            pipe.close()
            child.kill()
            child.join(_PATIENCE)
        child = None

    def lost(at):
        child.join(_PATIENCE)
        return LostError(_ended(child.exitcode), at)

    def send(task, at):
        try:
            pipe.send(task)
        except ConnectionError:
            raise lost(at) from None

    def receive(at):
        try:
            if not pipe.poll(silence):
                raise LostError(f"no sign of life for {silence:.0f} seconds", at)
            return pipe.recv()
        except (EOFError, ConnectionError):
            raise lost(at) from None

    def measure(function, *arguments):
        if child is None:
            start()
        note, good = "", False
        try:
            while True:
                what, value = receive(note)
                if what == "ready":  # to a child that never is, sending much would wait for good
                    send((function, arguments), note)
                elif what == "report":
                    _, _, _, note = value
                    report(*value)
                elif what == "result":
                    good = True
                    return value
                else:
                    raise LostError(value, note)
        finally:
            if not good:
                end()

    try:
        yield Beside(measure, end)
    finally:
        end()


def _serve(pipe, begin):
    for both in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and a time limit reach both; the parent decides
        signal.signal(both, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def report(stage, done, total, note=""):
        pipe.send(("report", (stage, done, total, note)))

    def answer(function, *arguments):
        try:
            pipe.send(("result", function(*arguments, report)))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))

    try:
        begin()
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        return
    while True:
        pipe.send(("ready", None))
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        answer(function, *arguments)


def _end_with_the_parent():
    """Where that is killed, nobody else would end one that hangs, and holds the memory of a GPU."""
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)


def _ended(exitcode):
    """What became of a process.

    >>> _ended(3), _ended(-6)
    ('its process ended with status 3', 'its process was ended by SIGABRT')
    """
    if exitcode is None:
        return "its process closed the pipe and went on"
    if exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with status {exitcode}"
