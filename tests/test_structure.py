"""The house rules that a reader relies on: imports point downward, every public name is documented with an example."""

import ast
import inspect
import pathlib
import re
import tomllib
from typing import NamedTuple

import pytest

import experiments
import jaxbptt as jb
from experiments.kit.options import EXTRAS

ROOT = pathlib.Path(jb.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
STUDIES = pathlib.Path(experiments.__file__).parent

# From the bottom up. A module may import what stands in a lower row, or in its own room.
ROWS = [
    ("_slots",),
    ("types", "_algebra"),
    ("_trees",),
    ("_errors",),
    ("_factory", "_axes"),
    ("initializers", "_time"),
    ("_precision",),
    ("cells", "readouts", "losses"),
    ("_masks",),
    ("adjoints", "policies"),
    ("unroll",),
    ("model", "jacobians"),
    ("objective",),
    ("data_parallel", "plan", "closed_form"),
    ("estimators",),
    ("checking", "diagnostics", "training"),
]
RANK = {room: rank for rank, rooms in enumerate(ROWS) for room in rooms}

# The same of the experiments.
ROWS_OF_EXPERIMENTS = ["study", "kit", "studies", "catalogue", "benchmarks.peers", "benchmarks", "runner"]


def room(path, root=ROOT):
    return path.relative_to(root).parts[0].removesuffix(".py")


def imported_modules(path, package="jaxbptt"):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), "a relative import, which would not be seen here"
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    if path.parent == ROOT and path.name == "__init__.py":
        return
    here = room(path)
    for other in {module.split(".")[0] for module in imported_modules(path)}:
        assert other == here or RANK[other] < RANK[here], f"{here} imports {other}"


@pytest.mark.parametrize("path", sorted(STUDIES.rglob("[!_]*.py")), ids=lambda path: str(path.relative_to(STUDIES)))
def test_imports_of_experiments_point_downward(path):
    here = place(".".join(path.relative_to(STUDIES).with_suffix("").parts))
    for other in map(place, imported_modules(path, "experiments")):
        assert other == here or other.rank < here.rank, f"{here.room} imports {other.room}"


class Place(NamedTuple):
    room: str
    rank: int


def place(module):
    rank = max(k for k, row in enumerate(ROWS_OF_EXPERIMENTS) if f"{module}.".startswith(f"{row}."))
    parts = module.split(".")
    return Place(".".join(parts[:2]) if parts[0] == "studies" else ROWS_OF_EXPERIMENTS[rank], rank)  # a study, a room


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_neither_prints_nor_plots_nor_jits(path):
    source = path.read_text()
    code = ast.unparse(ast.parse(source))  # without comments
    assert not re.search(r"(?<![.\w])print\(", "\n".join(strip_docstrings(source)))
    assert "matplotlib" not in code
    assert "chex" not in code
    if room(path) not in ("training", "checking", "plan"):
        jits = [line for line in strip_docstrings(source) if "jax.jit" in line]
        assert all("inline=True" in line for line in jits)  # a trace that is kept, no program of its own


def strip_docstrings(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body[0] = ast.Expr(ast.Constant(0))
    return ast.unparse(tree).splitlines()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_public_jax(path):
    code = ast.unparse(ast.parse(path.read_text()))
    assert not re.search(r"jax\._src|jax\.interpreters|jax\.core|jax\.experimental|jax\.extend", code)


# What writes and reads files; elsewhere in the library there is nothing that could.
FILE_ROOMS = {
    "training/_files.py": {"contextlib", "hashlib", "os", "pathlib", "shutil", "stat"},
    "training/checkpoints.py": {"os", "pathlib", "orbax"},  # PathLike and Path as arguments
    "training/metrics.py": {"os", "pathlib", "tensorboardX"},
    "training/_disk_errors.py": {"os"},  # the names of the system's errors
    "checking/__main__.py": {"os", "pathlib"},
}
TOUCHING = {"io", "os", "pathlib", "shutil", "tempfile", "stat", "pickle", "shelve", "orbax", "tensorboardX"}
SYSTEM = r"\bos\.(?!fspath|PathLike|strerror|getcwd|path\.split|path\.abspath|path\.isfile)\w"
CALLS = rf"(?<![.\w])open\(|{SYSTEM}|\.((read|write)_(text|bytes)|mkdir|unlink)\("


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_file_touches_the_file_system(path):
    name = path.relative_to(ROOT).as_posix()
    code = "\n".join(strip_docstrings(path.read_text()))
    imports = {
        alias.split(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert imports & TOUCHING <= FILE_ROOMS.get(name, set())
    assert "pickle" not in code
    if name != "training/_files.py":
        assert not re.search(CALLS, code)


MODULES = [
    jb,
    jb.adjoints,
    jb.cells,
    jb.checking,
    jb.closed_form,
    jb.diagnostics,
    jb.estimators,
    jb.initializers,
    jb.jacobians,
    jb.losses,
    jb.policies,
    jb.readouts,
    jb.training,
    jb.training.checkpoints,
    jb.training.metrics,
]


def public_functions():
    return {
        f"{value.__module__}.{value.__qualname__}": value
        for module in MODULES
        for value in (getattr(module, name) for name in module.__all__)
        if inspect.isfunction(value) and value.__module__.startswith("jaxbptt")
    }


@pytest.mark.parametrize("function", public_functions().values(), ids=public_functions())
def test_public_functions_are_documented(function):
    doc = inspect.getdoc(function)
    assert doc
    assert ">>>" in doc, "an example that runs as a doctest"
    required = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    if len(required) > 1:
        assert "Args:" in doc
        for parameter in required:
            assert re.search(rf"^\s+{parameter.name}:", doc, re.M), f"{parameter.name} is not described"


def public_classes():
    return {
        f"{value.__module__}.{value.__qualname__}": value
        for module in [*MODULES, jb.types]
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.startswith("jaxbptt")
        if not value.__module__.startswith("jaxbptt._")  # a module of one's own may use it, and not offer it
    }


@pytest.mark.parametrize("value", public_classes().values(), ids=public_classes())
def test_public_classes_are_documented(value):
    if getattr(value, "_is_protocol", False):  # a specification, of which there is nothing to run
        assert value.__call__.__doc__
        return
    assert ">>>" in (value.__doc__ or ""), "an example that runs as a doctest"


def test_public_names_are_those_of_the_design():
    assert {
        "rnn", "unroll", "objective", "check_cell", "check_readout", "check_gradients", "cells", "readouts", "losses",
        "adjoints", "jacobians", "closed_form", "estimators", "diagnostics", "training", "types", "Theta", "Cell",
        "Readout", "Model", "Estimate", "GradientEstimator",
    } <= set(jb.__all__)  # fmt: skip
    assert {"linear", "elman", "gru", "lstm", "from_step", "stacked", "masked", "resettable", "learned_start"} <= set(
        jb.cells.__all__
    )
    assert {"full", "autodiff"} <= set(jb.adjoints.__all__)
    assert {"bptt", "rtrl"} <= set(jb.estimators.__all__)
    assert {"l2_loss", "softmax_cross_entropy", "sigmoid_binary_cross_entropy"} <= set(jb.losses.__all__)
    assert {"linear", "identity", "from_apply", "several"} <= set(jb.readouts.__all__)
    assert jb.cells.LinearParams._fields == ("W_x", "W_h")
    assert jb.cells.ElmanParams._fields == ("W_x", "W_h", "b")
    assert jb.cells.GRUParams._fields == ("W_x", "W_h", "b_x", "b_h")
    assert jb.cells.LSTMParams._fields == ("W_x", "W_h", "b")
    assert jb.cells.LSTMState._fields == ("h", "c")
    assert jb.readouts.LinearReadoutParams._fields == ("W_o", "b")
    assert jb.Theta._fields == ("h", "o")
    assert jb.Estimate._fields == ("loss", "grads", "info")
    assert jb.Cell._fields[:5] == ("init", "initial_state", "apply", "vjp", "output")
    assert jb.Readout._fields[:3] == ("init", "apply", "vjp")
    assert jb.GradientEstimator._fields == ("init", "update")


def test_what_the_experiments_ask_for_is_what_their_extra_installs():
    written = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.split("[><=]", requirement)[0] for requirement in written["experiments"]}
    assert set(EXTRAS.values()) == installed
