"""The needs of an adjoint: memory, a number of steps, the residuals of a split."""

import math

import numpy as np

from jaxbptt._errors.arguments import count


def one_memory(**choices):
    """At most one of slots, fraction and budget is given, and it is in its range."""
    given = {name: value for name, value in choices.items() if value is not None}
    if len(given) > 1:
        came = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            f"`slots`, `fraction` and `budget` exclude each other: got {came}; give one, or none for slots = √(2T)"
        )
    for name in given.keys() & {"slots", "budget"}:
        if type(given[name]) is not int or given[name] < 1:
            count(name, given[name])
    fraction = given.get("fraction")
    if fraction is not None:
        number = isinstance(fraction, (int, float, np.number)) and not isinstance(fraction, bool)
        if not number or not 0 < fraction <= 1:
            raise (ValueError if number else TypeError)(
                f"`fraction` must be a number with 0 < fraction ≤ 1, the share of the states to keep: got {fraction!r}"
            )


def counted_size(shape):
    """The number of elements, for a budget in bytes."""
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


def laid_out(T, on_the_host_itself):
    """T is known when traced, and the device has a memory of its own."""
    steps_in_numbers(T)
    if on_the_host_itself:
        raise NotImplementedError(
            "`memory='host'` moves what is kept out of an accelerator's memory: got the CPU as the device, whose "
            "memory is the host's; use memory='device', or `adjoints.checkpointed` to keep less"
        )


def steps_in_numbers(T):
    """T is a number, not the symbol of a program exported for any T."""
    if not isinstance(T, int):
        raise ValueError(
            f"`xs` must have a number of steps for an adjoint that lays out time when traced: got T = {T}; take "
            "`adjoints.autodiff()` for any T (a batch of any size goes with all of them)"
        )
    return T


def same_residuals(of_step, residuals):
    """`TimeSplit.residuals` returns the tree that `TimeSplit.step` keeps."""
    if of_step != residuals:
        raise TypeError(
            f"`residuals` of a cell's split must be the tree that its `step` returns beside h_t: got {residuals}, "
            f"expected {of_step}; give both the same entries in the same order, those of `residuals` with a leading "
            "axis of time"
        )
