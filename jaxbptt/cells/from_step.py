"""A cell from any function f; its pullback is derived by ``jax.vjp``, and still leaves the scan."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._time.loop import barrier
from jaxbptt._trees.cotangents import pullback
from jaxbptt.cells._from_split import identity_output
from jaxbptt.types import Cell, TimeSplit


@factory
def from_step(
    step: Callable,
    init: Callable | None = None,
    initial_state: Callable | None = None,
    output: Callable | None = None,
    jacobian: Literal["dense", "diagonal"] = "dense",
    affine: bool = False,
) -> Cell:
    """A `Cell` from ``h_t = step(theta_h, x_t, h_tm1)``, for any pytrees of parameters, inputs and state.

    The gradient is exact. Two pullbacks of `step` evaluate it. That in h_{t-1} runs inside the reverse scan. That in
    θ_h and x runs for all steps at once, by ``jax.vmap`` over time. The scan carries no array of the size of θ_h. A
    product with a weight becomes one GEMM over time.

    `step` is read once, when it is first traced, as by ``jax.jit``: what it reads beside its arguments is kept. It must
    treat members of the batch alike. Leaves may be real, complex, integer (token ids), keys or ``None``.
    Those without a derivative get no cotangent.

    Args:
        step: f, ``(theta_h, x_t, h_tm1) -> h_t``, with ``h_t`` of the tree, shapes and dtypes of ``h_tm1``.
        init: ``(key, input_size, hidden_size, dtype) -> theta_h``; may be left out when you hold parameters.
        initial_state: ``(theta_h, batch_shape) -> h_0``, also for no batch, ``()``. May be left out when you always
            pass ``h_0`` and its leaves are ``[*batch, n]``.
        output: the part of a state that the readout sees; by default all of it. Must not use parameters.
        jacobian: ``"diagonal"`` where each unit of h_t reads the same unit of h_{t-1} and no other.
        affine: True where `step` is affine in ``h_tm1``. `jaxbptt.check_cell` finds what is declared and not so.

    Returns:
        A `Cell`. The same functions give the same object; define them once, not in a loop.

    Raises:
        TypeError, ValueError: when an argument is no function, not of these arguments, or no such declaration.

    Notes:
        Traced values must reach `step` as arguments: pass what is differentiated through ``theta_h``, ``x_t`` or
        ``h_tm1``. For others JAX says "unexpected tracer" or "no constant handler for type".

        Without `initial_state`, `objective`, estimators and diagnostics can't tell batch axes from others. They take
        each leaf of the state to have one axis after those of the batch.

        A ``custom_vjp`` in `step` must be linear, at 0 too: in a padded block, a step is reversed with 0. One that
        divides a cotangent by its norm is not.

    >>> def step(theta_h, token_t, h_tm1):        # an embedding and a leak, one token id a step
    ...     return 0.9 * h_tm1 + theta_h["embedding"][token_t]
    >>> cell = from_step(step)
    >>> theta_h = {"embedding": jnp.ones((7, 4))}
    >>> cell.apply(theta_h, jnp.array([3, 5]), jnp.zeros((2, 4))).shape
    (2, 4)
    """
    arguments.called_with("step", step, "theta_h", "x_t", "h_tm1")
    if init is not None:
        arguments.called_with("init", init, "key", "input_size", "hidden_size", "dtype")
    if initial_state is not None:
        arguments.called_with("initial_state", initial_state, "theta_h", "batch_shape")
    if output is not None:
        arguments.called_with("output", output, "h_t")
    arguments.of_the_state(jacobian, affine)

    f = jax.jit(functools.partial(_f, step), inline=True)  # traced once for all uses below
    vjp = functools.partial(_vjp, f)
    split = TimeSplit(
        project=lambda theta_h, xs: xs,
        step=lambda theta_h, x_t, h_tm1: (barrier(f(theta_h, x_t, h_tm1)), ()),
        residuals=lambda theta_h, xs, hs_tm1, hs: (),
        step_vjp=functools.partial(_step_vjp, f),
        param_vjp=functools.partial(_param_vjp, jax.vmap(f, in_axes=(None, 0, 0))),
        input_vjp=functools.partial(_input_vjp, jax.vmap(f, in_axes=(None, 0, 0))),
        of=(f, vjp),
        jacobian=jacobian,
        affine=affine,
    )
    make = init or arguments.absent("init", "pass `init=` to `cells.from_step`, or make the parameters yourself")
    begin = initial_state or arguments.absent(
        "initial_state", "pass `initial_state=` to `cells.from_step`, or pass `h_0`"
    )
    return Cell(
        init=lambda key, input_size, hidden_size, dtype=jnp.float32: make(key, input_size, hidden_size, dtype),
        initial_state=lambda theta_h, batch_shape=(): begin(theta_h, batch_shape),
        apply=f,
        vjp=vjp,
        output=output or identity_output,
        split=split,
    )


def _f(step, theta_h, x_t, h_tm1):
    # Inside a scan a token can't index a NumPy array.
    theta_h = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, theta_h)
    return step(theta_h, x_t, h_tm1)


def _vjp(f, theta_h, x_t, h_tm1, h_t, h_bar_t):
    _, pull = pullback(f, theta_h, x_t, h_tm1)
    return pull(h_bar_t)


def _step_vjp(f, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    _, pull = pullback(lambda h_tm1: f(theta_h, x_t, h_tm1), h_tm1)
    (h_bar_tm1,) = pull(delta_t)
    return delta_t, barrier(h_bar_tm1)


def _param_vjp(steps, theta_h, xs, hs_tm1, hs, residuals, deltas):
    _, pull = pullback(lambda theta_h: steps(theta_h, xs, hs_tm1), theta_h)
    (theta_bar,) = pull(deltas)
    return theta_bar


def _input_vjp(steps, theta_h, xs, hs_tm1, hs, residuals, deltas):
    _, pull = pullback(lambda xs: steps(theta_h, xs, hs_tm1), xs)
    (xs_bar,) = pull(deltas)
    return xs_bar
