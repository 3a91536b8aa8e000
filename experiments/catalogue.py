"""All studies, in the order in which they are listed."""

from experiments import checkpoint_cost, cliff, curse_of_memory, digits, jacobian_bound, lyapunov, vanishing_exploding
from experiments.study import Study

STUDIES: tuple[Study, ...] = (
    vanishing_exploding.STUDY,
    jacobian_bound.STUDY,
    cliff.STUDY,
    lyapunov.STUDY,
    curse_of_memory.STUDY,
    checkpoint_cost.STUDY,
    digits.STUDY,
)
