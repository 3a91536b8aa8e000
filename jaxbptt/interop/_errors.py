"""What can't be a set of parameters of the library it is said to be of."""

from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np

from jaxbptt.interop._params import BY_GATES


def mapping(name, value, library):
    """A dict of arrays, or what reads like one."""
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dict of arrays, as {library} has it: got {type(value).__name__}")


def keys(name, found: Iterable, wanted: Iterable, remedy):
    """Exactly these names."""
    found, wanted = set(map(str, found)), set(wanted)
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        raise ValueError(f"`{name}` must have the keys {sorted(wanted)}: missing {missing}, extra {extra}; {remedy}")


def kind(name, came, known, remedy) -> NoReturn:
    raise ValueError(f"`{name}` must be the parameters of {known}: got {came}; {remedy}")


def shape(name, array, wanted):
    if np.shape(array) != wanted:
        raise ValueError(
            f"`{name}` must have shape {list(wanted)}: got {list(np.shape(array))}, which does not fit the other "
            "arrays; pass those of one cell as its library made them"
        )


def columns(name, array, gates):
    """A matrix with as many columns for each gate."""
    if np.ndim(array) != 2 or not np.size(array) or np.shape(array)[1] % gates:
        raise ValueError(
            f"`{name}` must be a matrix [inputs, {gates if gates > 1 else ''}n]: got shape {list(np.shape(array))}; "
            "pass the arrays of one cell as its library made them"
        )


def fits(name, theta_h):
    """θ_h, whose arrays fit each other."""
    gates = next(number for number, params in BY_GATES.items() if isinstance(theta_h, params))
    d, n = ((np.shape(W) or (0,))[-1] for W in theta_h[:2])
    rows = f"{gates if gates > 1 else ''}n"
    wanted = {"W_x": (gates * n, d), "W_h": (gates * n, n)}
    came = {field: np.shape(leaf) for field, leaf in theta_h._asdict().items()}
    if n < 1 or any(shape != wanted.get(field, (gates * n,)) for field, shape in came.items()):
        raise ValueError(
            f"`{name}` must have arrays of one cell: got {type(theta_h).__name__} with "
            f"{', '.join(f'{field} {list(shape)}' for field, shape in came.items())}; expected W_x [{rows}, d], "
            f"W_h [{rows}, n] and biases [{rows}]; pass the arrays of one cell as its library made them"
        )
    return theta_h


def alike(name, layers):
    """Layers, each a tuple of its directions, as one module of torch has them."""
    came = [[f"{type(params).__name__} with n={np.shape(params.W_h)[-1]}" for params in layer] for layer in layers]
    if len({kind for layer in came for kind in layer}) > 1 or len({len(layer) for layer in came}) > 1:
        raise ValueError(
            f"`{name}` must have one kind of cell, one size and as many directions in all layers, as a module of torch "
            f"has: got {came}; convert them one by one"
        )


def projection(name) -> NoReturn:
    raise NotImplementedError(
        f"`{name}` is of an LSTM with `proj_size`, which reads a projected h: no cell here does; train it without"
    )


def parameters(value, known) -> NoReturn:
    came = type(value).__name__
    raise TypeError(f"`theta_h` must be {known}, as `cell.init` makes it: got {came}")
