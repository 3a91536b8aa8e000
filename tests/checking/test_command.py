"""``python -m jaxbptt.checking``."""

import os
import re
import subprocess
import sys

import pytest

import jaxbptt as jb
from jaxbptt.checking import __main__ as command

USERS_FILE = """
import jaxbptt as jb

RIGHT = jb.cells.linear()
READOUT = jb.readouts.linear()

def wrong_rule(theta_h, x_t, h_tm1, h_t, h_bar_t):
    theta_bar, x_bar_t, h_bar_tm1 = RIGHT.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    return theta_bar, x_bar_t, 2 * h_bar_tm1

WRONG = RIGHT._replace(vjp=wrong_rule)
NUMBER = 3

class Zoo:
    cell = RIGHT


def failing_rule(theta_h, x_t, h_tm1, h_t, h_bar_t):
    return 1 / 0


FAILS = RIGHT._replace(vjp=failing_rule)


def ending(*step):
    raise SystemExit(0)


ENDS = RIGHT._replace(vjp=ending)
"""


@pytest.fixture
def users_file(tmp_path, monkeypatch):
    """A module of the user's in the working directory; what importing it leaves behind is cleared away."""
    (tmp_path / "users_cells.py").write_text(USERS_FILE)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "undefined.py").write_text("CELL = nothing\n")
    (tmp_path / "ends.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("users_cells", "broken", "undefined", "ends", "sub", "sub.users_cells"):
        sys.modules.pop(name, None)


def test_the_command(users_file):
    """As processes of their own, all at once: right, wrong, and nothing to check."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(jb.__file__)))
    environment = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # most of the time is compilation
    running = {
        target: subprocess.Popen(
            [sys.executable, "-m", "jaxbptt.checking", target, "--seeds", "1", "--sizes", "4,3"],
            cwd=users_file,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for target in ("users_cells:RIGHT", "users_cells.py:WRONG", "no_such_module:CELL")
    }
    ended = {target: (*process.communicate(timeout=120), process.returncode) for target, process in running.items()}

    out, err, status = ended["users_cells:RIGHT"]
    assert status == 0, err
    assert out.startswith("check_cell: ")
    assert re.search(r"^theta_h\.W_h( +\d\.\de[+-]\d\d){3}$", out, re.MULTILINE)

    out, err, status = ended["users_cells.py:WRONG"]
    assert (status, out) == (1, "")
    assert re.match(r"WRONG: `h_tm1\[[\d, ]+\]` by the hand-written rule is \S+, jax.vjp gives \S+: .*step t=1", err)

    out, err, status = ended["no_such_module:CELL"]
    assert (status, out) == (2, "")
    assert re.match(r"error: `no_such_module:CELL` must be MODULE:NAME .*No module named 'no_such_module'", err)
    assert "Traceback" not in err


@pytest.mark.usefixtures("users_file")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("users_cells", "it needs both parts, with a colon between"),
        ("users_cells:", "it needs both parts, with a colon between"),
        ("users_cells:NOWHERE", "`users_cells` has no `NOWHERE`"),
        ("users_cells:Zoo.lion", "`users_cells` has no `Zoo.lion`"),
        ("users_cells:NUMBER", "`NUMBER` is a int"),
        ("broken:CELL", "importing `broken` failed (ModuleNotFoundError: No module named 'nowhere_to_be_found')"),
        ("undefined:CELL", "importing `undefined` failed (NameError: name 'nothing' is not defined)"),
        ("users_cells:wrong_rule", "calling `wrong_rule()` failed"),  # a function, but it makes no cell
        ("ends:CELL", "importing `ends` failed (SystemExit: 0)"),
        ("users_cells:ending", "calling `ending()` failed (SystemExit: 0)"),
    ],
)
def test_the_command_with_nothing_to_check(target, message, capsys):
    assert command.main([target]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert f"`{target}` must be MODULE:NAME of a Cell or a Readout" in err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("users_file")
def test_the_command_with_a_readout(capsys, monkeypatch):
    """It goes to `check_readout`, whose own work is tested above."""
    seen = []
    monkeypatch.setattr(command, "check_readout", lambda value, **options: seen.append((value, options)) or "TABLE")
    assert command.main(["users_cells:READOUT", "--seeds", "2", "--sizes", "5,3", "1,4"]) == 0
    assert capsys.readouterr().out == "TABLE\n"
    assert seen == [(jb.readouts.linear(), {"seeds": range(2), "sizes": [(5, 3), (1, 4)]})]


@pytest.mark.usefixtures("users_file")
def test_a_rule_that_fails_is_not_a_rule_that_is_wrong(capsys):
    """Where it fails, the traceback says."""
    for name, where, error in (("FAILS", "failing_rule", "ZeroDivisionError"), ("ENDS", "ending", "SystemExit")):
        assert command.main([f"users_cells:{name}", "--seeds", "1", "--sizes", "2,3"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"in {where}" in err
        assert error in err


@pytest.mark.usefixtures("users_file")
def test_what_the_command_finds():
    """A name inside a class, a path with slashes, and a factory, which is called."""
    os.mkdir("sub")
    os.rename("users_cells.py", os.path.join("sub", "users_cells.py"))
    for target in ("sub.users_cells:Zoo.cell", "sub/users_cells.py:RIGHT", "jaxbptt.cells:linear"):
        assert command.load(target) is jb.cells.linear()


@pytest.mark.usefixtures("users_file")
def test_the_command_with_no_seeds(capsys):
    assert command.main(["users_cells:RIGHT", "--seeds", "0"]) == 2
    assert "`seeds` must have at least one entry" in capsys.readouterr().err
