"""A readout's pullback against ``jax.vjp`` of its `apply`, and against differences."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxbptt import readouts
from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents
from jaxbptt.checking import _errors, _random
from jaxbptt.checking.report import Report, compared, largest, relative_errors, report, tolerances
from jaxbptt.types import Readout

SIZES = ((5, 3), (1, 4))


def check_readout(
    readout: Readout,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sizes: Sequence[tuple[int, int]] = SIZES,
    batch_shapes: Sequence[tuple[int, ...]] = ((2,), (), (2, 3)),
    steps: int = 3,
    dtype=jnp.float64,
) -> Report:
    """Compares the readout's pullback with ``jax.vjp`` of its `apply` and with central differences.

    For every seed, size and batch shape, over stacked steps as `jaxbptt.objective` uses it: ``theta_bar`` summed over
    time and batch, and ``h_bar_t``.

    Args:
        readout: g, with ``init``, reading one array.
        seeds: of parameters, states and cotangents.
        sizes: pairs ``(hidden_size, output_size)``; equal ones for a readout that wants them so.
        batch_shapes: batch axes.
        steps: T.
        dtype: of the check, float32 or wider; float64 works whatever JAX's setting is.

    Returns:
        A `Report`; ``print`` it.

    Raises:
        GradientMismatchError: at the first leaf beyond the rounding of the dtype, with the leaf and both values.
        TypeError, ValueError: for arguments that don't fit.

    >>> import jaxbptt as jb
    >>> [row.leaf for row in check_readout(jb.readouts.linear(), seeds=(0,)).rows]
    ['theta_o.W_o', 'theta_o.b', 'hs']
    """
    arguments.readout(readout)
    _errors.options(seeds, sizes, batch_shapes, steps, dtype)
    apply, scales = functools.partial(readouts.by_jax, readout), tolerances(dtype)
    rule = jax.jit(functools.partial(readouts.vjp_over_time, readout))
    reference = jax.jit(lambda theta_o, hs, bars: cotangents.pullback(apply, theta_o, hs)[1](bars))
    value = jax.jit(lambda bars, *primals: _random.inner(bars, apply(*primals)))
    found = []
    with jax.enable_x64(True):
        for seed, (n, m), batch in itertools.product(seeds, sizes, batch_shapes):
            keys = jax.random.split(jax.random.key(seed), 5)
            theta_o = readout.init(keys[0], n, m, dtype)
            _errors.made_in(dtype, "theta_o", theta_o)
            theta_o = _random.perturbed(theta_o, keys[1])
            hs = jax.random.normal(keys[2], (steps, *batch, n), dtype)
            bars = _random.like(jax.eval_shape(apply, theta_o, hs), keys[3])
            where = f"seed={seed}, hidden_size={n}, output_size={m}, batch_shape={batch}"
            primals, of_bars = {"theta_o": theta_o, "hs": hs}, functools.partial(value, bars)
            got, wanted = rule(theta_o, hs, bars), reference(theta_o, hs, bars)
            autodiff, differences = compared(primals, got, wanted, of_bars, keys[4], scales, where)
            for leaf, error in _of_one_step(readout, theta_o, hs[0], bars, scales.autodiff, where).items():
                autodiff[leaf] = max(error, autodiff[leaf])
            found.append((autodiff, differences))
    return report("check_readout", found, scales)


def _of_one_step(readout, theta_o, h_t, bars, tolerance, where):
    """The errors of the pullback of the first step alone."""
    y_hat_bar_t, errors = jax.tree.map(lambda bar: bar[0], bars), {}
    got = readout.vjp(theta_o, h_t, y_hat_bar_t)
    wanted = cotangents.pullback(readout.apply, theta_o, h_t)[1](y_hat_bar_t)
    for name, primal, bar, right in zip(("theta_o", "hs"), (theta_o, h_t), got, wanted, strict=True):
        errors |= relative_errors(name, bar, right, primal, tolerance, f"one step, {where}", largest(wanted))
    return errors
