"""Tables, for the terminal and as Markdown, from the numbers of ``result.json``: generated, never typed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.kit.options import BadInputError
from experiments.study import Table


def tables(numbers: Mapping[str, Any]) -> tuple[Table, ...]:
    """Every table that the numbers have something for."""
    found = []
    if rows := numbers.get("speed", {}).get("rows"):
        found += [*_times(rows), *_compiling(rows), _ratios(rows, numbers["speed"]["geometric_means"])]
        if left_out := _left_out(rows):
            found.append(left_out)
    if checkpointing := numbers.get("checkpoint"):
        found += [_checkpointing(checkpointing), *_missing("checkpoint", checkpointing)]
    if lengths := numbers.get("length"):
        found += [_lengths(lengths), *_missing("length", lengths)]
    if memory := numbers.get("memory"):
        found.append(_memory(memory))
    if long := numbers.get("long"):
        found.append(_long(long))
    if estimators := numbers.get("estimators"):
        found += [_costs(estimators["costs"]), _streams(estimators["streams"])]
    if sequences := numbers.get("sequences"):
        found.append(_sequences(sequences))
    if failed := numbers.get("failed"):
        found.append(Table("failed", ("what", "why"), tuple(failed.items())))
    if marks := numbers["marks"]:
        columns = ("mark", "limit", "measured", "met")
        body = tuple((m["what"], m["limit"], m["measured"], "yes" if m["met"] else "no") for m in marks)
        found.append(Table("marks (for two CPU cores)", columns, body))
    return tuple(found)


def markdown(path: Path) -> str:
    """The tables of a ``result.json`` as Markdown, with machine, versions and date.

    Raises:
        BadInputError: for a file that isn't there, or isn't one of these.
    """
    try:
        numbers = json.loads(path.read_text())
        where = numbers["circumstances"]
        machine, versions = where["machine"], where["versions"]
        lines = [
            f"Machine: {machine['processor']}, {machine['cores']} cores; devices: {_counted(machine['devices'])}. "
            f"Date: {where['date'][:10]}. Run: `{where['settings']}`, {where['seconds'] / 60:.0f} minutes.",
            "",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version) + ".",
        ]
        for title, columns, rows in tables(numbers):
            lines += ["", f"**{title}**", "", _line(columns), _line(["---"] * len(columns)), *map(_line, rows)]
    except OSError as error:
        raise BadInputError(f"`--markdown`: cannot read `{path}`: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"`--markdown`: `{path}` is no result.json of `bench`: {error!r}") from None
    return "\n".join(lines) + "\n"


def _counted(devices):
    """Each kind once.

    >>> _counted(["cpu: cpu", "cpu: cpu"])
    '2 × cpu: cpu'
    """
    return ", ".join(f"{devices.count(device)} × {device}" for device in dict.fromkeys(devices))


def in_order(rows):
    """The contenders of some rows: ours, ours split, JAX peers, others; each group in the order of its list."""
    found = {name: one for row in rows for name, one in row["contenders"].items()}
    kinds = ("ours", "jax", "other")
    return sorted(found, key=lambda name: (kinds.index(found[name]["kind"]), found[name]["split"]))


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _name(row):
    B, T, d, n = row["shape"].values()
    return f"{row['cell']} {B}, {T}, {d}, {n}"


def _ms(value):
    """Three figures.

    >>> _ms(0.12345), _ms(12.345), _ms(1234.5)
    ('0.123', '12.3', '1234')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _by_shape(rows, title, cell, last=None):
    """A table for each shape: contenders down, cells across; `last` makes one more line of a row."""
    for shape in dict.fromkeys(tuple(row["shape"].values()) for row in rows):
        own = [row for row in rows if tuple(row["shape"].values()) == shape]
        names = in_order(own)
        body = [(name, *(cell(row["contenders"].get(name)) for row in own)) for name in names]
        body += [("the products alone", *map(last, own))] if last else []
        where = ", ".join(map(str, shape))
        yield Table(f"B, T, d, n = {where}: {title}", ("", *(row["cell"] for row in own)), tuple(body))


def _times(rows):
    def cell(one):
        if one is None:
            return "–"
        return f"{_ms(one['median_ms'])} ({_ms(one['low_ms'])} to {_ms(one['high_ms'])})" + "†" * one["differs"]

    title = "milliseconds, median (quartiles); † another function or precision than the rest"
    return _by_shape(rows, title, cell, lambda row: _ms(row["floor_ms"]))


def _compiling(rows):
    def cell(one):
        if one is None or one["compile_seconds"] is None:
            return "–"
        return f"{one['compile_seconds']:.2f}, {_mib(one['temporaries_bytes'])}"

    return _by_shape(rows, "compile time in s, temporaries of a device in MiB", cell)


def _ratio(value):
    return "–" if value is None else f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _ratios(rows, means):
    body = [
        (
            _name(row),
            row["ratios"]["best_peer"] or "–",
            row["ratios"]["best_own"] or "–",
            *(_ratio(row["ratios"][name]) for name in ("one", "every", "torch")),
            " ".join(str(count) for count in sorted({one["rounds"] for one in row["contenders"].values()})),
        )
        for row in rows
    ]
    mean = (f"{means[name]:.2f}" if name in means else "–" for name in ("one", "every", "torch"))
    body.append(("geometric mean", "", "", *mean, ""))
    columns = ("cell B, T, d, n", "best JAX peer", "best of ours", "one / peer", "all / peer", "all / torch", "rounds")
    return Table("ratios of full, on one device and on all: medians (quartiles over rounds)", columns, tuple(body))


def _left_out(rows):
    reasons = {}
    for row in rows:
        for name, reason in row["left_out"].items():
            reasons.setdefault((name, reason), []).append(_name(row))
    if not reasons:
        return None
    body = ((name, reason, f"{len(where)} of {len(rows)}") for (name, reason), where in reasons.items())
    return Table("left out", ("who", "why", "rows"), tuple(body))


def _on_the_device(one):
    """With ≤ where running took no more than compiling had.

    >>> _on_the_device({"device": 2**20, "device_before": 2**20}), _on_the_device({"device": 2**20})
    ('≤ 1', '1')
    """
    bound = one["device"] is not None and one["device"] == one.get("device_before")
    return "≤ " * bound + _mib(one["device"])


def _missing(what, found):
    """Of `checkpoint` and `length`; results of before those were kept have none."""
    if left_out := found.get("left_out"):
        yield Table(f"left out of {what}", ("who", "why"), tuple(left_out.items()))


def _mib(size):
    return "–" if size is None else f"{size / 2**20:.3g}" if size < 1000 * 2**20 else f"{size / 2**20:.0f}"


def _checkpointing(found):
    body = tuple(
        (
            str(one["slots"]),
            _ratio(one["over_full"]),
            f"{one['time_by_formula']:.2f}",
            _mib(one["temporaries_bytes"]),
            str(one["formula"]),
            str(one["steps"]),
            str(one["steps_run"]),
        )
        for one in found["slots"]
    )
    B, T, d, n = found["shape"].values()
    full = f"{_ms(found['full']['median_ms'])} ms and {_mib(found['full']['temporaries_bytes'])} MiB"
    title = f"checkpointed {found['cell']} {B}, {T}, {d}, {n} beside full ({full})"
    columns = ("slots", "time / full", "(steps/T + 2)/3", "MiB", "steps: formula", "planned", "planned, in blocks")
    return Table(title, columns, body)


def _lengths(found):
    body = [
        (
            name,
            str(point["T"]),
            _ms(point["median_ms"]),
            _ms(1e3 * point["median_ms"] / point["T"]),
            _mib(point["temporaries_bytes"]),
            f"{point['compile_seconds']:.2f}",
        )
        for name, points in found["points"].items()
        for point in points
    ]
    B, _, d, n = found["shape"].values()
    columns = ("", "T", "ms", "µs a step", "temporaries, MiB", "compile, s")
    return Table(f"{found['cell']}, B = {B}, d = {d}, n = {n}, F reads h_T", columns, tuple(body))


def _long(rows):
    body = []
    for row in rows:
        B, T, d, n = row["shape"].values()
        sizes = (4 * B * T * n, *(row[f"{what}_bytes"] for what in ("arguments", "temporaries", "before", "peak")))
        body.append(
            (
                f"{row['cell']} {B}, {T}, {d}, {n}, {row['outputs']}",
                *map(_mib, sizes),
                f"{row['compile_seconds']:.2f}",
                f"{_seconds(row['median_ms'])} ({_seconds(row['low_ms'])} to {_seconds(row['high_ms'])})",
                _ms(row["us_a_step"]),
                str(row["rounds"]),
            )
        )
    columns = ("cell B, T, d, n, m", "T·B·n, MiB", "θ, xs, ys", "temporaries", "resident before", "peak")
    columns += ("compile, s", "a gradient, s", "µs a step", "calls")
    return Table(
        "checkpointed, F a mean over all steps: sizes in MiB, times as medians (quartiles)", columns, tuple(body)
    )


def _costs(rows):
    body = []
    for row in rows:
        first = next(one for one in rows if one["what"] == row["what"])
        times = (1e3 * row[which] for which in ("median_ms", "low_ms", "high_ms"))
        where = f"{row['what']}, n = {row['size']}" if row is first else ""
        figures = "{} ({} to {})".format(*map(_ms, times)), f"{first['median_ms'] / row['median_ms']:.2f}"
        body.append((where, row["name"], f"{row['parameters']:,}", *figures))
    columns = ("", "timed", "|θ_h|", "µs a step", "the first over it")
    return Table("estimators, B = 1: medians (quartiles)", columns, tuple(body))


def _sequences(rows):
    body = []
    for row in rows:
        first = next(one for one in rows if one["what"] == row["what"])
        where = f"{row['what']}, n = {row['size']}" if row is first else ""
        times = f"{_ms(row['median_ms'])} ({_ms(row['low_ms'])} to {_ms(row['high_ms'])})"
        body.append((where, row["name"], times, f"{first['median_ms'] / row['median_ms']:.2f}"))
    columns = ("", "timed", "ms a batch", "the first over it")
    return Table("sequences, B, T = 32, 256: medians (quartiles)", columns, tuple(body))


def _streams(rows):
    body = tuple(
        (row["estimator"], f"{row['steps']:,}", _ms(row["us_a_step"]), _mib(row["first"]), _mib(row["peak"]))
        for row in rows
    )
    columns = ("", "steps", "µs a step", "MiB, 2,000 steps", "MiB, all")
    return Table("streams of an Elman network, d = 4, n = 16: the most resident memory of the process", columns, body)


def _seconds(milliseconds):
    return _ms(milliseconds / 1e3)


def _memory(found):
    body = [
        (name, _mib(one["before"]), _mib(one["peak"]), _mib(one["peak"] - one["before"]), _on_the_device(one))
        for name, one in found["peaks"].items()
    ]
    body += [(name, "–", "–", "–", reason) for name, reason in found["left_out"].items()]
    columns = ("", "before", "peak", "more", "on the device")
    B, T, d, n = found["shape"].values()
    return Table(f"resident memory of a process, MiB: {found['cell']} {B}, {T}, {d}, {n}", columns, tuple(body))
