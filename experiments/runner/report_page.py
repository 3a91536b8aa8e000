"""The report of `python -m experiments reproduce` as one HTML file: no script, no network, everything inside.

The page itself is ``report.html.jinja``, which escapes all that it prints: what a study says is text and never markup.
"""

import base64
import functools
import itertools
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.runner import rows
from experiments.runner.rows import Figure, Found, Row
from experiments.study import Table

_NUMBER = re.compile(r"([-+−–<>≤≥≈~±]?\s*\d.{,35}|[–-]?)$")
_UNPRINTABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Outcome(NamedTuple):
    """The verdict, or what became of the study: its first words, marked by a look and by a sign, and the reason."""

    look: str
    sign: str
    kind: str
    reason: str


class Image(NamedTuple):
    """A figure as the page holds it, at half its pixels: it was drawn at twice a screen's density."""

    source: str
    alt: str
    width: int
    height: int


def page(table: Sequence[Row], command: str) -> str:
    """The whole page: a summary of all studies, then a section for each.

    Args:
        table: the rows, in order.
        command: that made the report.

    Returns:
        HTML that loads nothing: figures are data URIs.
    """
    counted = itertools.count(1)
    return _template().render(
        table=table,
        command=command,
        tally=rows.tally(table),
        seconds=rows.duration(sum(row.found.seconds or 0 for row in table if row.found)),
        where=rows.circumstances(table),
        quick=any(row.found and row.found.flags.get("quick") for row in table),
        number=lambda: next(counted),
    )


@functools.cache
def _template():
    import jinja2

    here = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=here, autoescape=True, finalize=_clean, undefined=jinja2.StrictUndefined)
    environment.globals.update(
        outcome_of=_outcome,
        looks_of=_looks,
        image_of=_image,
        published=_published,
        flags=_flags,
        versions=_versions,
        duration=rows.duration,
        machine=rows.machine,
    )
    return environment.get_template("report.html.jinja")


def _outcome(row: Row) -> Outcome:
    kind, _, reason = row.outcome.partition(":")
    if row.found is None:
        look, sign = ("faint", "○") if row.state == "not run" else ("broken", "!")
    else:
        look, sign = {"reproduced": ("good", "✓"), "not reproduced": ("bad", "✗")}.get(kind, ("faint", "·"))
    return Outcome(look, sign, kind, reason)


def _looks(table: Table, numbers: bool) -> list[str]:
    """The class of each column's cells: numbers stand to the right; with ``numbers=False`` none is one."""
    columns = list(zip(*table.rows, strict=False)) or [()] * len(table.columns)
    return ["number" * (numbers and k > 0 and all(map(_NUMBER.match, cells))) for k, cells in enumerate(columns)]


def _image(row: Row, figure: Figure) -> Image:
    width, height = struct.unpack(">II", figure.png[16:24])  # of the PNG's first chunk
    source = "data:image/png;base64," + base64.b64encode(figure.png).decode()
    return Image(source, figure.description or f"figure {figure.name} of {row.study}", width // 2, height // 2)


def _published(found: Found) -> Table:
    return Table("published or exact", ("what", "value", "source", "how it is known"), found.published)


def _flags(found: Found) -> Table:
    given = tuple((f"--{name.replace('_', '-')}", _flag(value)) for name, value in found.flags.items())
    return Table("flags", ("flag", "value"), given)


def _versions(found: Found) -> Table:
    return Table("versions", ("package", "version"), tuple((k, str(v)) for k, v in found.versions.items()))


def _flag(value):
    return " ".join(map(str, value)) if isinstance(value, list) else "–" if value is None else str(value)


def _clean(value):
    """Without control characters and lone surrogates, which no HTML may hold."""
    return _UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value  # markup is of cleaned text
