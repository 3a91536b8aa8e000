"""A cell's pullback against ``jax.vjp`` of its `apply`, against differences, and as `adjoints.full` uses it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxbptt import adjoints
from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents
from jaxbptt.checking import _errors, _random
from jaxbptt.checking.report import Report, difference_errors, largest, relative_errors, report, tolerances
from jaxbptt.types import Cell
from jaxbptt.unroll import checked, unroll

SIZES = ((3, 5), (1, 4))


def _normal_inputs(key, shape, input_size, dtype):
    return jax.random.normal(key, (*shape, input_size), dtype)


def check_cell(
    cell: Cell,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sizes: Sequence[tuple[int, int]] = SIZES,
    batch_shapes: Sequence[tuple[int, ...]] = ((2,), (), (2, 3)),
    steps: int = 3,
    dtype=jnp.float64,
    inputs: Callable | None = None,
) -> Report:
    """Compares ``cell.vjp`` with ``jax.vjp`` of ``cell.apply`` and with central differences.

    For every seed, size and batch shape, at every step of a short trajectory from a random state with random
    parameters: ``theta_bar``, ``x_bar_t`` and ``h_bar_tm1`` for a random cotangent. Then the states and the gradient of
    the whole trajectory under `adjoints.full`, which uses ``cell.split``, against plain JAX.

    Args:
        cell: f, with ``init`` and ``initial_state``.
        seeds: of parameters, inputs, states and cotangents.
        sizes: pairs ``(input_size, hidden_size)``.
        batch_shapes: batch axes.
        steps: T of the trajectory.
        dtype: of the check, float32 or wider; float64 works whatever JAX's setting is.
        inputs: ``(key, shape, input_size, dtype) -> x`` with leading axes ``shape``, if f doesn't take arrays of
            numbers; for token ids
            ``lambda key, shape, input_size, dtype: jax.random.randint(key, shape, 0, input_size)``.

    Returns:
        A `Report`; ``print`` it. Costs some 20 s of a CPU, nearly all of it compilation: fewer sizes and
        batch shapes make it shorter.

    Raises:
        GradientMismatchError: at the first leaf beyond the rounding of the dtype, with the leaf, both values, the step.
        TypeError, ValueError: for arguments that don't fit.

    >>> import jaxbptt as jb
    >>> table = check_cell(jb.cells.linear(), seeds=(0,), sizes=((2, 3),), batch_shapes=((),))
    >>> [row.leaf for row in table.rows[:4]], max(row.autodiff for row in table.rows) < table.tolerance
    (['theta_h.W_x', 'theta_h.W_h', 'x_t', 'h_tm1'], True)
    """
    arguments.cells("cell", (cell,))
    arguments.count("steps", steps)
    _errors.choices("seeds", seeds, 0)
    _errors.choices("sizes", sizes, 2)
    _errors.choices("batch_shapes", batch_shapes, None)
    inputs = _normal_inputs if inputs is None else inputs
    arguments.callable_argument("inputs", inputs)
    _errors.check_dtype(dtype)
    scales = tolerances(dtype)
    apply, rule = jax.jit(cell.apply), jax.jit(cell.vjp)
    reference = jax.jit(lambda theta_h, x_t, h_tm1, bar: cotangents.pullback(cell.apply, theta_h, x_t, h_tm1)[1](bar))
    value = jax.jit(lambda bar, *step: _random.inner(bar, cell.apply(*step)))
    plain, *by_hand = (
        jax.jit(_trajectory(cell, adjoint))
        for adjoint in (adjoints.autodiff(), adjoints.full(), adjoints.full(residuals="states"))
    )

    found = []
    with jax.enable_x64(True):
        for seed in seeds:
            for d, n in sizes:
                for batch in batch_shapes:
                    keys = jax.random.split(jax.random.key(seed), 6)
                    theta_h = cell.init(keys[0], d, n, dtype)
                    _errors.made_in(dtype, "theta_h", theta_h)
                    theta_h = _random.perturbed(theta_h, keys[1])
                    xs = inputs(keys[2], (steps, *batch), d, dtype)
                    h_0 = _random.perturbed(cell.initial_state(theta_h, batch), keys[3], scale=1.0)
                    if inputs is _normal_inputs:
                        _errors.reads_numbers(cell, theta_h, xs, h_0)
                    h_0 = checked(cell, theta_h, xs, h_0)
                    case = f"seed={seed}, input_size={d}, hidden_size={n}, batch_shape={batch}"

                    h_tm1 = h_0
                    for t in range(steps):
                        step = (theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), h_tm1)
                        h_t = apply(*step)
                        key = jax.random.fold_in(keys[4], t)
                        h_bar_t = _random.like(h_t, key)
                        got = rule(*step, h_t, h_bar_t)
                        where = f"step t={t + 1}, {case}"
                        found.append(_compare(step, got, reference(*step, h_bar_t), value, h_bar_t, key, scales, where))
                        h_tm1 = h_t

                    bars = _random.like(jax.eval_shape(lambda *a: unroll(cell, *a), theta_h, xs, h_0), keys[5])
                    wanted = plain(theta_h, xs, h_0, bars)
                    for residuals, run in zip(("gates", "states"), by_hand, strict=True):
                        got = run(theta_h, xs, h_0, bars)
                        where = f'adjoints.full(residuals="{residuals}") over {steps} steps, {case}'
                        found.append((_trajectory_errors(got, wanted, theta_h, xs, h_0, scales, where), {}))
    return report("check_cell", found, scales)


def _trajectory(cell, adjoint):
    """Values and gradient of a whole trajectory."""

    def run(theta_h, xs, h_0, bars):
        (h_T, hs), pull = cotangents.pullback(lambda *a: adjoint(cell, *a), theta_h, xs, h_0)
        numbers = cotangents.differentiable((h_T, hs))
        return dict(zip(("h_T", "hs", "theta_h", "xs", "h_0"), (*numbers, *pull(bars)), strict=True))

    return run


def _trajectory_errors(got, wanted, theta_h, xs, h_0, scales, where):
    top = largest([wanted["theta_h"], wanted["xs"], wanted["h_0"]])
    errors = {}
    for part, primal in {"h_T": wanted["h_T"], "hs": wanted["hs"]}.items():
        errors |= relative_errors(f"full: {part}", got[part], wanted[part], primal, scales.autodiff, where)
    for part, primal in {"theta_h": theta_h, "xs": xs, "h_0": h_0}.items():
        errors |= relative_errors(f"full: {part}", got[part], wanted[part], primal, scales.autodiff, where, top)
    return errors


def _compare(step, got, wanted, value, h_bar_t, key, scales, where):
    autodiff, differences = {}, {}
    for k, name in enumerate(("theta_h", "x_t", "h_tm1")):
        autodiff |= relative_errors(name, got[k], wanted[k], step[k], scales.autodiff, where, largest(wanted))

        def at(primal, k=k):
            return value(h_bar_t, *step[:k], primal, *step[k + 1 :])

        name_key = jax.random.fold_in(key, k)
        differences |= difference_errors(name, at, step[k], got[k], name_key, scales, where)
    return autodiff, differences
