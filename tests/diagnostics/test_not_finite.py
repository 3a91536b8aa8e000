"""What overflows has no norm: no diagnostic says that it vanishes or is stable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb

D = jb.diagnostics
CELL = jb.cells.elman("relu")  # its derivative at NaN is 0
KEYS = jax.random.split(jax.random.key(0), 3)


def exploding(dtype, T):
    theta_h = CELL.init(KEYS[0], 3, 8, dtype)
    theta_h = theta_h._replace(W_h=(5 * jax.random.normal(KEYS[1], (8, 8)) / 8**0.5).astype(dtype))
    return theta_h, jax.random.normal(KEYS[2], (T, 3)).astype(dtype), jnp.zeros(8, dtype)


def test_the_words_of_a_state_that_overflows():
    assert D.verdict(CELL, *exploding(jnp.float32, 40)).words == "exploding"
    found = D.verdict(CELL, *exploding(jnp.float32, 150))
    assert found.words == "no number"
    assert found.sign == 2
    assert np.isnan(np.array(found[1:])).all()
    assert D.verdict(CELL, *exploding(jnp.float64, 150)).words == "exploding"


def test_a_member_that_overflows_is_that_members_matter():
    theta_h, xs, h_0 = exploding(jnp.float32, 150)
    tame = theta_h._replace(W_h=theta_h.W_h / 100)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), theta_h, tame)
    found = jax.vmap(lambda theta_h: D.verdict(CELL, theta_h, xs, h_0))(both)
    assert found.words.tolist() == ["no number", "vanishing"]


@pytest.mark.parametrize("where", ["weight", "last input"])
@pytest.mark.parametrize("name", ["lstm", "gru", "elman"])
def test_nan_is_not_stable(name, where):
    cell = getattr(jb.cells, name)()
    theta_h, xs = cell.init(KEYS[0], 3, 8, jnp.float32), jnp.ones((20, 3), jnp.float32)
    if where == "weight":
        theta_h = theta_h._replace(W_h=theta_h.W_h.at[0, 0].set(jnp.nan))
    else:
        xs = xs.at[-1, 0].set(jnp.nan)
    assert D.verdict(cell, theta_h, xs, cell.initial_state(theta_h)).words == "no number"


@pytest.mark.parametrize(
    "numbers",
    [
        lambda *given: D.lyapunov_spectrum(CELL, *given, k=2).exponents,
        lambda *given: D.largest_exponent(CELL, *given).exponents,
        lambda *given: D.power_iteration(CELL, *given).norms[-1],
        lambda *given: D.product_power_iteration(CELL, *given).log_norm,
        lambda *given: D.jacobian_spectrum(CELL, *given, eigenvalues=False).singular_values[-1],
    ],
    ids=["lyapunov_spectrum", "largest_exponent", "power_iteration", "product_power_iteration", "jacobian_spectrum"],
)
def test_no_number_is_made_of_what_overflows(numbers):
    assert np.isnan(numbers(*exploding(jnp.float32, 150))).all()
    assert np.isfinite(numbers(*exploding(jnp.float32, 40))).all()


@pytest.mark.parametrize("n", [2, 64])
def test_a_gradient_that_is_no_number_has_no_shares(n):
    """W_h of 64·64 numbers: a maximum over so many may lose a NaN."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(KEYS[0], input_size=3, hidden_size=n, output_size=2)
    xs, ys = jnp.ones((4, 3), jnp.float32), jnp.ones((4, 2), jnp.float32)
    flow = D.gradient_flow(model, jb.losses.l2_loss, theta, xs.at[2, 0].set(jnp.nan), ys)
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(flow.shares))
    nothing = D.gradient_flow(model, jb.losses.l2_loss, theta, xs, ys, mask=jnp.zeros(4, bool))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing.shares))


def test_the_bound_of_a_weight_that_is_no_number_excludes_nothing():
    bound = D.jacobian_bound(jnp.stack([jnp.eye(2).at[0, 0].set(jnp.nan), jnp.eye(2), 2 * jnp.eye(2)]))
    assert bound.vanishing_is_certain.tolist() == [False, False, False]
    assert bound.exploding_is_possible.tolist() == [True, False, True]
    assert np.isnan(bound.float32_horizon).tolist() == [True, False, False]


def test_a_state_that_begins_at_minus_infinity_has_not_overflown():
    """A running maximum, beside h: its derivative is right."""

    def step(theta_h, x_t, h_tm1):
        h, m = h_tm1
        return jnp.tanh(h @ theta_h.T + x_t), jnp.maximum(m - 0.1, x_t)

    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch_shape: (
        jnp.zeros((*batch_shape, 3)), jnp.full((*batch_shape, 3), -jnp.inf),
    ))  # fmt: skip
    theta_h, xs = jnp.eye(3) / 3, jax.random.normal(KEYS[0], (40, 3))
    found = D.verdict(cell, theta_h, xs, cell.initial_state(theta_h))
    assert found.words == "vanishing"
    assert np.isfinite(D.lyapunov_spectrum(cell, theta_h, xs, cell.initial_state(theta_h), k=2).exponents).all()


def test_where_no_state_is_asked_for_none_needs_be_finite():
    """The matrices of a linear network are what they are, however long it explodes."""
    cell = jb.cells.linear()
    theta_h = jb.cells.LinearParams(
        W_x=jnp.ones((2, 1), jnp.float32), W_h=jnp.diag(jnp.array([5.0, -3.0], jnp.float32))
    )
    given = cell, theta_h, jnp.ones((200, 1), jnp.float32), jnp.zeros(2, jnp.float32)
    assert not np.isfinite(jb.unroll(*given)[0]).any()
    assert D.verdict(*given).words == "exploding"
    np.testing.assert_allclose(D.lyapunov_spectrum(*given).exponents, np.log([5, 3]), rtol=1e-3)
    np.testing.assert_allclose(D.jacobian_spectrum(*given).singular_values, [[5, 3]] * 200, rtol=1e-6)
