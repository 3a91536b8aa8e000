"""The rows of a report, each read back from the folder of one study: what is shown is what was written."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.study import Table


class Figure(NamedTuple):
    """A figure's file name without the ending, what it shows in words, and the PNG."""

    name: str
    description: str
    png: bytes


class Found(NamedTuple):
    """The folder of a study that ran.

    Attributes:
        verdict: the key of ``result.json``.
        seconds: the run took; None when nobody timed it.
        flags: every flag, as JSON has it.
        command: that gives this folder again.
        date: in ISO form.
        versions: of packages.
        machine: its description.
        published: the key of ``result.json``: what was published or follows exactly, with source and how it is known.
        tables: of the study.
        figures: of the study.
    """

    verdict: str
    seconds: float | None
    flags: dict[str, Any]
    command: str
    date: str
    versions: dict[str, str]
    machine: dict[str, Any]
    published: tuple[tuple[str, ...], ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]


class Row(NamedTuple):
    """One study in a report.

    Attributes:
        study: its name.
        claim: its claim.
        state: what became of it.
        found: when it ran.
        reason: one line, when it didn't.
        traceback: of the failure, where there is one.
    """

    study: str
    claim: str
    state: Literal["ran", "failed", "interrupted", "not run"] = "not run"
    found: Found | None = None
    reason: str = ""
    traceback: str = ""

    @property
    def outcome(self) -> str:
        """The verdict as ``result.json`` has it, or what became of the study instead."""
        if self.found is not None:
            return self.found.verdict
        return f"{self.state}: {self.reason}" if self.reason else self.state


def read(folder: Path) -> Found:
    """What a run wrote.

    Raises:
        OSError: when a file is missing.
        ValueError: when one isn't what a run writes.
    """
    result, config, shown = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("result", "config", "tables")
    )
    try:
        tables = tuple(
            Table(str(table["title"]), _strings(table["columns"]), tuple(_strings(row) for row in table["rows"]))
            for table in shown["tables"]
        )
        figures = tuple(
            Figure(name, str(words), (folder / f"{name}.png").read_bytes()) for name, words in shown["figures"].items()
        )
        how = {name: config[name] for name in ("seconds", "flags", "command", "date", "versions", "machine")}
        published = tuple(_published(result.get("published", {})))
        return Found(verdict=str(result["verdict"]), published=published, tables=tables, figures=figures, **how)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"`{folder}` holds no run of a study: {error!r}") from error


def _published(values):
    """What, value, source, tag; without what is only recalled or has no source, which must not pass for published.

    >>> paper = {"value": 0.25, "source": "Someone (2013)", "tag": "read in the paper"}
    >>> list(_published({"error": paper, "time": paper | {"tag": "recalled, unchecked"}, "size": 7}))
    [('error', '0.25', 'Someone (2013)', 'read in the paper')]
    """
    for what, entry in values.items():
        if not (isinstance(entry, dict) and entry.keys() >= {"value", "source", "tag"}):
            continue
        if not str(entry["tag"]).lower().startswith(("recalled", "unchecked")) and entry["tag"] != "M":
            yield what, str(entry["value"]), str(entry["source"]), str(entry["tag"])


def _strings(cells):
    return tuple(map(str, cells))


def tally(rows: Sequence[Row]) -> str:
    """How many came to which end.

    >>> tally([Row("a", ""), Row("b", "", "failed"), Row("c", "", "failed")])
    '3 studies: 2 failed, 1 not run'
    """
    counts: dict[str, int] = dict.fromkeys(
        ("reproduced", "not reproduced", "not judged", "ran", "failed", "interrupted", "not run"), 0
    )
    for row in rows:
        kind = row.outcome.split(":")[0]
        counts[kind if kind in counts else row.state] += 1
    what = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{len(rows)} {'study' if len(rows) == 1 else 'studies'}: {what}"


def circumstances(rows: Sequence[Row]) -> dict[str, list[str]]:
    """On which machines, with which versions and on which days the studies ran; more than one when they differ."""
    found = [row.found for row in rows if row.found is not None]
    days = sorted({one.date[:10] for one in found})
    return {
        "machine": list(dict.fromkeys(machine(one) for one in found)),
        "versions": list(dict.fromkeys(", ".join(f"{k} {v}" for k, v in one.versions.items()) for one in found)),
        "date": [days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"] if days else [],
    }


def machine(found: Found) -> str:
    """In one line."""
    here = found.machine
    devices = [f"{here['devices'].count(one)} × {one}" for one in dict.fromkeys(here["devices"])]
    return f"{here['system']}, {here['cores']} cores; devices: {', '.join(devices)}"


def duration(seconds: float | None) -> str:
    """As a person says it.

    >>> duration(0.31), duration(21.9), duration(59.96), duration(754), duration(7384), duration(None)
    ('0.3 s', '21.9 s', '1 min 0 s', '12 min 34 s', '2 h 3 min', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
