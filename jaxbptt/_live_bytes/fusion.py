"""Which results of a program are arrays, and how many of each:

* elementwise results are made only when a loop, a product, a concatenation of several parts (which of them hangs
  on its width and the version of JAX) or the caller wants them, else they are fused into the user;
* what several products want of a result that is elementwise in one array, each of them and each sum makes for itself;
  of two arrays or more, or of a gather, there is one for all;
* what a loop and a product want of it, or of a concatenation, each of them has for itself;
* a product reads a matrix by rows or by columns, so a transpose for it is none;
* a product that sums over axes of length 1 is elementwise.
"""

import jax

from jaxbptt._live_bytes.step import LOOPS, sums_nothing

_FUSED = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bitcast_convert_type", "broadcast_in_dim", "cbrt", "ceil", "clamp", "clz", "complex", "conj",
    "convert_element_type", "cos", "cosh", "digamma", "div", "dynamic_slice", "eq", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow", "iota", "is_finite", "le", "lgamma", "log", "log1p",
    "log2", "logistic", "lt", "max", "min", "mul", "mulhi", "ne", "neg", "nextafter", "not", "one_minus_square", "or",
    "polynomial", "population_count", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "slice", "sqrt", "square",
    "sub", "tan", "tanh", "transpose", "xor",
}  # fmt: skip
_FUSED_ONCE = _FUSED | {"gather"}  # a gather is fused as well, but made once for all products that want it
_READ_IN_PLACE = {"concatenate", "pad", "reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax"}
_LAZY = _FUSED_ONCE | _READ_IN_PLACE
_BROADCASTS = {"broadcast_in_dim", "iota"}


class Fusion:
    """The questions about one program. Its steps, and the names of its results, which are arrays in any case."""

    def __init__(self, steps, results):
        self.results = results
        self.readers = {}  # of each name, in order
        self._whole = {}  # name -> what of at least its rank it is elementwise in, broadcasts apart
        for step in steps:
            for name in step.read:
                self.readers.setdefault(name, []).append(step)
            if step.name in _FUSED:
                operands = zip(step.read, step.operands, strict=True)
                large = [name for name, aval in operands if aval.ndim >= step.avals[0].ndim and name is not None]
                whole = set().union(*(self._whole.get(name, {name}) for name in large))
                self._whole.update(dict.fromkeys(step.written, set() if step.name in _BROADCASTS else whole))

    def is_fused(self, step):
        """Whether it is made inside of what reads it."""
        if self._is_folded(step):
            return True
        is_lazy = all(reader.name in _LAZY and not self._joins_what_is_made(reader) for reader in self._read_by(step))
        return (step.name in _FUSED_ONCE or sums_nothing(step)) and is_lazy and not self._is_result(step)

    def is_copied(self, step):
        """Whether each product that reads it makes it for itself."""
        products = sum(reader.name == "dot_general" for reader in self._read_by(step))
        return self._is_cheap(step) and products > 1 and not self._is_folded(step) and not self._is_result(step)

    def is_made_twice(self, step):
        """Whether loops have one, and products another."""
        kinds = {reader.name for reader in self._read_by(step)}
        is_for_both = "dot_general" in kinds and not kinds.isdisjoint(LOOPS)
        return is_for_both and (step.name == "concatenate" or self._is_cheap(step))

    def _read_by(self, step):
        return [reader for name in step.written for reader in self.readers.get(name, ())]

    def _is_result(self, step):
        return not set(step.written).isdisjoint(self.results)

    def _is_folded(self, step):
        """A transpose that products alone read."""
        is_read = {reader.name for reader in self._read_by(step)}
        return step.name == "transpose" and is_read == {"dot_general"} and not self._is_result(step)

    def _is_cheap(self, step):
        """Elementwise, and of one array at most."""
        return step.name in _FUSED and len(self._whole[step.written[0]]) < 2

    def _joins_what_is_made(self, step):
        """A concatenation of more than two parts wants them made: if it is wide or shared, since JAX 0.12 always."""
        if step.name != "concatenate" or len(step.read) < 3:
            return False
        uses = len(self._read_by(step)) + sum(self.results.count(name) for name in step.written)
        is_shared, is_wide = len(step.read) > 3 and uses > 1, step.avals[0].shape[-1] >= 128
        return is_shared or is_wide or jax.__version_info__ >= (0, 12)
