"""Parameters, inputs and states of cells."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxbptt._axes import one_step, state_tree
from jaxbptt._errors import arguments, words
from jaxbptt._errors.trees import like


def parameters(params_type, theta_h):
    if not isinstance(theta_h, params_type):
        raise TypeError(
            f"`theta_h` must be {params_type.__name__}, as `cell.init` makes it: got {type(theta_h).__name__}"
        )


def arrays(theta_h):
    came = f"{type(theta_h).__name__}({', '.join(type(leaf).__name__ for leaf in theta_h)})"
    raise TypeError(f"`theta_h` must hold arrays: got {came}; write `jnp.asarray` around each")


def layers(theta_h, h_0, number):
    for name, value in (("theta_h", theta_h), ("h_0", h_0)):
        if not isinstance(value, tuple) or len(value) != number:
            came = f"{len(value)} entries" if isinstance(value, tuple) else type(value).__name__
            raise TypeError(f"`{name}` of {number} stacked layers must be a tuple of {number}: got {came}")


def upper_layer(check, k, theta_h, xs, h_0):
    """What layer k + 1 of a stack refuses, and what its `xs` is: nothing that was given."""
    try:
        check(theta_h, xs, h_0)
    except words.OF_ARGUMENTS as error:
        raise words.kind(error)(
            f"layer {k + 1} of the stack, with `theta_h[{k}]` = {words.describe(theta_h)}, reads the output of layer "
            f"{k}, {words.describe(one_step(xs))} at each step, as its `xs`: {error}"
        ) from error


def flagged_input(combinator, input_type, xs, h_0):
    field = input_type._fields[1]
    if not isinstance(xs, input_type):
        raise TypeError(
            f"`xs` of a {combinator} cell must be {input_type.__name__}(x, {field}): got {type(xs).__name__}"
        )
    flag = xs[1]
    if not hasattr(flag, "dtype") or flag.dtype != jnp.bool_:
        came = flag.dtype if hasattr(flag, "dtype") else type(flag).__name__
        raise TypeError(f"`xs.{field}` must be boolean: got {came}; write `jnp.asarray({field}, bool)`")
    for leaf in jax.tree.leaves(xs.x):
        if np.ndim(leaf) > 1 and np.shape(leaf)[: flag.ndim] != flag.shape:  # [T]: shared by all members
            raise ValueError(
                f"`xs.{field}` must have the leading axes [T, *batch] of `xs.x`: got {flag.shape} and {np.shape(leaf)}"
            )
    for path, leaf in jax.tree.leaves_with_path(h_0):
        if np.shape(leaf)[: flag.ndim - 1] != flag.shape[1:]:
            raise ValueError(
                f"`h_0{jax.tree_util.keystr(path)}` of a {combinator} cell must have the batch axes of `xs.{field}`, "
                f"{flag.shape[1:]}: got shape {np.shape(leaf)}; give each member of the batch its own"
            )


def state_of_reset(cell, theta_h, reset, h_0):
    """A reset gives a state of the same shapes."""
    state_tree(cell, theta_h, h_0)
    begun = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, reset.shape[1:]), theta_h)
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(h_0), jax.tree.leaves(begun), strict=True):
        if np.shape(leaf) != wanted.shape:
            raise ValueError(
                f"`xs.reset` must have all axes [T, *batch] of the state: got {reset.shape}, with which a sequence "
                f"begins with {list(wanted.shape)}, and `h_0{jax.tree_util.keystr(path)}` of shape {np.shape(leaf)}; "
                "use `jnp.broadcast_to`"
            )


def learned_start(params_type, theta_h, start):
    """θ_h holds an h_0 like the inner cell's own, ``start(theta_h.cell)``."""
    parameters(params_type, theta_h)
    like("theta_h.h_0", theta_h.h_0, "cell.initial_state(theta_h.cell, ())", jax.eval_shape(start, theta_h.cell))


def batch_shape(value):
    def is_size(size):
        return isinstance(size, (int, np.integer)) or jax.export.is_symbolic_dim(size)

    if not isinstance(value, tuple) or not all(map(is_size, value)):
        raise TypeError(f"`batch_shape` must be a tuple of integers: got {value!r}; for one batch axis write `(6,)`")
    if any(size < 0 for size in value):
        raise ValueError(f"`batch_shape` must be sizes of at least 0: got {value!r}; for one batch axis write `(6,)`")


def shares(name, value):
    """A number in (0, 1], or a tuple of them."""
    for share in value if isinstance(value, tuple) else (value,):
        arguments.numbers(**{name: share})
        if not 0 < share <= 1:
            raise ValueError(f"`{name}` must lie above 0 and be at most 1: got {share!r}; it is dt/τ")


def one_each(name, came, n):
    raise ValueError(f"`{name}` must be one number, or one for each of the n = {n} units: got {came}")


def masks_of_weights(leaves):
    for mask in leaves:
        if mask is not None and (not isinstance(mask, np.ndarray) or mask.dtype != bool):
            raise TypeError(
                "`masks` must be a tree like θ_h of NumPy arrays of booleans, None where a leaf is dense: got "
                f"{words.describe(mask)}; write `np.asarray(mask, bool)`"
            )


def masks_fit(structure, shapes, theta_h):
    leaves, came = jax.tree.flatten(theta_h, is_leaf=lambda leaf: leaf is None)
    if came != structure:
        raise TypeError(f"`theta_h` must have the tree of the masks, {structure}: got {came}")
    for wanted, leaf in zip(shapes, leaves, strict=True):
        if wanted is not None and np.shape(leaf) != wanted:
            raise ValueError(
                f"`theta_h` must have the shapes of the masks, {wanted} for one: got {np.shape(leaf)}; make masks for "
                "these sizes"
            )


def times_and_keys(dt, key, h_0):
    """Lengths of steps and keys have the axes of time and batch, or that of time alone."""
    kinds = {"dt": (dt, jnp.floating, "floating point"), "key": (key, jax.dtypes.prng_key, "keys of `jax.random.key`")}
    for name, (value, kind, wanted) in kinds.items():
        if value is None:
            continue
        if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, kind):
            came = value.dtype if hasattr(value, "dtype") else type(value).__name__
            raise TypeError(f"`xs.{name}` must be an array of {wanted}, [T] or [T, *batch]: got {came}")
        for path, leaf in jax.tree.leaves_with_path(h_0):
            if np.shape(leaf)[: value.ndim - 1] != value.shape[1:]:
                raise ValueError(
                    f"`xs.{name}` must have shape [T] or [T, *batch]: got {value.shape} with "
                    f"`h_0{jax.tree_util.keystr(path)}` of shape {np.shape(leaf)}; use `jnp.broadcast_to`"
                )


def draws_already(combinator, cell):
    if cell.draws is not None:
        raise TypeError(
            f"`cell` of {combinator} must draw no random numbers of its own: got {cell!r}, which does; only one of "
            "`euler` with noise and `zoneout` can be around a cell"
        )


def rates(name, values):
    for value in values:
        arguments.numbers(**{name: value})
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie from 0 to below 1: got {value!r}; it is a probability")


def one_rate_a_leaf(rates, h_0):
    leaves = jax.tree.leaves(h_0)
    if len(rates) not in (1, len(leaves)):
        raise ValueError(
            f"`rate` must be one number, or one for each of the {len(leaves)} leaves of the state: got {len(rates)}"
        )


def not_both(name, given, other, remedy):
    if given:
        raise ValueError(f"`{name}` and `{other}` exclude each other: got both; {remedy}")
