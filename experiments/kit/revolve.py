"""Forward steps of a gradient in bounded memory: by the formula, and as the library plans them.

    r·T - C(c + r, c + 1) steps,  r = min {r : C(c + r, c) ≥ T}

Source: Griewank and Walther (2000), Algorithm 799: revolve.
"""

import math

import jax

import jaxbptt as jb
from jaxbptt.plan import extra_steps


def steps(T: int, slots: int) -> int:
    """The fewest forward steps with which T steps can be reversed with so many slots.

    >>> [steps(1000, c) for c in (10, 30, 50, 100)]
    [3636, 2472, 1948, 1898]
    """
    r = next(r for r in range(T + 1) if math.comb(slots + r, slots) >= T)
    return r * T - math.comb(slots + r, slots + 1)


def planned(cell: jb.Cell, adjoint: jb.types.Adjoint, T: int, B: int, d: int, n: int) -> int:
    """Forward steps of a gradient: one sweep for F, to h_T only once, and what is run again."""
    model = jb.rnn(cell, jb.readouts.identity())
    theta = jax.eval_shape(lambda: model.init(jax.random.key(0), input_size=d, hidden_size=n, output_size=n))
    return T - 1 + extra_steps(adjoint, model, theta, jax.ShapeDtypeStruct((T, B, d), "float32"))
