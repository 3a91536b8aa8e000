"""Parameters, inputs and states of the recursion."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import types
from jaxbptt._cotangents import dtype_of, has_derivative
from jaxbptt._validate import _words
from jaxbptt._validate.factories import cells


def theta(value):
    if not isinstance(value, types.Theta):
        raise TypeError(f"`theta` must be a Theta(h=…, o=…): got {type(value).__name__}; make one with `model.init`")


def batch_shape(value):
    if not isinstance(value, tuple) or not all(isinstance(size, (int, np.integer)) for size in value):
        raise TypeError(f"`batch_shape` must be a tuple of integers: got {value!r}; for one batch axis write `(6,)`")


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
            raise TypeError(
                f"`{name}{jax.tree_util.keystr(path)}` must have the dtype of `{reference}`, {dtype}: got "
                f"{dtype_of(leaf)}; convert one of them, as in `{name}.astype(jnp.{dtype})`"
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
        raise TypeError(f"`xs.{field}` must be boolean: got {came}; write `{field}.astype(bool)`")
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


_NOTHING = {
    "xs": "for a recursion without inputs pass `jnp.zeros((T, 0))`",
    "ys": "for a loss without targets pass `jnp.zeros((T, *batch))`",
}


def time_axis(name, tree):
    """T, from leaves that must all have it as axis 0."""
    leaves = jax.tree.leaves_with_path(tree)
    if not leaves:
        raise ValueError(
            f"`{name}` must have at least one array, to say how many steps there are: got {tree!r}; {_NOTHING[name]}"
        )
    lengths = {}
    for path, leaf in leaves:
        if np.ndim(leaf) == 0:
            raise ValueError(
                f"`{name}{jax.tree_util.keystr(path)}` must have time as its first axis: got a scalar, "
                "expected [T, *batch, …]"
            )
        lengths[jax.tree_util.keystr(path)] = np.shape(leaf)[0]
    if len(set(lengths.values())) > 1:
        raise ValueError(f"all leaves of `{name}` must share their time axis: got lengths {lengths}")
    (T,) = set(lengths.values())
    if T == 0:
        raise ValueError(f"`{name}` must have at least one step: got T = 0 ({_words.describe(tree)})")
    return T


def batch_shape_of(cell, theta_h, xs):
    """The batch axes of `xs`, for a state to begin with.

    Floating-point leaves have one axis of features behind them, ``[T, *batch, d]``, and other leaves begin with them.
    Where all are others (token ids, counts, flags) they are the fewest with which f returns a state like its own.
    """
    time_axis("xs", xs)
    leaves = jax.tree.leaves(xs)
    shapes = [np.shape(leaf)[1:] for leaf in leaves]
    said = {shape[:-1] for shape, leaf in zip(shapes, leaves, strict=True) if has_derivative(leaf)}
    if not said:
        return _fewest_axes(cell, theta_h, xs, shapes)
    if len(said) > 1 or any(shape[: len(batch)] != batch for batch in said for shape in shapes):
        raise ValueError(
            f"`h_0` can't be made, as the leaves of `xs` suggest different batch axes: got xs={_words.describe(xs)}, "
            "where floating-point leaves are taken for [T, *batch, d] and others must begin with [T, *batch]; pass "
            "`h_0`"
        )
    return said.pop()


def _fewest_axes(cell, theta_h, xs, shapes):
    """With fewer axes than the batch has, f returns a state of more than it was given, or refuses it.

    All that the leaves share where f reads none of them, and nothing tells.
    """
    if getattr(xs, "_fields", ()) in (("x", "mask"), ("x", "reset")):  # flags of T and the batch, no other axes
        batch = np.shape(xs[1])[1:]
        if all(shape[: len(batch)] == batch for shape in shapes):
            return batch
    shared = [shapes[0][:k] for k in range(min(map(len, shapes)) + 1) if len({shape[:k] for shape in shapes}) == 1]
    state_without_batch(cell, theta_h)  # says what is wrong with one that takes none
    for batch in shared:
        h_0 = jax.eval_shape(lambda theta_h, batch=batch: cell.initial_state(theta_h, batch), theta_h)
        if _fits(cell, theta_h, xs, h_0):
            return batch
    if set(shapes) != {shared[-1]}:
        raise ValueError(
            "`h_0` can't be made, as with no batch axes that the leaves of `xs` share does f return a state like its "
            f"own: got xs={_words.describe(xs)}; pass `h_0`"
        )
    return shared[-1]  # the recursion says what f does not accept


def _fits(cell, theta_h, xs, h_0):
    """Whether f reads the inputs, and returns a state like this one."""
    x_1 = one_step(xs)
    try:
        if cell.check is not None:
            cell.check(theta_h, xs, h_0)
        program, h_1 = jax.make_jaxpr(cell.apply, return_shape=True)(theta_h, x_1, h_0)
    except Exception:  # whatever the user's own checks raise
        return False
    if jax.tree.structure(h_1) != jax.tree.structure(h_0):
        return False
    before, number = len(jax.tree.leaves(theta_h)), len(jax.tree.leaves(x_1))
    inputs = set(program.jaxpr.invars[before : before + number])
    read = {var for equation in program.jaxpr.eqns for var in equation.invars if not hasattr(var, "val")}
    same = [leaf.shape for leaf in jax.tree.leaves(h_1)] == [leaf.shape for leaf in jax.tree.leaves(h_0)]
    return same and bool(inputs & read)


def one_step(tree):
    """The shapes of one step of what is stacked over time."""

    def of(leaf):
        is_weak = getattr(leaf, "weak_type", False)
        return jax.ShapeDtypeStruct(np.shape(leaf)[1:], dtype_of(leaf), weak_type=is_weak)

    return jax.tree.map(of, tree)


def no_batch(batch):
    if batch != ():
        raise ValueError(
            f"Jacobian matrices are of one sequence: got a state with batch axes {batch}; use `jax.vmap` over the batch"
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


def batch_axes(shapes, h_0):
    """The one shape in `shapes`."""
    if len(shapes) != 1:
        raise ValueError(
            f"the leaves of `h_0` must share their batch axes: got {sorted(shapes)} in {_words.describe(h_0)}"
        )
    return shapes.pop()


def nothing_shared(is_shared, h_0):
    if is_shared:
        raise ValueError(
            "`h_0` must have the batch axes in every floating-point leaf, as the members are taken one by one: "
            f"got {_words.describe(h_0)}; give the leaf that all share those axes, in f too (`jnp.broadcast_to`)"
        )


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
    h_1 = _traced("cell.apply", cell.apply, theta_h, one_step(xs), h_0)
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


def state_without_batch(cell, theta_h):
    """The shapes of the cell's state for no batch; ``None`` where the cell has no `initial_state`."""
    try:
        return jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, ()), theta_h)
    except NotImplementedError:
        return None
    except _OF_ARGUMENTS as error:
        raise _kind(error)(
            f"`cell.initial_state` must take `batch_shape=()`, which says which axes of a state are its own: {error}"
        ) from error


def state_of_reset(cell, theta_h, reset, h_0):
    """The state that a sequence begins with has the shapes of those between."""
    begun = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, reset.shape[1:]), theta_h)
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(h_0), jax.tree.leaves(begun), strict=True):
        if np.shape(leaf) != wanted.shape:
            raise ValueError(
                f"`xs.reset` must have all axes [T, *batch] of the state: got {reset.shape}, with which a sequence "
                f"begins with {list(wanted.shape)}, and `h_0{jax.tree_util.keystr(path)}` of shape {np.shape(leaf)}; "
                "use `jnp.broadcast_to`"
            )


_OF_ARGUMENTS = (TypeError, ValueError, IndexError, KeyError, AttributeError)


def _kind(error):
    return ValueError if isinstance(error, (ValueError, IndexError)) else TypeError


def _traced(name, function, *arguments):
    try:
        return jax.eval_shape(function, *arguments)
    except _OF_ARGUMENTS as error:
        came = ", ".join(str(_words.describe(argument)) for argument in arguments)
        raise _kind(error)(f"`{name}` does not accept its arguments ({came}): {error}") from error
