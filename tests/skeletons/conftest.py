"""Examples run as a reader would run them, as those of the library do."""

import jax
import pytest


@pytest.fixture(autouse=True)
def ordinary_settings_for_examples(request):
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
