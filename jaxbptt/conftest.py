"""Doctests run as a reader would run them, with JAX's ordinary settings, whatever the tests beside them set."""

import jax
import pytest


@pytest.fixture(autouse=True)
def ordinary_settings():
    """No float64, no strict promotion."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
