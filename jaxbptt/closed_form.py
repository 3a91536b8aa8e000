"""The gradient of the linear recurrent network, written down.

    h_t = W_x x_t + W_h h_{t-1}        ŷ_t = W_o h_t        F = 1/T Σ_t L(ŷ_t, y_t)

Here ∂h_t/∂h_i = W_h^{t-i} for every trajectory. With the vector ŷ_bar_t = 1/T ∂L_t/∂ŷ_t:

 1. Unrolled: h_t = W_h^t h_0 + Σ_{i≤t} W_h^{t-i} W_x x_i.
 2. ∂F/∂W_o = Σ_t ŷ_bar_t h_tᵀ.
 3. A change of W_x at step i changes h_t by W_h^{t-i} dW_x x_i:
        ∂F/∂W_x = Σ_t Σ_{i≤t} (W_hᵀ)^{t-i} W_oᵀ ŷ_bar_t x_iᵀ.
 4. A change of W_h at step i changes h_t by W_h^{t-i} dW_h h_{i-1}:
        ∂F/∂W_h = Σ_t Σ_{i≤t} (W_hᵀ)^{t-i} W_oᵀ ŷ_bar_t h_{i-1}ᵀ,      ∂F/∂h_0 = Σ_t (W_hᵀ)^t W_oᵀ ŷ_bar_t.
 5. Collect the terms of equal i. The same sums then take O(T):
        delta_i = Σ_{t≥i} (W_hᵀ)^{t-i} W_oᵀ ŷ_bar_t = W_oᵀ ŷ_bar_i + W_hᵀ delta_{i+1}.

Gradients vanish or explode through the powers (W_hᵀ)^{t-i}: an eigenvalue λ gives λ^{t-i}.
Source of the setting: Zhang, Lipton, Li and Smola, Dive into deep learning, section 9.7.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import losses
from jaxbptt._algebra import matvec, outer, vecmat
from jaxbptt._errors import arguments, trees
from jaxbptt.cells._from_split import checked
from jaxbptt.cells.linear import LinearParams, linear
from jaxbptt.model import rnn
from jaxbptt.objective import check
from jaxbptt.readouts import LinearReadoutParams
from jaxbptt.readouts import linear as readout
from jaxbptt.types import Array, Loss, Theta

__all__ = ["ClosedForm", "double_sum", "recursion", "states"]


class ClosedForm(NamedTuple):
    """``loss``: F; ``grads``: a `Theta` of ∂F/∂W_x, ∂F/∂W_h and ∂F/∂W_o; ``h_0_bar``: ∂F/∂h_0.

    >>> theta = Theta(LinearParams(jnp.eye(1), jnp.eye(1)), LinearReadoutParams(jnp.eye(1), None))
    >>> form = recursion(theta, losses.l2_loss, jnp.ones((2, 1)), jnp.zeros((2, 1)))
    >>> form.loss.item(), form.h_0_bar.item()  # h = 1, 2: F = (1 + 4)/4, ∂F/∂h_0 = (1 + 2)/2
    (1.25, 1.5)
    """

    loss: Array
    grads: Theta
    h_0_bar: Array


def states(theta_h: LinearParams, xs: Array, h_0: Array) -> Array:
    """h_1 … h_T unrolled, ``h_t = W_h^t h_0 + Σ_{i≤t} W_h^{t-i} W_x x_i``, as a double sum.

    Args:
        theta_h: `LinearParams`.
        xs: ``[T, *batch, d]``, T small: O(T²) products are written into the program.
        h_0: ``[*batch, n]``.

    Returns:
        ``[T, *batch, n]``. Exact.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    >>> theta_h = LinearParams(W_x=jnp.eye(1), W_h=jnp.full((1, 1), 0.5))
    >>> states(theta_h, jnp.ones((3, 1)), jnp.ones(1)).ravel().tolist()
    [1.5, 1.75, 1.875]
    """
    h_0 = checked(linear(), theta_h, xs, h_0)
    W_x, W_h = theta_h
    T = xs.shape[0]
    W_h_to = _powers(W_h, T)

    def h(t):
        return matvec(W_h_to[t], h_0) + _sum(matvec(W_h_to[t - i] @ W_x, xs[i - 1]) for i in range(1, t + 1))

    return jnp.stack([h(t) for t in range(1, T + 1)])


def double_sum(theta: Theta, loss: Loss, xs: Array, ys: Array, h_0: Array | None = None) -> ClosedForm:
    """∂F/∂W_x, ∂F/∂W_h and ∂F/∂W_o as the formulas print them: sums over t and i ≤ t of powers of W_h.

    The oracle, written for reading; `recursion` gives the same in O(T).

    Args:
        theta: ``Theta(LinearParams, LinearReadoutParams)``, the readout without a bias.
        loss: L.
        xs: ``[T, *batch, d]``, T small: O(T²) products are written into the program.
        ys: targets of the loss, leaves ``[T, *batch, …]``.
        h_0: ``[*batch, n]``; zeros when ``None``.

    Returns:
        A `ClosedForm`. Exact; F is the mean over time and batch.

    Raises:
        TypeError, ValueError: for other parameters, and as `jaxbptt.objective` does.

    >>> theta = Theta(LinearParams(jnp.eye(1), jnp.full((1, 1), 0.5)), LinearReadoutParams(jnp.eye(1), None))
    >>> form = double_sum(theta, losses.l2_loss, jnp.ones((2, 1)), jnp.zeros((2, 1)))
    >>> form.loss.item(), form.grads.h.W_x.item()  # h = 1, 1.5: F = (1 + 2.25)/4, ∂F/∂W_x = (1·1 + 1.5·1.5)/2
    (0.8125, 1.625)
    """
    h_0 = _checked(theta, loss, xs, ys, h_0)
    (W_x, W_h), W_o = theta.h, theta.o.W_o
    T = xs.shape[0]
    hs = states(theta.h, xs, h_0)
    F, y_hat_bars = _loss_and_cotangents(loss, W_o, hs, ys)
    h = [h_0, *hs]  # h[t] = h_t, and below x[i] = x_i, with the formulas' indices
    x, y_hat_bar = [None, *xs], [None, *y_hat_bars]
    W_hT_to = _powers(W_h.T, T)

    def back(t, i):  # (W_hᵀ)^{t-i} W_oᵀ ŷ_bar_t
        return matvec(W_hT_to[t - i] @ W_o.T, y_hat_bar[t])

    terms = [(t, i) for t in range(1, T + 1) for i in range(1, t + 1)]
    W_x_bar = _sum(outer(back(t, i), x[i], W_x) for t, i in terms)
    W_h_bar = _sum(outer(back(t, i), h[i - 1], W_h) for t, i in terms)
    W_o_bar = _sum(outer(y_hat_bar[t], h[t], W_o) for t in range(1, T + 1))
    h_0_bar = _sum(back(t, 0) for t in range(1, T + 1))
    grads = Theta(LinearParams(W_x_bar, W_h_bar), LinearReadoutParams(W_o_bar, None))
    return ClosedForm(F, grads, h_0_bar)


def recursion(theta: Theta, loss: Loss, xs: Array, ys: Array, h_0: Array | None = None) -> ClosedForm:
    """The same gradients in O(T): ``delta_t = W_oᵀ ŷ_bar_t + W_hᵀ delta_{t+1}``, then one product over time each.

    Args:
        theta: ``Theta(LinearParams, LinearReadoutParams)``, the readout without a bias.
        loss: L.
        xs: ``[T, *batch, d]``.
        ys: targets of the loss, leaves ``[T, *batch, …]``.
        h_0: ``[*batch, n]``; zeros when ``None``.

    Returns:
        A `ClosedForm`. Exact; F is the mean over time and batch.

    Raises:
        TypeError, ValueError: for other parameters, and as `jaxbptt.objective` does.

    >>> theta = Theta(LinearParams(jnp.eye(1), jnp.full((1, 1), 0.5)), LinearReadoutParams(jnp.eye(1), None))
    >>> recursion(theta, losses.l2_loss, jnp.ones((2, 1)), jnp.zeros((2, 1))).grads.h.W_x.item()
    1.625
    """
    h_0 = _checked(theta, loss, xs, ys, h_0)
    (W_x, W_h), W_o = theta.h, theta.o.W_o

    def forward(h_tm1, x_t):
        h_t = matvec(W_x, x_t) + matvec(W_h, h_tm1)
        return h_t, (h_tm1, h_t)

    _, (hs_tm1, hs) = lax.scan(forward, h_0, xs)
    F, y_hat_bars = _loss_and_cotangents(loss, W_o, hs, ys)

    def backward(delta_tp1, y_hat_bar_t):
        delta_t = vecmat(y_hat_bar_t, W_o) + vecmat(delta_tp1, W_h)
        return delta_t, delta_t

    delta_1, deltas = lax.scan(backward, jnp.zeros_like(h_0), y_hat_bars, reverse=True)
    theta_h_bar = LinearParams(outer(deltas, xs, W_x), outer(deltas, hs_tm1, W_h))
    grads = Theta(theta_h_bar, LinearReadoutParams(outer(y_hat_bars, hs, W_o), None))
    return ClosedForm(F, grads, vecmat(delta_1, W_h))


def _sum(terms) -> Array:
    return functools.reduce(jnp.add, terms)


def _powers(W, T):
    """W⁰ … Wᵀ."""
    powers = [jnp.eye(W.shape[0], dtype=W.dtype)]
    for _ in range(T):
        powers.append(powers[-1] @ W)
    return powers


def _checked(theta, loss, xs, ys, h_0) -> Array:
    trees.theta(theta)
    _linear_network(theta, LinearParams, LinearReadoutParams)
    arguments.callable_argument("loss", loss)
    return check(rnn(linear(), readout(bias=False)), loss, theta, xs, ys, h_0).h_0


def _loss_and_cotangents(loss, W_o, hs, ys):
    """F, and ŷ_bar_t = 1/T ∂L_t/∂ŷ_t for every t."""
    return jax.value_and_grad(lambda y_hats: jnp.mean(losses.of_steps(loss, y_hats, ys)))(matvec(W_o, hs))


def _linear_network(theta, params_type, readout_params_type):
    """The closed forms have W_x, W_h and W_o alone."""
    if not isinstance(theta.h, params_type) or not isinstance(theta.o, readout_params_type) or theta.o.b is not None:
        o = type(theta.o).__name__ + (" with a bias" if getattr(theta.o, "b", None) is not None else "")
        raise TypeError(
            f"closed forms need Theta(h={params_type.__name__}, o={readout_params_type.__name__} with b=None): got "
            f"Theta(h={type(theta.h).__name__}, o={o}); use `jb.rnn(cells.linear(), readouts.linear(bias=False))`"
        )
