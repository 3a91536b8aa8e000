"""Cached factories: equal arguments give the same object, so nothing downstream is traced twice."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jaxbptt._errors import arguments

P = ParamSpec("P")
R = TypeVar("R")

# A cache keeps its arguments alive, a user's closures among them: the oldest is let go beyond this many.
_MAXSIZE = 128


def factory(function: Callable[P, R]) -> Callable[P, R]:
    """Caches `function` on its arguments however they are spelt: by position, by keyword or by default."""
    signature = inspect.signature(function)
    cached = functools.lru_cache(maxsize=_MAXSIZE, typed=True)(function)  # True == 1, and is no number

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as wrong:
            raise arguments.no_call_of(function, signature, wrong) from None
        bound.apply_defaults()
        try:
            hash((bound.args, *bound.kwargs.values()))
        except TypeError:
            raise arguments.not_hashable(function.__name__, bound.arguments) from None
        return cached(*bound.args, **bound.kwargs)

    marked: Any = call
    marked.is_factory = True  # so that one that was not called is told from what it makes
    return marked
