"""The report of `python -m experiments reproduce` as one HTML file: no script, no network, everything inside.

The page is built as a tree, so that whatever a study says is text in it and never markup.
"""

import base64
import itertools
import re
import struct
from collections.abc import Sequence
from xml.etree import ElementTree

from experiments.runner import rows
from experiments.runner.rows import Figure, Found, Row
from experiments.study import Table

Element = ElementTree.Element
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # a browser holds the page to its promise
_NUMBER = re.compile(r"([-+−–<>≤≥≈~±]?\s*\d.{,35}|[–-]?)$")
_UNPRINTABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLE = """
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1b1b1b; --faint: #5c5c5c; --rule: #d4d4d4; --tint: #f4f4f2; --link: #0a58a5;
  --good: #006b4c; --bad: #a33f00; --broken: #a3123b; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #161718; --ink: #e8e6e3; --faint: #a8a5a0; --rule: #3d3f41; --tint: #202224; --link: #7db9f2;
  --good: #4fc79b; --bad: #f0a05a; --broken: #ff7d9c; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.35rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
p { margin: .5rem 0; max-width: 48rem }
a { color: var(--link) }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .875em }
code { overflow-wrap: anywhere }
pre { padding: .75rem 1rem; overflow-x: auto; background: var(--tint); border: 1px solid var(--rule) }
section { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 2px solid var(--rule) }
.faint { color: var(--faint) }
.note { padding: .5rem .75rem; border-left: 4px solid var(--bad); background: var(--tint) }
.good { color: var(--good) } .bad { color: var(--bad) } .broken { color: var(--broken) }
.good, .bad, .broken { font-weight: 600 }
.reason { font-weight: 400; color: var(--ink) }
.tables { display: flex; flex-wrap: wrap; align-items: flex-start; column-gap: 3.5rem }
.wide { overflow-x: auto; max-width: 100%; margin: 1.25rem 0 }
table { border-collapse: collapse; font-size: .925rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding: 0 0 .35rem; font-weight: 600 }
th, td { padding: .2rem 1.4rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule) }
th:last-child, td:last-child { padding-right: 0 }
tbody th { font-weight: 400 }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--ink) }
.number { text-align: right; white-space: nowrap }
.summary { width: 100% } .summary th, .summary td { padding-block: .4rem }
.summary td:nth-child(2) { min-width: 14rem } .summary td:nth-child(3) { min-width: 12rem }
.summary tbody th { white-space: nowrap; font-weight: 600 }
figure { margin: 1.5rem 0 }
figure img { display: block; max-width: 100%; height: auto; padding: .5rem; background: #fff;
  border: 1px solid var(--rule) }
figcaption { margin-top: .4rem; max-width: 48rem; font-size: .9rem; color: var(--faint) }
details { margin: 1rem 0 } summary { cursor: pointer; color: var(--link) }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --faint: #444; --rule: #bbb; --tint: #fff; --link: #000;
    --good: #000; --bad: #000; --broken: #000 }
  @page { margin: 18mm 15mm }
  body { max-width: none; padding: 0; font-size: 10pt }
  h2, caption, thead, summary { break-after: avoid }
  tr, figure { break-inside: avoid }
  .wide { overflow: visible } pre { white-space: pre-wrap }
  a { text-decoration: none }
  details::details-content { content-visibility: visible; block-size: auto }
}
"""


def page(table: Sequence[Row], command: str) -> str:
    """The whole page: a summary of all studies, then a section for each.

    Args:
        table: the rows, in order.
        command: that made the report.

    Returns:
        HTML that loads nothing: figures are data URIs.
    """
    head = _e(
        "head",
        _e("meta", charset="utf-8"),
        _e("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _e("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        _e("meta", name="color-scheme", content="light dark"),
        _e("link", rel="icon", href="data:,"),
        _e("title", f"jaxbptt: {rows.tally(table)}"),
        _e("style", _STYLE),
    )
    number = itertools.count(1)
    main = _e("main", _header(table, command), _summary(table), *(_section(row, number) for row in table))
    return "<!DOCTYPE html>\n" + ElementTree.tostring(
        _e("html", head, _e("body", main), lang="en"), encoding="unicode", method="html"
    )


def _header(table, command):
    total = sum(row.found.seconds or 0 for row in table if row.found)
    where = rows.circumstances(table)
    quick = any(row.found and row.found.flags.get("quick") for row in table)
    note = "Quick forms: the set-ups are shortened, and the verdicts are on these alone."
    return _e(
        "header",
        _e("h1", "jaxbptt: claims, and what was measured"),
        _e("p", f"{rows.tally(table)}; {rows.duration(total)} in all. Made by ", _e("code", command), "."),
        *(
            _e("p", f"{name.capitalize()}: {value}.", class_="faint")
            for name, values in where.items()
            for value in values
        ),
        *([_e("p", note, class_="note")] if quick else []),
    )


def _summary(table):
    body = (
        _e(
            "tr",
            _e("th", _e("a", row.study, href=f"#{row.study}"), scope="row"),
            _e("td", row.claim),
            _e("td", _outcome(row)),
            _e("td", rows.duration(row.found.seconds if row.found else None), class_="number"),
        )
        for row in table
    )
    heads = (_e("th", name, scope="col", class_="number" * (name == "time")) for name in _SUMMARY)
    made = _e("table", _e("caption", "Summary"), _e("thead", _e("tr", *heads)), _e("tbody", *body), class_="summary")
    return _wide(made, "Summary")


_SUMMARY = ("study", "claim", "verdict", "time")


def _section(row, number):
    parts = [_e("h2", row.study, id=f"{row.study}-title"), _e("p", row.claim), _e("p", _outcome(row))]
    if row.found is not None:
        if row.found.published:
            columns = ("what", "value", "source", "how it is known")
            parts.append(_table(Table("published or exact", columns, row.found.published), numbers=False))
        parts.append(_e("div", *map(_table, row.found.tables), class_="tables"))
        parts += [_figure(row.study, figure, next(number)) for figure in row.found.figures]
        parts.append(_how(row.found))
    if row.traceback:
        parts.append(_e("pre", row.traceback, tabindex=0, aria_label=f"Traceback of {row.study}"))
    return _e("section", *parts, id=row.study, aria_labelledby=f"{row.study}-title")


def _outcome(row):
    """The verdict, its first words marked in colour and by a sign for who sees none."""
    kind, colon, reason = row.outcome.partition(":")
    if row.found is None:
        look, sign = ("faint", "○") if row.state == "not run" else ("broken", "!")
    else:
        look, sign = {"reproduced": ("good", "✓"), "not reproduced": ("bad", "✗")}.get(kind, ("faint", "·"))
    sign = _e("span", f"{sign}\u00a0", aria_hidden="true")
    if not colon:
        return _e("span", sign, kind, class_=look)
    return _e("span", sign, f"{kind}:", _e("span", reason, class_="reason"), class_=look)


def _table(table: Table, numbers: bool = True) -> Element:
    """Columns of numbers stand to the right; with ``numbers=False`` none is one."""
    columns = list(zip(*table.rows, strict=False)) or [()] * len(table.columns)
    looks = ["number" * (numbers and k > 0 and all(map(_NUMBER.match, cells))) for k, cells in enumerate(columns)]
    heads = (_e("th", name, scope="col", class_=look) for name, look in zip(table.columns, looks, strict=False))
    body = (
        _e(
            "tr",
            *(_e("td" if k else "th", cell, class_=looks[k], scope="" if k else "row") for k, cell in enumerate(r)),
        )
        for r in table.rows
    )
    made = _e("table", _e("caption", table.title), _e("thead", _e("tr", *heads)), _e("tbody", *body))
    return _wide(made, table.title)


def _wide(table, title):
    """What is wider than the page scrolls by itself, with the keyboard too."""
    return _e("div", table, class_="wide", role="region", tabindex=0, aria_label=title)


def _figure(study: str, figure: Figure, number: int) -> Element:
    width, height = struct.unpack(">II", figure.png[16:24])  # of the PNG's first chunk
    source = "data:image/png;base64," + base64.b64encode(figure.png).decode()
    alt = figure.description or f"figure {figure.name} of {study}"
    image = _e("img", src=source, alt=alt, width=width // 2, height=height // 2)  # drawn at twice a screen's density
    path = _e("code", f"{study}/{figure.name}.png")
    caption = _e("figcaption", f"Figure {number}, {figure.name.replace('_', ' ')}: ", path)
    return _e("figure", image, caption)


def _how(found: Found) -> Element:
    flags = tuple((f"--{name.replace('_', '-')}", _flag(value)) for name, value in found.flags.items())
    versions = tuple((name, str(version)) for name, version in found.versions.items())
    return _e(
        "details",
        _e("summary", "Configuration, versions, machine"),
        _e("p", _e("code", found.command)),
        _e("p", f"{found.date}; {rows.machine(found)}", class_="faint"),
        _e(
            "div",
            _table(Table("flags", ("flag", "value"), flags)),
            _table(Table("versions", ("package", "version"), versions)),
            class_="tables",
        ),
    )


def _flag(value):
    return " ".join(map(str, value)) if isinstance(value, list) else "–" if value is None else str(value)


def _e(tag: str, /, *children: Element | str, **attributes: object) -> Element:
    """An element: ``class_`` and ``http_equiv`` are its ``class`` and ``http-equiv``; empty attributes are left out."""
    given = {key.rstrip("_").replace("_", "-"): _clean(str(value)) for key, value in attributes.items() if value != ""}
    made = Element(tag, given)
    for child in children:
        if not isinstance(child, str):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + _clean(child)
        else:
            made.text = (made.text or "") + _clean(child)
    return made


def _clean(text):
    """Without control characters and lone surrogates, which no HTML may hold."""
    return _UNPRINTABLE.sub("\ufffd", text)
