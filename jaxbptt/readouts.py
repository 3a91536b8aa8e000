"""g: from the state to the prediction, ``ŷ_t = g(h_t; θ_o)``, each with its pullback.

The linear readout, ŷ_t = W_o h_t + b, with y_hat_bar_t = ∂F/∂ŷ_t:

 1. dŷ_t = dW_o h_t + W_o dh_t + db.
 2. Read off: W_o_bar = y_hat_bar_t h_tᵀ, b_bar = y_hat_bar_t, h_bar_t = W_oᵀ y_hat_bar_t.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._axes import traced
from jaxbptt._errors import arguments, initialisation
from jaxbptt._errors.trees import same_float_dtype
from jaxbptt._factory import factory
from jaxbptt._precision import with_bfloat16_products, with_bfloat16_weights
from jaxbptt._trees.cotangents import pullback
from jaxbptt.types import Array, Readout

__all__ = [
    "LinearReadoutParams",
    "from_apply",
    "identity",
    "linear",
    "mixed_precision",
]


class LinearReadoutParams(NamedTuple):
    """``W_o [m, n]``, ``b [m]`` (``None`` without a bias).

    >>> theta_o = LinearReadoutParams(W_o=jnp.ones((1, 2)), b=None)
    >>> linear(bias=False).apply(theta_o, jnp.array([3.0, 4.0])).tolist()
    [7.0]
    """

    W_o: Array
    b: Array | None


@factory
def linear(bias: bool = True, *, W_o_init=initializers.glorot_uniform, b_init=initializers.zeros) -> Readout:
    """The linear readout, ``ŷ_t = W_o h_t + b``, with parameters `LinearReadoutParams`.

    Costs 2·m·n flops a step and sample forward, twice that backward; one GEMM over time and batch each. The
    pullback is written by hand and exact.

    Args:
        bias: whether there is a b.
        W_o_init: ``(key, (m, n), dtype)``, Glorot uniform by default.
        b_init: ``(key, (m,), dtype)``, zeros by default.

    Returns:
        A `Readout`. Equal arguments give the same object.

    Raises:
        TypeError: for a bias that is no bool, or an initialiser that can't be called so; ``init`` and ``apply`` say
            what doesn't fit.

    >>> g = linear()
    >>> theta_o = g.init(jax.random.key(0), hidden_size=5, output_size=2)
    >>> g.apply(theta_o, jnp.ones((7, 5))).shape
    (7, 2)
    """
    arguments.flag("bias", bias, "; sizes go to `readouts.linear().init(key, hidden_size, output_size)`")
    W_o_init, b_init = initialisation.initializers(W_o_init=W_o_init, b_init=b_init)

    def init(key, hidden_size, output_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, hidden_size=hidden_size, output_size=output_size)
        key_o, key_b = jax.random.split(key)
        W_o = W_o_init(key_o, (output_size, hidden_size), dtype)
        return LinearReadoutParams(W_o, b_init(key_b, (output_size,), dtype) if bias else None)

    def apply(theta_o, h_t):
        y_hat_t = matvec(theta_o.W_o, h_t)
        return y_hat_t if theta_o.b is None else with_bias(y_hat_t, theta_o.b)

    def vjp(theta_o, h_t, y_hat_bar_t):
        b_bar = None if theta_o.b is None else total(y_hat_bar_t)
        theta_bar = LinearReadoutParams(W_o=outer(y_hat_bar_t, h_t, theta_o.W_o), b=b_bar)
        return theta_bar, vecmat(y_hat_bar_t, theta_o.W_o)

    def mixed(readout):
        apply, vjp = map(with_bfloat16_weights, (readout.apply, readout.vjp))
        return readout._replace(apply=apply, vjp=vjp, mixed=lambda readout: readout)

    return Readout(init, apply, vjp, check=linear_fits, mixed=mixed)


@factory
def identity() -> Readout:
    """The state itself, ``ŷ_t = h_t``: no parameters (``()``), ``output_size`` equal to the hidden size, no cost.

    Returns:
        A `Readout`, whose pullback is the identity too. The same object at each call.

    Raises:
        ValueError: from ``init``, for an output size that is not the hidden size.

    >>> identity().apply((), jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def init(key, hidden_size, output_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, hidden_size=hidden_size, output_size=output_size)
        if output_size != hidden_size:
            raise ValueError(
                "`output_size` must equal `hidden_size` for the identity readout: "
                f"got output_size={output_size}, hidden_size={hidden_size}"
            )
        return ()

    def apply(theta_o, h_t):
        return h_t

    def vjp(theta_o, h_t, y_hat_bar_t):
        return (), y_hat_bar_t

    return Readout(init, apply, vjp)


@factory
def from_apply(apply: Callable, init: Callable | None = None) -> Readout:
    """A `Readout` from ``y_hat_t = apply(theta_o, h_t)``, for any pytrees; the pullback comes from ``jax.vjp``.

    `apply` is called for one step; over time it runs under ``jax.vmap``. The gradient is exact. `apply` must take no
    traced value but its arguments: whatever is to be differentiated goes through ``theta_o`` or ``h_t``.

    Args:
        apply: g, ``(theta_o, h_t) -> y_hat_t``, batch axes as in ``h_t``.
        init: ``(key, hidden_size, output_size, dtype) -> theta_o``; may be left out when you hold parameters.

    Returns:
        A `Readout`. The same functions give the same object; define them once, not in a loop.

    Raises:
        TypeError: when an argument is no function, or not one of these arguments.

    >>> g = from_apply(lambda theta_o, h_t: jnp.tanh(h_t @ theta_o))
    >>> g.apply(jnp.ones((5, 2)), jnp.zeros(5)).shape
    (2,)
    """
    arguments.called_with("apply", apply, "theta_o", "h_t")
    if init is not None:
        arguments.called_with("init", init, "key", "hidden_size", "output_size", "dtype")

    def pull(function, theta_o, h, y_hat_bar):
        return pullback(function, theta_o, h)[1](y_hat_bar)

    def vjp(theta_o, h_t, y_hat_bar_t):
        return pull(apply, theta_o, h_t, y_hat_bar_t)

    def vjp_over_time(theta_o, hs, y_hat_bars):
        return pull(jax.vmap(apply, in_axes=(None, 0)), theta_o, hs, y_hat_bars)

    remedy = "pass `init=` to `readouts.from_apply`, or make the parameters yourself"
    make = init or arguments.absent("init", remedy)

    def initial(key, hidden_size, output_size, dtype=jnp.float32):
        return make(key, hidden_size, output_size, dtype)

    return Readout(initial, apply, vjp, vjp_over_time)


@factory
def mixed_precision(readout: Readout) -> Readout:
    """The same readout with bfloat16 operands in every product and float32 sums, forward and backward.

    As `jaxbptt.cells.mixed_precision`, which says more.

    Args:
        readout: any `Readout`.

    Returns:
        A `Readout` with the same parameters.

    Raises:
        TypeError: when `readout` is not a `Readout`.

    >>> g = mixed_precision(linear())
    >>> theta_o = g.init(jax.random.key(0), hidden_size=5, output_size=2)
    >>> g.apply(theta_o, jnp.ones(5)).dtype.name
    'float32'
    """
    arguments.readout(readout)
    if readout.mixed is not None:
        return readout.mixed(readout)
    over_time = readout.vjp_over_time
    return readout._replace(
        apply=with_bfloat16_products(readout.apply),
        vjp=with_bfloat16_products(readout.vjp),
        vjp_over_time=None if over_time is None else with_bfloat16_products(over_time),
        mixed=lambda readout: readout,
    )


def by_jax(readout: Readout, theta_o, hs):
    """ŷ_1 … ŷ_T, differentiated by JAX, in any mode."""
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs)


def vjp_over_time(readout: Readout, theta_o, hs, y_hat_bars):
    """(Σ_t θ_o_bar, h_bar_1 … h_bar_T), by the readout's own rule."""
    return (readout.vjp_over_time or readout.vjp)(theta_o, hs, y_hat_bars)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def over_time(readout: Readout, theta_o, hs):
    """ŷ_1 … ŷ_T, differentiated by the readout's own rule."""
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs)


def _forward(readout, theta_o, hs):
    return jax.vmap(readout.apply, in_axes=(None, 0))(theta_o, hs), (theta_o, hs)


def _backward(readout, kept, y_hat_bars):
    theta_o, hs = kept
    return (readout.vjp_over_time or readout.vjp)(theta_o, hs, y_hat_bars)


over_time.defvjp(_forward, _backward)


def linear_fits(theta_o, hs):
    """θ_o against what the cell puts out, ``hs [T, *batch, n]``."""
    W_o, b = getattr(theta_o, "W_o", None), getattr(theta_o, "b", None)
    if W_o is None or not hasattr(W_o, "shape"):
        raise TypeError(
            f"`theta.o` must be LinearReadoutParams, as `readout.init` makes it: got {type(theta_o).__name__}"
        )
    if not hasattr(hs, "shape"):
        raise TypeError(
            f"the linear readout reads one array: the cell's output is a {type(hs).__name__}; use `readouts.from_apply`"
        )
    n = np.shape(hs)[-1]
    if np.ndim(W_o) != 2 or W_o.shape[1] != n:
        raise ValueError(f"`theta.o.W_o` must have shape [m, n] with the cell's n={n}: got {np.shape(W_o)}")
    if b is not None and np.shape(b) != W_o.shape[:1]:
        raise ValueError(f"`theta.o.b` must have shape [m] = {W_o.shape[:1]}: got {np.shape(b)}")
    if W_o.dtype != hs.dtype or (b is not None and b.dtype != hs.dtype) or not jnp.issubdtype(hs.dtype, jnp.floating):
        same_float_dtype("theta.o", theta_o, hs.dtype, "hs")


def fits(g, theta_o, h_t):
    """θ_o against what the cell puts out at a step, for any readout. Gives the shapes of ŷ_t."""
    if g.check is not None:
        leaves, structure = jax.tree.flatten(h_t)
        g.check(theta_o, structure.unflatten([jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype) for leaf in leaves]))
    return traced("readout.apply", g.apply, theta_o, h_t)
