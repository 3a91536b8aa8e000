"""How many bytes a traced function holds at once, from its jaxpr alone: nothing is compiled, nothing computed.

The steps of the program are walked in order. An array is born where it is made and dies after its last use; the
largest sum of the living, arguments and results apart, is the prediction. Four rules stand for what a compiler does:

 * what nobody uses is not made;
 * elementwise results are made only when a loop, a product or the caller wants them, else they are fused into the user;
 * reshapes share the array they view, updates and loop carries overwrite theirs if it dies there;
 * a loop holds its stacked results and the most that its body holds at once.
"""

import math

_VIEWS = {"reshape", "squeeze", "expand_dims", "copy", "optimization_barrier", "stop_gradient", "rev"}
_FUSED = {
    "abs", "add", "add_any", "and", "broadcast_in_dim", "ceil", "clamp", "complex", "conj", "convert_element_type",
    "cos", "div", "dynamic_slice", "eq", "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow",
    "iota", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow",
    "real", "rem", "round", "rsqrt", "select_n", "sign", "sin", "slice", "sqrt", "square", "sub", "tanh", "transpose",
}  # fmt: skip
_READ_IN_PLACE = {"concatenate", "pad", "reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax"}
_UPDATES = {"dynamic_update_slice", "scatter", "scatter-add"}
_LOOPS = {"scan", "while"}


def size(shape):
    """Bytes of an array of this shape and dtype."""
    return math.prod(shape.shape) * shape.dtype.itemsize


def peak(closed_jaxpr) -> int:
    """The most bytes alive at once while the jaxpr runs, without its arguments, constants and results."""
    return _peak(closed_jaxpr.jaxpr, results_count=False)


class _Step:
    """One equation, with the variables of the outermost jaxpr."""

    def __init__(self, equation, read, written):
        self.name, self.params = equation.primitive.name, equation.params
        self.avals = [var.aval for var in equation.outvars]
        self.operands = [var.aval for var in equation.invars]
        self.read, self.written = read, written


def _flat(jaxpr, names, prefix=()):
    """The equations in order, those of called functions in the place of the call."""
    steps = []
    for number, equation in enumerate(jaxpr.eqns):
        read = [names.get(var) if not hasattr(var, "val") else None for var in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if equation.primitive.name not in _LOOPS and inner is not None and len(inner.invars) == len(read):
            inside = dict(zip(inner.invars, read, strict=True))
            steps += _flat(inner, inside, (*prefix, number))
            for var, out in zip(equation.outvars, inner.outvars, strict=True):
                names[var] = None if hasattr(out, "val") else inside.get(out)
            continue
        written = [(*prefix, number, k) for k in range(len(equation.outvars))]
        names.update(zip(equation.outvars, written, strict=True))
        steps.append(_Step(equation, read, written))
    return steps


def _peak(jaxpr, results_count):
    names = {var: (-1, k) for k, var in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    steps = _flat(jaxpr, names)
    results = [names.get(var) for var in jaxpr.outvars if not hasattr(var, "val")]
    wanted, used = set(results), []
    for step in reversed(steps):  # what nobody uses is not made
        if wanted & set(step.written):
            wanted.update(step.read)
            used.append(step)
    used.reverse()
    readers = {}
    for step in used:
        for name in step.read:
            readers.setdefault(name, []).append(step)

    def is_fused(step):
        lazy = all(
            reader.name in _FUSED | _READ_IN_PLACE for name in step.written for reader in readers.get(name, ())
        ) and not set(step.written) & set(results)
        return step.name in _FUSED and lazy

    holds = {}  # the buffers behind each name; arguments have none
    made = {}  # buffer -> (bytes, when)
    lasts = {}  # buffer -> last use
    extra = [0] * (len(used) + 1)
    for when, step in enumerate(used):
        sources = set().union(*(holds.get(name, set()) for name in step.read))
        for buffer in sources:
            lasts[buffer] = when
        constant = step.name == "broadcast_in_dim" and not sources
        if step.name in _VIEWS or constant or is_fused(step):
            for name in step.written:
                holds[name] = sources
            continue
        extra[when] = max((_inner_peak(inner) for inner in _bodies(step)), default=_transposed(step))
        for name, aval, old in zip(step.written, step.avals, _overwritten(step), strict=True):
            reusable = holds.get(old, set()) if _last_read(readers.get(old, ()), step) else set()
            if reusable:
                holds[name] = reusable
            elif name in wanted:
                made[name], holds[name] = (size(aval) if hasattr(aval, "shape") else 0, when), {name}
                lasts[name] = when
    kept = set().union(*(holds.get(name, set()) for name in results)) if results else set()
    for buffer in kept:
        lasts[buffer] = len(used)
    change = [0] * (len(used) + 2)
    for buffer, (number, when) in made.items():
        if buffer in kept and not results_count:
            continue
        change[when] += number
        change[lasts[buffer] + 1] -= number
    most = alive = 0
    for when in range(len(used) + 1):
        alive += change[when]
        most = max(most, alive + extra[when])
    return most


def _last_read(readers, step):
    return bool(readers) and readers[-1] is step


def _bodies(step):
    """The jaxprs that run inside a step."""
    for value in step.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            jaxpr = getattr(entry, "jaxpr", entry)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def _inner_peak(jaxpr):
    return _peak(jaxpr, results_count=False)


def _transposed(step):
    """A product that sums over the first axes of its left operand, as Σ z_bar xᵀ does, copies that one."""
    if step.name != "dot_general":
        return 0
    ((left, _), _) = step.params["dimension_numbers"]
    return size(step.operands[0]) if left and max(left) < step.operands[0].ndim - 1 else 0


def _overwritten(step):
    """For each result, the operand whose array it may take over, or None."""
    if step.name in _UPDATES:
        return [step.read[0]]
    if step.name == "scan":
        (body,) = _bodies(
            step
        )  # operands: constants, carries, stacks; results: carries, stacks, which lose an axis inside
        carries = _unstacked(step.avals, body.outvars)
        last = _unstacked(step.operands, body.invars)
        return [*step.read[last - carries : last], *[None] * (len(step.written) - carries)]
    if step.name == "while":
        return step.read[step.params["cond_nconsts"] + step.params["body_nconsts"] :]
    return [None] * len(step.written)


def _unstacked(outside, inside):
    return sum(len(aval.shape) == len(var.aval.shape) for aval, var in zip(outside, inside, strict=True))
