"""What Ctrl-C and the signal of a time limit do for a while."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def answered(handlers: Mapping[int, Callable | signal.Handlers]) -> Iterator[None]:
    """These signals have these handlers inside. In another thread than the first, which has no signals, none.

    Args:
        handlers: as for ``signal.signal``, by the number of the signal.

    >>> with answered({signal.SIGTERM: signal.SIG_IGN}):
    ...     signal.raise_signal(signal.SIGTERM)
    """
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):
        for number, handler in handlers.items():
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
