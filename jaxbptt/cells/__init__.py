"""f: the cells. One file a cell, its derivation beside its pullback."""

from jaxbptt.cells.combinators.euler import TimedInput, euler
from jaxbptt.cells.combinators.learned_start import LearnedStart, learned_start
from jaxbptt.cells.combinators.masked import MaskedInput, masked
from jaxbptt.cells.combinators.mixed_precision import mixed_precision
from jaxbptt.cells.combinators.resettable import ResetInput, resettable
from jaxbptt.cells.combinators.sparse import sparse
from jaxbptt.cells.combinators.stacked import stacked
from jaxbptt.cells.combinators.zoneout import zoneout
from jaxbptt.cells.elman import ElmanParams, elman
from jaxbptt.cells.from_step import from_step
from jaxbptt.cells.gru import GRUParams, gru
from jaxbptt.cells.leaky import LeakyParams, LearnedLeakyParams, leaky
from jaxbptt.cells.linear import LinearParams, linear
from jaxbptt.cells.lstm import LSTMParams, LSTMState, lstm
from jaxbptt.types import Keyed

__all__ = [
    "ElmanParams", "GRUParams", "Keyed", "LSTMParams", "LSTMState", "LeakyParams", "LearnedLeakyParams", "LearnedStart",
    "LinearParams", "MaskedInput", "ResetInput", "TimedInput", "elman", "euler", "from_step", "gru", "leaky",
    "learned_start", "linear", "lstm", "masked", "mixed_precision", "resettable", "sparse", "stacked", "zoneout",
]  # fmt: skip
