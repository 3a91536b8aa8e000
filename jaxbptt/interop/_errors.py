"""What can't be a set of parameters of the library it is said to be of."""

from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np


def mapping(name, value, library):
    """A dict of arrays, or what reads like one."""
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dict of arrays, as {library} has it: got {type(value).__name__}")


def keys(name, found: Iterable, wanted: Iterable, remedy):
    """Exactly these names."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        raise ValueError(f"`{name}` must have the keys {sorted(wanted)}: missing {missing}, extra {extra}; {remedy}")


def kind(name, came, known) -> NoReturn:
    raise ValueError(f"`{name}` must be the parameters of {known}: got {came}")


def shape(name, array, wanted):
    if np.shape(array) != wanted:
        raise ValueError(f"`{name}` must have shape {list(wanted)}: got {list(np.shape(array))}")


def projection(name) -> NoReturn:
    raise NotImplementedError(
        f"`{name}` is of an LSTM with `proj_size`, which reads a projected h: no cell here does; train it without"
    )


def parameters(value, known) -> NoReturn:
    came = type(value).__name__
    raise TypeError(f"`theta_h` must be {known}, as `cell.init` makes it: got {came}")
