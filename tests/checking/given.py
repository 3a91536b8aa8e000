"""One problem, all sizes different, for what is wrong everywhere."""

from typing import Any

import jaxbptt as jb
from tests.cases import CELLS

WRONG = jb.checking.GradientMismatchError
ONCE: dict[str, Any] = {"seeds": (0,), "sizes": ((4, 3),), "batch_shapes": ((2,),), "steps": 2}
CELL = {case.name: case.cell for case in CELLS}


def inputs_of(case):
    """What `check_cell` calls to draw inputs, in its order of arguments."""
    return case.inputs and (lambda key, shape, input_size, dtype: case.inputs(key, shape, input_size, dtype))
