"""Time and batch: their axes in inputs and states, and functions applied member by member."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._errors import trees, words
from jaxbptt._trees.cotangents import dtype_of, has_derivative

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
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSUMm":
            raise TypeError(
                f"`{name}{jax.tree_util.keystr(path)}` must hold numbers: got an array of dtype {leaf.dtype}; write "
                f"`{name}.astype(np.float32)`, or number your tokens"
            )
        lengths[jax.tree_util.keystr(path)] = np.shape(leaf)[0]
    if len(set(lengths.values())) > 1:
        raise ValueError(f"all leaves of `{name}` must share their time axis: got lengths {lengths}")
    (T,) = set(lengths.values())
    if T == 0:
        raise ValueError(f"`{name}` must have at least one step: got T = 0 ({words.describe(tree)})")
    return T


def batch_shape_of(cell, theta_h, xs, ys=None, mask=None, lengths=None):
    """The batch axes of a sequence, for a state to begin with: those of `lengths` or `mask`, where there are any.

    Floating-point leaves of `xs` have one axis of features behind them, ``[T, *batch, d]``; other leaves begin with
    them. A leaf ``[T]`` is shared by all members. Without floating point (token ids, counts, flags) the batch is the
    fewest axes shared by all leaves of `xs` and `ys` with which f returns a state like its own.
    """
    time_axis("xs", xs)
    if lengths is not None:
        return np.shape(lengths)
    if mask is not None:
        batch = np.shape(mask)[1:]
        if not any(np.shape(leaf)[1 : 1 + len(batch)] == batch for leaf in jax.tree.leaves(xs)):
            raise ValueError(
                f"`mask` must have the batch axes of `xs`, [T, *batch]: got {np.shape(mask)} and "
                f"xs={words.describe(xs)}; use `jnp.broadcast_to`"
            )
        return batch
    leaves = jax.tree.leaves(xs)
    leaves = [leaf for leaf in leaves if np.ndim(leaf) > 1] or leaves  # [T]: shared by all members
    shapes = [np.shape(leaf)[1:] for leaf in leaves]
    said = {shape[:-1] for shape, leaf in zip(shapes, leaves, strict=True) if has_derivative(leaf)}
    if not said:
        return _fewest_axes(cell, theta_h, xs, shapes, [np.shape(leaf)[1:] for leaf in jax.tree.leaves(ys)])
    if len(said) > 1 or any(shape[: len(batch)] != batch for batch in said for shape in shapes):
        raise ValueError(
            f"`h_0` can't be made, as the leaves of `xs` suggest different batch axes: got xs={words.describe(xs)}, "
            "where floating-point leaves are taken for [T, *batch, d] and others must begin with [T, *batch]; pass "
            "`h_0`"
        )
    return said.pop()


def _fewest_axes(cell, theta_h, xs, shapes, shapes_of_ys):
    """The fewest axes that the leaves share with which f returns a state like its own.

    With too few, f refuses the state or returns a larger one. Where f reads no leaf: all axes that the leaves share.
    """
    if getattr(type(xs), "flags_every_member", False):  # `MaskedInput`, `ResetInput`: flags of T and the batch alone
        batch = np.shape(xs[1])[1:]
        if all(shape[: len(batch)] == batch for shape in shapes):
            return batch
    both = shapes + shapes_of_ys
    shared = [both[0][:k] for k in range(min(map(len, both)) + 1) if len({shape[:k] for shape in both}) == 1]
    state_without_batch(cell, theta_h)  # raises for a cell that takes no empty batch shape
    for batch in shared:
        h_0 = jax.eval_shape(lambda theta_h, batch=batch: cell.initial_state(theta_h, batch), theta_h)
        if _fits(cell, theta_h, xs, h_0):
            return batch
    if set(shapes) != {shared[-1]}:
        raise ValueError(
            "`h_0` can't be made, as with no batch axes that the leaves of `xs` share does f return a state like its "
            f"own: got xs={words.describe(xs)}; pass `h_0`"
        )
    return shared[-1]  # the recursion raises for inputs that f does not accept


def _fits(cell, theta_h, xs, h_0):
    """Whether f reads the inputs, and returns a state like this one."""
    x_1 = one_step(xs)
    try:
        if cell.check is not None:
            cell.check(theta_h, xs, h_0)
        program, h_1 = jax.make_jaxpr(cell.apply, return_shape=True)(theta_h, x_1, h_0)
    except (*words.OF_ARGUMENTS, AssertionError):
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
        return jax.eval_shape(cell.initial_state, theta_h, ())
    except NotImplementedError:
        return None
    except words.OF_ARGUMENTS as error:
        raise words.kind(error)(
            f"`cell.initial_state` must take `batch_shape=()`, which says which axes of a state are its own: {error}"
        ) from error


def one_step(tree):
    """The shapes of one step of a tree that is stacked over time."""
    leaves, structure = jax.tree.flatten(tree)
    weak = [getattr(leaf, "weak_type", False) for leaf in leaves]
    return structure.unflatten(
        [jax.ShapeDtypeStruct(np.shape(leaf)[1:], dtype_of(leaf), weak_type=is_weak)
         for leaf, is_weak in zip(leaves, weak, strict=True)]
    )  # fmt: skip


def traced(name, function, *arguments):
    """The shapes that a user's function returns."""
    try:
        return jax.eval_shape(function, *arguments)
    except words.OF_ARGUMENTS as error:
        came = ", ".join(str(words.describe(argument)) for argument in arguments)
        raise words.kind(error)(f"`{name}` does not accept its arguments ({came}): {error}") from error


def no_batch(batch):
    if batch != ():
        raise ValueError(
            f"Jacobian matrices are of one sequence: got a state with batch axes {batch}; use `jax.vmap` over the batch"
        )


def state_tree(cell, theta_h, h_0):
    single = state_without_batch(cell, theta_h)
    if single is not None and jax.tree.structure(h_0) != jax.tree.structure(single):
        raise TypeError(
            f"`h_0` must have the tree of the cell's state, {jax.tree.structure(single)}: got "
            f"{jax.tree.structure(h_0)}; make one with `initial_state(theta, batch_shape)`"
        )


def initial_state(model, theta, xs, h_0=None, ys=None, mask=None, lengths=None):
    """h_0, or the model's initial state for the batch of `xs`."""
    trees.theta(theta)
    if h_0 is not None:
        return h_0
    return model.initial_state(theta, batch_shape_of(whole(model), theta.h, xs, ys, mask, lengths))


def beginning(model, theta, h_0, *sequence):
    """h_0 as a function of θ_h: the state given, or the model's initial state, which may be learned."""
    cell = whole(model)
    batch = None if h_0 is not None else batch_shape_of(cell, theta.h, *sequence)
    return lambda theta_h: h_0 if h_0 is not None else cell.initial_state(theta_h, batch)


def whole(model):
    """A cell of the model's parameters, states and outputs: its own, or that of its layers."""
    return model.cell if model.layers is None else model.layers.cell


def batch_shape(cell, theta_h, h_0, *, each=False):
    """The batch axes of a state: those that the cell's state for no batch doesn't have.

    A leaf may lack them: a counter or a key that all members share. With `each`, every member has its own cotangent and
    no number may lack them. A cell without `initial_state` is taken to have one feature axis: ``h [*batch, n]``.
    """
    leaves = jax.tree.leaves(h_0)
    ranks = [leaf.ndim for leaf in jax.tree.leaves(state_without_batch(cell, theta_h))] or [1] * len(leaves)
    shapes = [np.shape(h)[: max(np.ndim(h) - rank, 0)] for h, rank in zip(leaves, ranks, strict=True)]
    found = {*shapes} - {()} or {()}
    if len(found) > 1:
        raise ValueError(
            f"the leaves of `h_0` must share their batch axes: got {sorted(found)} in {words.describe(h_0)}"
        )
    (batch,) = found
    if each and batch and any(has_derivative(h) and not shape for h, shape in zip(leaves, shapes, strict=True)):
        raise ValueError(
            "`h_0` must have the batch axes in every floating-point leaf, as the members are taken one by one: "
            f"got {words.describe(h_0)}; give the leaf that all share those axes, in f too (`jnp.broadcast_to`)"
        )
    return batch


def check_lengths(cell, theta_h, xs, h_0, lengths):
    """One integer for each sequence."""
    if not (hasattr(lengths, "dtype") and jnp.issubdtype(lengths.dtype, jnp.integer)):
        came = lengths.dtype if hasattr(lengths, "dtype") else type(lengths).__name__
        raise TypeError(f"`lengths` must be integers, an array [*batch]: got {came}; write `jnp.asarray(lengths)`")
    state_tree(cell, theta_h, h_0)
    batch = batch_shape(cell, theta_h, h_0)
    if lengths.shape != batch:
        raise ValueError(
            f"`lengths` must be one number for each sequence, shape [*batch] = {batch}: got {lengths.shape}; "
            "`jnp.broadcast_to` gives all members the same"
        )
    for path, leaf in jax.tree.leaves_with_path(xs):
        if np.ndim(leaf) > 1 and np.shape(leaf)[1 : 1 + len(batch)] != batch:
            raise ValueError(
                f"`xs{jax.tree_util.keystr(path)}` must have the batch axes of `lengths`, [T, *batch, …] with {batch}: "
                f"got shape {np.shape(leaf)}; a leaf that all members share is [T]"
            )
    for path, leaf in jax.tree.leaves_with_path(h_0):
        if np.shape(leaf)[: len(batch)] != batch:
            raise ValueError(
                f"`h_0{jax.tree_util.keystr(path)}` must have the batch axes of `lengths`, {batch}, as each member's "
                f"state stands still at an end of its own: got shape {np.shape(leaf)}; use `jnp.broadcast_to`"
            )


def members_shape(cell, theta_h, h_0):
    """`batch_shape`, or ``()`` to count the whole state as one member, which is always right.

    That is for a cell without `initial_state`, and where members share a number of the state.
    """
    leaves, single = jax.tree.leaves(h_0), jax.tree.leaves(state_without_batch(cell, theta_h))
    has_axes = [np.ndim(h) > one.ndim for h, one in zip(leaves, single or leaves, strict=True)]
    shared = any(has_axes) and any(has_derivative(h) and not has for h, has in zip(leaves, has_axes, strict=True))
    return batch_shape(cell, theta_h, h_0) if single and not shared else ()


def over_members(function, batch, *given):
    """`function` for each member of the batch.

    A leaf without the batch axes is shared by all. One that begins with their sizes by chance is cut like the others.
    """
    leaves, structure = jax.tree.flatten(given)
    axes = structure.unflatten([0 if np.shape(leaf)[: len(batch)] == batch else None for leaf in leaves])
    for _ in batch:
        function = jax.vmap(function, in_axes=axes)
    return function(*given)
