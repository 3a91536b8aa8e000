"""What a check asks for, and hand-written rules that disagree with JAX."""

from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._axes import one_step
from jaxbptt._errors import words
from jaxbptt._errors.arguments import count
from jaxbptt._errors.initialisation import floating_dtype
from jaxbptt._trees.cotangents import dtype_of, from_jax, has_derivative


class GradientMismatchError(AssertionError):
    """A hand-written rule disagrees with ``jax.vjp`` or with finite differences.

    >>> import jaxbptt as jb
    >>> linear = jb.cells.linear()
    >>> def wrong(theta_h, x_t, h_tm1, h_t, h_bar_t):
    ...     return linear.vjp(theta_h, x_t, h_tm1, h_t, 2 * h_bar_t)
    >>> try:
    ...     jb.check_cell(linear._replace(vjp=wrong), seeds=(0,), sizes=((1, 2),), batch_shapes=((),), steps=1)
    ... except GradientMismatchError as error:
    ...     print(str(error).split("[")[0])
    `theta_h.W_x
    """


def made_in(dtype, name, theta):
    """Parameters are not of less precision than the check: a rule would be accused of their rounding."""
    for path, leaf in jax.tree.leaves_with_path(theta):
        if has_derivative(leaf) and jnp.finfo(dtype_of(leaf)).eps > jnp.finfo(dtype).eps:
            raise TypeError(
                f"`init` must make parameters of the dtype that it is given: got {dtype_of(leaf)} at "
                f"`{name}{jax.tree_util.keystr(path)}`, expected {jnp.dtype(dtype)}; hand `dtype` on, or check with "
                f"`dtype=jnp.{dtype_of(leaf)}`"
            )


def reads_numbers(cell, theta_h, xs, h_0):
    """The inputs that a check draws of its own accord are those that f reads."""
    x = one_step(xs)
    try:
        jax.eval_shape(cell.apply, theta_h, x, h_0)
    except words.OF_ARGUMENTS as error:
        raise words.kind(error)(
            f"f must accept numbers {words.describe(x)} where `inputs` is None: {error}; if it reads token ids, give "
            "`inputs=lambda key, shape, input_size, dtype: jax.random.randint(key, shape, 0, input_size)`, or "
            "`--tokens` in the shell"
        ) from error


def mismatch(leaf, got, wanted, error, tolerance, reference, where):
    raise GradientMismatchError(
        f"`{leaf}` by the hand-written rule is {got}, {reference} gives {wanted}: relative error {error:.2e}, "
        f"allowed {tolerance:.1e} ({where}); mend the rule, or the function it belongs to"
    )


def false_declaration(declared, otherwise, element, got, wanted, error, tolerance, reference, where):
    raise GradientMismatchError(
        f"`split.{declared}` is declared and false: `{element}` is {got}, and would be {wanted}: relative error "
        f"{error:.2e}, allowed {tolerance:.1e} ({where}); declare `{otherwise}`, or mend f"
    )


def no_missing_cotangents(missing, where):
    """Every leaf with a derivative has a cotangent of its shape."""
    if missing:
        raise GradientMismatchError(
            f"the rule gives no cotangent of the right shape for {', '.join(missing)} ({where}); "
            "return one of the leaf's own shape, summed over the batch for parameters"
        )


def options(seeds, sizes, batch_shapes, steps, dtype):
    """What random problems are drawn of."""
    count("steps", steps)
    choices("seeds", seeds, 0)
    choices("sizes", sizes, 2)
    choices("batch_shapes", batch_shapes, None)
    check_dtype(dtype)


def check_dtype(dtype):
    floating_dtype(dtype)
    if jnp.dtype(dtype).itemsize < 4:
        raise ValueError(
            f"`dtype` of a check must be float32 or wider, as rounding hides a wrong rule in less: "
            f"got {jnp.dtype(dtype)}; pass `dtype=jnp.float64`"
        )


def some_gradient(bars):
    """Something was compared: of ∂F/∂θ_h, or of all there is where no θ_h has a derivative."""
    leaves = jax.tree.leaves(from_jax((bars[0].h,))) or jax.tree.leaves(from_jax(bars))
    if not any(np.any(leaf) for leaf in leaves):
        raise ValueError(
            "all of ∂F/∂θ_h is zero, so that a wrong rule would pass: got a `mask` that counts no step, units that are "
            "all dead, or a loss that reads no state; check at another `theta` or with other data"
        )


def reference_not_finite(leaf, reference, where):
    raise ValueError(
        f"{reference} itself gives NaN or infinity for `{leaf}` ({where}): the parameters or the data are not finite, "
        "or f has no derivative there; check them first"
    )


def not_checkable(target, reason) -> NoReturn:
    raise ValueError(
        f"`{target}` must be MODULE:NAME of a Cell or a Readout, as in `my_package.my_cells:CELL`: {reason}"
    )


def choices(name, values, kind):
    """A non-empty sequence of integers (kind 0), of pairs (kind 2) or of shapes (kind None)."""
    expected = {0: "integers", 2: "pairs of integers", None: "shapes, tuples of integers"}[kind]
    entries = list(values) if hasattr(values, "__iter__") else None
    if entries is None or not all(
        isinstance(entry, (int, np.integer)) if kind == 0 else isinstance(entry, tuple) and kind in (None, len(entry))
        for entry in entries
    ):
        raise TypeError(f"`{name}` must be a sequence of {expected}: got {values!r}")
    if not entries:
        raise ValueError(f"`{name}` must have at least one entry: got {values!r}")
