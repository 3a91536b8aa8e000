"""What masked, resettable, stacked and learned_start promise beyond the laws: padding, sequences laid end to end,
layers, the state that is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import ADJOINTS, assert_close

KEYS = jax.random.split(jax.random.key(0), 6)
SOME = ("full", "full-blocks-states", "tangent", "parallel", "autodiff")
adjoints = pytest.mark.parametrize("adjoint", [ADJOINTS[name] for name in SOME], ids=SOME)


def gradient(cell, adjoint):
    def F(theta_h, h_0, xs):
        h_T, hs = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
        return jnp.sum(jnp.sin(hs)) + jnp.sum(cell.output(h_T) ** 2)

    return jax.jit(jax.value_and_grad(F, argnums=(0, 1)))


INNER = {"gru": jb.cells.gru(), "lstm": jb.cells.lstm(), "relu": jb.cells.elman("relu")}


@pytest.mark.parametrize(("inner", "adjoint"), cases.in_turn(INNER, {name: ADJOINTS[name] for name in SOME}))
def test_nan_in_padding_reaches_neither_state_nor_gradient(inner, adjoint):
    cell = jb.cells.masked(inner)
    theta_h = cases.randomised(cell.init(KEYS[0], 3, 4, jnp.float64), KEYS[1], 0.5)
    h_0 = cases.randomised(cell.initial_state(theta_h, (2,)), KEYS[2], 0.5)
    mask = jnp.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], bool)
    x = jax.random.normal(KEYS[3], (5, 2, 3))
    dirty = jnp.where(mask[..., None], x, jnp.nan)
    both = gradient(cell, adjoint)
    clean, padded = (both(theta_h, h_0, jb.cells.MaskedInput(inputs, mask)) for inputs in (x, dirty))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(a, b)


def _token_step(theta_h, token_t, h_tm1):
    return jnp.tanh(jnp.take(theta_h["E"], token_t, axis=0) + h_tm1 @ theta_h["W"].T)  # NaN outside of the table


_TOKENS = jb.cells.from_step(_token_step, initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 4)))


def test_padding_may_be_a_token_that_no_table_has():
    theta_h = {"E": cases.normal(KEYS[0], (6, 4)), "W": cases.normal(KEYS[1], (4, 4))}
    h_0, tokens = cases.normal(KEYS[2], (2, 4)), jnp.array([[1, 5], [2, 2], [0, 3], [4, 1], [3, 0]])
    mask = jnp.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], bool)
    for name, adjoint in cases.EACH_ADJOINT.items():
        both = gradient(jb.cells.masked(_TOKENS), adjoint)
        clean = both(theta_h, h_0, jb.cells.MaskedInput(tokens, mask))
        for padding in (6, -100):
            padded = both(theta_h, h_0, jb.cells.MaskedInput(jnp.where(mask, tokens, padding), mask))
            for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(padded), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=name)
        assert all(map(jnp.any, jax.tree.leaves(clean)))


def test_an_integer_in_padding_is_one_that_a_step_reads():
    """A gap of 0 would be infinitely fast, and its pullback no number."""
    cell = jb.cells.masked(
        jb.cells.from_step(lambda theta_h, gap_t, h_tm1: jnp.tanh(theta_h * h_tm1) / gap_t.astype(float)[:, None])
    )
    theta_h, h_0 = cases.normal(KEYS[0], ()), cases.normal(KEYS[2], (2, 4))
    gaps, mask = jnp.array([[1, 5], [2, 2], [3, 1]]), jnp.array([[0, 1], [1, 1], [1, 0]], bool)
    for name, adjoint in cases.EACH_ADJOINT.items():
        both = gradient(cell, adjoint)
        clean, padded = (
            both(theta_h, h_0, jb.cells.MaskedInput(one, mask)) for one in (gaps, jnp.where(mask, gaps, 0))
        )
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(padded), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
            assert np.isfinite(a).all(), name


def test_nan_in_padding_has_no_cotangent():
    """∂f/∂x is 2x: that of a padded step must not be read where it is NaN."""
    cell = jb.cells.masked(jb.cells.from_step(lambda theta_h, x_t, h_tm1: jnp.tanh(x_t**2 * theta_h + h_tm1)))
    theta_h, h_0, x = (cases.normal(key, shape) for key, shape in zip(KEYS, ((), (2, 3), (5, 2, 3)), strict=False))
    mask = jnp.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], bool)

    def F(x, adjoint):
        return jnp.sum(jb.unroll(cell, theta_h, jb.cells.MaskedInput(x, mask), h_0, adjoint=adjoint)[1] ** 2)

    bar = jax.jit(jax.grad(F), static_argnums=1)
    for name, adjoint in cases.EACH_ADJOINT.items():
        dirty = bar(jnp.where(mask[..., None], x, jnp.nan), adjoint)
        np.testing.assert_array_equal(dirty, bar(x, adjoint), err_msg=name)
        np.testing.assert_array_equal(dirty[~mask], 0.0, err_msg=name)
        assert jnp.all(dirty[mask] != 0)


LARGE = {"gru": jb.cells.gru(), "relu-lstm": jb.cells.stacked(jb.cells.elman("relu"), jb.cells.lstm())}


@pytest.mark.parametrize(("inner", "adjoint"), cases.in_turn(LARGE, {name: ADJOINTS[name] for name in SOME}))
def test_huge_numbers_in_padding_are_no_nan(inner, adjoint):
    """The largest of float32, of which W_x x is inf - inf."""
    cell = jb.cells.masked(inner)
    theta_h = cases.randomised(cell.init(KEYS[0], 64, 4, jnp.float32), KEYS[1], 2.0)
    h_0 = cell.initial_state(theta_h, (2,))
    mask = jnp.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], bool)
    x = cases.normal(KEYS[3], (5, 2, 64), jnp.float32)
    huge = jnp.where(mask[..., None], x, jnp.finfo(jnp.float32).max)
    both = gradient(cell, adjoint)
    clean, padded = (both(theta_h, h_0, jb.cells.MaskedInput(inputs, mask)) for inputs in (x, huge))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(a, b)


def _roots(theta_h, x_t, h_tm1):
    return jnp.sqrt(0.2 + (theta_h["w"] * x_t) ** 2 + 0.1 * h_tm1 * h_tm1)


def _roots_by_value(theta_h, x_t, h_tm1, h_t, h_bar_t):
    bar = h_bar_t / h_t  # as the contract of a pullback allows; f's own h_t is never 0
    theta_bar = {"w": jnp.sum(bar * theta_h["w"] * x_t**2), "start": jnp.zeros(2)}
    return theta_bar, bar * theta_h["w"] ** 2 * x_t, 0.1 * bar * h_tm1


def _start(theta_h, batch_shape=()):
    return jnp.broadcast_to(theta_h["start"], (*batch_shape, 2))


_ROOTS = jb.cells.from_step(_roots, initial_state=_start)
_OF_ROOTS = {"w": jnp.array(0.5), "start": jnp.zeros(2)}
_SINGULAR = {  # where the state stood still at 0, f or what is read of it has no derivative; f's own state is not 0
    "layers": (
        jb.cells.stacked(_ROOTS._replace(output=jnp.sqrt), _ROOTS),
        (_OF_ROOTS, _OF_ROOTS),
        lambda x: x,
    ),
    "reset": (
        jb.cells.resettable(_ROOTS._replace(vjp=_roots_by_value)),
        _OF_ROOTS,
        lambda x: jb.cells.ResetInput(x, jnp.zeros((4, 3), bool).at[0].set(True)),
    ),
}


@pytest.mark.parametrize(("name", "adjoint"), cases.in_turn(list(_SINGULAR), {name: ADJOINTS[name] for name in SOME}))
def test_padding_in_front_of_a_state_of_zeros_is_no_nan(name, adjoint):
    """At a padded step the pullback is read at a state that is not f's: what it says there must not reach θ."""
    inner, theta_h, inputs = _SINGULAR[name]
    cell = jb.cells.masked(inner)
    x = 1 + jax.random.uniform(KEYS[3], (4, 3, 2))
    xs = jb.cells.MaskedInput(inputs(x), jnp.arange(4)[:, None] >= jnp.array([[0, 1, 2]]))

    def F(theta_h, adjoint):
        h_0 = cell.initial_state(theta_h, (3,))
        return jnp.sum(jnp.sin(jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)[1]))

    found, wanted = (jax.jit(jax.grad(F), static_argnums=1)(theta_h, one) for one in (adjoint, jb.adjoints.autodiff()))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):  # that of h_0 = 0 is 0
        np.testing.assert_allclose(a, b, rtol=1e-10)
    assert all(np.all(leaf) for leaf in jax.tree.leaves(wanted) if leaf.shape == ())


def test_a_masked_cell_skips_steps():
    """Sequences of their own lengths give what they would give alone."""
    inner = jb.cells.gru()
    cell = jb.cells.masked(inner)
    theta_h = cases.randomised(inner.init(KEYS[0], 3, 4, jnp.float64), KEYS[1], 0.5)
    x = jax.random.normal(KEYS[3], (5, 2, 3))
    mask = jnp.arange(5)[:, None] < jnp.array([[3, 5]])
    h_T, _ = jb.unroll(cell, theta_h, jb.cells.MaskedInput(x, mask), jnp.zeros((2, 4)))
    alone, _ = jb.unroll(inner, theta_h, x[:3, 0], jnp.zeros(4))
    np.testing.assert_allclose(h_T[0], alone, rtol=1e-13)


def _step(theta_h, x_t, h_tm1):
    return jnp.tanh(x_t * h_tm1 + h_tm1 @ theta_h["W"].T)  # the input's cotangent reads h_{t-1}


def _initial_state(theta_h, batch_shape=()):
    return jnp.broadcast_to(jnp.sin(theta_h["start"]), (*batch_shape, 4))


@adjoints
def test_sequences_end_to_end_are_sequences_alone_with_a_learned_beginning(adjoint):
    """Two sequences laid end to end in one stream, the state of each beginning learned: as each alone."""
    inner = jb.cells.from_step(_step, initial_state=_initial_state)
    cell = jb.cells.resettable(inner)
    theta_h = {"W": jax.random.normal(KEYS[0], (4, 4)), "start": jax.random.normal(KEYS[1], (4,))}
    x = jax.random.normal(KEYS[2], (7, 2, 4))
    begins = jnp.zeros((7, 2), bool).at[0].set(True).at[3, 0].set(True).at[5, 1].set(True)

    def stream(theta_h, x):
        xs = jb.cells.ResetInput(x, begins)
        return jnp.sum(jnp.sin(jb.unroll(cell, theta_h, xs, jnp.full((2, 4), 9.0), adjoint=adjoint)[1]))

    def alone(theta_h, x):
        total = 0.0
        for member, cut in ((0, 3), (1, 5)):
            for part in (x[:cut, member], x[cut:, member]):
                h = jnp.sin(theta_h["start"])
                for x_t in part:
                    h = jnp.tanh(x_t * h + theta_h["W"] @ h)
                    total = total + jnp.sum(jnp.sin(h))
        return total

    got, wanted = (jax.jit(jax.value_and_grad(of, argnums=(0, 1)))(theta_h, x) for of in (stream, alone))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-12)
    assert_close(got[1], wanted[1], 1e-11)


def test_layers_are_unrolls_one_after_the_other():
    layers = (jb.cells.lstm(), jb.cells.gru(), jb.cells.elman())
    cell = jb.cells.stacked(*layers)
    theta_h = cell.init(KEYS[0], 3, 4, jnp.float64)
    h_0 = cell.initial_state(theta_h, (2,))
    xs = jax.random.normal(KEYS[1], (6, 2, 3))
    h_T, hs = jb.unroll(cell, theta_h, xs, h_0)
    ys = xs
    for layer, theta, start, end in zip(layers, theta_h, h_0, h_T, strict=True):
        last, ys = jb.unroll(layer, theta, ys, start)
        for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(end), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13)
    np.testing.assert_allclose(hs, ys, rtol=1e-13)


@pytest.mark.parametrize("adjoint", [ADJOINTS["full"], ADJOINTS["tangent"]], ids=["full", "tangent"])
def test_a_key_in_the_state_begins_anew_too(adjoint):
    """In no `jit`, where a key is an array without `astype`."""

    def step(theta_h, x_t, h_tm1):
        draw = jax.vmap(lambda key: jax.random.normal(key, dtype=jnp.float64))(h_tm1["key"])
        return {"a": jnp.tanh(h_tm1["a"] * theta_h + x_t + draw), "key": jax.vmap(jax.random.split)(h_tm1["key"])[:, 0]}

    def initial_state(theta_h, batch_shape=()):
        return {"a": jnp.zeros(batch_shape), "key": jnp.broadcast_to(KEYS[0], batch_shape)}

    inner = jb.cells.from_step(step, initial_state=initial_state, output=lambda h_t: h_t["a"])
    cell, x = jb.cells.resettable(inner), jax.random.normal(KEYS[1], (4, 2))
    reset = jnp.zeros((4, 2), bool).at[2].set(True)

    def F(theta_h, parts, unrolled):
        return sum(jnp.sum(jb.unroll(unrolled, theta_h, xs, inner.initial_state(0.0, (2,)))[1] ** 2) for xs in parts)

    def by_rule(theta_h):
        _, hs = jb.unroll(cell, theta_h, jb.cells.ResetInput(x, reset), inner.initial_state(0.0, (2,)), adjoint=adjoint)
        return jnp.sum(hs**2)

    theta_h = jnp.array(0.5)
    wanted = jax.jit(jax.value_and_grad(F), static_argnums=2)(theta_h, (x[:2], x[2:]), inner)
    assert_close(jax.value_and_grad(by_rule)(theta_h), wanted, 1e-12)


LEARNED = jb.cells.learned_start(jb.cells.lstm())


def learned_problem(cell=LEARNED):
    model = jb.rnn(cell, jb.readouts.linear())
    theta = cases.randomised(
        model.init(KEYS[0], input_size=3, hidden_size=4, output_size=2, dtype=jnp.float64), KEYS[1], 0.5
    )
    return model, theta, cases.normal(KEYS[2], (5, 3, 3)), cases.normal(KEYS[3], (5, 3, 2))


def of_given_start(theta, xs, ys):
    """F of the inner cell, h_0 broadcast by hand: what ``jax.grad`` makes of it is no rule of `learned_start`."""
    model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    h_0 = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, 4)), theta.h.h_0)
    F = jb.objective(model, jb.losses.l2_loss, adjoint=jb.adjoints.autodiff())
    return F(theta._replace(h=theta.h.cell), xs, ys, h_0)


@pytest.mark.parametrize("adjoint", cases.EACH_ADJOINT.values(), ids=cases.EACH_ADJOINT)
def test_the_gradient_of_a_learned_start_is_the_sum_over_the_batch(adjoint):
    model, theta, xs, ys = learned_problem()
    F = jb.objective(model, jb.losses.l2_loss, adjoint=adjoint)
    got, wanted = (jax.jit(jax.value_and_grad(of))(theta, xs, ys) for of in (F, of_given_start))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-12)
    assert_close(got[1], wanted[1], 1e-11)


@pytest.mark.parametrize("make", cases.EXACT_ESTIMATORS.values(), ids=cases.EXACT_ESTIMATORS)
def test_estimators_learn_the_start(make):
    model, theta, xs, ys = learned_problem()
    estimator = make(model, jb.losses.l2_loss)
    estimate, _ = jax.jit(estimator.update)(theta, estimator.init(theta), xs, ys)
    assert_close(estimate.grads, jax.jit(jax.grad(of_given_start))(theta, xs, ys), 1e-11)


def test_a_learned_start_begins_as_the_inner_cell():
    theta_h = LEARNED.init(KEYS[0], 3, 4, jnp.float64)
    inner = jb.cells.lstm().init(KEYS[0], 3, 4, jnp.float64)
    for a, b in zip(jax.tree.leaves(theta_h.cell), jax.tree.leaves(inner), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.map(lambda leaf: leaf.tolist(), theta_h.h_0) == jb.cells.LSTMState([0.0] * 4, [0.0] * 4)


def test_a_learned_start_passes_the_check_of_cells():
    """In layers; alone it is one of the cells that all laws are held to."""
    cell = jb.cells.stacked(jb.cells.learned_start(jb.cells.elman()), LEARNED)
    with jax.disable_jit():  # compiling each of the checks would take a second
        jb.check_cell(cell, seeds=(0,), sizes=((3, 4),), batch_shapes=((2,),), steps=2)


def test_what_has_no_derivative_begins_as_in_the_inner_cell():
    """A counter and a key of every member; θ_h has floating-point leaves alone, so that an optimiser takes it."""

    def step(theta_h, x_t, h_tm1):
        fast = jnp.tanh(h_tm1["fast"] * theta_h + x_t)
        return {"fast": fast, "count": h_tm1["count"] + 1, "key": h_tm1["key"]}

    def initial_state(theta_h, batch_shape=()):
        count, key = jnp.full(batch_shape, 7), jnp.broadcast_to(KEYS[0], batch_shape)
        return {"fast": jnp.zeros(batch_shape), "count": count, "key": key}

    inner = jb.cells.from_step(
        step, lambda key, d, n, dtype: jnp.ones((), dtype), initial_state, output=lambda h_t: h_t["fast"]
    )
    cell = jb.cells.learned_start(inner)
    theta_h = cell.init(KEYS[0], 1, 1, jnp.float64)._replace(h_0={"fast": jnp.array(0.5), "count": None, "key": None})
    assert jax.tree.structure(cell.init(KEYS[0], 1, 1, jnp.float64)) == jax.tree.structure(theta_h)
    h_0 = cell.initial_state(theta_h, (2,))
    assert h_0["count"].tolist() == [7, 7]
    assert h_0["key"].shape == (2,)
    xs = cases.normal(KEYS[2], (4, 2))

    def F(theta_h):
        h_0 = cell.initial_state(theta_h, (2,))
        return jnp.sum(jb.unroll(cell, theta_h, xs, h_0)[1] ** 2)

    def loop(theta_h):
        h, total = jnp.full(2, theta_h.h_0["fast"]), 0.0
        for x in xs:
            h = jnp.tanh(h * theta_h.cell + x)
            total = total + jnp.sum(h**2)
        return total

    assert_close(jax.jit(jax.grad(F))(theta_h), jax.jit(jax.grad(loop))(theta_h), 1e-11)


def test_sequences_of_a_stream_begin_with_the_learned_state():
    """Two sequences end to end, h_0 given to neither, as each alone."""
    model, theta, xs, ys = learned_problem()
    inner, stream = jb.objective(model, jb.losses.l2_loss), jb.cells.resettable(LEARNED)
    F = jb.objective(jb.rnn(stream, jb.readouts.linear()), jb.losses.l2_loss)
    begins = jnp.zeros((5, 3), bool).at[2].set(True)
    got = jax.jit(jax.grad(F))(theta, jb.cells.ResetInput(xs, begins), ys)

    def parts(theta):
        return (2 * inner(theta, xs[:2], ys[:2]) + 3 * inner(theta, xs[2:], ys[2:])) / 5

    assert_close(got, jax.jit(jax.grad(parts))(theta), 1e-11)
