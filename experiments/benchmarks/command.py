"""``python -m experiments bench``: measures what the flags ask for, and makes numbers, tables and figures of it."""

import dataclasses
import functools
import shlex
import time
from typing import Any

import jax

from experiments import devices, output
from experiments.benchmarks import (
    checkpoint,
    contenders,
    figures,
    length,
    machine,
    measure,
    peak,
    report,
    speed,
    summary,
)
from experiments.benchmarks import work as works
from experiments.benchmarks.config import QUICK, Config
from experiments.study import Report, Result, Study, verdict

_PACKAGES = ("flax", "equinox", "dm-haiku", "torch", "jax-cuda12-plugin", "jax-cuda13-plugin")


def run(config: Config, report_progress: Report) -> Result:
    """Measures.

    Args:
        config: the flags.
        report_progress: of progress.

    Returns:
        Numbers, tables and figures. ``verdict`` is about the marks, which are for two CPU cores.
    """
    devices.start(config.gpu, config.devices)
    began = time.perf_counter()
    numbers: dict[str, Any] = {"failed": {}}
    rows, checkpointing, lengths = [], None, None
    attempt = functools.partial(_attempt, config, numbers["failed"])
    if "speed" in config.what:
        rows = _speed(config, attempt, report_progress)
        means = summary.means(rows)
        numbers["speed"] = {"rows": [summary.numbers(row) for row in rows], "geometric_means": means}
    if "checkpoint" in config.what:
        work = works.make(config.sweep_cell, works.shape(config.checkpoint_shape), config.seed, reads="last")
        how = (config.slots, config.rounds, config.seconds, report_progress)
        checkpointing = attempt("checkpoint", checkpoint.run, work, *how)
        numbers["checkpoint"] = _checkpoint(checkpointing) if checkpointing else None
    if "length" in config.what:
        shape = works.shape(config.length_shape)
        how = (config.lengths, config.rounds, config.seconds, config.seed, report_progress)
        lengths = attempt("length", length.run, config.sweep_cell, shape, *how)
        numbers["length"] = _lengths(lengths) if lengths else None
    if "memory" in config.what:
        work = works.make(config.sweep_cell, works.shape(config.memory_shape), config.seed)
        how = (config.seed, config.gpu, config.devices, report_progress)
        peaks, left_out = peak.peaks(work, config.contestants, *how)
        peaks = {name: found._asdict() for name, found in peaks.items()}
        numbers["memory"] = {"cell": work.cell, "shape": work.shape._asdict(), "peaks": peaks, "left_out": left_out}
    marks = [] if config.gpu else summary.marks(rows, checkpointing, lengths, machine.multiplies_bfloat16())
    numbers["marks"] = [mark._asdict() for mark in marks]
    missed = {f"{mark.what} is {mark.measured}, not {mark.limit}": not mark.met for mark in marks}
    numbers["verdict"] = verdict(missed) if marks else "no marks for what was measured"
    numbers["circumstances"] = circumstances(config, time.perf_counter() - began)
    plain = output.plain(numbers)
    return Result(numbers, report.tables(plain), draw(plain))


def _attempt(config, failed, name, measurement, *arguments):
    """The measurement; on a GPU, where nobody may be looking, a failure is written down and the rest goes on."""
    try:
        return measurement(*arguments)
    except Exception as error:
        if not config.gpu:
            raise
        failed[name] = f"{type(error).__name__}: {error}"[:500]
        return None


def _speed(config, attempt, report_progress):
    cases = [(cell, shape) for shape in config.speed_shapes for cell in config.cells]
    rows = []
    for k, (cell, shape) in enumerate(cases):
        work = works.make(cell, shape, config.seed)
        how = (config.contestants, config.rounds, config.seconds, report_progress)
        rows.append(attempt(f"speed, {cell} {shape}", speed.row, work, *how))
        jax.clear_caches()  # the programs of this row are done with
        report_progress("speed: rows", k + 1, len(cases))
    return [row for row in rows if row is not None]


def _checkpoint(found):
    T = found.shape.T
    slots = [
        {
            "slots": one.slots,
            **summary.in_ms(one.seconds),
            "over_full": measure.ratio(one.seconds, found.full_seconds)._asdict(),
            "time_by_formula": (one.formula / T + 2) / 3,
            "temporaries_bytes": one.temporaries,
            "formula": one.formula,
            "steps": one.steps,
            "steps_run": one.steps_run,
            "gradient_error": one.error,
        }
        for one in found.slots
    ]
    full = {**summary.in_ms(found.full_seconds), "temporaries_bytes": found.full_temporaries}
    return {"cell": found.cell, "shape": found.shape._asdict(), "full": full, "slots": slots}


def _lengths(found):
    points = {
        name: [
            {
                "T": point.T,
                **summary.in_ms(point.seconds),
                "compile_seconds": point.compile_seconds,
                "temporaries_bytes": point.temporaries,
                "gradient_error": point.error,
            }
            for point in own
        ]
        for name, own in found.points.items()
    }
    exponents = {name: length.exponent(own) for name, own in found.points.items()}
    shape = found.shape._asdict()
    return {"cell": found.cell, "shape": shape, "points": points, "exponents": exponents, "left_out": found.left_out}


def draw(numbers) -> dict[str, Any]:
    """A figure for each part that is there."""
    drawn = {}
    if numbers.get("speed", {}).get("rows"):
        drawn["over_floor"] = figures.over_floor(numbers["speed"]["rows"])
    if numbers.get("checkpoint"):
        drawn["checkpoint"] = figures.checkpoints(numbers["checkpoint"])
    if numbers.get("length"):
        drawn["length"] = figures.lengths(numbers["length"])
    return drawn


def circumstances(config: Config, seconds: float) -> dict[str, Any]:
    """Machine, versions, date, settings and how long it took: `result.json` can be read without anything beside it."""
    found = output.circumstances(())
    default = Config(**(QUICK if config.quick else {}))
    changed = [
        f"--{field.name.replace('_', '-')} {_written(getattr(config, field.name))}".strip()
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(default, field.name) and field.name != "out"
    ]
    here = {**found["machine"], "processor": machine.processor(), "cores": devices.cores()}
    versions = {**found["versions"], **{package: contenders.version(package) for package in _PACKAGES}}
    command = " ".join(["python -m experiments bench", *changed])
    return {"date": found["date"], "versions": versions, "machine": here, "settings": command, "seconds": seconds}


def _written(value):
    if isinstance(value, bool):
        return ""
    return " ".join(map(shlex.quote, map(str, value if isinstance(value, tuple) else (value,))))


STUDY = Study(
    name="bench",
    claim="loss and gradient of one layer beside plain jax.grad, flax, equinox, haiku and torch",
    config=Config,
    quick=QUICK,
    run=run,
)
