"""A cell and a readout: ŷ_t = g(h_t; θ_o) on top of h_t = f(x_t, h_{t-1}; θ_h)."""

import jax
import jax.numpy as jnp

from jaxbptt import _axes, readouts
from jaxbptt._errors import arguments, initialisation, trees
from jaxbptt._factory import factory
from jaxbptt._trees import varying
from jaxbptt.types import Cell, Model, Policy, Readout, Theta
from jaxbptt.unroll import unroll


@factory
def rnn(cell: Cell, readout: Readout, *, policy: Policy | None = None) -> Model:
    """The model ``h_t = f(x_t, h_{t-1}; θ_h)``, ``ŷ_t = g(h_t; θ_o)``.

    Args:
        cell: f.
        readout: g.
        policy: the precision to compute in, such as `jaxbptt.policies.mixed_precision()`; ``None`` takes that of the
            parameters.

    Returns:
        A `Model`. ``init(key, *, input_size, hidden_size, output_size, dtype=float32)`` makes a `Theta`;
        ``initial_state(theta, batch_shape=())`` makes h_0; ``apply(theta, xs, h_0=None, *, adjoint=None)`` gives
        ``y_hats [T, *batch, m]``. Under ``jax.grad`` the readout is differentiated by its own rule, except with
        `adjoints.autodiff` and `adjoints.tangent`: there JAX differentiates it, so that forward mode goes through. The
        same arguments give the same object.

    Raises:
        TypeError: when an argument is not a `Cell`, a `Readout` or a `Policy`.

    >>> import jaxbptt as jb
    >>> model = rnn(jb.cells.lstm(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> model.apply(theta, jnp.ones((7, 4, 3))).shape
    (7, 4, 2)
    """
    arguments.cells("cell", (cell,))
    arguments.readout(readout)
    if policy is not None:
        arguments.policy(policy)
        cell, readout = policy.cell(cell), policy.readout(readout)
        arguments.cells("policy.cell(cell)", (cell,))
        arguments.readout(readout)

    def init(key, *, input_size, hidden_size, output_size, dtype=jnp.float32):
        """A `Theta` drawn by the initialisers of cell and readout."""
        initialisation.key(key)
        key_h, key_o = jax.random.split(key)
        return Theta(
            h=cell.init(key_h, input_size, hidden_size, dtype),
            o=readout.init(key_o, hidden_size, output_size, dtype),
        )

    def initial_state(theta, batch_shape=()):
        """h_0 for a batch of this shape, as the cell begins."""
        trees.theta(theta)
        return cell.initial_state(theta.h, batch_shape)

    def apply(theta, xs, h_0=None, *, adjoint=None):
        """``y_hats [T, *batch, m]`` for ``xs [T, *batch, d]``: see `jaxbptt.rnn`."""
        trees.theta(theta)
        if h_0 is None:
            h_0 = initial_state(theta, _axes.batch_shape_of(cell, theta.h, xs))
        _, hs = unroll(cell, theta.h, xs, h_0, adjoint=adjoint)
        readouts.fits(readout, theta.o, hs)
        if adjoint is not None and adjoint.keeps_forward_mode:
            return readouts.apply_over_time(readout, theta.o, hs)
        return readouts.with_rule(readout)(*varying.alike(theta.o, hs))

    return Model(init, initial_state, apply, cell, readout)
