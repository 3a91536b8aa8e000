"""The most that a program holds at once, its arguments and results apart.

* A loop holds its stacked results and the most that its body holds at once.
* Views share the array that they view, what is fused has none, and one number in every place is no array.
* What a body reads of a stack is cut out of it, unless an elementwise operation reads it in place.
* Before JAX 0.11, a loop over a product or over blocks of an argument reads a copy of it where an axis has length 1,
  as that of a batch of one.
* Since JAX 0.12, a transpose that a loop reads through a barrier is made just before the loop, of a copy made early.
"""

import math

import jax

from jaxbptt._live_bytes.buffers import Buffers
from jaxbptt._live_bytes.fusion import Fusion
from jaxbptt._live_bytes.program import program
from jaxbptt._live_bytes.step import LOOPS, bodies, loop, sums_nothing

_VIEWS = {"reshape", "squeeze", "copy", "optimization_barrier", "stop_gradient", "rev"}
_SUMMING = {"dot_general", "reduce_sum"}


def peak(closed_jaxpr) -> int:
    """The most bytes alive at once while the jaxpr runs, without its arguments, constants and results."""
    jaxpr = closed_jaxpr.jaxpr
    return _peak(jaxpr, given=len(jaxpr.outvars))


def _peak(jaxpr, given, stacks=None):
    """The first `given` of the results have an array outside; the last `stacks` arguments of a body are cut out of one.

    ``None`` says that it is no body.
    """
    steps, results, wanted = program(jaxpr, stacks or 0)
    fusion, buffers = Fusion(steps, results), Buffers()
    times = {id(step): 2 * k + 1 for k, step in enumerate(steps)}
    looped = _copied_for_loops(steps, number=len(jaxpr.constvars) + len(jaxpr.invars))
    held = _held_for_loops(steps, fusion, times)
    inside = [0] * (2 * len(steps) + 1)
    for step in steps:
        when = times[id(step)]
        buffers.read(step, when)
        is_copied = fusion.is_copied(step)
        if buffers.is_constant(step) or _is_view(step) or fusion.is_fused(step) or is_copied:
            buffers.view(step)
        else:
            buffers.copy_operands(step, looped, when)
            inside[when] = max((_peak(body, *loop(step, body)) for body in bodies(step)), default=0)
            buffers.write(step, fusion, wanted, held, when)
        if is_copied:
            readers = fusion.readers[step.written[0]]
            buffers.copy_for_each(step, [times[id(reader)] for reader in readers if reader.name in _SUMMING])
    for buffer in buffers.of(results):
        buffers.last[buffer] = 2 * len(steps)
    outside = buffers.of(results[:given])
    is_body = stacks is not None  # the arrays of its results are those that its carries came in
    return buffers.most(inside, outside | (set() if is_body else buffers.in_results(outside)))


def _held_for_loops(steps, fusion, times):
    """What a loop reads through a barrier, and when the first one does. There a transpose is made, of a copy of it."""
    if jax.__version_info__ < (0, 12):
        return {}
    held = {}
    for step in steps:
        for name, made in zip(step.read, step.written, strict=True) if step.name == "optimization_barrier" else ():
            loops = [times[id(reader)] for reader in fusion.readers.get(made, ()) if reader.name in LOOPS]
            held.update(dict.fromkeys([name] if loops else [], min(loops, default=0)))
    return held


def _copied_for_loops(steps, number):
    """The names that loops may read a copy of: products and views, of them or of one of the arguments."""
    if jax.__version_info__ >= (0, 11):
        return set()
    arguments = {(-1, k) for k in range(number)}
    viewed = set(arguments)
    for step in steps:
        is_product = step.name == "dot_general" and not sums_nothing(step)
        if is_product or (_is_view(step) and viewed.issuperset(step.read)):
            viewed.update(step.written)
    return viewed - arguments


def _is_view(step):
    is_reshape = step.name == "broadcast_in_dim" and math.prod(step.operands[0].shape) == math.prod(step.avals[0].shape)
    return step.name in _VIEWS or is_reshape
