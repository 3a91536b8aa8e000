"""Every exact estimator gives the gradient that NumPy and the complex step give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import CELLS, EXACT_ESTIMATORS, ONLINE_ESTIMATORS, assert_close, in_turn, oracle, problem

EACH_CELL = [
    pytest.param(case, make, id=f"{case.name}-{name}")
    for k, case in enumerate(CELLS)
    for name, make in EXACT_ESTIMATORS.items()
    if name not in ("bptt-autodiff", "windowed") or k % 4 == 0  # these have tests of their own
]


@pytest.mark.parametrize(("case", "make"), EACH_CELL)
def test_estimators_give_the_gradient(case, make):
    given = problem(case, T=7, batch=(3,), seed=2)
    estimator = make(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)
    estimate, _ = jax.jit(estimator.update)(given.theta, state, given.xs, given.ys)
    value, (theta_bar, _, h_0_bar) = oracle(given)
    np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
    assert jax.tree.structure(estimate.grads) == jax.tree.structure(given.theta)
    assert_close(estimate.grads, theta_bar, 1e-11)
    if hasattr(estimate.info, "h_0_bar"):
        assert_close(estimate.info.h_0_bar, h_0_bar, 1e-11)


@pytest.mark.parametrize(("make", "batch"), in_turn(EXACT_ESTIMATORS, [(), (2, 3)], times=2))
def test_estimators_with_any_batch_axes(make, batch):
    (case,) = (case for case in CELLS if case.name == "lstm")
    given = problem(case, T=4, batch=batch, seed=3)
    estimator = make(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)
    estimate, _ = jax.jit(estimator.update)(given.theta, state, given.xs, given.ys)
    assert_close(estimate.grads, oracle(given)[1][0], 1e-11)


@pytest.mark.parametrize(("make", "name"), in_turn(EXACT_ESTIMATORS, ["lstm", "elman-tanh"]))
def test_masks_in_estimators(make, name):
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(3,), seed=4)
    mask = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 1]], bool)
    estimator = make(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)
    value, (theta_bar, _, _) = oracle(given, mask)
    ys = jnp.where(mask[..., None], given.ys, jnp.nan)  # a target that doesn't count must not matter
    estimate, _ = jax.jit(estimator.update)(given.theta, state, given.xs, ys, mask=jnp.asarray(mask))
    np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
    assert_close(estimate.grads, theta_bar, 1e-11)


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_a_mask_changes_no_state_and_no_finite_input(make):
    """f may be singular at zero, and a chunk in which nothing counts moves the state all the same."""

    def step(theta_h, x_t, h_tm1):
        return jnp.tanh(jnp.log(x_t) @ theta_h["A"] + h_tm1 @ theta_h["B"])

    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 4)))
    model = jb.rnn(cell, jb.readouts.identity())
    keys = jax.random.split(jax.random.key(0), 4)
    theta = jb.Theta({"A": jax.random.normal(keys[0], (3, 4)), "B": jax.random.normal(keys[1], (4, 4))}, ())
    xs, ys = jax.random.uniform(keys[2], (6, 2, 3)) + 0.1, jax.random.normal(keys[3], (6, 2, 4))
    mask = jnp.zeros((6, 2), bool).at[4].set(True)
    estimator = make(model, jb.losses.l2_loss, reduction="sum")

    def loop(theta):
        h = jnp.zeros((2, 4))
        for t in range(5):
            h = step(theta.h, xs[t], h)
        return 0.5 * jnp.sum((h - ys[4]) ** 2)

    h_0 = jnp.zeros((2, 4))
    update = jax.jit(estimator.update)
    estimate, whole = update(theta, estimator.init(theta, h_0), xs, ys, mask=mask)
    assert_close(estimate.grads, jax.jit(jax.grad(loop))(theta), 1e-11)
    _, state = update(theta, estimator.init(theta, h_0), xs[:3], ys[:3], mask=mask[:3])
    later, state = update(theta, state, xs[3:], ys[3:], mask=mask[3:])
    np.testing.assert_allclose(later.loss, loop(theta), rtol=1e-12)
    np.testing.assert_allclose(state.h, whole.h, rtol=1e-12)
    if make is EXACT_ESTIMATORS["rtrl"]:
        assert_close(later.grads, jax.jit(jax.grad(loop))(theta), 1e-11)


@pytest.mark.parametrize(("make", "steps"), in_turn(EXACT_ESTIMATORS, [2, 3], times=2))
def test_nan_in_a_real_step_that_does_not_count_shows(make, steps):
    """A stream of 6 steps, the third one uncounted and NaN for the first member: wherever it is cut, the losses that
    follow are NaN, and so is the gradient of each chunk from there on."""
    (case,) = (case for case in CELLS if case.name == "elman-tanh")
    given = problem(case, T=6, batch=(2,), seed=7)
    mask = jnp.ones((6, 2), bool).at[2, 0].set(False)
    xs = given.xs.at[2, 0].set(jnp.nan)
    estimator = make(given.model, jb.losses.l2_loss)
    update = jax.jit(estimator.update)
    state, losses, grads = estimator.init(given.theta, given.h_0), [], []
    for t in range(0, 6, steps):
        chunk = slice(t, t + steps)
        estimate, state = update(given.theta, state, xs[chunk], given.ys[chunk], mask=mask[chunk])
        losses.append(bool(jnp.isfinite(estimate.loss)))
        grads.append(all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(estimate.grads)))
    assert losses == ([True, False, False] if steps == 2 else [True, False])
    assert grads == ([True, False, False] if steps == 2 else [False, False])
    assert np.all(np.isnan(state.h[0]))
    assert np.all(np.isfinite(state.h[1]))


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_forward_mode_through_an_update_with_a_mask(make):
    """A Hessian-vector product, beside that of the written-out loop of NumPy by differences of its gradient."""
    (case,) = (case for case in CELLS if case.name == "elman-tanh")
    given = problem(case, T=4, batch=(2,), seed=9)
    mask = jnp.ones((4, 2), bool).at[3, 0].set(False)
    estimator = make(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)

    def gradient(theta):
        return estimator.update(theta, state, given.xs, given.ys, mask=mask)[0].grads

    along = jax.jit(lambda theta: jax.jvp(gradient, (theta,), (theta,))[1])(given.theta)
    ends = (jax.tree.map(lambda leaf, s=s: (1 + s) * leaf, given.theta) for s in (1e-5, -1e-5))
    above, below = (oracle(given._replace(theta=theta), np.asarray(mask))[1][0] for theta in ends)
    assert_close(along, jax.tree.map(lambda a, b: (a - b) / 2e-5, above, below), 1e-7)


@pytest.mark.parametrize("make", ONLINE_ESTIMATORS.values(), ids=ONLINE_ESTIMATORS)
def test_a_sensitivity_goes_on_through_a_step_that_f_leaves_out(make):
    """A cell of a user that stands still where its input is NaN: the chunks add up, one ending with such a step."""

    def step(theta_h, x_t, h_tm1):
        missing = jnp.isnan(x_t)
        drive = jnp.where(missing, 0.0, x_t) * theta_h["w"] + h_tm1 * theta_h["u"]
        return jnp.where(missing, h_tm1, jnp.tanh(drive))

    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 3)))
    theta = jb.Theta({"w": jnp.float64(0.5), "u": jnp.float64(0.9)}, ())
    estimator = make(jb.rnn(cell, jb.readouts.identity()), jb.losses.l2_loss, reduction="sum")
    xs = cases.normal(jax.random.key(1), (6, 2, 3)).at[2, 0].set(jnp.nan)
    ys, mask = cases.normal(jax.random.key(2), (6, 2, 3)), jnp.ones((6, 2), bool).at[2, 0].set(False)

    def F(theta):
        h, total = jnp.zeros((2, 3)), 0.0
        for t in range(6):
            h = step(theta.h, xs[t], h)
            total += 0.5 * jnp.sum(jnp.where(mask[t][:, None], (h - ys[t]) ** 2, 0.0))
        return total

    state, grads, update = estimator.init(theta), [], jax.jit(estimator.update)
    for t in (0, 3):
        estimate, state = update(theta, state, xs[t : t + 3], ys[t : t + 3], mask=mask[t : t + 3])
        grads.append(estimate.grads)
    assert_close(jax.tree.map(jnp.add, *grads), jax.jit(jax.grad(F))(theta), 1e-11)


@pytest.mark.parametrize(("make", "name"), in_turn(EXACT_ESTIMATORS, ["from_step", "lstm"]))
def test_a_stream_of_ended_sequences(make, name):
    """Lengths 2, 6, 0 and 4 in chunks of 3: each chunk is that of the members alone, and the ended ones stand still,
    whatever pads them."""
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(4,), seed=8)
    lengths = np.array([2, 6, 0, 4])
    real = np.arange(6)[:, None] < lengths
    xs, ys = (jnp.where(real[..., None], leaf, jnp.nan) for leaf in (given.xs, given.ys))
    estimator = make(given.model, jb.losses.l2_loss, reduction="sum")
    update = jax.jit(estimator.update)

    def member(tree, b):
        return jax.tree.map(lambda leaf: leaf[b : b + 1], tree)

    state = estimator.init(given.theta, given.h_0)
    alone = [estimator.init(given.theta, member(given.h_0, b)) for b in range(4)]
    total = []
    for t in (0, 3):
        clipped = np.clip(lengths - t, 0, 3)
        estimate, state = update(
            given.theta, state, xs[t : t + 3], ys[t : t + 3], lengths=jnp.asarray(clipped, jnp.int32)
        )
        value, parts = 0.0, []
        for b in range(4):
            if clipped[b]:
                steps = slice(t, t + clipped[b])
                one, alone[b] = update(given.theta, alone[b], given.xs[steps, b : b + 1], given.ys[steps, b : b + 1])
                value, parts = value + one.loss, [*parts, one.grads]
            for h, wanted in zip(jax.tree.leaves(member(state.h, b)), jax.tree.leaves(alone[b].h), strict=True):
                np.testing.assert_allclose(h, wanted, rtol=1e-13)
        np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
        assert_close(estimate.grads, jax.tree.map(lambda *leaves: sum(leaves), *parts), 1e-11)
        total.append(estimate.grads)
    if make in ONLINE_ESTIMATORS.values():
        whole, _ = update(given.theta, estimator.init(given.theta, given.h_0), xs, ys, lengths=jnp.asarray(lengths))
        assert_close(jax.tree.map(jnp.add, *total), whole.grads, 1e-11)


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_state_and_input_leaves_that_the_batch_shares(make):
    """A counter in the state and a time step dt [T] in the input have no batch axes."""

    def step(theta_h, inputs, h_tm1):
        drive = inputs["x"] @ theta_h.T + h_tm1["h"] / (1 + h_tm1["t"])
        return {"h": h_tm1["h"] + inputs["dt"] * (jnp.tanh(drive) - h_tm1["h"]), "t": h_tm1["t"] + 1}

    cell = jb.cells.from_step(
        step,
        initial_state=lambda theta_h, batch_shape=(): {"h": jnp.zeros((*batch_shape, 4)), "t": jnp.array(0)},
        output=lambda h_t: h_t["h"],
    )
    keys = jax.random.split(jax.random.key(1), 4)
    theta = jb.Theta(jax.random.normal(keys[0], (4, 3)), ())
    xs = {"x": jax.random.normal(keys[1], (5, 2, 3)), "dt": jax.random.uniform(keys[2], (5,))}
    ys, mask = jax.random.normal(keys[3], (5, 2, 4)), jnp.ones((5, 2), bool).at[3:].set(False)

    def loop(theta):
        h, total = {"h": jnp.zeros((2, 4)), "t": jnp.array(0)}, 0.0
        for t in range(3):
            h = step(theta.h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), h)
            total = total + 0.5 * jnp.sum((h["h"] - ys[t]) ** 2)
        return total / 6

    model = jb.rnn(cell, jb.readouts.identity())
    estimator = make(model, jb.losses.l2_loss)
    state = estimator.init(theta, {"h": jnp.zeros((2, 4)), "t": jnp.array(0)})
    estimate, _ = jax.jit(estimator.update)(theta, state, xs, ys, mask=mask)
    assert_close(estimate.grads, jax.jit(jax.grad(loop))(theta), 1e-11)


@pytest.mark.parametrize(
    ("name", "make", "chunk"), in_turn(["linear", "elman-tanh", "gru", "lstm", "from_step"], ONLINE_ESTIMATORS, [1, 3])
)
def test_online_estimators_add_up_over_chunks(name, make, chunk):
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(2,), seed=6)
    wanted = oracle(given)[1][0]
    steps = 6 * 2  # F is a mean over these; chunks are summed
    total = _fed_in_chunks(make(given.model, jb.losses.l2_loss, reduction="sum"), given, chunk)
    assert_close(jax.tree.map(lambda leaf: leaf / steps, total), wanted, 1e-11)
    # ... which backpropagation in chunks does not: it forgets what a chunk does to later ones.
    truncated = _fed_in_chunks(jb.estimators.bptt(given.model, jb.losses.l2_loss, reduction="sum"), given, chunk)
    W_h_bar = jax.tree.leaves(truncated.h)[-1] / steps
    assert np.max(np.abs(W_h_bar - jax.tree.leaves(wanted.h)[-1])) > 1e-3 * np.max(np.abs(W_h_bar))


def _fed_in_chunks(estimator, given, chunk):
    state, update = estimator.init(given.theta, given.h_0), jax.jit(estimator.update)
    total = jax.tree.map(jnp.zeros_like, given.theta)
    for start in range(0, 6, chunk):
        part = slice(start, start + chunk)
        estimate, state = update(given.theta, state, given.xs[part], given.ys[part])
        total = jax.tree.map(jnp.add, total, estimate.grads)
    return total


def _learned_step(theta_h, x_t, h_tm1):
    return jnp.tanh(x_t @ theta_h["W_x"].T + h_tm1 @ theta_h["W_h"].T)


def _learned_state(theta_h, batch_shape=()):
    return jnp.broadcast_to(theta_h["h_0"], (*batch_shape, *theta_h["h_0"].shape))


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_an_initial_state_in_the_parameters_is_learned(make):
    cell = jb.cells.from_step(_learned_step, initial_state=_learned_state)
    model = jb.rnn(cell, jb.readouts.identity())
    keys = jax.random.split(jax.random.key(0), 5)
    sizes = {"W_x": (4, 3), "W_h": (4, 4), "h_0": (4,)}
    theta_h = {name: jax.random.normal(key, size) for key, (name, size) in zip(keys, sizes.items(), strict=False)}
    theta = jb.Theta(theta_h, ())
    xs, ys = jax.random.normal(keys[3], (5, 2, 3)), jax.random.normal(keys[4], (5, 2, 4))

    def F(theta_h):
        h, total = jnp.broadcast_to(theta_h["h_0"], (2, 4)), 0.0
        for t in range(5):
            h = jnp.tanh(xs[t] @ theta_h["W_x"].T + h @ theta_h["W_h"].T)
            total = total + 0.5 * jnp.sum((h - ys[t]) ** 2)
        return total / 10

    wanted = jax.jit(jax.grad(F))(theta_h)
    estimator = make(model, jb.losses.l2_loss)
    estimate, _ = jax.jit(estimator.update)(theta, estimator.init(theta), xs, ys)
    assert_close(estimate.grads.h, wanted, 1e-11)
    if make is EXACT_ESTIMATORS["bptt"]:
        gradient = jax.jit(jax.grad(jb.objective(model, jb.losses.l2_loss)))
        assert_close(gradient(theta, xs, ys).h, wanted, 1e-11)
