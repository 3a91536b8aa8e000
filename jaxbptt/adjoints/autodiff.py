"""The recursion itself, differentiated by JAX: the oracle of every other adjoint."""

import dataclasses
from typing import ClassVar

from jax import lax

from jaxbptt._factory import factory
from jaxbptt._time.sweeps import shifted
from jaxbptt.cells._from_split import identity_output
from jaxbptt.types import Adjoint


def recursion(cell, theta_h, xs, h_0):
    """h_t = f(x_t, h_{t-1}; θ_h) for t = 1 … T, as a scan."""

    def step(h_tm1, x_t):
        h_t = cell.apply(theta_h, x_t, h_tm1)
        return h_t, cell.output(h_t)

    return lax.scan(step, h_0, xs)


def trajectory(cell, theta_h, xs, h_0):
    """h_0 … h_{T-1} and h_1 … h_T: whole states, not their outputs. Any mode of differentiation goes through."""
    _, hs = recursion(cell._replace(output=identity_output), theta_h, xs, h_0)
    return shifted(h_0, hs), hs


@dataclasses.dataclass(frozen=True)
class Autodiff:
    """The adjoint `autodiff`."""

    keeps_forward_mode: ClassVar[bool] = True

    def __call__(self, cell, theta_h, xs, h_0):
        """(h_T, hs), differentiated by JAX."""
        return recursion(cell, theta_h, xs, h_0)


@factory
def autodiff() -> Adjoint:
    """Plain JAX: ``jax.lax.scan`` of the cell, no rule of ours in it.

    Exact, in any mode and to any order. In reverse mode JAX stores every intermediate of every step. Its reverse scan
    carries a cotangent of the size of θ_h. `full` improves on both that memory and that time.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object at each call. It raises
        nothing of its own.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.eye(1))
    >>> jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(1), adjoint=autodiff())[0].tolist()
    [3.0]
    """
    return Autodiff()
