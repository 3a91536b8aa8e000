"""States that an estimator carries."""

import numpy as np


def estimator_state(state, state_type):
    if not isinstance(state, state_type):
        raise TypeError(
            f"`state` must be {state_type.__name__}, as `estimator.init` makes it: got {type(state).__name__}"
        )


def sensitivity(a, shape):
    if np.shape(a) != shape:
        raise ValueError(
            f"`state.a` must have shape [*batch, N, P] = {shape} for this θ_h and state: got {np.shape(a)}; "
            "make the state with `estimator.init` of the same model and batch"
        )
    return a
