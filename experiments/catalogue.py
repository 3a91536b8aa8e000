"""All studies, in the order in which they are listed."""

from experiments.studies import (
    add_task,
    adding,
    copy_curriculum,
    curse_of_memory,
    influence_balancing,
    jacobian_bound,
    lyapunov,
    truncation_bias,
)
from experiments.studies.checkpoint_cost import study as checkpoint_cost
from experiments.studies.chorales import study as chorales
from experiments.studies.cliff import study as cliff
from experiments.studies.copy_memory import study as copy_memory
from experiments.studies.digits import study as digits
from experiments.studies.estimator_zoo import study as estimator_zoo
from experiments.studies.flossing import study as flossing
from experiments.studies.mnist1d import study as mnist1d
from experiments.studies.temporal_order import study as temporal_order
from experiments.studies.vanishing_exploding import study as vanishing_exploding
from experiments.study import Study

STUDIES: tuple[Study, ...] = (
    vanishing_exploding.STUDY,
    jacobian_bound.STUDY,
    cliff.STUDY,
    lyapunov.STUDY,
    curse_of_memory.STUDY,
    estimator_zoo.STUDY,
    truncation_bias.STUDY,
    influence_balancing.STUDY,
    add_task.STUDY,
    checkpoint_cost.STUDY,
    digits.STUDY,
    adding.STUDY,
    copy_memory.STUDY,
    copy_curriculum.STUDY,
    temporal_order.STUDY,
    flossing.STUDY,
    mnist1d.STUDY,
    chorales.STUDY,
)
