"""The linear readout, ŷ_t = W_o h_t + b.

Pullback, with y_hat_bar_t = ∂F/∂ŷ_t:

 1. dŷ_t = dW_o h_t + W_o dh_t + db.
 2. Read off: W_o_bar = y_hat_bar_t h_tᵀ, b_bar = y_hat_bar_t, h_bar_t = W_oᵀ y_hat_bar_t.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._errors import arguments, initialisation
from jaxbptt._errors.trees import same_float_dtype
from jaxbptt._factory import factory
from jaxbptt._precision import with_bfloat16_weights
from jaxbptt.types import Array, Readout


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
        TypeError: for a bias that is no bool, or an initialiser with other arguments. ``init`` and ``apply`` raise for
            sizes and dtypes that don't fit.

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

    return Readout(init, apply, vjp, check=_check, mixed=mixed)


def _check(theta_o, hs):
    """Checks θ_o against the cell's output, ``hs [T, *batch, n]``."""
    W_o, b = getattr(theta_o, "W_o", None), getattr(theta_o, "b", None)
    if W_o is None or not hasattr(W_o, "shape") or not (b is None or hasattr(b, "shape")):
        came = f"(W_o={type(W_o).__name__}, b={type(b).__name__})" if hasattr(theta_o, "W_o") else ""
        raise TypeError(
            "`theta.o` must be LinearReadoutParams, as `readout.init` makes it: got "
            f"{type(theta_o).__name__}{came}{'; write `jnp.asarray` around each' if came else ''}"
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
