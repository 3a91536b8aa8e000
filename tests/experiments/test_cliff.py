"""The cliff: its folds by formula and by roots, its error and descent by a loop in NumPy, and where there is none."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments.studies.cliff import study as cliff
from experiments.study import silent


def test_folds_by_the_formula_by_a_polynomial_and_measured(x64):
    s = np.roots([-5, 5, -1])  # 5σ(1 - σ) = 1
    by_roots = sorted(np.log(s / (1 - s)) - 5 * s)
    np.testing.assert_allclose(cliff.folds(5.0), by_roots, rtol=1e-12)
    np.testing.assert_allclose(cliff.folds(5.0), (-2.6556, -2.3444), atol=5e-5)
    np.testing.assert_allclose(cliff.measured_folds(5.0), by_roots, atol=2e-5)
    np.testing.assert_allclose(cliff.measured_folds(9.0, steps=2000), cliff.folds(9.0), atol=2e-4)


def test_the_error_and_its_gradient_are_those_of_a_loop(x64):
    w, b = np.array([4.3, 5.0, 6.0]), np.array([-2.0, -2.62, -3.24])

    def E(w, b):
        x = 0.5
        for _ in range(50):
            x = w / (1 + np.exp(-x)) + b
        return (1 / (1 + np.exp(-x)) - 0.7) ** 2

    step = 1e-200j  # the complex step: exact to rounding
    wanted = np.hypot(E(w + step, b).imag / 1e-200, E(w, b + step).imag / 1e-200)
    theta_h = cliff.Parameters(jnp.asarray(w), jnp.asarray(b))
    np.testing.assert_allclose(cliff.error(theta_h, 50), E(w, b), rtol=1e-9)
    np.testing.assert_allclose(cliff.gradient_norms(theta_h, 50), wanted, rtol=1e-7)


def test_the_wall_stands_where_x_0_is_a_solution(x64):
    for w in (4.5, 5.5, 6.5):
        b = cliff.wall(w)
        assert w / (1 + math.exp(-0.5)) + b == pytest.approx(0.5, rel=1e-12)
        low, high = (cliff.error(cliff.Parameters(w, b + side), 400) for side in (-1e-3, 1e-3))
        assert abs(low - high) > 0.05


def test_descent_is_that_of_a_loop_and_clipping_bounds_its_steps(x64):
    config = cliff.Config(starts=3, updates=40)
    start = cliff.starts(config)
    plain, clipped = cliff.descend(config, start, False), cliff.descend(config, start, True)
    gradient = jax.jit(jax.grad(cliff.error), static_argnums=1)
    for one, largest, updates in ((plain, np.inf, 2), (clipped, 1.0, 6)):
        theta = np.array([start.w[0], start.b[0]])
        for k in range(updates):
            np.testing.assert_allclose([one.theta.w[0, k], one.theta.b[0, k]], theta, rtol=1e-9)
            assert one.E[0, k] == pytest.approx(float(cliff.error(cliff.Parameters(*theta), 50)), rel=1e-6)
            g = np.array(gradient(cliff.Parameters(*jnp.asarray(theta)), 50))
            theta = theta - 0.03 * g * min(1, largest / np.linalg.norm(g))
    steps = np.hypot(np.diff(clipped.theta.w), np.diff(clipped.theta.b))
    assert np.max(steps) <= 0.03 * (1 + 1e-9)
    assert plain.E.shape == (3, 41)
    assert not np.any(clipped.left)


def test_a_surface_without_a_bifurcation_has_no_cliff(monkeypatch):
    """Below w = 4 there is one stable state for every b."""
    region = cliff.Region(w=(0.5, 2.0))
    monkeypatch.setattr(cliff, "Region", lambda: region)
    found = cliff.run(cliff.Config(grid=20, starts=2, updates=5), silent).numbers
    assert found["gradient_norm"]["ratio"] < 100
    assert "medians" in found["verdict"]
