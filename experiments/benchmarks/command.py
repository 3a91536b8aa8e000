"""``python -m experiments bench``: measures what the flags ask for, and makes numbers, tables and figures of it."""

import collections
import dataclasses
import os
import shlex
from typing import Any

from experiments import devices, output, trained
from experiments.benchmarks import (
    attempts,
    checkpoint,
    figures,
    kept,
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

_OF_ONE_SITTING = {"out", "resume", "markdown"}  # flags that say nothing of what is measured
_PACKAGES = ("flax", "equinox", "dm-haiku", "torch", "jax-cuda12-plugin", "jax-cuda13-plugin")
_PACKAGES += ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas")
_SETTINGS = (
    "JAX_",
    "XLA_",
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_",
    "CUBLAS_",
    "CUDNN_",
    "TORCH_",
    "OMP_",
    "GLIBC_TUNABLES",
)  # in the environment, they change what is measured


def run(config: Config, report_progress: Report) -> Result:
    """Measures.

    Args:
        config: the flags.
        report_progress: of progress.

    Returns:
        Numbers, tables and figures. ``verdict`` is about the marks, which are for two CPU cores.
    """
    devices.start(config.gpu, config.devices)
    about = circumstances(config)
    store = kept.nowhere()
    if config.out is not None:
        store = kept.below(config.out, _that_must_be_the_same(config, about), config.resume)
    try:
        with attempts.attempts(config, store, report_progress) as attempt:
            return _run(config, about, attempt, report_progress)
    except KeyboardInterrupt:
        if config.out is None:
            raise
        raise trained.InterruptedRunError("interrupted; what was measured is saved") from None


def _run(config, about, attempt, report_progress):
    numbers: dict[str, Any] = {}
    rows, checkpointing, lengths = [], None, None
    if "speed" in config.what:
        rows = _speed(config, attempt, report_progress)
        means = summary.means(rows)
        numbers["speed"] = {"rows": [summary.numbers(row) for row in rows], "geometric_means": means}
    if "checkpoint" in config.what:
        work = works.make(config.sweep_cell, works.shape(config.checkpoint_shape), config.seed, reads="last")
        how = (work, config.slots, config.rounds, config.seconds)
        checkpointing = attempt.make("checkpoint", _once, checkpoint.run, *how)
        numbers["checkpoint"] = _checkpoint(checkpointing) if checkpointing else None
    if "length" in config.what:
        shape = works.shape(config.length_shape)
        how = (config.sweep_cell, shape, config.lengths, config.rounds, config.seconds, config.seed)
        lengths = attempt.make("length", _once, length.run, *how)
        numbers["length"] = _lengths(lengths) if lengths else None
    if "memory" in config.what:
        work = works.make(config.sweep_cell, works.shape(config.memory_shape), config.seed)
        how = (work, config.contestants, config.seed, config.gpu, config.devices, report_progress)
        found = attempt.make("memory", lambda measure: peak.peaks(*how))  # processes of its own
        numbers["memory"] = _peaks(work, *found) if found else None
    marks = [] if config.gpu else summary.marks(rows, checkpointing, lengths, machine.multiplies_bfloat16())
    numbers["marks"] = [mark._asdict() for mark in marks]
    missed = {f"{mark.what} is {mark.measured}, not {mark.limit}": not mark.met for mark in marks}
    numbers["verdict"] = verdict(missed) if marks else "no marks for what was measured"
    numbers["failed"] = attempt.failed
    numbers["circumstances"] = {**about, "seconds": sum(attempt.seconds)}
    plain = output.plain(numbers)
    return Result(numbers, report.tables(plain), draw(plain))


def _once(measure, function, *arguments):
    return measure(function, *arguments)


def _speed(config, attempt, report_progress):
    cases = [(cell, shape) for shape in config.speed_shapes for cell in config.cells]
    rows, lost = [], collections.Counter()
    for k, (cell, shape) in enumerate(cases):
        how = (works.make(cell, shape, config.seed), config.contestants, config.rounds, config.seconds, lost)
        name = f"speed, {cell} {shape}"
        rows.append(attempt.make(name, attempts.row, *how))
        if rows[-1] is not None:
            attempt.failed.update({f"{name}, {who}": reason for who, reason in speed.wrong(rows[-1]).items()})
        report_progress("speed: rows", k + 1, len(cases))
    return [row for row in rows if row is not None]


def _peaks(work, found, left_out):
    peaks = {name: one._asdict() for name, one in found.items()}
    return {"cell": work.cell, "shape": work.shape._asdict(), "peaks": peaks, "left_out": left_out}


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


def circumstances(config: Config) -> dict[str, Any]:
    """Machine, versions, date and settings: `result.json` can be read without anything beside it."""
    found = output.circumstances(())
    default = Config(**(QUICK if config.quick else {}))
    changed = [
        f"--{field.name.replace('_', '-')} {_written(getattr(config, field.name))}".strip()
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(default, field.name) and field.name not in _OF_ONE_SITTING
    ]
    here = {**found["machine"], "processor": machine.processor(), "cores": devices.cores()}
    versions = {**found["versions"], **{package: output.version(package) for package in _PACKAGES}}
    command = " ".join(["python -m experiments bench", *changed])
    set_outside = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)}
    about = {"date": found["date"], "versions": versions, "machine": here, "settings": command}
    return {**about, "environment": set_outside}


def _that_must_be_the_same(config, about):
    flags = {f"--{name}": value for name, value in output.flags(config).items() if name not in _OF_ONE_SITTING}
    return {**flags, "machine": about["machine"], "versions": about["versions"], "environment": about["environment"]}


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
