"""How many states an adjoint may keep, and what `plan` takes."""

import math
from collections.abc import Mapping

import numpy as np

from jaxbptt import types
from jaxbptt._validate.factories import adjoint, count


def one_memory(**choices):
    """At most one of slots, fraction and budget, and each of them in its range."""
    given = {name: value for name, value in choices.items() if value is not None}
    if len(given) > 1:
        came = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            f"`slots`, `fraction` and `budget` exclude each other: got {came}; give one, or none for slots = √(2T)"
        )
    for name in given.keys() & {"slots", "budget"}:
        count(name, given[name])
    fraction = given.get("fraction")
    if fraction is not None:
        number = isinstance(fraction, (int, float, np.number)) and not isinstance(fraction, bool)
        if not number or not 0 < fraction <= 1:
            raise (ValueError if number else TypeError)(
                f"`fraction` must be a number with 0 < fraction ≤ 1, the share of the states to keep: got {fraction!r}"
            )


def counted_size(shape):
    """How many numbers, for a budget of bytes."""
    if not all(isinstance(size, int) for size in shape):
        raise ValueError(
            f"`budget` must be of a state whose size is known: got the shape {shape} in a program for any size; give "
            "`slots` or `fraction`"
        )
    return math.prod(shape)


def enough_memory(budget, row_bytes):
    """A budget holds one checkpoint and the state in hand."""
    if budget < 2 * row_bytes:
        raise ValueError(
            f"`budget` must be at least {2 * row_bytes} bytes here, one checkpoint and the state in hand with "
            f"{row_bytes} bytes each: got {budget}; give more, or split the batch"
        )


def block_fits(block, slots):
    if block > slots:
        raise ValueError(
            f"`block` must be at most `slots`, as a block's states are kept while it is reversed: got block={block}, "
            f"slots={slots}; leave `block` out to have it chosen"
        )


def plan_target(value, objective_type):
    if not isinstance(value, (objective_type, types.Model, types.Cell)):
        hint = "make one with `jb.objective(model, loss)`, and give that itself, no transformation of it"
        if hasattr(value, "is_factory"):
            hint = "call the factory, as in `cells.gru()`"
        raise TypeError(
            f"`target` must be an objective, a Model or a Cell: got {type(value).__name__} ({value!r:.80}); {hint}"
        )


def no_loss(**arguments):
    """What only an objective takes: of a model or a cell, `plan` makes the loss itself."""
    for name, value in arguments.items():
        if value is not None:
            raise TypeError(
                f"`{name}` must be left out for a Model or a Cell, as in `plan(model, theta, xs, h_0)`: got "
                f"{type(value).__name__}; for a loss of your own plan `jb.objective(model, loss)`"
            )


def named_adjoints(adjoints):
    if not isinstance(adjoints, Mapping):
        raise TypeError(
            f"`adjoints` must be a dictionary from names to adjoints: got {type(adjoints).__name__}; "
            'write `{"full": adjoints.full()}`, for one'
        )
    if not adjoints:
        raise ValueError("`adjoints` must have at least one entry: got none; leave it out for the usual ones")
    for value in adjoints.values():
        adjoint(value)


def host_memory(backend):
    if backend == "cpu":
        raise NotImplementedError(
            "`memory='host'` moves what is kept out of an accelerator's memory: got the CPU as the device, whose "
            "memory is the host's; use memory='device', or `adjoints.checkpointed` to keep less"
        )
