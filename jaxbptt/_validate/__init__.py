"""The one room that raises. Each message names the argument, what came, what was expected and the remedy.

What looks at shapes, dtypes and trees runs when a function is traced, before any work; what has to see numbers, such
as those of a training step, runs on the host. One file a concern; callers write ``_validate.batch(…)`` and need not
know which.
"""

from jaxbptt._validate.axes import (
    batch_axes,
    batch_shape,
    batch_shape_of,
    no_batch,
    nothing_shared,
    some_member,
    state_without_batch,
    steps_in_numbers,
    time_axis,
)
from jaxbptt._validate.checkpoints import (
    json_object,
    new_file,
    not_saved,
    not_written,
    one_process,
    orbax,
    refused,
    same_about,
    same_leaves,
    same_observed,
    tensorboard,
)
from jaxbptt._validate.devices import (
    devices,
    divisible_batch,
    no_other_mesh,
    objective,
    value_of_objective,
)
from jaxbptt._validate.diagnostics import (
    exponents,
    first_guesses,
    gate_blocks,
    more_than,
    one_batch_axis,
    one_input,
    one_threshold,
    solver,
    square_matrix,
    stretches,
)
from jaxbptt._validate.factories import (
    absent,
    adjoint,
    at_least,
    average_loss,
    callable_argument,
    called_with,
    cells,
    choices,
    count,
    factory_arguments,
    flag,
    hashable,
    model,
    not_both,
    one_of,
    policy,
    readout,
    same_size,
)
from jaxbptt._validate.initialisation import (
    gate_rows,
    init_arguments,
    initializers,
    key,
    matrix_shape,
    square,
)
from jaxbptt._validate.losses import (
    float_targets,
    integer_targets,
    linear_network,
    linear_readout,
    loss_fits,
    readout_fits,
    sequences,
)
from jaxbptt._validate.memory import (
    block_fits,
    counted_size,
    enough_memory,
    host_memory,
    named_adjoints,
    one_memory,
)
from jaxbptt._validate.rules import (
    GradientMismatchError,
    check_dtype,
    made_in,
    mismatch,
    no_missing_cotangents,
    not_checkable,
    reads_numbers,
    reference_not_finite,
    same_gates,
)
from jaxbptt._validate.sequences import (
    estimator_state,
    flagged_input,
    layers,
    like,
    matrix_cell,
    parameters,
    recursion,
    sensitivity,
    state_of_reset,
    state_tree,
    theta,
)
from jaxbptt._validate.training import (
    batch,
    batch_within,
    batches,
    callback,
    carried_on,
    counted,
    estimator,
    evaluated,
    finite_steps,
    kept_of_this_run,
    natural,
    new_scalar,
    no_key_beside_its_own,
    no_state_beside_its_own,
    not_beyond,
    optimizer,
    same_key,
    saver,
    scalar,
    state_without_stream,
    stream_of,
    stream_without_state,
    taken_by_objective,
    train_state,
    trainable,
    trained,
    value_and_aux,
)
