"""Whether a step is finite: its gradient, the new θ, the optimiser's state, and no gradient lost by the optimiser."""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxbptt._algebra import wide


def examined(grads, theta, opt, before, updates, updates_of):
    """The norm of ∂F/∂θ, and which leaf is the first that is not finite, counted as `Metrics.leaf` is.

    Args:
        grads: ∂F/∂θ.
        theta: the new θ.
        opt: what the optimiser keeps now.
        before: what it kept before.
        updates: what it made of ∂F/∂θ.
        updates_of: ``c -> updates``, what it would have made of ∂F/∂θ divided by c.
    """
    bad = [jnp.any(~_is_finite(leaf)) for leaf in jax.tree.leaves((grads, theta))]
    sizes = jax.tree.map(lambda bar: jnp.abs(bar).astype(wide(jnp.abs(bar).dtype)), grads)
    norm = optax.tree.norm(sizes)

    def wild():
        scale = _scale(sizes)
        scaled = scale * optax.tree.norm(jax.tree.map(lambda leaf: leaf / scale, sizes))
        rest = [*_broken(opt, before), *_lost(updates, updates_of, scale)]
        return scaled.astype(norm.dtype), _first([*bad, *rest])

    # Squares that may overflow are rare, and what is asked then is as large as θ. `MultiSteps` meets one later.
    kept = [jnp.all(_is_finite(jnp.asarray(leaf))) for leaf in jax.tree.leaves(opt) if jnp.ndim(leaf)]
    tame = (norm * norm < _largest_square(grads)) & jnp.all(jnp.array(kept, bool))
    return jax.lax.cond(tame, lambda: (norm, _first(bad)), wild)


def _scale(sizes):
    """The largest; 1 where no number can be divided by it. A maximum may lose a NaN, which the quotients still have."""
    largest = functools.reduce(jnp.maximum, [jnp.max(leaf, initial=0) for leaf in jax.tree.leaves(sizes)])
    return jnp.where(jnp.isfinite(largest) & (largest >= jnp.finfo(largest.dtype).tiny), largest, 1)


def _broken(opt, old):
    """Leaf by leaf, whether an array holds a number that was finite before and is no longer.

    A single number is the optimiser's own affair: a bound that a schedule lifts, the best loss so far.
    """

    def is_broken(new, old):
        new, old = jnp.asarray(new), jnp.asarray(old)
        return jnp.any(~_is_finite(new) & _is_finite(old)) if new.ndim else jnp.array(False)

    return jax.tree.leaves(jax.tree.map(is_broken, opt, old))


def _lost(updates, updates_of, scale):
    """Leaf by leaf, whether the optimiser took no notice of the gradient, and would have of a smaller one.

    A clip divides by a norm of its own. Where that overflows 0 is left, and -∂F/∂θ gives the same update. If a smaller
    gradient and its opposite agree too, the optimiser means it: a rate of 0, or a sum that is not yet whole.
    """
    made = jax.lax.map(updates_of, jnp.stack([-jnp.ones_like(scale), scale, -scale]))

    def is_lost(update, made):
        opposite, small, small_opposite = made
        return jnp.all(update == opposite) & jnp.any(small != small_opposite)

    return jax.tree.leaves(jax.tree.map(is_lost, updates, made))


def _largest_square(grads):
    """What no square of a gradient may reach, in the narrowest of its dtypes."""
    return min(float(jnp.finfo(bar.dtype).max) for bar in jax.tree.leaves(grads))


def _is_finite(leaf):
    """Entry by entry. What is no floating point has no NaN, and some of it no ``isfinite``: keys."""
    return jnp.isfinite(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.array(True)


def _first(flags):
    """The index of the first that is true, or -1."""
    return jnp.where(jnp.any(jnp.stack(flags)), jnp.argmax(jnp.stack(flags)), -1).astype(jnp.int32)
