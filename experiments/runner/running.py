"""One study, from its configuration to the files of its folder."""

import dataclasses
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.kit import output, signals, trained
from experiments.runner import terminal
from experiments.study import Result, Study, unjudged


def carry_out(study: Study, config: Any, folder: Path, command: Sequence[str]) -> tuple[Result, list[Path]]:
    """Runs a study, shows how far it is, and writes what it found.

    Args:
        study: which.
        config: its dataclass.
        folder: where to; made when it isn't there.
        command: the arguments of ``python -m experiments``, for the record.

    Returns:
        ``(result, paths)``. The result of a quick run is not judged.

    Raises:
        InterruptedRunError: when a training was interrupted and saved.
        BadInputError: before the run, when the folder can't be written to or another run writes to it; or for flags
            that the study refuses.
    """
    output.prepare(folder)
    with output.alone(folder):
        began = time.perf_counter()
        try:
            with terminal.progress() as report:
                result = study.run(dataclasses.replace(config, out=folder), report)
            if config.quick:
                judged = result.numbers["verdict"]
                result = result._replace(numbers={**result.numbers, "verdict": unjudged(judged)})
        except KeyboardInterrupt:  # at once, or when no training was at work
            if not trained.is_kept(folder):
                raise
            raise trained.InterruptedRunError("interrupted; what a training had saved is there") from None
        # Ctrl-C, or the end of its time, finds the run over: its files are worth the moment.
        with signals.answered({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}):
            paths = output.write(folder, study.name, config, command, result, time.perf_counter() - began)
        trained.done(folder)
    return result, paths
