"""The house rules that a reader relies on: imports point downward, every public name is documented with an example."""

import ast
import functools
import inspect
import pathlib
import re
import tomllib
from typing import NamedTuple

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
    ("_masks", "_keys"),
    ("adjoints", "policies"),
    ("unroll", "layers", "sequences"),
    ("generation",),
    ("model", "jacobians"),
    ("objective",),
    ("data_parallel", "plan", "closed_form", "interop"),
    ("estimators",),
    ("checking", "diagnostics", "training"),
]
RANK = {room: rank for rank, rooms in enumerate(ROWS) for room in rooms}

# The same of the experiments.
ROWS_OF_EXPERIMENTS = ["study", "kit", "studies", "catalogue", "benchmarks.peers", "benchmarks", "runner"]


def room(path, root=ROOT):
    return path.relative_to(root).parts[0].removesuffix(".py")


def said(path, root=ROOT):
    return path.relative_to(root).as_posix()


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


@functools.cache
def without_docstrings(path):
    """The code of a file, without comments either."""
    read = ast.parse(path.read_text())
    for node in ast.walk(read):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body[0] = ast.Expr(ast.Constant(0))
    return ast.unparse(read)


def imported_modules(path, package="jaxbptt"):
    for node in ast.walk(tree(path)):
        assert not getattr(node, "level", 0), f"{path}: a relative import, which would not be seen here"
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}."))


def none(offences):
    """Each law looks at every file, and says all that breaks it."""
    offences = list(offences)
    assert not offences, "\n".join(offences)


class Place(NamedTuple):
    room: str
    rank: int


def in_the_library(module):
    return Place(module.split(".")[0], RANK[module.split(".")[0]])


def in_the_experiments(module):
    rank = max(k for k, row in enumerate(ROWS_OF_EXPERIMENTS) if f"{module}.".startswith(f"{row}."))
    parts = module.split(".")
    return Place(".".join(parts[:2]) if parts[0] == "studies" else ROWS_OF_EXPERIMENTS[rank], rank)  # a study, a room


def upward(path, root, package, place):
    here = place(".".join(path.relative_to(root).with_suffix("").parts))
    for other in map(place, imported_modules(path, package)):
        if other != here and other.rank >= here.rank:
            yield f"{said(path, root)}: {here.room} imports {other.room}"


def test_imports_point_downward():
    files = [path for path in FILES if path != ROOT / "__init__.py" and path.name != "conftest.py"]
    assert len(files) > 50
    none(line for path in files for line in upward(path, ROOT, "jaxbptt", in_the_library))


def test_imports_of_experiments_point_downward():
    files = sorted(STUDIES.rglob("[!_]*.py"))
    assert len(files) > 50
    none(line for path in files for line in upward(path, STUDIES, "experiments", in_the_experiments))


def test_the_library_neither_prints_nor_plots():
    for forbidden in (r"(?<![.\w])print\(", "matplotlib", r"\bchex\b"):
        none(f"{said(path)}: {forbidden}" for path in FILES if re.search(forbidden, without_docstrings(path)))


def test_the_library_does_not_jit():
    """But where a trace is kept, which is no program of its own, and where f is tried at points of our own."""
    none(
        f"{said(path)}: {line.strip()}"
        for path in FILES
        if room(path) not in ("training", "checking", "plan")
        and said(path) not in ("estimators/_pattern.py", "estimators/compare.py")
        for line in without_docstrings(path).splitlines()
        if "jax.jit" in line and "inline=True" not in line
    )


def test_only_public_jax():
    private = r"jax\._src|jax\.interpreters|jax\.core|jax\.experimental|jax\.extend"
    none(f"{said(path)}: {found}" for path in FILES for found in re.findall(private, ast.unparse(tree(path))))


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


def touching(path):
    name, code = said(path), without_docstrings(path)
    imports = {
        alias.split(".")[0]
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    yield from (f"{name}: imports {found}" for found in imports & TOUCHING - FILE_ROOMS.get(name, set()))
    if "pickle" in code:
        yield f"{name}: pickle"
    if name != "training/_files.py":
        yield from (f"{name}: {found.group()}" for found in re.finditer(CALLS, code))


def test_one_file_touches_the_file_system():
    none(line for path in FILES for line in touching(path))


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


def undescribed(name, function):
    doc = inspect.getdoc(function) or ""
    if ">>>" not in doc:
        yield f"{name}: no example that runs as a doctest"
    required = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    if len(required) > 1:
        for parameter in required:
            if not re.search(rf"\bArgs:\n.*^\s+{parameter.name}:", doc, re.M | re.S):
                yield f"{name}: {parameter.name} is not described under Args"


def test_public_functions_are_documented():
    functions = public_functions()
    assert len(functions) > 50
    none(line for name, function in functions.items() for line in undescribed(name, function))


def public_classes():
    return {
        f"{value.__module__}.{value.__qualname__}": value
        for module in [*MODULES, jb.types]
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.startswith("jaxbptt")
        if not value.__module__.startswith("jaxbptt._")  # a module of one's own may use it, and not offer it
    }


def is_documented(value):
    if getattr(value, "_is_protocol", False):  # a specification, of which there is nothing to run
        return bool(value.__call__.__doc__)
    return ">>>" in (value.__doc__ or "")


def test_public_classes_are_documented():
    classes = public_classes()
    assert len(classes) > 30
    none(f"{name}: no example that runs as a doctest" for name, value in classes.items() if not is_documented(value))


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
