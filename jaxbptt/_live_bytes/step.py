"""One step of a program, and what can be asked of it alone."""

import math
from typing import Any, NamedTuple

LOOPS = {"scan", "while"}
SUMS = {"add", "add_any"}


class Step(NamedTuple):
    """One equation, with the names of the outermost jaxpr for what it reads and writes.

    Attributes:
        name: of the primitive.
        params: its parameters.
        read: the names of its operands, `None` for a literal.
        operands: their shapes.
        written: the names of its results.
        avals: their shapes.
    """

    name: str
    params: Any
    read: list
    operands: list
    written: list
    avals: list


def reads_transposed(step):
    """Whether it is a product that sums over the first axes of its left operand, as Σ z_bar xᵀ does."""
    if step.name != "dot_general":
        return False
    ((left, _), _) = step.params["dimension_numbers"]
    return bool(left) and max(left) < step.operands[0].ndim - 1


def sums_nothing(step):
    """A product over axes of length 1, as z_bar xᵀ of one step and a batch of one."""
    if step.name != "dot_general":
        return False
    ((left, _), _) = step.params["dimension_numbers"]
    return math.prod(step.operands[0].shape[axis] for axis in left) == 1


def bodies(step):
    """The jaxprs that run inside a step."""
    for value in step.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            jaxpr = getattr(entry, "jaxpr", entry)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def loop(step, body):
    """How many results of a loop are carries, which come first, and how many operands stacks, which come last.

    By their ranks, inside and outside: what a scan's parameters are called is not the same in all versions of JAX.
    """
    if step.name != "scan":
        return len(body.outvars), 0
    return _unstacked(step.avals, body.outvars), len(step.read) - _unstacked(step.operands, body.invars)


def _unstacked(outside, inside):
    return sum(len(aval.shape) == len(var.aval.shape) for aval, var in zip(outside, inside, strict=True))
