"""What was measured, as ``result.json`` has it: times in milliseconds, temporaries in bytes."""

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.measuring import length, online, products
from experiments.benchmarks.measuring.checkpoint import Checkpointing
from experiments.benchmarks.measuring.length import Lengths
from experiments.benchmarks.measuring.long import Row as Long
from experiments.benchmarks.measuring.speed import Row
from experiments.benchmarks.reporting import summary
from experiments.kit import clock


def row(found: Row) -> dict[str, Any]:
    """A cell at a shape."""
    bounds = {name: _floor(found, rate) for name, rate in (("1024", found.gemm), ("step", found.gemm_of_a_step))}
    return {
        "cell": found.cell,
        "shape": found.shape._asdict(),
        "floor_ms": bounds["1024"],
        "floor_at_the_rate_of_a_step_ms": bounds["step"],
        "gemm_gflops": found.gemm / 1e9,
        "gemm_of_a_step_gflops": found.gemm_of_a_step / 1e9,
        "contenders": {name: _timed(timed, bounds["1024"]) for name, timed in found.timed.items()},
        "left_out": found.left_out,
        "ratios": {
            name: value._asdict() if isinstance(value, clock.Spread) else value
            for name, value in summary.ratios(found)._asdict().items()
        },
    }


def checkpoint(found: Checkpointing) -> dict[str, Any]:
    """The sweep over slots."""
    T = found.shape.T
    slots = [
        {
            "slots": one.slots,
            **_in_ms(one.seconds),
            "over_full": clock.ratio(one.seconds, found.full_seconds)._asdict(),
            "time_by_formula": (one.formula / T + 2) / 3,
            "temporaries_bytes": one.temporaries,
            "formula": one.formula,
            "steps": one.steps,
            "steps_run": one.steps_run,
            "gradient_error": one.error,
        }
        for one in found.slots
    ]
    full = {**_in_ms(found.full_seconds), "temporaries_bytes": found.full_temporaries}
    about = {"cell": found.cell, "shape": found.shape._asdict()}
    return {**about, "full": full, "slots": slots, "left_out": found.left_out}


def lengths(found: Lengths) -> dict[str, Any]:
    """The sweep over T."""
    points = {
        name: [
            {
                "T": point.T,
                **_in_ms(point.seconds),
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


def long(found: Long) -> dict[str, Any]:
    """One long sequence."""
    times = _in_ms(found.seconds)
    return {
        "cell": found.case.cell,
        "shape": found.case.shape._asdict(),
        "outputs": found.case.outputs,
        **times,
        "us_a_step": 1e3 * times["median_ms"] / found.case.shape.T,
        "compile_seconds": found.compile_seconds,
        "arguments_bytes": found.arguments,
        "temporaries_bytes": found.temporaries,
        "before_bytes": found.before,
        "peak_bytes": found.peak,
    }


def estimators(found: Sequence[online.Costs], streams: Sequence[online.Stream]) -> dict[str, Any]:
    """What a step costs, a row for each function timed, and the streams."""
    return {"costs": costs(found), "streams": [row._asdict() for row in streams]}


def costs(found: Sequence[online.Costs]) -> list[dict[str, Any]]:
    """A row for each function timed."""
    return [
        {"what": row.what, "size": row.size, "name": name, "parameters": row.parameters.get(name), **_in_ms(seconds)}
        for row in found
        for name, seconds in row.seconds.items()
    ]


def _floor(found, rate):
    return 1e3 * products.floor(found.cell, found.shape, rate)


def _timed(timed, floor_ms):
    spread = _in_ms(timed.seconds)
    return {
        **spread,
        "over_floor": spread["median_ms"] / floor_ms,
        "compile_seconds": timed.compile_seconds,
        "temporaries_bytes": timed.temporaries,
        "gradient_error": timed.error,
        "kind": timed.kind,
        "split": timed.split,
        "differs": timed.differs,
    }


def _in_ms(seconds):
    """Median, quartiles and every round; a round without it is None."""
    spread = clock.spread(1e3 * seconds)
    return {
        "median_ms": spread.median,
        "low_ms": spread.low,
        "high_ms": spread.high,
        "rounds": spread.rounds,
        "times_ms": 1e3 * seconds,
    }
