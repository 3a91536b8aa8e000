"""What the process beside calls: by name, so of a module, and of one that imports next to nothing."""

import os
import time


def nothing():
    pass


def answers(value, report):
    report("stage", 1, 2, "halfway")
    return value, os.getpid()


def raises(report):
    raise ZeroDivisionError("of the other process")


def aborts(report):
    report("stage", 0, 1, "the culprit")
    os.abort()


def exits(report):
    os._exit(3)


def hangs(report):
    report("stage", 0, 1, "the sleeper")
    time.sleep(1000)


def says_who_and_hangs(report):
    report("stage", 0, 1, str(os.getpid()))
    time.sleep(1000)


def cannot_be_sent(report):
    return lambda: None
