"""The gradient of F on your own model and data, by an adjoint, against ``jax.grad`` of the plain scan."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import _axes, adjoints
from jaxbptt._errors import words
from jaxbptt._trees import cotangents
from jaxbptt.checking import _errors
from jaxbptt.checking.report import Report, compared, report, tolerances
from jaxbptt.objective import objective
from jaxbptt.types import Adjoint, Loss, Model, PyTree, Theta


def check_gradients(
    model: Model,
    loss: Loss,
    theta: Theta,
    xs: PyTree,
    ys: PyTree,
    h_0: PyTree | None = None,
    *,
    mask=None,
    lengths=None,
    adjoint: Adjoint | None = None,
    dtype=None,
    seed: int = 0,
) -> Report:
    """Compares ∂F/∂θ, ∂F/∂xs and ∂F/∂h_0 by `adjoint` with ``jax.grad`` of the plain scan and central differences.

    Args:
        model: f and g.
        loss: L.
        theta: parameters.
        xs: ``[T, *batch, d]``.
        ys: targets.
        h_0: initial state; the model's when ``None``.
        mask: ``[T, *batch]``, and
        lengths: ``[*batch]``, as for `jaxbptt.objective`.
        adjoint: what is checked; `adjoints.full` by default.
        dtype: converts every floating-point leaf first. ``jnp.float64`` makes the check sharp whatever JAX's setting
            is. ``None`` checks in the dtype given, to its rounding over many steps: in float32 to some 1e-3 of the
            leaf. Where the leaf is smaller, it is to that of a hundredth of the largest number in the gradient. The
            check is then blind to a leaf far smaller than the others. Half precision must be converted.
        seed: of the directions of the differences.

    Returns:
        A `Report`; ``print`` it. Costs two gradients, and five values of F for each leaf.

    Raises:
        GradientMismatchError: at the first leaf beyond rounding, with the leaf, both values and the step t where, going
            back from T, the rule first departs.
        TypeError, ValueError: as `jaxbptt.objective` does, and where all of ∂F/∂θ_h is zero, which any rule passes.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.identity())
    >>> theta = model.init(jax.random.key(0), input_size=2, hidden_size=3, output_size=3)
    >>> table = check_gradients(model, jb.losses.l2_loss, theta, jnp.ones((4, 2)), jnp.ones((4, 3)), dtype=jnp.float64)
    >>> [row.leaf for row in table.rows]
    ['theta.h.W_x', 'theta.h.W_h', 'theta.h.b', 'xs', 'h_0']
    """
    for name, tree in (("xs", xs), ("ys", ys)):
        _axes.time_axis(name, tree)
    adjoint = adjoints.full() if adjoint is None else adjoint
    F, plain = (objective(model, loss, adjoint=choice) for choice in (adjoint, adjoints.autodiff()))
    sharp = dtype is not None and jnp.dtype(dtype).itemsize == 8
    with jax.enable_x64(True) if sharp else contextlib.nullcontext():
        theta, xs, ys, h_0 = (_converted(tree, dtype) for tree in (theta, xs, ys, h_0))
        h_0 = _axes.initial_state(model, theta, xs, h_0)

        def value(F, theta, xs, h_0):
            return F(theta, xs, ys, h_0, mask=mask, lengths=lengths)

        def gradient(F, *primals):
            loss_value, pull = cotangents.pullback(functools.partial(value, F), *primals)
            return pull(jnp.ones_like(loss_value))

        primals, forward = {"theta": theta, "xs": xs, "h_0": h_0}, jax.jit(functools.partial(value, plain))
        got, wanted = (jax.jit(functools.partial(gradient, choice))(*primals.values()) for choice in (F, plain))
        dtype = jax.eval_shape(forward, *primals.values()).dtype
        _errors.check_dtype(dtype)
        scales = tolerances(dtype)
        where = _first_departure(got[1], wanted[1], scales.autodiff)
        errors = compared(primals, got, wanted, forward, jax.random.key(seed), scales, where)
        _errors.some_gradient(wanted)
    return report("check_gradients", [errors], scales)


def _converted(tree, dtype):
    arrays = jax.tree.map(jnp.asarray, tree)
    return arrays if dtype is None else jax.tree.map(lambda x: x.astype(dtype) if words.is_float(x) else x, arrays)


def _first_departure(xs_bar, wanted_bar, tolerance):
    """The largest t at which ∂F/∂x_t is wrong: a reverse pass goes astray there."""
    for t in reversed(range(len(jax.tree.leaves(wanted_bar)[0]) if jax.tree.leaves(wanted_bar) else 0)):
        for got, wanted in zip(jax.tree.leaves(xs_bar), jax.tree.leaves(wanted_bar), strict=True):
            scale = np.max(np.abs(wanted), initial=np.finfo(np.asarray(wanted).dtype).tiny)
            if not np.max(np.abs(np.asarray(got[t]) - np.asarray(wanted[t])), initial=0.0) <= tolerance * scale:
                return f"first at step t={t + 1}, counting back from T"
    return "at every step alike"
