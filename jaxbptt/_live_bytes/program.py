"""The steps of a jaxpr that a compiler leaves of it:

* called functions stand in the place of the call;
* what nobody uses is not made, nor what the body of a loop is given and doesn't use;
* the same of the same is made once;
* a slice that is one part of a concatenation is that part, with no copy of the whole; 0 + a is a.
"""

import jax.numpy as jnp

from jaxbptt._live_bytes.order import in_order
from jaxbptt._live_bytes.step import LOOPS, SUMS, Step


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
    return in_order(used[::-1]), results, wanted


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
        if kind in SUMS and (added := [name for name in read if name not in zeros]) != read:
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
