"""Lyapunov exponents: of products and networks by a loop in NumPy, of the theory by scipy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from scipy import integrate, optimize, special  # scikit-learn brings it

from experiments.studies import lyapunov
from experiments.study import silent


@pytest.mark.parametrize(
    ("g", "listed"), [(0.5, -0.6931), (0.9, -0.1054), (1.5, 0.0652), (2, 0.1547), (3, 0.3103), (10, 0.8564)]
)
def test_mean_field_by_another_quadrature_and_root_finder(g, listed):
    assert lyapunov.mean_field(g) == pytest.approx(listed, abs=1e-4)
    if g <= 1:
        return

    def mean(f):
        return 2 * integrate.quad(lambda z: f(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0, 12, limit=200)[0]

    q = optimize.brentq(lambda q: g * g * mean(lambda z: math.tanh(math.sqrt(q) * z) ** 2) - q, 1e-3, g * g)
    wanted = 0.5 * math.log(g * g * mean(lambda z: math.cosh(math.sqrt(q) * z) ** -4))
    assert lyapunov.mean_field(g) == pytest.approx(wanted, abs=1e-7)


def test_newman_s_formula_by_scipy_s_digamma():
    for N in (1, 2, 7, 32):
        i = np.arange(1, N + 1)
        wanted = 0.5 * (np.log(2 / N) + special.digamma((N - i + 1) / 2))
        np.testing.assert_allclose(lyapunov.ginibre(N), wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(lyapunov.ginibre(32)[[0, -1]], (-0.01579, -2.36805), atol=5e-6)
    assert lyapunov.ginibre(32).sum() == pytest.approx(-16.9354, abs=5e-5)


def test_exponents_of_products_are_those_of_a_loop_and_sum_to_log_det(x64):
    key = jax.random.key(3)
    found, log_det = lyapunov.products(key, 3, 10, 3)
    Js = np.asarray(jax.random.normal(key, (10, 3, 3, 3), jnp.float64)) / math.sqrt(3)
    per_product = []
    for r in range(3):
        singular = np.linalg.svd(np.linalg.multi_dot(Js[::-1, r]))[1]
        per_product.append(np.sum(np.log(singular)) / 10)  # the sum alone doesn't depend on the first directions
    np.testing.assert_allclose(np.sum(found.per_sequence, axis=-1), per_product, rtol=1e-9)
    assert float(np.sum(np.asarray(found.exponents))) == pytest.approx(log_det, rel=1e-12)


def test_the_largest_exponent_of_a_network_is_that_of_a_loop(x64):
    key = jax.random.key(5)
    key_J, key_h = jax.random.split(key)
    N, T = 8, 100  # short: a chaotic trajectory is the same one for a while only
    J = 2.5 / math.sqrt(N) * np.asarray(jax.random.normal(key_J, (N, N), jnp.float64))
    h = np.asarray(jax.random.normal(key_h, (N,), jnp.float64))
    v, total = np.ones(N), 0.0
    for t in range(100 + T):
        v = J @ ((1 - np.tanh(h) ** 2) * v)
        h = J @ np.tanh(h)
        total += math.log(np.linalg.norm(v)) * (t >= 100)
        v /= np.linalg.norm(v)
    found = float(lyapunov.largest(key, jnp.float64(2.5), N, 100, T))
    assert found == pytest.approx(total / T, abs=1e-6)


def test_another_network_is_not_reproduced(monkeypatch):
    monkeypatch.setattr(lyapunov, "mean_field", lambda g: math.log(g))  # right for g ≤ 1 only
    monkeypatch.setattr(lyapunov, "ginibre", lambda N: np.zeros(N))
    config = lyapunov.Config(hidden_size=8, steps=20, gains=(0.5, 2.0), matrix_size=3, factors=10, products=3)
    verdict = lyapunov.run(config, silent).numbers["verdict"]
    assert "λ_1 at g = 2 is off by" in verdict
    assert "of 3 exponents of the products are off by more than 3 standard errors" in verdict
