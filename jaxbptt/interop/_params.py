"""θ_h of NumPy arrays, under the names of the cells."""

from typing import Any

from jaxbptt.cells import ElmanParams, GRUParams, LSTMParams

elman: Any = ElmanParams
gru: Any = GRUParams
lstm: Any = LSTMParams
BY_GATES: dict[int, Any] = {1: elman, 3: gru, 4: lstm}
