"""Arguments of factories: functions, choices, counts, cells, readouts, models, adjoints."""

import inspect
import math

import numpy as np

from jaxbptt import types
from jaxbptt._errors.words import other


def not_hashable(function, given):
    """The error of a factory given something that can't be hashed."""
    several = ((name, value if isinstance(value, tuple) else (value,)) for name, value in given.items())
    name, part = next((name, part) for name, parts in several for part in parts if not _is_hashable(part))
    one_by_one = f", as in `{function.lstrip('_')}(*{name})`" if isinstance(given[name], tuple) else ""
    return TypeError(
        f"`{name}` of {function.lstrip('_')} must be hashable, as factories are cached: got a {type(part).__name__}; "
        f"pass functions, numbers or Cells one by one, not in a list or an array{one_by_one}"
    )


def _is_hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


def no_call_of(function, signature, error):
    """The error of a factory called with other arguments than its own."""
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    bare = [one if one.default is one.empty else one.replace(default=...) for one in bare]
    call = str(inspect.Signature(bare)).replace("Ellipsis", "…")
    sizes = {types.Cell: "input_size, hidden_size", types.Readout: "hidden_size, output_size"}
    made = sizes.get(signature.return_annotation)
    remedy = f"; sizes go to what it makes, `.init(key, {made})`" if made else ""
    return TypeError(f"`{function.__name__}` can't be called so ({error}): expected {function.__name__}{call}{remedy}")


def flag(name, value, remedy=""):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False: got {value!r:.80}{remedy}")


def callable_argument(name, value):
    if not callable(value):
        raise other(name, "a function", value)


def called_with(name, value, *arguments, keywords=()):
    """A function that can be called with these, the last by their names."""
    callable_argument(name, value)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # of a builtin, which doesn't say
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(keywords))
    except TypeError:
        raise TypeError(
            f"`{name}` must be a function that can be called as {name}({', '.join(arguments)}): got one of {signature}"
        ) from None


def adjoint(value):
    if not callable(value):
        raise other("adjoint", "an adjoint", value, "; `adjoints.full()`, for one")
    if hasattr(value, "is_factory"):
        raise TypeError(
            f"`adjoint` must be an adjoint: got the factory {value.__name__}; call it, as in `adjoints.full()`"
        )


def one_of(name, value, choices, otherwise):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}: got {value!r}; {otherwise}")


def of_the_state(jacobian, affine):
    """What a cell declares of f as a function of h_{t-1}."""
    one_of("jacobian", jacobian, ("dense", "diagonal"), '"dense" is right for every f')
    flag("affine", affine, "; False is right for every f")


def at_least(name, value, least):
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value >= least:
        raise ValueError(f"`{name}` must be a number, at least {least}: got {value!r}")


def numbers(**values):
    """Real and finite ones."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise other(name, "a number", value)
        if not math.isfinite(value):
            raise ValueError(f"`{name}` must be a finite number: got {value!r}")


def count(name, value, least=1):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        kind = ValueError if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else TypeError
        raise kind(f"`{name}` must be an integer, at least {least}: got {value!r}")


def absent(name, remedy):
    """A stand-in for an optional function: raises when called, not before."""

    def missing(*args, **kwargs):
        raise NotImplementedError(f"this needs `{name}`, which was not given: {remedy}")

    return missing


def cells(name, values):
    if not values:
        raise TypeError(f"`{name}` must be at least one Cell: got none")
    for value in values:
        if not isinstance(value, types.Cell):
            hint = "; call the factory, as in `cells.gru()`" if callable(value) else ""
            hint = "; take its `.cell`" if isinstance(value, types.Model) else hint
            hint = f"; pass Cells one by one, as in `*{name}`" if type(value) is tuple else hint
            raise other(name, "a Cell", value, hint)


def readout(value):
    if not isinstance(value, types.Readout):
        hint = "; call the factory, as in `readouts.linear()`" if callable(value) else ""
        raise other("readout", "a Readout", value, hint)


def policy(value):
    if not isinstance(value, types.Policy):
        raise other("policy", "a Policy, such as `policies.mixed_precision()`", value)


def model(value):
    if not isinstance(value, types.Model):
        raise other("model", "a Model", value, "; make one with `jb.rnn(cell, readout)`")
