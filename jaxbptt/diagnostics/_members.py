"""One member of a batch at a time, its state as one real vector: what every diagnostic is made of."""

import jax
import jax.numpy as jnp

from jaxbptt import _axes
from jaxbptt._algebra import wide
from jaxbptt._errors import initialisation
from jaxbptt._trees import vectors
from jaxbptt.cells._from_split import checked


def begin(cell, theta_h, xs, h_0):
    """The arguments of a recursion, checked: h_0 as arrays, its batch axes, N and the dtype of a member's vector.

    Half precision is widened: what is factored or summed over time needs float32.
    """
    h_0 = checked(cell, theta_h, xs, h_0)
    batch = _axes.batch_shape(cell, theta_h, h_0, each=True)
    _axes.some_member(batch)
    members = jax.eval_shape(lambda h: _axes.over_members(lambda h: vectors.flatten(h)[0], batch, h), h_0)
    return h_0, batch, members.shape[-1], wide(members.dtype)


def push(cell, theta_h, x_t, h_tm1, V):
    """c_t V for one member, ``V [N, k]``: k tangents at once, no matrix c_t. NaN for what overflow loses."""
    vector, unflatten = vectors.flatten(h_tm1)

    def f(vector):
        return vectors.flatten(cell.apply(theta_h, x_t, unflatten(vector)))[0]

    probe = jnp.cos(jnp.arange(V.shape[0], dtype=V.dtype))  # 0 where a row of c_t is, whatever V
    tangents = jnp.column_stack([V, probe]).astype(vector.dtype)
    h_t, pushed = jax.vmap(lambda v: jax.jvp(f, (vector,), (v,)), 1, (None, 1))(tangents)
    is_lost = _overflows(vector, h_t) & (pushed[:, -1] == 0)
    return jnp.where(is_lost[:, None], jnp.nan, pushed[:, :-1].astype(V.dtype))


def pull(cell, theta_h, x_t, h_tm1, h_t, v):
    """c_tᵀ v for one member by the cell's own rule, ``v [N]``. NaN where nothing is left as a state overflows."""
    vector, _ = vectors.flatten(h_t)
    _, _, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, vectors.gradient(v.astype(vector.dtype), h_t))
    pulled = vectors.gradient_vector(h_bar_tm1).astype(v.dtype)
    is_lost = jnp.any(_overflows(vectors.flatten(h_tm1)[0], vector)) & jnp.all(pulled == 0)
    return jnp.where(is_lost, jnp.nan, pulled)


def _overflows(before, after):
    """Which numbers of a state are NaN, or have become infinite in this step.

    There a derivative of 0 is none: that of a relu is 0 at NaN, as if what has exploded had vanished. Another is right,
    such as that of a linear f, which asks for no state.
    """
    return jnp.isnan(after) | (jnp.isinf(after) & jnp.isfinite(before))


def norm(v):
    """‖v‖₂, scaled by the largest number first: the square of 1e-25 is 0 in float32. Its derivative at 0 is 0."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(v)))
    scale = jnp.where(largest >= jnp.finfo(v.dtype).tiny, largest, jnp.ones_like(largest))
    total = jnp.sum(jnp.square(v / scale))
    positive = total != 0  # and NaN goes through
    return jnp.where(positive, scale * jnp.sqrt(jnp.where(positive, total, jnp.ones_like(total))), total)


def unit(v):
    """v/‖v‖ and ‖v‖; a zero vector stays as it is."""
    length = norm(v)
    return v / jnp.where(length == 0, jnp.ones_like(length), length), length


def directions(key, batch, N, k, dtype):
    """``[*batch, N, k]``: k random orthonormal directions for each member; a fixed draw for the key ``None``."""
    key = jax.random.key(0) if key is None else key
    initialisation.key(key)
    return jnp.linalg.qr(jax.random.normal(key, (*batch, N, k), dtype))[0]
