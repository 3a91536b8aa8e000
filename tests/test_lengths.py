"""A padded batch with its lengths is each of its sequences alone, whatever stands behind their ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.cases import ADJOINTS, CELLS, EACH_ADJOINT, EXACT_ESTIMATORS, assert_close, in_turn, normal, oracle, problem

T, LENGTHS = 5, (3, 5, 0, 1)
FILLS = (np.inf, -np.inf, 1e30, 0.0)
lengths = jnp.array(LENGTHS)


def case_of(name):
    return next(case for case in CELLS if case.name == name)


@functools.cache
def padded(case):
    return problem(case, T=T, batch=(len(LENGTHS),), seed=11)


def filled(given, value):
    """The same with `value`, and other flags, in all that is padding."""
    real = np.arange(T)[:, None] < np.array(LENGTHS)

    def fill(leaf):
        spread = real.reshape(real.shape + (1,) * (leaf.ndim - 2))
        return jnp.where(spread, leaf, ~leaf if leaf.dtype == bool else jnp.full_like(leaf, value))

    return given._replace(xs=jax.tree.map(fill, given.xs), ys=fill(given.ys))


def alone(given, b):
    """Member b, unpadded, as a batch of one."""
    cut = jax.tree.map(lambda leaf: leaf[: LENGTHS[b], b : b + 1], (given.xs, given.ys))
    return given._replace(xs=cut[0], ys=cut[1], h_0=jax.tree.map(lambda leaf: leaf[b : b + 1], given.h_0))


@functools.cache
def each_alone(case):
    """F and ∂F/∂(θ, xs, h_0) by NumPy and the complex step, member by member: the mean over all real steps."""
    given, total = padded(case), sum(LENGTHS)
    value = 0.0
    theta_bar, xs_bar, h_0_bar = jax.tree.map(
        lambda leaf: None if leaf.dtype == bool else np.zeros(leaf.shape), (given.theta, given.xs, given.h_0)
    )
    for b, length in enumerate(LENGTHS):
        if length:
            F_b, (of_theta, of_xs, of_h_0) = oracle(alone(given, b))
            share = length / total
            value += share * F_b
            theta_bar = jax.tree.map(lambda bar, part, share=share: bar + share * part, theta_bar, of_theta)
            for bar, part in zip(jax.tree.leaves(xs_bar), jax.tree.leaves(of_xs), strict=True):
                bar[:length, b : b + 1] = share * part
            for bar, part in zip(jax.tree.leaves(h_0_bar), jax.tree.leaves(of_h_0), strict=True):
                bar[b : b + 1] = share * part
    return value, (theta_bar, xs_bar, h_0_bar)


def assert_all_close(found, wanted):
    """A flag may make a leaf's gradient zero in sequences so short."""
    found = [leaf for leaf in jax.tree.leaves(found) if leaf.dtype != jax.dtypes.float0]
    for leaf, wanted_leaf in zip(found, jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, wanted_leaf, rtol=1e-11, atol=1e-13)


def assert_same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("case", "adjoint"), in_turn(CELLS, ADJOINTS, times=2))
def test_the_gradient_of_each_sequence_alone(case, adjoint):
    F = jb.objective(padded(case).model, jb.losses.l2_loss, adjoint=adjoint)
    gradient = jax.jit(jax.value_and_grad(F, (0, 1, 2, 3), allow_int=True))

    def of(given):
        return gradient(given.theta, given.xs, given.ys, given.h_0, lengths=lengths)

    value, (theta_bar, xs_bar, ys_bar, h_0_bar) = of(filled(padded(case), np.nan))
    wanted_value, wanted = each_alone(case)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_all_close((theta_bar, xs_bar, h_0_bar), wanted)
    assert not np.any(np.asarray(ys_bar)[np.arange(T)[:, None] >= np.array(LENGTHS)])
    for fill in FILLS:
        assert_same(of(filled(padded(case), fill)), (value, (theta_bar, xs_bar, ys_bar, h_0_bar)))


@pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)
def test_two_batch_axes(adjoint):
    case = case_of("lstm")
    given = filled(padded(case), np.nan)
    two = jax.tree.map(lambda leaf: leaf.reshape(T, 2, 2, *leaf.shape[2:]), (given.xs, given.ys))
    h_0 = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), given.h_0)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    value, bar = jax.jit(jax.value_and_grad(F))(given.theta, *two, h_0, lengths=lengths.reshape(2, 2))
    np.testing.assert_allclose(value, each_alone(case)[0], rtol=1e-12)
    assert_close(bar, each_alone(case)[1][0], 1e-11)


@pytest.mark.parametrize(
    ("make", "name"), in_turn(EXACT_ESTIMATORS, ["elman-relu", "gru", "stacked", "masked", "from_step"], times=2)
)
def test_estimators(make, name):
    case = case_of(name)
    estimator = make(padded(case).model, jb.losses.l2_loss)
    update = jax.jit(estimator.update)

    def of(given):
        state = estimator.init(given.theta, given.h_0)
        return update(given.theta, state, given.xs, given.ys, lengths=lengths)

    estimate, state = of(filled(padded(case), np.nan))
    wanted_value, (theta_bar, _, h_0_bar) = each_alone(case)
    np.testing.assert_allclose(estimate.loss, wanted_value, rtol=1e-12)
    assert_all_close(estimate.grads, theta_bar)
    if hasattr(estimate.info, "h_0_bar"):
        assert_all_close(estimate.info.h_0_bar, h_0_bar)
    for fill in FILLS:
        assert_same(of(filled(padded(case), fill)), (estimate, state))


def last_states(given):
    """Of each member by NumPy: h after its last step, and h_0 for none."""
    theta_h, h_0 = (jax.tree.map(np.asarray, tree) for tree in (given.theta.h, given.h_0))
    last = []
    for b, length in enumerate(LENGTHS):
        xs = [jax.tree.map(lambda leaf, t=t, b=b: np.asarray(leaf[t, b]), given.xs) for t in range(length)]
        h = jax.tree.map(lambda leaf, b=b: leaf[b], h_0)
        last.append(oracles.states(given.case.step, theta_h, xs, h)[-1])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *last)


@pytest.mark.parametrize(("adjoint", "name"), in_turn(EACH_ADJOINT, ["lstm", "from_step"]))
def test_the_last_real_state(name, adjoint):
    """From `apply`, from F's aux and from `bptt`; and the predictions of the real steps."""
    given = filled(padded(case_of(name)), np.nan)
    wanted = last_states(padded(case_of(name)))
    apply = jax.jit(functools.partial(given.model.apply, adjoint=adjoint, return_state=True))
    y_hats, h_T = apply(given.theta, given.xs, given.h_0, lengths=lengths)
    F = jax.jit(jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, has_aux=True))
    value, aux = F(given.theta, given.xs, given.ys, given.h_0, lengths=lengths)
    for leaf, of_F, wanted_leaf in zip(*map(jax.tree.leaves, (h_T, aux.h_T, wanted)), strict=True):
        np.testing.assert_allclose(leaf, wanted_leaf, rtol=1e-13)
        np.testing.assert_allclose(of_F, wanted_leaf, rtol=1e-13)
    np.testing.assert_allclose(value, each_alone(given.case)[0], rtol=1e-12)
    np.testing.assert_allclose(aux.y_hats, y_hats, rtol=1e-13)
    for b, length in enumerate(LENGTHS):
        if length:
            one = alone(padded(given.case), b)
            np.testing.assert_allclose(
                y_hats[:length, b : b + 1], given.model.apply(given.theta, one.xs, one.h_0), rtol=1e-13
            )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint32", "int64"])
def test_lengths_of_any_integer_dtype(dtype):
    """T itself need not be a number of it. The state counts the real steps."""
    cell = jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: h_tm1 + x_t, initial_state=lambda theta_h, batch: jnp.zeros((*batch, 1))
    )
    model, counted = jb.rnn(cell, jb.readouts.identity()), jnp.array([100, 0], dtype)
    _, h_T = model.apply(jb.Theta((), ()), jnp.ones((300, 2, 1)), lengths=counted, return_state=True)
    assert h_T.ravel().tolist() == [100, 0]


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_one_step_at_a_time_is_the_sequence(name):
    given = problem(case_of(name), T=4, batch=(2,))
    h, y_hats = given.h_0, []
    for t in range(4):
        y_hat_t, h = given.model.step(given.theta, given.xs[t], h)
        y_hats.append(y_hat_t)
    wanted, h_T = given.model.apply(given.theta, given.xs, given.h_0, return_state=True)
    np.testing.assert_allclose(jnp.stack(y_hats), wanted, rtol=1e-13)
    assert_close(h, h_T, 1e-13)


@pytest.mark.parametrize("name", ["lstm", "from_step"])
def test_where_a_gradient_goes(name):
    """The parts by lag add up to the gradient, no delta stands behind an end, and Ω is the mean of those alone."""
    case = case_of(name)
    given = filled(padded(case), np.nan)
    flow_of, omega_of = (
        jax.jit(functools.partial(function, given.model, jb.losses.l2_loss, given.theta, **more))
        for function, more in ((jb.diagnostics.gradient_flow, {"lags": 2}), (jb.diagnostics.omega, {}))
    )
    flow = flow_of(given.xs, given.ys, given.h_0, lengths=lengths)
    np.testing.assert_allclose(flow.loss, each_alone(case)[0], rtol=1e-12)
    total = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), flow.gradients)
    assert_close(total, each_alone(case)[1][0].h, 1e-11)
    lag_norms, omegas = np.zeros(flow.lag_norms.shape), np.zeros(len(LENGTHS))
    for b, length in enumerate(LENGTHS):
        if length:
            one = alone(padded(case), b)
            lags = flow_of(one.xs, one.ys, one.h_0).lag_norms[:, :, 0]
            lag_norms[:length, : lags.shape[1], b] = lags
            omegas[b] = omega_of(one.xs, one.ys, one.h_0)
    np.testing.assert_allclose(flow.lag_norms, lag_norms, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(omega_of(given.xs, given.ys, given.h_0, lengths=lengths), np.mean(omegas), rtol=1e-11)


@pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)
def test_a_large_batch_padded_with_nan_is_finite_and_one_real_nan_shows(adjoint):
    """64 sequences of 64 steps, of 64 features: a maximum over so many, which a loss may have, can lose a NaN."""

    def peak(y_hat_t, y_t):
        return jnp.max(jnp.abs(y_hat_t - y_t), axis=-1)

    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=3, output_size=64)
    long = jnp.arange(1, 65)
    real = np.arange(64)[:, None] < np.arange(1, 65)
    xs, ys = (normal(jax.random.key(k), (64, 64, size), jnp.float32) for k, size in ((1, 2), (2, 64)))
    xs, ys = (jnp.where(real[..., None], leaf, jnp.nan) for leaf in (xs, ys))
    labels = jnp.asarray(np.where(real, np.arange(64), -1))  # which the loss takes for NaN
    for loss, targets in ((peak, ys), (jb.losses.l2_loss, ys), (jb.losses.softmax_cross_entropy, labels)):
        gradient = jax.jit(jax.value_and_grad(jb.objective(model, loss, adjoint=adjoint), (0, 1)))
        padded = gradient(theta, xs, targets, lengths=long)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(padded))
        if loss is not peak:
            value, (theta_bar, _) = gradient(theta, xs.at[7, 40].set(jnp.nan), targets, lengths=long)
            assert np.isnan(value)
            assert np.all(np.isnan(theta_bar.h.W_h))


def test_a_learned_beginning_of_sequences_that_end():
    """The member without a step leaves it alone."""
    start = jnp.array([0.3, -0.5])
    cell = jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: jnp.tanh(x_t + h_tm1 * theta_h["w"]),
        initial_state=lambda theta_h, batch_shape=(): jnp.broadcast_to(theta_h["start"], (*batch_shape, 2)),
    )
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta({"w": jnp.array(0.7), "start": start}, ())
    given = padded(case_of("linear"))
    xs, ys = filled(given._replace(xs=given.xs[..., :2]), np.nan)[3:5]

    def F(arrays):
        w, start = arrays
        total = 0.0
        for b, length in enumerate(LENGTHS):
            h = start
            for t in range(length):
                h = np.tanh(np.asarray(xs)[t, b] + h * w)
                total = total + oracles.half_square(h, np.asarray(ys)[t, b])
        return total / sum(LENGTHS)

    w_bar, start_bar = oracles.gradient(F, [np.array(0.7), np.asarray(start)])
    for adjoint in (jb.adjoints.full(), jb.adjoints.checkpointed(2)):
        gradient = jax.jit(jax.grad(jb.objective(model, jb.losses.l2_loss, adjoint=adjoint)))
        bar = gradient(theta, xs, ys, lengths=lengths).h
        assert_close((bar["w"], bar["start"]), (w_bar, start_bar), 1e-11)
    for make in EXACT_ESTIMATORS.values():
        estimator = make(model, jb.losses.l2_loss)
        grads = jax.jit(estimator.update)(theta, estimator.init(theta), xs, ys, lengths=lengths)[0].grads.h
        assert_close((grads["w"], grads["start"]), (w_bar, start_bar), 1e-11)


def _only_on_its_way(theta_h, x_t, h_tm1):
    """k counts down; √k has a derivative at the states that a sequence of five steps has, and none at its end."""
    k, h = h_tm1
    return k - 1, h + jnp.sqrt(theta_h * k)


ENDS = jb.cells.from_step(
    _only_on_its_way,
    initial_state=lambda theta_h, batch=(): (jnp.full(batch, 5.0), jnp.zeros(batch)),
    output=lambda h: h[1],
)
OF_ENDS = {
    "full": jb.adjoints.full(),
    "full-blocks": jb.adjoints.full(block=2),
    "tangent-blocks": jb.adjoints.tangent(block=2),
    "checkpointed": jb.adjoints.checkpointed(slots=3, block=2),
}


@pytest.mark.parametrize("adjoint", OF_ENDS.values(), ids=OF_ENDS)
@pytest.mark.parametrize("T", [5, 8])
def test_a_state_that_stands_still_where_f_has_no_derivative(adjoint, T):
    """Blocks of two don't divide five steps, and three more are no real ones: f is read nowhere but on its way."""

    def last(theta_h, T, **options):
        F = jb.objective(jb.rnn(ENDS, jb.readouts.identity()), lambda y_hat, y: y_hat, adjoint=adjoint, **options)
        xs, ys, lengths = jnp.zeros((T, 3)), jnp.zeros((T, 3)), jnp.full(3, 5)
        return F(jb.Theta(theta_h, ()), xs, ys, ENDS.initial_state(theta_h, (3,)), lengths=lengths if T > 5 else None)

    theta_h = jnp.asarray(2.0)
    wanted = sum(np.cumsum(np.sqrt(np.arange(5, 0, -1)))) / 5 / (2 * np.sqrt(2.0))  # d√θ/dθ = 1/(2√θ)
    np.testing.assert_allclose(jax.grad(last)(theta_h, T), wanted, rtol=1e-12)


def test_lengths_may_be_an_array_of_numpy():
    with jax.enable_x64(False):
        model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
        theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2)
        xs, ys = jnp.ones((7, 2, 3), jnp.float32), jnp.ones((7, 2, 2), jnp.float32)
        F = jb.objective(model, jb.losses.l2_loss)
        np.testing.assert_array_equal(
            F(theta, xs, ys, lengths=np.array([7, 3])), F(theta, xs, ys, lengths=jnp.array([7, 3]))
        )
