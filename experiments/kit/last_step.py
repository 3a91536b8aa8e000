"""Sequences with one target, at the end: ŷ_T = g(h_T; θ_o), and F = L(ŷ_T, y_T)."""

import functools

import jax
import jax.numpy as jnp

import jaxbptt as jb

LOSS = jb.losses.softmax_cross_entropy


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model: jb.Model, theta: jb.Theta, xs, labels):
    """F and the accuracy, both at the last step."""
    y_hat_T = model.apply(theta, xs)[-1]
    return jnp.mean(LOSS(y_hat_T, labels)), jnp.mean(jnp.argmax(y_hat_T, axis=-1) == labels)


@functools.partial(jax.jit, static_argnums=0)
def delta_norms(model: jb.Model, theta: jb.Theta, xs, labels):
    """‖∂F/∂h_t‖ for t = 1 … T and each image, ``[T, N]``, F the image's own; by part of the state."""
    h_0 = model.initial_state(theta, labels.shape)
    h_T, _ = jb.unroll(model.cell, theta.h, xs, h_0)

    def F(h_T):
        return jnp.sum(LOSS(model.readout.apply(theta.o, model.cell.output(h_T)), labels))

    h_bars = jax.tree.map(lambda h_bar: jnp.zeros((len(xs), *h_bar.shape)).at[-1].set(h_bar), jax.grad(F)(h_T))
    _, deltas = jb.jacobians.vjp(model.cell, theta.h, xs, h_0, h_bars)
    parts = deltas._asdict() if hasattr(deltas, "_asdict") else {"h": deltas}
    return {name: jnp.linalg.norm(delta, axis=-1) for name, delta in parts.items()}


def check(model: jb.Model, theta: jb.Theta, xs, ys, *, mask) -> dict[str, jb.checking.Row]:
    """The hand-written gradient against ``jax.grad`` of the plain scan and central differences, in float64, by leaf."""
    report = jb.check_gradients(model, LOSS, theta, xs, ys, mask=mask, dtype=jnp.float64)
    return {row.leaf: row for row in report.rows}
