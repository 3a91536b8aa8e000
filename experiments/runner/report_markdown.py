"""The table of `python -m experiments reproduce` in Markdown: generated, never typed."""

from collections.abc import Sequence

from experiments.runner.rows import Row, circumstances, duration


def markdown(rows: Sequence[Row], command: str) -> str:
    """Where and when, then one line a study, whatever became of it.

    Args:
        rows: in order.
        command: that made the report.

    Returns:
        The text, with a newline at its end.
    """
    where = circumstances(rows)
    about = [f"{name.capitalize()}: {_cell('; '.join(values))}." for name, values in where.items() if values]
    lines = [f"Run: `{command}`.", *about, ""]
    lines += [_line("study", "claim", "verdict", "time"), _line(*["---"] * 4)]
    for row in rows:
        shortened = " (quick)" * bool(row.found and row.found.flags.get("quick"))
        seconds = duration(row.found.seconds if row.found else None)
        lines.append(_line(f"`{row.study}`", _cell(row.claim), _cell(row.outcome), seconds + shortened))
    return "\n".join(lines) + "\n"


def _line(*cells):
    return f"| {' | '.join(cells)} |"


def _cell(text):
    r"""One line in which nothing is markup, and no bar ends the cell.

    >>> _cell("|θ| < 2*π\n in `W`")
    '\\|θ\\| &lt; 2\\*π in \\`W\\`'
    """
    text = " ".join(text.split()).replace("\\", "\\\\")
    for mark in "|*`[]~":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("&", "&amp;").replace("<", "&lt;")
