"""What `plan` says of memory is what the compiler says, and it stops where something fits."""

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from jaxbptt.plan import Plan, Row, _ladder, extra_steps, plan

T, B, D, N = 200, 4, 3, 8
ADJOINTS = {
    "full": jb.adjoints.full(),
    "states": jb.adjoints.full(residuals="states", block=20),
    "slots-20": jb.adjoints.checkpointed(20),
}
MODEL = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
F = jb.objective(MODEL, jb.losses.l2_loss)
THETA = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), input_size=D, hidden_size=N, output_size=2))
XS, YS = (jax.ShapeDtypeStruct((T, B, size), jnp.float32) for size in (D, 2))


def held(function, *arguments, **options):
    """Bytes of the gradient, lowered and compiled by hand."""
    compiled = jax.jit(jax.grad(function)).lower(*arguments, **options).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def everything():
    return plan(F, THETA, XS, YS, adjoints=ADJOINTS)


def test_bytes_of_an_objective_are_the_compilers(everything):
    assert [row.name for row in everything.rows] == list(ADJOINTS)
    for row in everything.rows:
        assert row.bytes == held(jb.objective(MODEL, jb.losses.l2_loss, adjoint=row.adjoint), THETA, XS, YS)


def test_the_mask_and_the_state_are_in_the_program(everything):
    h_0 = jax.eval_shape(lambda theta: MODEL.initial_state(theta, (B,)), THETA)
    mask, adjoints = jax.ShapeDtypeStruct((T, B), jnp.bool_), {"": ADJOINTS["slots-20"]}
    (row,) = plan(F, THETA, XS, YS, h_0, mask=mask, adjoints=adjoints).rows
    by_hand = jb.objective(MODEL, jb.losses.l2_loss, adjoint=row.adjoint)
    assert row.bytes == held(by_hand, THETA, XS, YS, h_0, mask=mask) != everything.rows[-1].bytes


def test_a_loss_that_holds_more_is_seen(everything):
    def mean_of_many(y_hat_t, y_t):
        return jnp.mean(jnp.tanh(y_hat_t @ jnp.ones((2, 64), y_hat_t.dtype)), axis=-1) - y_t[..., 0]

    (row,) = plan(jb.objective(MODEL, mean_of_many), THETA, XS, YS, adjoints={"": ADJOINTS["full"]}).rows
    assert row.bytes - everything.rows[0].bytes > T * B * 64 * 4 / 2


def test_a_model_and_a_cell_are_planned_by_the_sum_of_squares():
    adjoint = ADJOINTS["full"]
    h_0 = jax.eval_shape(lambda theta: MODEL.initial_state(theta, (B,)), THETA)

    def of_model(theta, xs):
        return jnp.sum(MODEL.apply(theta, xs, adjoint=adjoint) ** 2)

    def of_cell(theta_h, xs, h_0):
        return jnp.sum(jb.unroll(MODEL.cell, theta_h, xs, h_0, adjoint=adjoint)[1] ** 2)

    (row,) = plan(MODEL, THETA, XS, adjoints={"": adjoint}).rows
    assert row.bytes == held(of_model, THETA, XS)
    (row,) = plan(MODEL.cell, THETA.h, XS, h_0, adjoints={"": adjoint}).rows
    assert row.bytes == held(of_cell, THETA.h, XS, h_0)


def test_it_stops_at_the_first_that_fits(everything):
    sizes = [row.bytes for row in everything.rows]
    assert sizes == sorted(sizes, reverse=True)
    found = plan(F, THETA, XS, YS, adjoints=ADJOINTS, fits=sizes[1])
    assert found == Plan(everything.rows[:2], sizes[1])
    assert found.best == found.rows[-1]
    assert [line.split()[-1] for line in str(found).splitlines()] == ["fits", "no", "yes"]


def test_the_best_of_a_plan(everything):
    assert everything.best == everything.rows[0]
    assert everything._replace(fits=1).best is None
    assert "fits" not in str(everything)


def test_the_ladder_goes_from_the_fastest_to_the_smallest():
    names = list(_ladder(1000))
    assert names[:3] == ["full()", "full(residuals='states')", "checkpointed(slots=500)"]
    slots = [adjoint.slots for adjoint in list(_ladder(1000).values())[2:]]
    assert slots == sorted(set(slots), reverse=True)


def test_extra_steps(everything):
    xs = jax.ShapeDtypeStruct((1000, B, D), jnp.float32)
    again = [extra_steps(jb.adjoints.checkpointed(c, block=1, residuals="states"), MODEL, THETA, xs) for c in (10, 50)]
    assert again == [3636 - 999, 1948 - 999]
    assert [row.extra_steps > 0 for row in everything.rows] == [False, False, True]
    assert everything.rows[2].extra_steps == extra_steps(ADJOINTS["slots-20"], MODEL, THETA, XS)


def test_arrays_do_as_well_as_shapes(everything):
    theta, xs, ys = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (THETA, XS, YS))
    found = plan(F, theta, xs, ys, adjoints={"full": ADJOINTS["full"]})
    assert found.rows == (Row("full", ADJOINTS["full"], everything.rows[0].bytes, 0),)
