"""Time and batch: which axes of inputs and states are theirs."""

import jax
import jax.export
import numpy as np

from jaxbptt._cotangents import dtype_of, has_derivative
from jaxbptt._validate import _words

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
            came = "a scalar" if hasattr(leaf, "dtype") else f"a {type(leaf).__name__}"
            remedy = "" if hasattr(leaf, "dtype") else "; a list is a tree of its numbers: make an array of it"
            raise ValueError(
                f"`{name}{jax.tree_util.keystr(path)}` must have time as its first axis: got {came}, "
                f"expected [T, *batch, …]{remedy}"
            )
        lengths[jax.tree_util.keystr(path)] = np.shape(leaf)[0]
    if len(set(lengths.values())) > 1:
        raise ValueError(f"all leaves of `{name}` must share their time axis: got lengths {lengths}")
    (T,) = set(lengths.values())
    if T == 0:
        raise ValueError(f"`{name}` must have at least one step: got T = 0 ({_words.describe(tree)})")
    return T


def steps_in_numbers(T):
    """T is no symbol, as in a program that is exported for any T."""
    if not isinstance(T, int):
        raise ValueError(
            f"`xs` must have a number of steps for an adjoint that lays out time when traced: got T = {T}; take "
            "`adjoints.autodiff()` for any T (a batch of any size goes with all of them)"
        )
    return T


def batch_shape(value):
    def is_size(size):
        return isinstance(size, (int, np.integer)) or jax.export.is_symbolic_dim(size)

    if not isinstance(value, tuple) or not all(map(is_size, value)):
        raise TypeError(f"`batch_shape` must be a tuple of integers: got {value!r}; for one batch axis write `(6,)`")
    if any(size < 0 for size in value):
        raise ValueError(f"`batch_shape` must be sizes of at least 0: got {value!r}; for one batch axis write `(6,)`")


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
    if getattr(type(xs), "flags_every_member", False):  # `MaskedInput`, `ResetInput`: flags of T and the batch alone
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


def some_member(batch_shape):
    if 0 in batch_shape:
        raise ValueError(
            f"the batch must have at least one sequence: got batch axes {batch_shape}, and a mean over none is no "
            "number; leave an empty batch out"
        )


def state_without_batch(cell, theta_h):
    """The shapes of the cell's state for no batch; ``None`` where the cell has no `initial_state`."""
    try:
        return jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, ()), theta_h)
    except NotImplementedError:
        return None
    except _words.OF_ARGUMENTS as error:
        raise _words.kind(error)(
            f"`cell.initial_state` must take `batch_shape=()`, which says which axes of a state are its own: {error}"
        ) from error


def one_step(tree):
    """The shapes of one step of what is stacked over time."""

    def of(leaf):
        is_weak = getattr(leaf, "weak_type", False)
        return jax.ShapeDtypeStruct(np.shape(leaf)[1:], dtype_of(leaf), weak_type=is_weak)

    return jax.tree.map(of, tree)


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


def no_batch(batch):
    if batch != ():
        raise ValueError(
            f"Jacobian matrices are of one sequence: got a state with batch axes {batch}; use `jax.vmap` over the batch"
        )
