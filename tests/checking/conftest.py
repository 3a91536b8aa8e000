"""Many small checks."""

import jax
import pytest


@pytest.fixture
def eager():
    """One operation at a time, as compiling each of the checks would take a second."""
    with jax.disable_jit():
        yield
