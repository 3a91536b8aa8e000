"""The Jacobian bound: its norms are those of a loop in NumPy, and a network beyond it is not reproduced."""

import math

import jax
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments.studies import jacobian_bound
from experiments.study import silent


def loop_norms(W_x, W_h, b, xs, h, phi):
    product, norms = np.eye(len(h)), []
    for x_t in xs:
        z_t = W_x @ x_t + W_h @ h + b
        h = np.tanh(z_t) if phi == "tanh" else 1 / (1 + np.exp(-z_t))
        slope = 1 - h**2 if phi == "tanh" else h * (1 - h)
        product = slope[:, None] * W_h @ product
        norms.append(np.sqrt(np.linalg.eigvalsh(product.T @ product)[-1]))
    return np.array(norms)


@pytest.mark.parametrize("phi", ["tanh", "sigmoid"])
def test_norms_below_the_bound_are_those_of_a_loop(phi, x64, monkeypatch):
    taken = {}
    products = jacobian_bound._products

    def spy(phi, *arguments):
        taken["arguments"] = arguments
        return products(phi, *arguments)

    monkeypatch.setattr(jacobian_bound, "_products", spy)
    config = jacobian_bound.Config(hidden_size=5, input_size=2, steps=12, seeds=2)
    gamma = {"tanh": 1, "sigmoid": 1 / 4}[phi]
    found = jacobian_bound.network(config, phi, "gaussian", 0.9, rests=False)
    theta_h, xs, h_0 = jax.tree.map(np.asarray, taken["arguments"])
    for k in range(2):
        wanted = loop_norms(*(leaf[k] for leaf in theta_h), xs[k], h_0[k], phi)
        np.testing.assert_allclose(found.norms[k], wanted, rtol=1e-10)
        assert np.linalg.svd(theta_h.W_h[k])[1][0] == pytest.approx(0.9 / gamma, rel=1e-12)
    assert np.all(found.certain)
    assert np.all(found.norms < 0.9 ** np.arange(1, 13))
    rests = jacobian_bound.network(config, phi, "orthogonal", 0.9, rests=True)
    np.testing.assert_allclose(rests.norms, np.broadcast_to(0.9 ** np.arange(1, 13), (2, 12)), rtol=1e-12)


def test_a_norm_above_the_bound_and_a_slope_are_seen():
    eta = np.array([0.5, 0.5])
    norms = eta[:, None] ** np.arange(1, 9)
    exact = jacobian_bound.Norms(norms, eta, eta < 1)
    assert exact.violations == 0
    np.testing.assert_allclose(exact.slopes, math.log(0.5), rtol=1e-12)
    norms[1, 3] *= 1.0001
    assert jacobian_bound.Norms(norms, eta, eta < 1).violations == 1


def test_a_network_beyond_the_bound_is_not_reproduced(monkeypatch):
    products = jacobian_bound._products
    doubled = 2.0 ** np.arange(1, 13)[:, None, None]  # every c_t twice as large
    monkeypatch.setattr(jacobian_bound, "_products", lambda *arguments: doubled * products(*arguments))
    config = jacobian_bound.Config(hidden_size=5, input_size=2, steps=12, seeds=2, strengths=(0.9,))
    found = jacobian_bound.run(config, silent).numbers
    assert found["violations_where_vanishing_is_certain"] > 0
    assert "norms exceed η^(t-k)" in found["verdict"]
