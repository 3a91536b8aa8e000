"""What the compiler says of a program."""

from typing import Any


def temporaries(program: Any) -> int | None:
    """Bytes that a compiled program needs besides arguments and results, if the compiler states them."""
    try:
        return int(program.memory_analysis().temp_size_in_bytes)
    except (AttributeError, NotImplementedError, RuntimeError):  # no such analysis on this backend
        return None
