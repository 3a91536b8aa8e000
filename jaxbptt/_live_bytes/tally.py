"""The largest sum of the arrays alive at once, arguments and results apart.

An array is born where it is made and dies after its last use:

* reshapes share the array they view, updates and loop carries overwrite theirs if it dies there;
* a loop holds its stacked results and the most that its body holds at once;
* stacked results begin as zeros, and these are made first of all: they hang on nothing;
* what a body reads of a stack is cut out of it, unless an elementwise operation reads it in place;
* a product that sums over the first axes of its left operand, as Σ z_bar xᵀ does, reads a transposed copy of it. There
  is one copy for all such products, and sums over the operand are made before it: neither needs the operand later;
* before JAX 0.11, a loop over a product or over blocks of an argument reads a copy of it where an axis has length 1,
  as that of a batch of one.
"""

import math

import jax

from jaxbptt._live_bytes.fusion import Fusion, sums_nothing
from jaxbptt._live_bytes.program import LOOPS, bodies, loop, program, reads_transposed

_VIEWS = {"reshape", "squeeze", "copy", "optimization_barrier", "stop_gradient", "rev"}
_UPDATES = {"dynamic_update_slice", "scatter", "scatter-add"}
_SUMMING = {"dot_general", "reduce_sum"}


def peak(closed_jaxpr) -> int:
    """The most bytes alive at once while the jaxpr runs, without its arguments, constants and results."""
    jaxpr = closed_jaxpr.jaxpr
    return _peak(jaxpr, given=len(jaxpr.outvars))


def _size(aval):
    """Bytes of an array of this shape and dtype; none for one in the host's memory, or what has no shape."""
    if getattr(aval, "memory_space", None) == jax.memory.Space.Host or not hasattr(aval, "shape"):
        return 0
    return math.prod(aval.shape) * aval.dtype.itemsize


class _Buffers:
    """The arrays: of each its bytes, its birth and its last use. Step k runs at 2k + 1, after copying at 2k."""

    def __init__(self):
        self.bytes, self.born, self.last = {}, {}, {}
        self.behind = {}  # name -> its buffers; arguments have none
        self.constants = set()  # names of what is one number in every place
        self.transposed = {}  # name -> the copy of it that some products read
        self.apart = {}  # buffer -> what products have of it for themselves
        self.copied = set()  # names of what each product makes for itself

    def make(self, buffer, aval, when):
        if buffer not in self.bytes:
            self.bytes[buffer], self.born[buffer] = _size(aval), when
        self.last[buffer] = max(when, self.last.get(buffer, 0))

    def of(self, names):
        return set().union(*(self.behind.get(name, ()) for name in names))

    def read(self, step, when):
        times = [when] * len(step.read)
        if self.is_copied(step):
            times[0] = when - 1 if step.read[0] not in self.transposed else None
        elif step.name == "reduce_sum" and step.read[0] in self.transposed:
            times[0] = None
        for name, time in zip(step.read, times, strict=True):
            for buffer in self.of([name]) if time is not None else ():
                buffer = self.apart.get(buffer, buffer) if step.name == "dot_general" else buffer
                self.last[buffer] = max(time, self.last[buffer])

    def is_copied(self, step):
        """Whether it reads a transposed copy of its left operand."""
        return reads_transposed(step) and step.read[0] not in self.copied

    def is_constant(self, step):
        """Whether it makes one number in every place, of what has no array."""
        is_one_number = step.name == "broadcast_in_dim" and math.prod(step.operands[0].shape) == 1
        is_part = step.name == "slice" and not self.constants.isdisjoint(step.read)
        if is_part or (is_one_number and not self.of(step.read)):
            self.constants.update(step.written)
        return not self.constants.isdisjoint(step.written)

    def view(self, step):
        """What it makes lies in what it reads."""
        for place, name in enumerate(step.written):
            self.behind[name] = self.of(
                step.read[place : place + 1] if step.name == "optimization_barrier" else step.read
            )

    def copy_for_each(self, step, readers):
        """One for each of its readers, made when the first of them, last used by its own."""
        self.copied.update(step.written)
        for k, when in enumerate(readers):
            buffer = (step.written[0], k)
            self.make(buffer, step.avals[0], readers[0])
            self.last[buffer] = when

    def copy_operands(self, step, looped, when):
        """What it reads a copy of: transposed, if it's a product, or `looped` over."""
        if self.is_copied(step):
            copy = self.transposed.setdefault(step.read[0], (step.read[0], "transposed"))
            self.make(copy, step.operands[0], when - 1)
            self.last[copy] = when
        for name, aval in _stacks(step):
            if name in looped and 1 in aval.shape[1:-1]:
                self.make((name, "for loops"), aval, when)

    def write(self, step, fusion, wanted, held, when):
        """Its results, in the arrays of operands that die here or in their own."""
        for name, aval, old in zip(step.written, step.avals, _overwritten(step), strict=True):
            readers = fusion.readers.get(old, ())
            reusable = self.of([old]) if readers and readers[-1] is step else set()
            if reusable:
                self.behind[name] = reusable
            elif name in wanted:
                born = 0 if step.name == "scan" else when
                if step.name == "transpose" and name in held:
                    born = held[name] - 1
                    self.make((name, "as it lies"), aval, when)
                    self.last[name, "as it lies"] = born
                self.make(name, aval, born)
                self.behind[name], self.last[name] = {name}, max(born, when)
                if fusion.is_made_twice(step):
                    self.apart[name] = (name, "for products")
                    self.make(self.apart[name], aval, when)

    def in_results(self, outside):
        """What lies in the array of a result that is not yet born: the largest first, of these the first made."""

        def order(buffer):
            return -self.bytes[buffer], self.born[buffer], -self.last[buffer]

        held = {result: [(self.born[result], self.last[result])] for result in outside}
        found = set()
        for buffer in sorted(self.bytes.keys() - outside, key=order):
            born, last = self.born[buffer], self.last[buffer]
            for result, times in held.items():
                is_free = all(last < first or end < born for first, end in times)
                if self.bytes[buffer] <= self.bytes[result] and is_free:
                    times.append((born, last))
                    found.add(buffer)
                    break
        return found

    def most(self, inside, elsewhere):
        """The largest sum over time, with what is alive `inside` of loops and without what lies `elsewhere`."""
        change = [0] * (len(inside) + 1)
        for buffer, number in self.bytes.items():
            if buffer not in elsewhere:
                change[self.born[buffer]] += number
                change[self.last[buffer] + 1] -= number
        alive = most = 0
        for when, within in enumerate(inside):
            alive += change[when]
            most = max(most, alive + within)
        return most


def _peak(jaxpr, given, stacks=None):
    """The first `given` of the results have an array outside; the last `stacks` arguments of a body are cut out of one.

    ``None`` says that it is no body.
    """
    steps, results, wanted = program(jaxpr, stacks or 0)
    fusion, buffers = Fusion(steps, results), _Buffers()
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


def _stacks(step):
    """What a scan reads step by step."""
    number = sum(loop(step, body)[1] for body in bodies(step)) if step.name == "scan" else 0
    return list(zip(step.read, step.operands, strict=True))[len(step.read) - number :]


def _overwritten(step):
    """For each result, the operand whose array it may take over, or None."""
    if step.name in _UPDATES:
        return [step.read[0]]
    if step.name == "scan":
        (body,) = bodies(step)  # operands: constants, carries, stacks
        carries, stacks = loop(step, body)
        last = len(step.read) - stacks
        return [*step.read[last - carries : last], *[None] * (len(step.written) - carries)]
    if step.name == "while":
        return step.read[step.params["cond_nconsts"] + step.params["body_nconsts"] :]
    return [None] * len(step.written)
