"""The associative scan of affine maps: a linear recurrence in depth log T instead of T.

 1. v_t ↦ v_t + u_{t-1} C_t is affine in u_{t-1}: with rows for vectors, u_t = v_t + u_{t-1} C_t.
 2. Two such maps in a row are a map of the same form:
        (v_2, C_2) after (v_1, C_1):   u_2 = (v_2 + v_1 C_2) + u_0 C_1 C_2.
 3. All u_t are the prefix products of that associative operation: 2 log₂ T rounds, each in parallel.

Source: Blelloch (1990), Prefix sums and their applications, section 1.4.
"""

import jax.numpy as jnp
from jax import lax


def scan(v, C, *, reverse=False):
    """u_t = v_t + u_{t-1} C_t, u_0 = 0, for ``v [T, *batch, N]`` and ``C [T, *batch, N, N]``; `reverse` begins at T."""
    u, _ = lax.associative_scan(_after, (v, C), reverse=reverse)
    return u


def _after(first, second):
    (v_1, C_1), (v_2, C_2) = first, second
    highest = lax.Precision.HIGHEST  # errors of long products compound
    mapped = jnp.einsum("...i,...ij->...j", v_1, C_2, precision=highest)
    # Over steps that nothing reads, v is 0 and C may overflow: 0 · inf would be NaN.
    unread = jnp.all(v_1 == 0, axis=-1, keepdims=True) & ~jnp.isfinite(mapped)
    return v_2 + jnp.where(unread, jnp.zeros_like(mapped), mapped), jnp.matmul(C_1, C_2, precision=highest)
