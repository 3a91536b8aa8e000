"""The keys of cells that draw: one a layer, step and member."""

import jax
import jax.numpy as jnp

from jaxbptt.cells.combinators.masked import MaskedInput
from jaxbptt.cells.combinators.resettable import ResetInput
from jaxbptt.types import Keyed

# Estimators and dropout fold in steps and layers, which count from 0. Cells count from the other end.
_LAST = 2**32 - 1


def of_steps(cell, xs, key, batch, layer=0):
    """The inputs, with keys ``[T, *batch]``, if the cell draws and there is a key."""
    if key is None or cell.draws is None:
        return xs
    T = jax.tree.leaves(xs)[0].shape[0]
    own = jax.random.fold_in(_typed(key), _LAST - layer)
    if cell.draws == "sequence":
        return _keyed(xs, jnp.broadcast_to(jax.random.split(own, batch), (T, *batch)))
    steps = jax.vmap(lambda t: jax.random.split(jax.random.fold_in(own, t), batch))(jnp.arange(T))
    return _keyed(xs, steps.reshape(T, *batch))


def of_a_step(cell, x_t, key):
    """x_t with the key of all members, if the cell draws and there is one."""
    return x_t if key is None or cell.draws is None else _keyed(x_t, _typed(key))


def _typed(key):
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _keyed(xs, keys):
    """Keys go next to x: flags are the combinators' own."""
    if isinstance(xs, (MaskedInput, ResetInput)):
        return xs._replace(x=_keyed(xs.x, keys))
    return Keyed(xs, keys)
