"""What a check found: the worst relative error of every leaf, over all cases; raises when one is too large."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._trees import cotangents
from jaxbptt.checking import _errors


class Row(NamedTuple):
    """One leaf: its worst relative errors against ``jax.vjp`` and against central differences.

    NaN where it was not measured, and where no difference tells a derivative: at a corner, and where gradients explode.
    `uncertainty` is that of the difference itself, as far as two step sizes disagree; a rule may be off by that much
    more than the tolerance.

    >>> Row("W_h", autodiff=1e-16, differences=2e-11, uncertainty=3e-11).leaf
    'W_h'
    """

    leaf: str
    autodiff: float
    differences: float
    uncertainty: float


class Report(NamedTuple):
    """The rows, how many cases they are the worst of, and the tolerances that held. ``str()`` makes a table.

    >>> import jaxbptt as jb
    >>> report = jb.check_cell(jb.cells.linear(), seeds=(0,), sizes=((2, 3),), batch_shapes=((),), steps=2)
    >>> [row.leaf for row in report.rows][:2]
    ['theta_h.W_x', 'theta_h.W_h']
    """

    title: str
    rows: tuple[Row, ...]
    cases: int
    tolerance: float
    difference_tolerance: float

    def __str__(self):
        width = max([len("leaf"), *(len(row.leaf) for row in self.rows)])
        lines = [
            f"{self.title}: {self.cases} case{'s' if self.cases != 1 else ''}, worst relative error",
            f"{'leaf':<{width}}  {'jax':>9}  {'differences':>11}  {'uncertainty':>11}",
            *(_line(row, width) for row in self.rows),
            f"{'allowed':<{width}}  {self.tolerance:9.1e}  {self.difference_tolerance:11.1e}  {'beyond it':>11}",
        ]
        return "\n".join(lines)


def _line(row, width):
    differences, uncertainty = map(_number, row[2:])
    return f"{row.leaf:<{width}}  {row.autodiff:9.1e}  {differences:>11}  {uncertainty:>11}"


def _number(value):
    """A dash for what was not measured."""
    return "-" if value != value else f"{value:.1e}"


_NOT_MEASURED = (float("nan"), float("nan"))


def _error(pair):
    """What pairs of error and uncertainty are compared by: less than any where it was not measured."""
    return -1.0 if np.isnan(pair[0]) else pair[0]


class Tolerances(NamedTuple):
    """Derived from the unit roundoff ε of the dtype.

    Two exact rules differ by rounding, a small multiple of ε. A central difference of fourth order with step ε^⅓ loses
    ε^⅔ to cancellation; its truncation error, of order ε^(4/3), is far below.
    """

    autodiff: float
    differences: float
    step: float


def tolerances(dtype) -> Tolerances:
    """The `Tolerances` of a floating-point dtype."""
    epsilon = float(jnp.finfo(dtype).eps)
    return Tolerances(1e4 * epsilon, 1e3 * epsilon ** (2 / 3), epsilon ** (1 / 3))


def relative_errors(name, got, wanted, primal, tolerance, where, largest=0.0, refuse=_errors.mismatch):
    """{leaf: worst |got - wanted| over the largest |wanted|}; raises on a leaf beyond the tolerance.

    A leaf that is zero but for cancellation is all rounding: its errors are relative to a hundredth of `largest`, the
    largest number in the whole gradient.
    """
    paths, treedef = jax.tree.flatten_with_path(primal)
    gots, wanteds = (treedef.flatten_up_to(cotangents.from_jax(tree)) for tree in (got, wanted))
    errors, missing = {}, []
    for (path, leaf), g, w in zip(paths, gots, wanteds, strict=True):
        if w is None:
            continue  # no derivative, no cotangent
        label = name + jax.tree_util.keystr(path)
        if g is None or np.shape(g) != np.shape(leaf):
            missing.append(label)
            continue
        g, w = np.asarray(g), np.asarray(w)
        if not np.all(np.isfinite(w)):
            _errors.reference_not_finite(label, "jax.vjp", where)
        scale = np.max(np.abs(w), initial=max(0.01 * largest, float(np.finfo(w.dtype).tiny)))
        error = np.abs(g - w) / scale
        error = np.where(np.isnan(error), np.inf, error)
        errors[label] = float(np.max(error, initial=0.0))
        if errors[label] > tolerance:
            index = np.unravel_index(np.argmax(error), error.shape)
            element = label + (f"[{', '.join(map(str, index))}]" if index else "")
            if w.dtype.itemsize < 8:
                where += f"; gradients that explode amplify the rounding of {w.dtype}: see whether float64 agrees"
            refuse(element, g[index], w[index], errors[label], tolerance, "jax.vjp", where)
    _errors.no_missing_cotangents(missing, where)
    return errors


def largest(bars):
    """The largest absolute value in a tree of cotangents."""
    leaves = jax.tree.leaves(cotangents.from_jax(bars))
    return max((float(np.max(np.abs(leaf), initial=0.0)) for leaf in leaves), default=0.0)


def difference_errors(name, function, primal, got, key, scales, where):
    """{leaf: (error, uncertainty)} of ⟨got, v⟩ against a fourth-order central difference along a random v, ‖v‖ = 1.

    Both are relative to ‖got‖ / √size, the typical size of ⟨got, v⟩. Where rounding of the function drowns so small a
    gradient, they are relative to a hundredth of |function(p)|. The uncertainty is ten times what two step sizes
    disagree by; an error may have that much beyond the tolerance. NaN where no difference tells the derivative
    (`_tells_otherwise`).
    """
    paths, treedef = jax.tree.flatten_with_path(primal)
    leaves = [leaf for _, leaf in paths]
    gots = treedef.flatten_up_to(cotangents.from_jax(got))
    measured = {}
    for k, ((path, leaf), g) in enumerate(zip(paths, gots, strict=True)):
        if g is None or np.size(leaf) == 0:
            continue
        label = name + jax.tree_util.keystr(path)
        g, leaf = np.asarray(g), np.asarray(leaf)  # in NumPy: every shape would be a program of its own
        v = np.asarray(jax.random.normal(jax.random.fold_in(key, k), leaf.shape, leaf.dtype))
        v = v / np.linalg.norm(v.ravel()).astype(v.dtype)

        def at(step, k=k, leaf=leaf, v=v):
            moved = leaf + leaf.dtype.type(step) * v
            return float(function(treedef.unflatten([*leaves[:k], moved, *leaves[k + 1 :]])))

        near, far = (at(step) - at(-step) for step in (scales.step, 2 * scales.step))
        difference = (8 * near - far) / (12 * scales.step)  # the error of order ε² cancels
        spread = abs(near / (2 * scales.step) - far / (4 * scales.step))
        derivative = float(np.real(np.sum(g * v)))
        typical = float(np.linalg.norm(g.ravel())) / np.sqrt(v.size)
        scale = max(typical, 0.01 * abs(at(0.0)), float(np.finfo(np.float32).tiny))
        measured[label] = (derivative, difference, spread, scale, at)

    # The rounding inside the function (of large logits, say) is the same for every leaf: two estimates of each
    # difference disagree by it, and no difference can tell more than the widest such disagreement.
    uncertainty = 10 * max((spread for *_, spread, _, _ in measured.values()), default=0.0)
    errors = {}
    for label, (derivative, difference, _, scale, at) in measured.items():
        errors[label] = abs(derivative - difference) / scale, uncertainty / scale
        resolved = np.isfinite([derivative, difference, uncertainty]).all()
        beyond = errors[label][0] - errors[label][1] if resolved else float("inf")
        if not beyond <= scales.differences:
            if resolved and not _tells_otherwise(at, derivative, difference, scales.step):
                errors[label] = _NOT_MEASURED
                continue
            where += "; jax.vjp agrees with the rule, so what is wrong lies inside f, if f has no corner there"
            found = f"⟨{label}, v⟩", derivative, difference, beyond, scales.differences
            _errors.mismatch(*found, "a central difference", where)
    return errors


def _tells_otherwise(at, derivative, difference, step):
    """Whether differences settle on another value than `derivative`, as they do where a rule is wrong.

    They don't in three cases. Near a corner the function is no line over the first step, and finer ones come to the
    derivative. Where gradients explode, each finer step has another slope. At a corner itself, the slopes of the two
    sides don't come together.
    """
    middle, gap, found = at(0.0), abs(difference - derivative), []
    for h in (step, step / 8, step / 64, step / 512):
        left, right = at(-h), at(h)
        rounding = 4 * step**3 * max(abs(left), abs(right)) / h  # as step is ε^⅓
        if rounding > 0.25 * gap:
            break
        found.append(((right - left) / (2 * h), abs(right - 2 * middle + left) / h, rounding))
    if len(found) < 2:
        return True
    (slope_before, corner_before, _), (slope, corner, rounding) = found[-2:]
    off, moved = abs(slope - derivative), abs(slope - slope_before)
    alike = moved <= 0.1 * max(abs(slope), abs(slope_before)) + rounding
    settles = alike and moved < 0.5 * off and off > rounding
    is_corner = corner > max(0.5 * corner_before, 4 * rounding, 0.1 * off)
    return settles and not is_corner


def compared(primals, got, wanted, value, key, scales, where):
    """The errors of the cotangents of named primals against ``jax.vjp``, and against differences of `value` of them."""
    autodiff, differences = {}, {}
    for k, (name, primal) in enumerate(primals.items()):
        autodiff |= relative_errors(name, got[k], wanted[k], primal, scales.autodiff, where, largest(wanted))
        at = functools.partial(_moved, value, tuple(primals.values()), k)
        differences |= difference_errors(name, at, primal, got[k], jax.random.fold_in(key, k), scales, where)
    return autodiff, differences


def _moved(value, primals, k, primal):
    """`value` with another primal in place k."""
    return value(*primals[:k], primal, *primals[k + 1 :])


def report(title, cases, scales) -> Report:
    """The table of the worst error of each leaf, from a list of ``(errors against jax.vjp, against differences)``."""
    autodiff, differences = {}, {}
    for errors, measured in cases:
        for label, error in errors.items():
            autodiff[label] = max(error, autodiff.get(label, 0.0))
        for label, pair in measured.items():
            differences[label] = max(differences.get(label, _NOT_MEASURED), pair, key=_error)
    rows = tuple(Row(label, error, *differences.get(label, _NOT_MEASURED)) for label, error in autodiff.items())
    return Report(title, rows, len(cases), scales.autodiff, scales.differences)
