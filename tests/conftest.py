"""Strictness for every test: float64, no implicit promotion of dtypes or ranks; warnings are errors (pyproject).

Two devices, so that what splits a batch has something to split it over. The programs here are small, thousands, and run
once: nine tenths of the time would go into optimising them, and into splitting them to do so in parallel.
"""

import importlib.metadata
import os
import pathlib

_FAST_TO_COMPILE = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    _FAST_TO_COMPILE.append("--xla_cpu_use_fusion_emitters=false")  # newer ones don't know it
os.environ.setdefault("XLA_FLAGS", " ".join(_FAST_TO_COMPILE))

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


HERE = pathlib.Path(__file__).parent
# What runs with the newest Python and JAX as well: the laws, what transforms a gradient, messages, the main job.
ON_THE_NEWEST = [
    HERE / name
    for name in (
        "errors",
        "skeletons",
        "test_closed_form.py",
        "test_estimators.py",
        "test_gradients.py",
        "test_rules.py",
        "test_readme.py",
        "test_transformations.py",
        "training/test_learning.py",
        "training/test_steps.py",
    )
]
assert all(path.exists() for path in ON_THE_NEWEST), "a file of `ON_THE_NEWEST` has another name now"


def pytest_collection_modifyitems(items):
    for item in items:
        if any(item.path.is_relative_to(path) for path in ON_THE_NEWEST):
            item.add_marker("newest")


@pytest.fixture(autouse=True, scope="module")
def programs_are_let_go():
    """Each program maps several pages of memory, and a process may have 65530 of them: thousands of tests get there."""
    yield
    jax.clear_caches()


@pytest.fixture
def standard_promotion():
    """Optax's Adam needs it, whatever this library does without."""
    with jax.numpy_dtype_promotion("standard"):
        yield
