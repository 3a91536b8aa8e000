"""A study runs as from the shell: with JAX's own settings, not with the strict ones of the other tests."""

import jax
import pytest


@pytest.fixture(autouse=True)
def settings_of_a_fresh_process():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
