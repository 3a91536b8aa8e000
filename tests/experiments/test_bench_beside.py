"""The process beside that measures: what fails in it, ends it or hangs, and that it ends with its parent."""

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.benchmarks.measuring import beside
from tests.experiments.called_beside import aborts, answers, cannot_be_sent, exits, hangs, nothing, raises

ROOT = pathlib.Path(__file__).parents[2]


def test_what_fails_or_ends_the_process_or_hangs_is_told_apart_and_the_next_is_measured():
    told = []
    with beside.beside(nothing, lambda *progress: told.append(progress), silence=20.0) as process:
        value, number = process.measure(answers, 5)
        assert process.measure(answers, [6]) == ([6], number)  # the same process while all goes well
        assert (value, told[0]) == (5, ("stage", 1, 2, "halfway"))
        assert number != os.getpid()
        for function, message, at in (
            (raises, "ZeroDivisionError: of the other process", ""),
            (cannot_be_sent, "lambda", ""),
            (aborts, "its process was ended by SIGABRT", "the culprit"),
            (exits, "its process ended with status 3", ""),
        ):
            with pytest.raises(beside.LostError, match=message) as caught:
                process.measure(function)
            assert caught.value.at == at
            value, another = process.measure(answers, 7)
            assert (value, another != number) == (7, True)  # after a failure a new one
            number = another
    with beside.beside(nothing, lambda *progress: None, silence=5.0) as process:
        with pytest.raises(beside.LostError, match="no sign of life for 5 seconds") as caught:
            process.measure(hangs)
        assert caught.value.at in ("the sleeper", "")  # "" where the machine took 5 seconds to start it


def test_the_process_beside_ends_with_the_one_that_is_killed():
    """Also while it hangs. The test waits for the end of a pipe that both hold."""
    script = (
        "from experiments.benchmarks.measuring import beside\n"
        "from tests.experiments import called_beside as given\n"
        "with beside.beside(given.nothing, lambda *progress: print(progress[-1], flush=True)) as process:\n"
        "    process.measure(given.says_who_and_hangs)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=60)  # returns when nobody holds the other end
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def test_it_ends_when_told_to_and_not_by_the_signal_of_a_time_limit():
    """That reaches all processes of a run, and the parent has what they say to write down."""
    with beside.beside(nothing, lambda *progress: None) as process:
        _, number = process.measure(answers, 1)
        os.kill(number, signal.SIGTERM)
        assert process.measure(answers, 2) == (2, number)
        process.end()
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
        value, another = process.measure(answers, 3)
    assert (value, another != number) == (3, True)


def cannot_begin():
    raise OSError("CUDA_ERROR_DEVICE_UNAVAILABLE")


def test_why_a_process_cannot_begin_is_said():
    with beside.beside(cannot_begin, lambda *progress: None) as process:
        for _ in range(2):
            with pytest.raises(beside.LostError, match="OSError: CUDA_ERROR_DEVICE_UNAVAILABLE"):
                process.measure(answers, 1)


def test_a_process_that_never_begins_is_given_up_however_much_it_is_to_be_sent():
    """Sending more than a pipe holds would wait for it."""
    never = functools.partial(time.sleep, 1000)
    with (
        beside.beside(never, lambda *progress: None, silence=1.0) as process,
        pytest.raises(beside.LostError, match="no sign of life for 1 seconds"),
    ):
        process.measure(answers, np.zeros(10**7))
