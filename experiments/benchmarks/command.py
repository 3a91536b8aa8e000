"""``python -m experiments bench``: measures what the flags ask for, and makes numbers, tables and figures of it."""

import collections
import sys
from typing import Any

import jax

from experiments.benchmarks.config import QUICK, Config
from experiments.benchmarks.measuring import (
    attempts,
    checkpoint,
    kept,
    length,
    long,
    machine,
    online,
    peak,
    ragged,
    side_by_side,
    speed,
)
from experiments.benchmarks.peers import contenders
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import LeftOutError
from experiments.benchmarks.reporting import circumstances, figures, report, result, summary
from experiments.kit import devices, output, trained
from experiments.study import Report, Result, Study, verdict


def run(config: Config, report_progress: Report) -> Result:
    """Measures.

    Args:
        config: the flags.
        report_progress: of progress.

    Returns:
        Numbers, tables and figures. ``verdict`` is about the marks, which are for two CPU cores.
    """
    if config.gpu:  # what this process held of a GPU would be lost to those that measure
        here = devices.gpus()
        jax.config.update("jax_platforms", "cpu")
    else:
        devices.start(config.gpu, config.devices)
        number, cores = len(jax.devices()), devices.cores()
        if number > cores:  # said here, not by those that measure: what they say last is why they end
            sys.stderr.write(f"warning: {number} devices on {cores} cores take turns\n")
        here = None
    about = circumstances.of(config, here)
    store = kept.nowhere()
    if config.out is not None:
        store = kept.below(config.out, circumstances.that_must_be_the_same(config, about), config.resume)
    try:
        with attempts.attempts(config, store, report_progress) as attempt:
            return _run(config, about, attempt, report_progress)._replace(devices=here)
    except KeyboardInterrupt:
        if config.out is None:
            raise
        raise trained.InterruptedRunError("interrupted; what was measured is saved") from None


def _run(config, about, attempt, report_progress):
    numbers: dict[str, Any] = {}
    rows, checkpointing, lengths, long_rows, costs, streams, of_sequences = [], None, None, [], [], [], []
    lost = collections.Counter()
    for part in config.parts:
        if part == "speed":
            rows = _speed(config, attempt, lost, report_progress)
            means = summary.means(rows)
            numbers["speed"] = {"rows": [result.row(row) for row in rows], "geometric_means": means}
        elif part == "checkpoint":
            checkpointing = _checkpointing(config, attempt, lost)
            numbers["checkpoint"] = result.checkpoint(checkpointing) if checkpointing else None
        elif part == "length":
            lengths = _measured_lengths(config, attempt, lost, report_progress)
            numbers["length"] = result.lengths(lengths) if lengths else None
        elif part == "long":
            long_rows = _long(config, attempt, report_progress)
            numbers["long"] = [result.long(row) for row in long_rows]
        elif part == "estimators":
            costs, streams = _estimators(config, attempt, report_progress)
            numbers["estimators"] = result.estimators(costs, streams)
        elif part == "sequences":
            of_sequences = _sequences(config, attempt, report_progress)
            numbers["sequences"] = result.costs(of_sequences)
        else:
            attempt.rest()  # those that measure are to have the device to themselves
            numbers["memory"] = _memory(config, attempt, len(about["machine"]["devices"]), report_progress)
    marks = []
    if not (config.gpu or attempt.cut_off):
        marks = summary.marks(rows, checkpointing, lengths, machine.multiplies_bfloat16(), long_rows)
        marks += [*summary.online(costs, streams), *summary.ragged(of_sequences)]
    numbers["marks"] = [mark._asdict() for mark in marks]
    missed = {f"{mark.what} is {mark.measured}, not {mark.limit}": not mark.met for mark in marks}
    unjudged = "cut off before the marks" if attempt.cut_off else "no marks for what was measured"
    numbers["verdict"] = verdict(missed) if marks else unjudged
    numbers["failed"] = attempt.failed
    numbers["cut_off"] = bool(attempt.cut_off)
    numbers["circumstances"] = {**about, "seconds": sum(attempt.seconds)}
    plain = output.plain(numbers)
    return Result(numbers, report.tables(plain), draw(plain))


def _everybody(config, attempt, lost, name, function, work, contestants):
    """`attempts.everybody`, and a gradient of ours that is wrong has failed."""
    how = (function, work, contestants, config.rounds, config.seconds, lost)
    found = attempt.make(name, attempts.everybody, *how)
    if found is not None:
        wrong = side_by_side.wrong(found.left_out)
        attempt.failed.update({f"{name}, {who}": reason for who, reason in wrong.items()})
    return found


def _speed(config, attempt, lost, report_progress):
    cases = [(cell, shape) for shape in config.speed_shapes for cell in config.cells]
    rows = []
    for k, (cell, shape) in enumerate(cases):
        work = works.make(cell, shape, config.seed)
        how = (f"speed, {cell} {shape}", speed.row, work, config.contestants)
        rows.append(_everybody(config, attempt, lost, *how))
        report_progress("speed: rows", k + 1, len(cases))
    return [row for row in rows if row is not None]


def _checkpointing(config, attempt, lost):
    work = works.make(config.sweep_cell, works.shape(config.checkpoint_shape), config.seed, reads="last")
    contestants = checkpoint.contestants(config.slots)
    found = _everybody(config, attempt, lost, "checkpoint", checkpoint.at, work, contestants)
    return None if found is None else checkpoint.beside_full(work, found)


def _measured_lengths(config, attempt, lost, report_progress):
    shape, asked = works.shape(config.length_shape), sorted(set(config.lengths))
    found = []
    for k, T in enumerate(asked):
        work = works.make(config.sweep_cell, shape._replace(T=T), config.seed, reads="last")
        found.append(_everybody(config, attempt, lost, f"length, T = {T}", length.at, work, length.CONTENDERS))
        report_progress("length: T", k + 1, len(asked))
    found = [one for one in found if one is not None]
    return length.together(config.sweep_cell, shape, found) if found else None


def _long(config, attempt, report_progress):
    found = []
    for k, case in enumerate(map(long.case, config.long)):
        how = (long.row, case, config.seed, config.rounds)
        found.append(attempt.make(f"long, {case}", attempts.alone, *how))
        report_progress("long: cases", k + 1, len(config.long))
    return [row for row in found if row is not None]


def _estimators(config, attempt, report_progress):
    costs, streams = [], []
    for k, (name, (function, times)) in enumerate(online.COSTS.items()):
        how = (times * config.estimators_size, config.seed, config.rounds, config.seconds)
        costs.append(attempt.make(f"estimators, {name}", attempts.alone, function, *how))
        report_progress("estimators: costs", k + 1, len(online.COSTS))
    for k, name in enumerate(online.streamed()):
        how = (online.stream, name, config.stream, config.seed)
        streams.append(attempt.make(f"estimators, a stream by {name}", attempts.alone, *how))
        report_progress("estimators: streams", k + 1, len(online.streamed()))
    return [row for row in costs if row is not None], [row for row in streams if row is not None]


def _sequences(config, attempt, report_progress):
    found = []
    for k, (name, function) in enumerate(ragged.COSTS.items()):
        how = (config.sequences_size, config.seed, config.rounds, config.seconds)
        found.append(attempt.make(f"sequences, {name}", attempts.alone, function, *how))
        report_progress("sequences: costs", k + 1, len(ragged.COSTS))
    return [row for row in found if row is not None]


def _memory(config, attempt, number_of_devices, report_progress):
    work = works.make(config.sweep_cell, works.shape(config.memory_shape), config.seed)
    peaks, left_out = {}, {}
    for k, contender in enumerate(config.contestants):
        how = (work, contender, config.seed, config.gpu, config.devices)
        found = attempt.make(f"memory, {contender.name}", _peak, number_of_devices, *how)  # in a process of its own
        if isinstance(found, peak.Peak):
            peaks[contender.name] = found._asdict()
        elif found is not None:
            left_out[contender.name] = found
        report_progress("memory: processes", k + 1, len(config.contestants))
    if not (peaks or left_out):
        return None
    return {"cell": work.cell, "shape": work.shape._asdict(), "peaks": peaks, "left_out": left_out}


def _peak(measure, number_of_devices, work, contender, *how):
    try:
        contenders.require(contender, work, number_of_devices)  # before a process is begun for it
        return peak.peak(work, contender, *how)
    except LeftOutError as reason:
        return str(reason)


def draw(numbers) -> dict[str, Any]:
    """A figure for each part that is there."""
    drawn = {}
    if numbers.get("speed", {}).get("rows"):
        drawn["over_floor"] = figures.over_floor(numbers["speed"]["rows"])
    if numbers.get("checkpoint") and numbers["checkpoint"]["slots"]:
        drawn["checkpoint"] = figures.checkpoints(numbers["checkpoint"])
    if numbers.get("length"):
        drawn["length"] = figures.lengths(numbers["length"])
    return drawn


STUDY = Study(
    name="bench",
    claim="loss and gradient of one layer beside plain jax.grad, flax, equinox, haiku and torch",
    config=Config,
    quick=QUICK,
    run=run,
)
