"""A readout's pullback against ``jax.vjp`` of its `apply`, and against differences."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxbptt import readouts
from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents
from jaxbptt.checking import _errors, _random
from jaxbptt.checking.report import Report, difference_errors, largest, relative_errors, report, tolerances
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
    arguments.count("steps", steps)
    _errors.choices("seeds", seeds, 0)
    _errors.choices("sizes", sizes, 2)
    _errors.choices("batch_shapes", batch_shapes, None)
    _errors.check_dtype(dtype)
    scales = tolerances(dtype)

    def apply(theta_o, hs):
        return readouts.by_jax(readout, theta_o, hs)

    rule = jax.jit(lambda theta_o, hs, bars: readouts.vjp_over_time(readout, theta_o, hs, bars))
    reference = jax.jit(lambda theta_o, hs, bars: cotangents.pullback(apply, theta_o, hs)[1](bars))
    value = jax.jit(lambda bars, *primals: _random.inner(bars, apply(*primals)))

    found = []
    with jax.enable_x64(True):
        for seed in seeds:
            for n, m in sizes:
                keys = jax.random.split(jax.random.key(seed), 5)
                theta_o = readout.init(keys[0], n, m, dtype)
                _errors.made_in(dtype, "theta_o", theta_o)
                theta_o = _random.perturbed(theta_o, keys[1])
                for batch in batch_shapes:
                    hs = jax.random.normal(keys[2], (steps, *batch, n), dtype)
                    bars = _random.like(jax.eval_shape(apply, theta_o, hs), keys[3])
                    got, wanted = rule(theta_o, hs, bars), reference(theta_o, hs, bars)
                    where = f"seed={seed}, hidden_size={n}, output_size={m}, batch_shape={batch}"
                    autodiff, differences = {}, {}
                    for k, (name, primal) in enumerate((("theta_o", theta_o), ("hs", hs))):
                        autodiff |= relative_errors(
                            name, got[k], wanted[k], primal, scales.autodiff, where, largest(wanted)
                        )

                        def at(moved, k=k, primals=(theta_o, hs), bars=bars):
                            return value(bars, *primals[:k], moved, *primals[k + 1 :])

                        key = jax.random.fold_in(keys[4], k)
                        differences |= difference_errors(name, at, primal, got[k], key, scales, where)
                    one_step = (theta_o, hs[0])
                    got = readout.vjp(*one_step, jax.tree.map(lambda bar: bar[0], bars))
                    wanted = cotangents.pullback(readout.apply, *one_step)[1](jax.tree.map(lambda bar: bar[0], bars))
                    for k, (name, primal) in enumerate((("theta_o", theta_o), ("hs", hs[0]))):
                        top = largest(wanted)
                        errors = relative_errors(
                            name, got[k], wanted[k], primal, scales.autodiff, f"one step, {where}", top
                        )
                        autodiff |= {leaf: max(error, autodiff[leaf]) for leaf, error in errors.items()}
                    found.append((autodiff, differences))
    return report("check_readout", found, scales)
