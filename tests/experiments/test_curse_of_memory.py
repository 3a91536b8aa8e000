"""The curse of memory: sensitivities are those of a loop in NumPy, their moments those of the impulse response."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import jaxbptt as jb
from experiments.studies import curse_of_memory
from experiments.study import silent


def test_sensitivities_are_those_of_a_loop_of_the_recursions_and_of_differences(x64):
    xs = np.random.default_rng(0).normal(size=(30, 2))

    def states(lam):
        h, hs = np.zeros(2), []
        for x_t in xs:
            h = lam * h + x_t
            hs.append(h)
        return np.array(hs)

    hs, a = curse_of_memory.sensitivities(jnp.float64(0.9), jnp.asarray(xs))
    np.testing.assert_allclose(hs, states(0.9), rtol=1e-12)
    np.testing.assert_allclose(a, states(0.9 + 1e-200j).imag / 1e-200, rtol=1e-11, atol=1e-12)
    theta_h = jb.cells.LinearParams(jnp.ones((1, 1)), jnp.full((1, 1), 0.9))
    by_rtrl = jb.jacobians.recursion(jb.cells.linear(), theta_h, jnp.asarray(xs[:, :1]), jnp.zeros(1))
    np.testing.assert_allclose(a[:, 0], by_rtrl[:, 0, 1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("lam", "listed"), [(0.9, 263.9), (0.99, 251_263)])
def test_the_second_moment_is_the_sum_over_the_impulse_response(lam, listed):
    """a_t = Σ_k k λ^(k-1) x_{t-k}: with white inputs the mean square is the sum of squares."""
    k = np.arange(1, 20_000)
    h, a = curse_of_memory.exact(lam)
    assert a == pytest.approx(np.sum((k * lam ** (k - 1)) ** 2), rel=1e-10)
    assert h == pytest.approx(np.sum(lam ** (2 * (k - 1))), rel=1e-10)
    assert a == pytest.approx(listed, rel=2e-4)
    left = curse_of_memory.transient(lam)
    assert np.sum((k[left:] * lam ** (k[left:] - 1)) ** 2) < 1e-9 * a


def test_colored_inputs_are_not_reproduced(monkeypatch):
    moments = curse_of_memory._moments
    monkeypatch.setattr(curse_of_memory, "_moments", lambda *a: tuple(1.2 * np.asarray(m) for m in moments(*a)))
    found = curse_of_memory.run(curse_of_memory.Config(lambdas=(0.5,), sequences=256), silent).numbers
    assert "E[(dh/dλ)²] at λ = 0.5 is off by" in found["verdict"]
