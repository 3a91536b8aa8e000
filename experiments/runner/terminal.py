"""What a person sees: a progress bar while a study runs, then its tables."""

import contextlib
import sys
from collections.abc import Iterator

from experiments.study import Report, Result

_WIDTH_OF_A_FILE = 200  # or the tables of a run that nobody watches are cut to the 80 columns of no terminal


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A `Report` that draws one bar a stage, on stderr: how far, how many a second, the time gone and left."""
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    class Rate(rich.ProgressColumn):
        def render(self, task):
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.3g}/s" if speed else "")

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        Rate(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(stage, done, total, note=""):
            if stage not in tasks:  # one that is gone on with did not do in no time what was done before
                tasks[stage] = bars.add_task(stage, total=total, completed=done, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield report


def show(result: Result) -> None:
    """Prints the tables and the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # as it is: a plain string would lose the brackets of E[h²]

    wide = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    console = Console(file=sys.stdout, width=wide)
    for title, columns, rows in result.tables:
        console.print(f"\n{title}", markup=False, highlight=False)
        table = Table()
        for k, column in enumerate(columns):
            table.add_column(Text(column), justify="right" if k else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print(f"verdict: {result.numbers['verdict']}", markup=False, highlight=False)
