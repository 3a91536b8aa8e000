"""Bias, noise and direction of one estimator's gradient beside the exact one."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import online


class Network(NamedTuple):
    """A model with one sequence: xs ``[T, d]``, ys ``[T, m]``."""

    model: jb.Model
    theta: jb.Theta
    xs: jax.Array
    ys: jax.Array


class Way(NamedTuple):
    """An estimator, and what it is said to be: "exact", "unbiased" or "biased"."""

    kind: str
    estimator: jb.GradientEstimator


def network(name: str, hidden_size: int, steps: int, seed: int, dtype: Any) -> Network:
    """The dense tanh network "Elman", or a "GRU" of which three weights in four are zero; white inputs and targets."""
    cell = jb.cells.elman()
    if name == "GRU":
        rng = np.random.default_rng(seed)
        cell = online.sparse_gru(*(rng.random((3 * hidden_size, columns)) < 0.25 for columns in (3, hidden_size)))
    model = jb.rnn(cell, jb.readouts.linear())
    keys = jax.random.split(jax.random.key(seed), 3)
    # Drawn in one dtype, so that both hold the same numbers to rounding.
    theta = model.init(keys[0], input_size=3, hidden_size=hidden_size, output_size=2, dtype=jnp.float64)
    xs, ys = jax.random.normal(keys[1], (steps, 3)), jax.random.normal(keys[2], (steps, 2))
    return Network(model, *jax.tree.map(lambda leaf: leaf.astype(dtype), (theta, xs, ys)))


def ways(name: str, model: jb.Model) -> dict[str, Way]:
    """All that are defined for the cell, from exact to biased."""
    make, loss = jb.estimators, jb.losses.l2_loss
    only_elman = {"KF-RTRL": Way("unbiased", make.kf_rtrl(model, loss))} if name == "Elman" else {}
    return {
        "BPTT": Way("exact", make.bptt(model, loss)),
        "RTRL": Way("exact", make.rtrl(model, loss)),
        "ARTBP, 5": Way("unbiased", make.randomised(model, loss, mean_window=5.0)),
        **only_elman,
        "UORO": Way("unbiased", make.uoro(model, loss)),
        # in a dense network two steps reach every unit
        "SnAp-2": Way("exact" if name == "Elman" else "biased", make.snap(model, loss, order=2)),
        "SnAp-1": Way("biased", make.snap(model, loss, order=1)),
        "local": Way("biased", online.local(model, loss)),
        "window, 5": Way("biased", make.windowed(model, loss, window=5)),
        "adaptive, 0.2": Way("biased", make.adaptive(model, loss, tolerance=0.2)),
    }


@functools.partial(jax.jit, static_argnums=0)
def draw(estimator: jb.GradientEstimator, theta: jb.Theta, xs: jax.Array, ys: jax.Array, key: jax.Array) -> jax.Array:
    """One gradient of θ_h, as a vector."""
    estimate, _ = estimator.update(theta, estimator.init(theta), xs, ys, key=key)
    return _vector(estimate.grads.h)


def exact(network: Network) -> jax.Array:
    """∂F/∂θ_h by ``jax.grad`` of a scan, without a pullback of the library's."""
    F = jb.objective(network.model, jb.losses.l2_loss, adjoint=jb.adjoints.autodiff())
    return _vector(jax.jit(jax.grad(F))(network.theta, network.xs, network.ys).h)


def _vector(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def compare(way: Way, network: Network, g: jax.Array, draws: int, seed: int) -> dict[str, float]:
    """What a lecture shows of an estimator, relative to ‖g‖ of the exact gradient g.

    Returns:
        ``bias``: ‖mean - g‖; ``noise``: √E‖draw - mean‖²; ``cosine``: of a draw with g, on average; ``off``: the
        largest distance of a component of the mean from g's, in its standard errors; 0 without noise.
    """
    keys = jax.random.split(jax.random.key(seed), draws if way.kind == "unbiased" else 1)
    drawn = np.asarray(jax.vmap(functools.partial(draw, way.estimator, *network[1:]))(keys), np.float64)
    return statistics(drawn, np.asarray(g, np.float64))


def statistics(drawn: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """As `compare` says, of draws ``[N, P]``.

    >>> found = statistics(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([1.0, 1.0]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'bias': 0.0, 'noise': 0.707, 'cosine': 0.828, 'off': 0.0}
    """
    mean, size = drawn.mean(axis=0), np.linalg.norm(g)
    deviation = drawn.std(axis=0, ddof=1) if len(drawn) > 1 else np.zeros_like(g)
    errors = deviation / np.sqrt(len(drawn))
    noisy = errors > 1e-12 * size
    return {
        "bias": float(np.linalg.norm(mean - g) / size),
        "noise": float(np.sqrt(np.mean(np.sum(np.square(drawn - mean), axis=1))) / size),
        "cosine": float(np.mean(drawn @ g / (np.linalg.norm(drawn, axis=1) * size))),
        "off": float(np.max(np.abs(mean - g)[noisy] / errors[noisy], initial=0.0)),
    }
