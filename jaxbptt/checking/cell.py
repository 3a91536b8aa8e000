"""A cell's pullback against ``jax.vjp`` of its `apply`, against differences, and as `adjoints.full` uses it."""

import functools
import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from jaxbptt import adjoints
from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import split_of
from jaxbptt.checking import _errors, _random, declarations
from jaxbptt.checking.report import Report, compared, largest, relative_errors, report, tolerances
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

    Each seed, size and batch shape gives a short trajectory, from a random state with random parameters. At every step
    ``theta_bar``, ``x_bar_t`` and ``h_bar_tm1`` are compared for a random cotangent. The states and the gradient of the
    whole trajectory, under `adjoints.full` with ``cell.split``, are then compared with plain JAX. What ``cell.split``
    declares (``jacobian``, ``affine``) is held against random directions, small and large.

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
        GradientMismatchError: at the first leaf beyond the rounding of the dtype, with the leaf, both values, the step;
            for a declaration that is false.
        TypeError, ValueError: for arguments that don't fit.

    >>> import jaxbptt as jb
    >>> table = check_cell(jb.cells.linear(), seeds=(0,), sizes=((2, 3),), batch_shapes=((),))
    >>> [row.leaf for row in table.rows[:4]], max(row.autodiff for row in table.rows) < table.tolerance
    (['theta_h.W_x', 'theta_h.W_h', 'x_t', 'h_tm1'], True)
    """
    arguments.cells("cell", (cell,))
    inputs = _normal_inputs if inputs is None else inputs
    arguments.callable_argument("inputs", inputs)
    _errors.options(seeds, sizes, batch_shapes, steps, dtype)
    arguments.of_the_state(split_of(cell).jacobian, split_of(cell).affine)
    scales, programs, found = tolerances(dtype), _programs(cell), []
    with jax.enable_x64(True):
        for seed, (d, n), batch in itertools.product(seeds, sizes, batch_shapes):
            keys = jax.random.split(jax.random.key(seed), 6)
            problem = _drawn(cell, inputs, keys, d, n, (steps, *batch), dtype)
            case = f"seed={seed}, input_size={d}, hidden_size={n}, batch_shape={batch}"
            found += _steps(programs, *problem, steps, keys[4], scales, case)
            found += _whole(cell, programs, problem, keys[5], scales, f"{steps} steps, {case}")
    return report("check_cell", found, scales)


def _programs(cell):
    """All that is compiled, once for each size and batch shape."""

    def trajectory(adjoint):
        return jax.jit(functools.partial(_trajectory, cell, adjoint))

    return SimpleNamespace(
        apply=jax.jit(cell.apply),
        rule=jax.jit(cell.vjp),
        reference=jax.jit(lambda bar, *step: cotangents.pullback(cell.apply, *step)[1](bar)),
        value=jax.jit(lambda bar, *step: _random.inner(bar, cell.apply(*step))),
        declared=functools.partial(declarations.errors, split_of(cell)),
        plain=trajectory(adjoints.autodiff()),
        by_hand={residuals: trajectory(adjoints.full(residuals=residuals)) for residuals in ("gates", "states")},
    )


def _trajectory(cell, adjoint, theta_h, xs, h_0, bars):
    """h_T, h_1 … h_T and the gradient of a whole trajectory."""
    last_and_all, pull = cotangents.pullback(lambda *given: adjoint(cell, *given), theta_h, xs, h_0)
    return *cotangents.differentiable(last_and_all), *pull(bars)


def _drawn(cell, inputs, keys, d, n, shape, dtype):
    """A random problem: θ_h, x_1 … x_T and h_0."""
    theta_h = cell.init(keys[0], d, n, dtype)
    _errors.made_in(dtype, "theta_h", theta_h)
    theta_h, xs = _random.perturbed(theta_h, keys[1]), inputs(keys[2], shape, d, dtype)
    h_0 = _random.perturbed(cell.initial_state(theta_h, shape[1:]), keys[3], scale=1.0)
    if inputs is _normal_inputs:
        _errors.reads_numbers(cell, theta_h, xs, h_0)
    return theta_h, xs, checked(cell, theta_h, xs, h_0)


def _steps(programs, theta_h, xs, h_tm1, steps, key, scales, case):
    """The errors of the pullback at every step of the trajectory."""
    for t in range(steps):
        step = {"theta_h": theta_h, "x_t": jax.tree.map(lambda leaf, t=t: leaf[t], xs), "h_tm1": h_tm1}
        h_t, step_key = programs.apply(*step.values()), jax.random.fold_in(key, t)
        h_bar_t = _random.like(h_t, step_key)
        got, wanted = programs.rule(*step.values(), h_t, h_bar_t), programs.reference(h_bar_t, *step.values())
        value = functools.partial(programs.value, h_bar_t)
        where = f"step t={t + 1}, {case}"
        autodiff, differences = compared(step, got, wanted, value, step_key, scales, where)
        given = (programs.apply, programs.rule, tuple(step.values()), h_t, step_key)
        yield autodiff | programs.declared(*given, scales.autodiff, where), differences
        h_tm1 = h_t


def _whole(cell, programs, problem, key, scales, case):
    """The errors of the states and of the gradient of the whole trajectory."""
    bars = _random.like(jax.eval_shape(functools.partial(unroll, cell), *problem), key)
    wanted = programs.plain(*problem, bars)
    primals, tops = (*wanted[:2], *problem), (0.0, 0.0, *[largest(wanted[2:])] * 3)
    for residuals, run in programs.by_hand.items():
        where, errors = f'adjoints.full(residuals="{residuals}") over {case}', {}
        named = zip(("h_T", "hs", "theta_h", "xs", "h_0"), run(*problem, bars), wanted, primals, tops, strict=True)
        for name, got, right, primal, top in named:
            errors |= relative_errors(f"full: {name}", got, right, primal, scales.autodiff, where, top)
        yield errors, {}
