"""Measurements as JSON and back: named tuples by their name, arrays as lists, every number to its last bit.

{"speed.Row": {"cell": "lstm", …}}          {"array": [0.01, NaN]}
"""

import json
from typing import Any

import numpy as np

from experiments.benchmarks.measuring import length, long, online, peak, side_by_side, speed
from experiments.benchmarks.peers import work

_KINDS = (speed.Row, side_by_side.SideBySide, side_by_side.Timed, length.At, length.Point)
_KINDS += (long.Row, long.Case, peak.Peak, work.Shape, online.Costs, online.Stream)
_BY_NAME: dict[str, Any] = {f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}": kind for kind in _KINDS}
_NAMES = {kind: name for name, kind in _BY_NAME.items()}


def dumps(found: Any) -> str:
    """A measurement as text.

    >>> text = dumps(work.Shape(B=4, T=3, d=2, n=5))
    >>> text
    '{"work.Shape": {"B": 4, "T": 3, "d": 2, "n": 5}}'
    >>> loads(text)
    Shape(B=4, T=3, d=2, n=5)

    Raises:
        TypeError: for a named tuple that is none of the benchmark's, which would come back as a list.
    """
    return json.dumps(_plain(found))


def loads(text: str) -> Any:
    """The measurement again.

    Raises:
        ValueError: when it is damaged.
    """
    try:
        return json.loads(text, object_hook=_restored)
    except TypeError as error:  # other fields than the named tuple has now
        raise ValueError(str(error)) from error


def _plain(value: Any) -> Any:
    if type(value) in _NAMES:
        return {_NAMES[type(value)]: _plain(value._asdict())}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if hasattr(value, "_fields"):
        raise TypeError(f"`{type(value).__name__}` is no measurement that can be kept: add it to `_KINDS`")
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _restored(entries):
    name = next(iter(entries), "")
    if len(entries) == 1 and name == "array":
        return np.array(entries[name], float)
    return _BY_NAME[name](**entries[name]) if len(entries) == 1 and name in _BY_NAME else entries
