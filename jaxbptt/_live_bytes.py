"""How many bytes a traced function holds at once, from its jaxpr alone: nothing is compiled, nothing computed.

The steps of the program are walked in order. An array is born where it is made and dies after its last use; the
largest sum of the living, arguments and results apart, is the prediction. These rules stand for what a compiler does:

 * what nobody uses is not made; a slice that is one part of a concatenation is that part, with no copy of the whole;
 * elementwise results are made only when a loop, a product, a concatenation of several parts (which of them hangs
   on its width and the version of JAX) or the caller wants them, else they are fused into the user;
 * what several products want of an elementwise result, each of them and each sum makes for itself, all at once; of a
   gather, otherwise as elementwise, there is one for all;
 * a product that sums over axes of length 1 is elementwise;
 * reshapes share the array they view, updates and loop carries overwrite theirs if it dies there;
 * a loop holds its stacked results and the most that its body holds at once;
 * stacked results begin as zeros, and these are made first of all: they hang on nothing;
 * what a body reads of a stack is cut out of it, unless an elementwise operation reads it in place.
"""

import math

import jax

_VIEWS = {"reshape", "squeeze", "expand_dims", "copy", "optimization_barrier", "stop_gradient", "rev"}
_FUSED = {
    "abs", "add", "add_any", "and", "broadcast_in_dim", "ceil", "clamp", "complex", "conj", "convert_element_type",
    "cos", "div", "dynamic_slice", "eq", "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow",
    "iota", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow",
    "real", "rem", "round", "rsqrt", "select_n", "sign", "sin", "slice", "sqrt", "square", "sub", "tanh",
    "transpose",
}  # fmt: skip
_FUSED_ONCE = _FUSED | {"gather"}  # a gather is fused as well, but made once for all products that want it
_READ_IN_PLACE = {"concatenate", "pad", "reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax"}
_COPIERS = {"dot_general", "reduce_sum"}
_UPDATES = {"dynamic_update_slice", "scatter", "scatter-add"}
_LOOPS = {"scan", "while"}


def size(shape):
    """Bytes of an array of this shape and dtype; none for one that lies in the host's memory."""
    if getattr(shape, "memory_space", None) == jax.memory.Space.Host:
        return 0
    return math.prod(shape.shape) * shape.dtype.itemsize


def peak(closed_jaxpr) -> int:
    """The most bytes alive at once while the jaxpr runs, without its arguments, constants and results."""
    jaxpr = closed_jaxpr.jaxpr
    return _peak(jaxpr, given=len(jaxpr.outvars))


class _Step:
    """One equation, with the variables of the outermost jaxpr."""

    def __init__(self, equation, read, written):
        self.name, self.params = equation.primitive.name, equation.params
        self.avals = [var.aval for var in equation.outvars]
        self.operands = [var.aval for var in equation.invars]
        self.read, self.written = read, written


class _Slice:
    """What a loop's body reads of a stack."""

    name, params, operands, read = "dynamic_slice", {}, (), ()

    def __init__(self, var, written):
        self.avals, self.written = [var.aval], [written]


def _flat(jaxpr, names, joined, prefix=()):
    """The equations in order, those of called functions in the place of the call.

    `joined` has what each concatenation was made of: a slice that is one of its parts is that part.
    """
    steps = []
    for number, equation in enumerate(jaxpr.eqns):
        read = [names.get(var) if not hasattr(var, "val") else None for var in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if equation.primitive.name not in _LOOPS and inner is not None and len(inner.invars) == len(read):
            inside = dict(zip(inner.invars, read, strict=True))
            steps += _flat(inner, inside, joined, (*prefix, number))
            for var, out in zip(equation.outvars, inner.outvars, strict=True):
                names[var] = None if hasattr(out, "val") else inside.get(out)
            continue
        if equation.primitive.name == "slice" and (part := _part(equation, joined.get(read[0], ()))):
            names[equation.outvars[0]] = part
            continue
        written = [(*prefix, number, k) for k in range(len(equation.outvars))]
        if equation.primitive.name == "concatenate":
            joined[written[0]] = _parts(equation, read)
        names.update(zip(equation.outvars, written, strict=True))
        steps.append(_Step(equation, read, written))
    return steps


def _parts(equation, read):
    """Of a concatenation: where each operand begins and ends, and its name."""
    axis, parts, start = equation.params["dimension"], {}, 0
    for var, name in zip(equation.invars, read, strict=True):
        whole = list(equation.outvars[0].aval.shape)
        first, last = [0] * len(whole), whole
        first[axis], last[axis] = start, start + var.aval.shape[axis]
        parts[tuple(first), tuple(last)] = name
        start = last[axis]
    return parts


def _part(equation, parts):
    asked = equation.params["start_indices"], equation.params["limit_indices"]
    return dict(parts).get(asked)


def _peak(jaxpr, given, stacks=0):
    """The first `given` of the results have an array outside; the last `stacks` of the arguments are cut out of one."""
    names = {var: (-1, k) for k, var in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    steps = _flat(jaxpr, names, {})
    for var in jaxpr.invars[len(jaxpr.invars) - stacks :]:
        first = next((k for k, step in enumerate(steps) if names[var] in step.read), None)
        if first is not None:
            steps.insert(first, _Slice(var, names[var]))
    results = [None if hasattr(var, "val") else names.get(var) for var in jaxpr.outvars]
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

    def joins_what_is_made(step):
        """A concatenation of more than two parts wants them made: if it is wide or shared, since JAX 0.12 always."""
        if step.name != "concatenate" or len(step.read) < 3:
            return False
        uses = sum(len(readers.get(name, ())) + results.count(name) for name in step.written)
        is_shared, is_wide = len(step.read) > 3 and uses > 1, step.avals[0].shape[-1] >= 128
        return is_shared or is_wide or jax.__version_info__ >= (0, 12)

    def is_fused(step):
        lazy = all(
            reader.name in _FUSED_ONCE | _READ_IN_PLACE and not joins_what_is_made(reader)
            for name in step.written
            for reader in readers.get(name, ())
        ) and not set(step.written) & set(results)
        return (step.name in _FUSED_ONCE or _sums_nothing(step)) and lazy

    def is_copied(step):
        wanted_by = [reader.name for name in step.written for reader in readers.get(name, ())]
        return step.name in _FUSED and wanted_by.count("dot_general") > 1 and not set(step.written) & set(results)

    times = {id(step): when for when, step in enumerate(used)}
    copied = set()  # made by each reader for itself
    constants = set()  # one number in every place
    holds = {}  # the buffers behind each name; arguments have none
    made = {}  # buffer -> (bytes, when)
    lasts = {}  # buffer -> last use
    extra = [0] * (len(used) + 1)
    for when, step in enumerate(used):
        sources = set().union(*(holds.get(name, set()) for name in step.read))
        for buffer in sources:
            lasts[buffer] = when
        spread = step.name == "broadcast_in_dim" and not sources
        if spread or (step.name == "slice" and constants & set(step.read)):
            constants.update(step.written)
        if step.name in _VIEWS or constants & set(step.written) or is_fused(step) or is_copied(step):
            for place, (name, aval) in enumerate(zip(step.written, step.avals, strict=True)):
                own = step.read[place : place + 1] if step.name == "optimization_barrier" else step.read
                holds[name] = set().union(*(holds.get(read, set()) for read in own))
                if is_copied(step):
                    copied.add(name)
                    when_read = [times[id(reader)] for reader in readers[name] if reader.name in _COPIERS]
                    for k, last in enumerate(when_read):
                        made[name, k], lasts[name, k] = (size(aval), min(when_read)), last
            continue
        transposed = 0 if copied & set(step.read[:1]) else _transposed(step)
        extra[when] = max((_peak(body, *_loop(step, body)) for body in _bodies(step)), default=transposed)
        for name, aval, old in zip(step.written, step.avals, _overwritten(step), strict=True):
            reusable = holds.get(old, set()) if _last_read(readers.get(old, ()), step) else set()
            if reusable:
                holds[name] = reusable
            elif name in wanted:
                born = 0 if step.name == "scan" else when
                made[name], holds[name] = (size(aval) if hasattr(aval, "shape") else 0, born), {name}
                lasts[name] = when
    for name in results:
        lasts.update(dict.fromkeys(holds.get(name, ()), len(used)))
    outside = set().union(*(holds.get(name, set()) for name in results[:given]))
    change = [0] * (len(used) + 2)
    for buffer, (number, when) in made.items():
        if buffer in outside:
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


def _sums_nothing(step):
    """A product over axes of length 1, as z_bar xᵀ of one step and a batch of one: elementwise."""
    if step.name != "dot_general":
        return False
    ((left, _), _) = step.params["dimension_numbers"]
    return math.prod(step.operands[0].shape[axis] for axis in left) == 1


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
        (body,) = _bodies(step)  # operands: constants, carries, stacks
        carries, stacks = _loop(step, body)
        last = len(step.read) - stacks
        return [*step.read[last - carries : last], *[None] * (len(step.written) - carries)]
    if step.name == "while":
        return step.read[step.params["cond_nconsts"] + step.params["body_nconsts"] :]
    return [None] * len(step.written)


def _loop(step, body):
    """How many results of a loop are carries, which come first, and how many operands stacks, which come last."""
    if step.name != "scan":
        return len(body.outvars), 0
    return _unstacked(step.avals, body.outvars), len(step.read) - _unstacked(step.operands, body.invars)


def _unstacked(outside, inside):
    return sum(len(aval.shape) == len(var.aval.shape) for aval, var in zip(outside, inside, strict=True))
