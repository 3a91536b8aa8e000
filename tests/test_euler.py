"""The leaky network of steps of any length, and with noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases, oracles
from tests.cases import EACH_ADJOINT, CellCase, assert_close, normal, oracle, problem
from tests.checking.given import ONCE, inputs_of

C = jb.cells
LEAKS = (0.1, 0.5, 0.3, 1.0)


def _lengths(key, shape):
    return 0.2 + jnp.abs(normal(key, shape))


def _timed(key, shape, d, dtype=jnp.float64):
    return C.TimedInput(normal(key, (*shape, d), dtype), _lengths(jax.random.fold_in(key, 1), shape).astype(dtype))


def _timed_by_all(key, shape, d, dtype=jnp.float64):
    """One clock for all members."""
    timed = _timed(key, shape, d, dtype)
    return timed._replace(dt=_lengths(key, shape[:1]).astype(dtype))


def _oracle(step):
    def timed(theta, x, h):
        dt = np.reshape(x.dt, np.shape(x.dt) + (1,) * (np.ndim(h) - np.ndim(x.dt)))
        return h + dt * (step(theta, x.x, h) - h)

    return timed


# The Elman rule reads h_t, which must be f's own; α_t = α dt_t holds for the leaky one alone.
TIMED = {
    "leaky": CellCase("leaky", C.euler(C.leaky(alpha=LEAKS)), _oracle(oracles.leaky_step("tanh", LEAKS)), oracles.tanh),
    "elman": CellCase("elman", C.euler(C.elman()), _oracle(oracles.elman_step("tanh"))),
}


def gradient(given, xs, adjoint):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    bars = jax.jit(jax.grad(F, argnums=(0, 1, 3), allow_int=True))(given.theta, xs, given.ys, given.h_0)
    return jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, bars)


@pytest.mark.parametrize(
    ("case", "inputs", "adjoint"),
    cases.in_turn(TIMED, {"each": _timed, "all": _timed_by_all}, EACH_ADJOINT),
)
def test_steps_of_any_length(case, inputs, adjoint):
    given = problem(case._replace(inputs=inputs), T=5)
    bars = gradient(given, given.xs, adjoint)
    assert_close(bars, oracle(given)[1], 1e-11)


def test_a_step_in_two_halves_is_the_leak_in_two_halves():
    """α_t = α dt_t: no step of dt = ½ knows that the leak was not said to be half as large."""
    half = C.leaky(alpha=tuple(leak / 2 for leak in LEAKS))
    theta_h = half.init(jax.random.key(0), 3, 4, jnp.float64)
    x_t, h_tm1 = normal(jax.random.key(1), (2, 3)), normal(jax.random.key(2), (2, 4))
    timed = C.euler(C.leaky(alpha=LEAKS)).apply(theta_h, C.TimedInput(x_t, jnp.full(2, 0.5)), h_tm1)
    np.testing.assert_allclose(timed, half.apply(theta_h, x_t, h_tm1), rtol=1e-13)


@pytest.mark.parametrize("shape", [(7,), (7, 2)], ids=["one-key", "key-each"])
def test_noise_is_drawn_once_and_pulled_back_through(shape):
    cell = C.euler(C.elman(), noise=0.5)
    given = problem(TIMED["elman"]._replace(cell=cell, inputs=_timed), T=7)
    keyed = C.Keyed(given.xs, jax.random.split(jax.random.key(3), shape))
    wanted, still = gradient(given, keyed, jb.adjoints.autodiff()), gradient(given, given.xs, jb.adjoints.full())
    for name in ("full", "full-blocks-states", "checkpointed-states"):
        assert_close(gradient(given, keyed, cases.ADJOINTS[name]), wanted, 1e-11)
    assert np.max(np.abs(still[0].h.W_h - wanted[0].h.W_h)) > 1e-3


def test_noise_has_the_variance_of_its_step():
    """σ² dt of each unit, and no two members, steps or units alike; 28,000 draws: 5 standard errors are 2.1%."""
    cell, T, B, n = C.euler(C.linear(), noise=0.3), 7, 40, 100
    theta_h = C.LinearParams(jnp.zeros((n, 1)), jnp.eye(n))
    xs = C.Keyed(C.TimedInput(jnp.zeros((T, B, 1)), jnp.full((T, B), 0.25)), jax.random.split(jax.random.key(0), T))
    _, hs = jb.unroll(cell, theta_h, xs, jnp.zeros((B, n)))
    drawn = np.diff(hs, axis=0, prepend=0.0) / (0.3 * 0.25**0.5)
    assert abs(np.mean(drawn)) < 5 / drawn.size**0.5
    assert abs(np.var(drawn) - 1) < 5 * (2 / drawn.size) ** 0.5
    assert np.unique(drawn.round(12)).size == drawn.size


def test_noise_without_a_key_and_without_lengths():
    """x alone is a step of 1 without noise: the inner cell."""
    inner, x_t, h_tm1 = C.leaky(), normal(jax.random.key(1), (2, 3)), normal(jax.random.key(2), (2, 4))
    theta_h = inner.init(jax.random.key(0), 3, 4, jnp.float64)
    np.testing.assert_array_equal(
        C.euler(inner, noise=1.0).apply(theta_h, x_t, h_tm1), inner.apply(theta_h, x_t, h_tm1)
    )


def _keyed(key, shape, d, dtype=jnp.float64):
    return C.Keyed(normal(key, (*shape, d), dtype), jax.random.split(key, shape))


@pytest.mark.parametrize("inputs", [_timed, _keyed])
def test_the_check_of_cells_passes_it(inputs):
    """Lengths and noise each alone: a difference in dt would see the noise grow, which has no derivative."""
    case = CellCase("layers", C.euler(C.stacked(C.leaky(), C.lstm()), noise=0.1), lambda *a: None, inputs=inputs)
    with jax.disable_jit():
        jb.check_cell(case.cell, **ONCE, inputs=inputs_of(case))
