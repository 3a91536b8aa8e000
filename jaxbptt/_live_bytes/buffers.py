"""The arrays of a program: which there are, when each is born and dies, and the largest sum of those alive at once.

* An array is born where it is made and dies after its last use; updates and loop carries overwrite theirs if it dies
  there.
* Stacked results of a loop begin as zeros, and these are made first of all: they hang on nothing.
* A product that sums over the first axes of its left operand, as Σ z_bar xᵀ does, reads a transposed copy of it. There
  is one copy for all such products, and sums over the operand are made before it: neither needs the operand later.
* Before a result of the program is made, its array holds what is no larger: the largest of it first.
"""

import math

import jax

from jaxbptt._live_bytes.step import bodies, loop, reads_transposed

_UPDATES = {"dynamic_update_slice", "scatter", "scatter-add"}


def _size(aval):
    """Bytes of an array of this shape and dtype; none for one in the host's memory, or what has no shape."""
    if getattr(aval, "memory_space", None) == jax.memory.Space.Host or not hasattr(aval, "shape"):
        return 0
    return math.prod(aval.shape) * aval.dtype.itemsize


class Buffers:
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
        for place, name in enumerate(step.read):
            is_copied = place == 0 and self.is_copied(step)
            if name in self.transposed and (is_copied or step.name == "reduce_sum"):
                continue  # the copy is read
            for buffer in self.of([name]):
                buffer = self.apart.get(buffer, buffer) if step.name == "dot_general" else buffer
                self.last[buffer] = max(when - 1 if is_copied else when, self.last[buffer])

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
