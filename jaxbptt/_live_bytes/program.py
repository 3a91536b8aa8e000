"""The steps of a jaxpr that a compiler leaves of it, in the order in which they run:

* called functions stand in the place of the call;
* what nobody uses is not made, nor what the body of a loop is given and doesn't use;
* the same of the same is made once;
* a slice that is one part of a concatenation is that part, with no copy of the whole; 0 + a is a;
* a product runs before a loop that it doesn't need;
* what is added to a product is added right after the last one of the same transposed operand.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

LOOPS = {"scan", "while"}
_SUMS = {"add", "add_any"}


class Step(NamedTuple):
    """One equation, with the names of the outermost jaxpr for what it reads and writes.

    Attributes:
        name: of the primitive.
        params: its parameters.
        read: the names of its operands, `None` for a literal.
        operands: their shapes.
        written: the names of its results.
        avals: their shapes.
    """

    name: str
    params: Any
    read: list
    operands: list
    written: list
    avals: list


def program(jaxpr, stacks):
    """The steps, and the names of the results; the last `stacks` of the arguments are cut out of one by a loop."""
    names = {var: (-1, k) for k, var in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    steps = _flat(jaxpr, names, {}, {}, set())
    for var in jaxpr.invars[len(jaxpr.invars) - stacks :]:
        first = next((k for k, step in enumerate(steps) if names[var] in step.read), None)
        if first is not None:
            steps.insert(first, Step("dynamic_slice", {}, [], [], [names[var]], [var.aval]))
    results = [None if _is_literal(var) else names.get(var) for var in jaxpr.outvars]
    wanted, used = set(results), []
    for step in reversed(steps):
        if wanted & set(step.written):
            wanted.update(step.read)
            used.append(step)
    return _early_sums(_early_products(used[::-1])), results, wanted


def reads_transposed(step):
    """Whether it is a product that sums over the first axes of its left operand, as Σ z_bar xᵀ does."""
    if step.name != "dot_general":
        return False
    ((left, _), _) = step.params["dimension_numbers"]
    return bool(left) and max(left) < step.operands[0].ndim - 1


def bodies(step):
    """The jaxprs that run inside a step."""
    for value in step.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            jaxpr = getattr(entry, "jaxpr", entry)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def loop(step, body):
    """How many results of a loop are carries, which come first, and how many operands stacks, which come last.

    By their ranks, inside and outside: what a scan's parameters are called is not the same in all versions of JAX.
    """
    if step.name != "scan":
        return len(body.outvars), 0
    return _unstacked(step.avals, body.outvars), len(step.read) - _unstacked(step.operands, body.invars)


def _unstacked(outside, inside):
    return sum(len(aval.shape) == len(var.aval.shape) for aval, var in zip(outside, inside, strict=True))


def _is_literal(var):
    return hasattr(var, "val")


def _is_zero(var):
    """A literal 0, which one of dtype float0 can't be compared with."""
    return _is_literal(var) and jnp.issubdtype(var.aval.dtype, jnp.number) and var.val == 0


def _flat(jaxpr, names, joined, known, zeros, prefix=()):
    """The equations in order. `joined` has the parts of each concatenation, `known` what was made of what."""
    steps = []
    for number, equation in enumerate(jaxpr.eqns):
        kind = equation.primitive.name
        read = [None if _is_literal(var) else names.get(var) for var in equation.invars]
        operands, avals = ([var.aval for var in side] for side in (equation.invars, equation.outvars))
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if kind in LOOPS:
            read = [name if is_read else None for name, is_read in zip(read, _are_read(equation), strict=True)]
        elif inner is not None and len(inner.invars) == len(read):
            constants = {var: (*prefix, number, "constant", k) for k, var in enumerate(inner.constvars)}
            inside = constants | dict(zip(inner.invars, read, strict=True))
            steps += _flat(inner, inside, joined, known, zeros, (*prefix, number))
            for var, out in zip(equation.outvars, inner.outvars, strict=True):
                names[var] = ("literal", str(out.val)) if _is_literal(out) else inside.get(out)
            continue
        written = [(*prefix, number, k) for k in range(len(equation.outvars))]
        if kind in ("slice", "split"):
            for var, name, cut in zip(equation.outvars, written, _cuts(equation), strict=True):
                names[var] = joined.get(read[0], {}).get(cut, name)
                if names[var] == name:
                    names[var] = known.setdefault(("slice", read[0], cut), name)
                if names[var] == name:
                    steps.append(Step("slice", {}, read, operands, [name], [var.aval]))
            continue
        if kind in _SUMS and (added := [name for name in read if name not in zeros]) != read:
            names[equation.outvars[0]] = added[0] if added else read[0]
            continue
        if kind not in LOOPS and kind != "optimization_barrier":
            same = known.setdefault(_expression(equation, read), written)
            if same is not written:
                names.update(zip(equation.outvars, same, strict=True))
                continue
        if kind == "broadcast_in_dim" and _is_zero(equation.invars[0]):
            zeros.update(written)
        if kind == "concatenate":
            joined[written[0]] = _parts(equation, read)
        names.update(zip(equation.outvars, written, strict=True))
        steps.append(Step(kind, equation.params, read, operands, written, avals))
    return steps


def _expression(equation, read):
    """What is done with what."""
    literals = [str(var.val) if _is_literal(var) else "" for var in equation.invars]
    params = sorted((key, str(value)) for key, value in equation.params.items())
    shapes = str([var.aval for var in (*equation.invars, *equation.outvars)])
    return equation.primitive.name, str(params), shapes, tuple(zip(read, literals, strict=True))


def _are_read(equation):
    """Of each operand of a loop: whether a result hangs on it."""
    params = equation.params
    body = params["jaxpr" if equation.primitive.name == "scan" else "body_jaxpr"].jaxpr
    wanted, asked = _wanted(body), params.get("cond_nconsts", 0)
    return [True] * asked + [var in wanted for var in body.invars]  # what a condition is given is taken as read


def _wanted(jaxpr):
    """The variables that a result hangs on."""
    wanted = {var for var in jaxpr.outvars if not _is_literal(var)}
    for equation in reversed(jaxpr.eqns):
        if wanted & set(equation.outvars):
            is_read = _are_read(equation) if equation.primitive.name in LOOPS else [True] * len(equation.invars)
            read = zip(equation.invars, is_read, strict=True)
            wanted.update(var for var, is_wanted in read if is_wanted and not _is_literal(var))
    return wanted


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


def _cuts(equation):
    """Of a slice, or each of several: where it begins and ends, as `_parts` says it, and its strides if it has any."""
    params, (operand,) = equation.params, equation.invars
    if equation.primitive.name == "slice":
        strides = params["strides"]
        whole = strides is None or set(strides) == {1}
        return [(params["start_indices"], params["limit_indices"], *(() if whole else (strides,)))]
    cuts, start = [], 0
    for length in params["sizes"]:
        first, last = [0] * operand.aval.ndim, list(operand.aval.shape)
        first[params["axis"]], last[params["axis"]] = start, start + length
        cuts.append((tuple(first), tuple(last)))
        start += length
    return cuts


def _early_products(steps):
    """Each product behind no more loops than it hangs on, and what it is made of with it."""
    makers, loops = {}, 0
    needs, behind = {}, {}  # of each step: how many loops must run before it, and how many do
    for step in steps:
        needs[id(step)] = max((needs[id(makers[name])] for name in step.read if name in makers), default=0)
        behind[id(step)] = loops
        if step.name in LOOPS:
            loops += 1
            needs[id(step)] = loops
        makers.update(dict.fromkeys(step.written, step))

    for step in reversed(steps):
        if step.name == "dot_general":
            behind[id(step)] = needs[id(step)]
        if step.name not in LOOPS:
            for maker in (makers[name] for name in step.read if name in makers and makers[name].name not in LOOPS):
                behind[id(maker)] = min(behind[id(maker)], behind[id(step)])
    return sorted(steps, key=lambda step: behind[id(step)] + (0.5 if step.name in LOOPS else 0))


def _early_sums(steps):
    """Each sum with a product that reads a transposed operand right after the last of these products."""
    products = {step.written[0]: step.read[0] for step in steps if reads_transposed(step)}
    last = {step.read[0]: k for k, step in enumerate(steps) if reads_transposed(step)}
    made = {name: k for k, step in enumerate(steps) for name in step.written}
    places = [float(k) for k in range(len(steps))]
    for k, step in enumerate(steps):
        added = [name for name in step.read if name in products]
        if step.name in _SUMS and len(added) == 1:
            place = last[products[added[0]]]
            if all(made.get(name, -1) <= place for name in step.read):
                places[k] = min(k, place + 0.5)
    return [steps[k] for k in sorted(range(len(steps)), key=places.__getitem__)]
