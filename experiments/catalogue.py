"""All studies, in the order in which they are listed."""

from experiments import (
    adding,
    checkpoint_cost,
    chorales,
    cliff,
    copy_memory,
    curse_of_memory,
    digits,
    flossing,
    jacobian_bound,
    lyapunov,
    mnist1d,
    temporal_order,
    vanishing_exploding,
)
from experiments.study import Study

STUDIES: tuple[Study, ...] = (
    vanishing_exploding.STUDY,
    jacobian_bound.STUDY,
    cliff.STUDY,
    lyapunov.STUDY,
    curse_of_memory.STUDY,
    checkpoint_cost.STUDY,
    digits.STUDY,
    adding.STUDY,
    copy_memory.STUDY,
    temporal_order.STUDY,
    flossing.STUDY,
    mnist1d.STUDY,
    chorales.STUDY,
)
