"""Parameters, inputs and states of the recursion."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import types
from jaxbptt._cotangents import dtype_of
from jaxbptt._validate import _words
from jaxbptt._validate.axes import one_step, state_without_batch, time_axis
from jaxbptt._validate.factories import cells


def theta(value):
    if not isinstance(value, types.Theta):
        raise TypeError(f"`theta` must be a Theta(h=…, o=…): got {type(value).__name__}; make one with `model.init`")


def parameters(params_type, theta_h):
    if not isinstance(theta_h, params_type):
        raise TypeError(
            f"`theta_h` must be {params_type.__name__}, as `cell.init` makes it: got {type(theta_h).__name__}"
        )


def matrix_cell(params_type, gates, theta_h, xs, h_0):
    """Sizes of a cell whose parameters are W_x, W_h and biases with `gates` blocks of rows."""
    name = params_type.__name__
    parameters(params_type, theta_h)
    if not all(hasattr(leaf, "shape") for leaf in theta_h):
        raise TypeError(f"`theta_h` must hold arrays: got {name}({', '.join(type(leaf).__name__ for leaf in theta_h)})")
    n = np.shape(theta_h.W_h)[-1] if np.ndim(theta_h.W_h) == 2 else -1
    d = np.shape(theta_h.W_x)[-1] if np.ndim(theta_h.W_x) == 2 else -1
    expected = {"W_x": (gates * n, d), "W_h": (gates * n, n)}
    for field, leaf in theta_h._asdict().items():
        wanted = expected.get(field, (gates * n,))
        if np.shape(leaf) != wanted or n < 1 or d < 0:
            rows = "n" if gates == 1 else f"{gates}n"
            layout = {"W_x": f"[{rows}, d]", "W_h": f"[{rows}, n]"}.get(field, f"[{rows}]")
            raise ValueError(
                f"`theta_h.{field}` must have shape {layout}: got {np.shape(leaf)} beside "
                f"W_h.shape={np.shape(theta_h.W_h)}; make parameters with `cell.init`"
            )
    _same_float_dtype("theta_h", theta_h, theta_h.W_h.dtype, "theta_h.W_h")
    if not hasattr(xs, "shape"):
        raise TypeError(f"`xs` must be one array [T, *batch, d]: got {type(xs).__name__}")
    if np.ndim(xs) < 2 or xs.shape[-1] != d:
        raise ValueError(
            f"`xs` must have shape [T, *batch, d] with d={d} as in theta_h.W_x.shape={np.shape(theta_h.W_x)}: "
            f"got xs.shape={np.shape(xs)}"
        )
    _same_float_dtype("xs", xs, theta_h.W_h.dtype, "theta_h.W_h")
    wanted = (*xs.shape[1:-1], n)
    for path, leaf in jax.tree.leaves_with_path(h_0):
        if np.shape(leaf) != wanted:
            raise ValueError(
                f"`h_0{jax.tree_util.keystr(path)}` must have shape [*batch, n] = {wanted}, with the batch of "
                f"xs.shape={np.shape(xs)}: got {np.shape(leaf)}; make one with "
                f"`initial_state(theta, batch_shape={wanted[:-1]})`"
            )
    _same_float_dtype("h_0", h_0, theta_h.W_h.dtype, "theta_h.W_h")


def _same_float_dtype(name, tree, dtype, reference):
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"`{reference}` must be floating point: got {dtype}; complex parameters go through `cells.from_step`"
        )
    for path, leaf in jax.tree.leaves_with_path(tree):
        if dtype_of(leaf) != dtype:
            converted = (
                f"jax.tree.map(lambda leaf: leaf.astype(jnp.{dtype}), {name})"
                if path
                else f"{name}.astype(jnp.{dtype})"
            )
            raise TypeError(
                f"`{name}{jax.tree_util.keystr(path)}` must have the dtype of `{reference}`, {dtype}: got "
                f"{dtype_of(leaf)}; convert one of them, as in `{converted}`"
            )


def layers(theta_h, h_0, number):
    for name, value in (("theta_h", theta_h), ("h_0", h_0)):
        if not isinstance(value, tuple) or len(value) != number:
            came = f"{len(value)} entries" if isinstance(value, tuple) else type(value).__name__
            raise TypeError(f"`{name}` of {number} stacked layers must be a tuple of {number}: got {came}")


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
        if np.shape(leaf)[: flag.ndim] != flag.shape:
            raise ValueError(
                f"`xs.{field}` must have the leading axes [T, *batch] of `xs.x`: got {flag.shape} and {np.shape(leaf)}"
            )
    for path, leaf in jax.tree.leaves_with_path(h_0):
        if np.shape(leaf)[: flag.ndim - 1] != flag.shape[1:]:
            raise ValueError(
                f"`h_0{jax.tree_util.keystr(path)}` of a {combinator} cell must have the batch axes of `xs.{field}`, "
                f"{flag.shape[1:]}: got shape {np.shape(leaf)}; give each member of the batch its own"
            )


def like(name, tree, reference_name, reference):
    """`tree` has the structure, shapes and dtypes of `reference`."""
    if jax.tree.structure(tree) != jax.tree.structure(reference):
        raise TypeError(
            f"`{name}` must have the tree of `{reference_name}`: got {jax.tree.structure(tree)}, "
            f"expected {jax.tree.structure(reference)} (None where there is no derivative)"
        )
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(reference), strict=True):
        if np.shape(leaf) != np.shape(wanted) or dtype_of(leaf) != dtype_of(wanted):
            raise ValueError(
                f"`{name}{jax.tree_util.keystr(path)}` must be like `{reference_name}`, "
                f"{dtype_of(wanted)}{list(np.shape(wanted))}: got {dtype_of(leaf)}{list(np.shape(leaf))}"
            )


def estimator_state(state, state_type):
    if not isinstance(state, state_type):
        raise TypeError(
            f"`state` must be {state_type.__name__}, as `estimator.init` makes it: got {type(state).__name__}"
        )


def sensitivity(a, shape):
    if np.shape(a) != shape:
        raise ValueError(
            f"`state.a` must have shape [*batch, N, P] = {shape} for this θ_h and state: got {np.shape(a)}; "
            "make the state with `estimator.init` of the same model and batch"
        )
    return a


def recursion(cell, theta_h, xs, h_0):
    """Checks the arguments of the recursion; returns h_0 as arrays."""
    cells("cell", (cell,))
    time_axis("xs", xs)
    if h_0 is None:
        raise TypeError("`h_0` must be a state: got None; make one with `cell.initial_state(theta_h, batch_shape)`")
    h_0 = jax.tree.map(jnp.asarray, h_0)
    if cell.check is not None:
        cell.check(theta_h, xs, h_0)
    state_tree(cell, theta_h, h_0)
    h_1 = _words.traced("cell.apply", cell.apply, theta_h, one_step(xs), h_0)
    if jax.tree.structure(h_1) != jax.tree.structure(h_0):
        raise TypeError(
            f"f must return the tree of its state: got {jax.tree.structure(h_1)}, "
            f"expected that of h_0, {jax.tree.structure(h_0)}"
        )
    for (path, before), after in zip(jax.tree.leaves_with_path(h_0), jax.tree.leaves(h_1), strict=True):
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            raise (TypeError if before.shape == after.shape else ValueError)(
                f"`h_0{jax.tree_util.keystr(path)}` must have the shape and dtype that f returns, "
                f"{after.dtype}{list(after.shape)}: got {before.dtype}{list(before.shape)}"
            )
    return h_0


def state_tree(cell, theta_h, h_0):
    single = state_without_batch(cell, theta_h)
    if single is not None and jax.tree.structure(h_0) != jax.tree.structure(single):
        raise TypeError(
            f"`h_0` must have the tree of the cell's state, {jax.tree.structure(single)}: got "
            f"{jax.tree.structure(h_0)}; make one with `initial_state(theta, batch_shape)`"
        )


def state_of_reset(cell, theta_h, reset, h_0):
    """The state that a sequence begins with has the shapes of those between."""
    state_tree(cell, theta_h, h_0)
    begun = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, reset.shape[1:]), theta_h)
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(h_0), jax.tree.leaves(begun), strict=True):
        if np.shape(leaf) != wanted.shape:
            raise ValueError(
                f"`xs.reset` must have all axes [T, *batch] of the state: got {reset.shape}, with which a sequence "
                f"begins with {list(wanted.shape)}, and `h_0{jax.tree_util.keystr(path)}` of shape {np.shape(leaf)}; "
                "use `jnp.broadcast_to`"
            )
