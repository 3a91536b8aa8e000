"""Inside a user's own ``jax.shard_map``, its axes checked as is JAX's default, and on a mesh of explicit axes."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxbptt as jb
from tests.cases import ADJOINTS, CELLS, EACH_ADJOINT, assert_close, in_turn, name, problem

LSTM = next(case for case in CELLS if case.name == "lstm")
OVER_TIME, OVER_BATCH = P(None, "data"), P("data")


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((2,), ("data",), axis_types=(kind,))


def everything(given):
    return given.theta, given.xs, given.ys, given.h_0


def smooth(bars):
    return [leaf for leaf in jax.tree.leaves(bars) if leaf.dtype != jax.dtypes.float0]


@pytest.mark.parametrize(("case", "adjoint"), in_turn(CELLS, ADJOINTS))
def test_gradients_of_a_mean_over_shards(case, adjoint):
    """θ is everybody's, x and h_0 a shard's: ``jax.grad`` of the sharded function, and sharded ``jax.grad``."""
    given = problem(case, T=5, batch=(4,))
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    specs = (P(), OVER_TIME, OVER_TIME, OVER_BATCH)

    def mean(*arguments):
        return jax.lax.pmean(F(*arguments), "data")

    differentiated = {"argnums": (0, 1, 3), "allow_int": True}
    whole = jax.jit(jax.grad(F, **differentiated))(*everything(given))
    sharded = jax.jit(jax.grad(jax.shard_map(mean, mesh=mesh(), in_specs=specs, out_specs=P()), **differentiated))
    assert_close(smooth(sharded(*everything(given))), smooth(whole), 1e-11)
    inside = jax.shard_map(jax.grad(mean), mesh=mesh(), in_specs=specs, out_specs=P())
    assert_close(jax.jit(inside)(*everything(given)), whole[0], 1e-11)


each_adjoint = pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)


@each_adjoint
def test_a_state_that_nobody_gave_and_a_loss_of_the_last_state(adjoint):
    """h_0 = 0 is made by the library, and the cotangents of h_1 … h_{T-1} are zeros that JAX makes."""
    given = problem(LSTM, T=5, batch=(4,))

    def last(theta, xs, ys, h_0=None):
        h_0 = given.model.initial_state(theta, (xs.shape[1],)) if h_0 is None else h_0
        (_, h_T), _ = jb.unroll(given.model.cell, theta.h, xs, h_0, adjoint=adjoint)
        return jnp.sum(jnp.sin(h_T)), theta.o

    def total(theta, xs):
        return jax.lax.psum(last(theta, xs, None)[0], "data")

    sharded = jax.shard_map(jax.grad(total), mesh=mesh(), in_specs=(P(), OVER_TIME), out_specs=P())
    bar = jax.jit(sharded)(given.theta, given.xs)
    whole = jax.jit(jax.grad(lambda theta: last(theta, given.xs, None)[0]))(given.theta)
    assert_close(bar.h, whole.h, 1e-11)


def in_loops(jaxpr, primitive, loops=0):
    """How often `primitive` stands inside a loop, and how often outside."""
    inside = outside = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(primitive):
            inside, outside = inside + (loops > 0), outside + (loops == 0)
        within = loops + (equation.primitive.name in ("scan", "while"))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                deeper = in_loops(inner, primitive, within)
                inside, outside = inside + deeper[0], outside + deeper[1]
    return inside, outside


@each_adjoint
def test_shards_are_summed_after_the_recursion(adjoint):
    """Of a θ that is everybody's JAX sums the cotangent where it meets what is a shard's: before the loop it meets it
    once, inside it once a step."""
    given = problem(LSTM, T=5, batch=(4,))
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    gradient = jax.grad(lambda theta, xs, ys: jax.lax.pmean(F(theta, xs, ys), "data"))
    sharded = jax.shard_map(gradient, mesh=mesh(), in_specs=(P(), OVER_TIME, OVER_TIME), out_specs=P())
    inside, outside = in_loops(jax.make_jaxpr(sharded)(given.theta, given.xs, given.ys).jaxpr, "psum")
    assert inside == 0
    assert outside > 0


@pytest.mark.parametrize(
    ("make", "begun"), [(jb.estimators.bptt, False), (jb.estimators.bptt, True), (jb.estimators.rtrl, False)]
)
def test_estimators_with_a_mask(make, begun):
    given = problem(LSTM, T=5, batch=(4,))
    mask = jax.random.bernoulli(jax.random.key(1), 0.6, (5, 4))
    F, estimator = (make(given.model, jb.losses.l2_loss, reduction="sum") for make in (jb.objective, make))

    def sums(theta, xs, ys, h_0, mask):
        estimate, _ = estimator.update(theta, estimator.init(theta, h_0), xs, ys, mask=mask)
        return jax.lax.psum(estimate.loss, "data"), estimate.grads

    specs = (P(), OVER_TIME, OVER_TIME, OVER_BATCH, OVER_TIME)
    sharded = jax.jit(jax.shard_map(sums, mesh=mesh(), in_specs=specs, out_specs=P()))
    arguments = (given.theta, given.xs, given.ys, None if begun else given.h_0)
    whole = jax.jit(jax.value_and_grad(F))(*arguments, mask=mask)
    assert_close(sharded(*arguments, mask), whole, 1e-11)


@pytest.mark.parametrize("case", [case for case in CELLS if "elman" not in case.name], ids=name)
def test_bptt_is_the_gradient_of_the_shards_objective(case):
    """As JAX has it there, the sum over the shards that share θ: of f and of g alike."""
    given = problem(case, T=5, batch=(4,))
    F, estimator = (make(given.model, jb.losses.l2_loss) for make in (jb.objective, jb.estimators.bptt))
    specs = (P(), OVER_TIME, OVER_TIME, OVER_BATCH)

    def estimate(theta, xs, ys, h_0):
        return estimator.update(theta, estimator.init(theta, h_0), xs, ys)[0].grads

    by_hand = jax.jit(jax.shard_map(estimate, mesh=mesh(), in_specs=specs, out_specs=P()))(*everything(given))
    whole = jax.jit(jax.grad(F))(*everything(given))
    assert_close(by_hand, jax.tree.map(lambda mean: 2 * mean, whole), 1e-11)


@each_adjoint
def test_explicit_axes_by_auto_axes(adjoint):
    given = problem(LSTM, T=5, batch=(4,))
    gradient = jax.grad(jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint))
    whole = jax.jit(gradient)(given.theta, given.xs, given.ys)
    explicit = mesh(AxisType.Explicit)
    with jax.set_mesh(explicit):
        theta, xs, ys = (
            jax.device_put(tree, NamedSharding(explicit, spec))
            for tree, spec in ((given.theta, P()), (given.xs, OVER_TIME), (given.ys, OVER_TIME))
        )
        split = jax.jit(jax.sharding.auto_axes(gradient, out_sharding=P()))(theta, xs, ys)
    assert_close(split, whole, 1e-11)
