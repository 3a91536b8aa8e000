"""What a cell's split declares of f as a function of h_{t-1}, held against f itself along random directions.

1. Where c_t is diagonal, c_tᵀ u = (c_tᵀ 1) ∘ u for every u. A random u finds any unit that reads another one.
2. Where f is affine, f(h + 2v) = 2 f(h + v) - f(h) for every v: one of the size of h, and a large one, as the corner
   of a function may be far.
"""

import functools

import jax
import jax.numpy as jnp

from jaxbptt._trees import cotangents
from jaxbptt.checking import _errors, _random
from jaxbptt.checking.report import largest, relative_errors

_DISTANCES = {"affine": 1.0, "affine, far": 100.0}


def errors(split, apply, rule, step, h_t, key, tolerance, where):
    """{leaf: relative error} of what `split` declares; raises where it is false."""
    theta_h, x_t, h_tm1 = step
    found = {}
    if split.jacobian == "diagonal":  # 1.
        u = _random.like(h_t, key)
        got, row = (rule(*step, h_t, bar)[2] for bar in (u, jax.tree.map(jnp.ones_like, u)))
        wanted = jax.tree.map(jnp.multiply, cotangents.from_jax(row), u)
        refuse = functools.partial(_errors.false_declaration, 'jacobian="diagonal"', 'jacobian="dense"')
        found |= relative_errors("diagonal: h_tm1", got, wanted, h_tm1, tolerance, where, largest(wanted), refuse)
    for name, distance in _DISTANCES.items() if split.affine else ():  # 2.
        v = _random.like(h_tm1, key, distance)
        near, far = (apply(theta_h, x_t, _random.moved(h_tm1, v, times)) for times in (1, 2))
        wanted = jax.tree.map(lambda h_1, h_0: 2 * h_1 - h_0 if cotangents.has_derivative(h_0) else None, near, h_t)
        refuse = functools.partial(_errors.false_declaration, "affine=True", "affine=False")
        found |= relative_errors(f"{name}: h_t", far, wanted, h_t, tolerance, where, largest(wanted), refuse)
    return found
