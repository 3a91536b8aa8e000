"""All files here together: they reach every ``raise`` of the library, so a new message without a row fails."""

import ast
import importlib
import pathlib
import traceback

import jaxbptt
from tests.errors.rows import outcome

HERE = pathlib.Path(__file__)
FILES = [
    importlib.import_module(f"tests.errors.{path.stem}")
    for path in sorted(HERE.parent.glob("test_*.py"))
    if path != HERE
]
# Only rows that a test runs count.
ROWS = [row for file in FILES if hasattr(file, "test_bad_input") for row in file.ROWS]


def test_rows_are_distinct():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_every_message_has_a_row():
    """Each ``raise`` of the library is where the exception of some row was raised."""
    root = pathlib.Path(jaxbptt.__file__).parent
    reached = {
        (pathlib.Path(frame.filename), frame.lineno)
        for row in ROWS
        for frame in traceback.extract_tb(getattr(outcome(row), "__traceback__", None))
    }
    raises = [
        (path, node)
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise)
    ]
    assert len(raises) > 50
    missed = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path, node in raises
        if not any((path, line) in reached for line in range(node.lineno, node.end_lineno + 1))
    ]
    assert not missed, f"no row reaches {missed}"
