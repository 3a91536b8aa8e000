"""The exact statements of the studies, held against NumPy and scipy, and their quick forms from end to end."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from scipy import integrate, optimize, special  # scikit-learn brings it

import jaxbptt as jb
from experiments import checkpoint_cost, cli, cliff, curse_of_memory, jacobian_bound, lyapunov
from experiments.benchmarks import checkpoint
from experiments.study import silent

EXACT = (jacobian_bound, cliff, lyapunov, curse_of_memory, checkpoint_cost)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """``result.json`` of a quick run and its folder, run once."""

    @functools.cache
    def run(study):
        folder = tmp_path_factory.mktemp(study)
        assert cli.main(["run", study, "--quick", "--out", str(folder)]) == 0
        return json.loads((folder / "result.json").read_text()), folder

    return run


@pytest.mark.parametrize("module", EXACT, ids=lambda module: module.STUDY.name)
def test_a_quick_run_writes_its_numbers_what_is_published_and_a_figure(module, quick):
    name = module.STUDY.name
    found, folder = quick(name)
    content = (folder / f"{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 20_000
    assert found["published"] == module.PUBLISHED
    for entry in found["published"].values():
        assert entry.keys() == {"value", "source", "tag"}
        assert entry["tag"] in ("derived", "read in the paper", "read in the abstract")
    if module is not checkpoint_cost:  # whose verdict is on the clock, and small cells are dear
        assert found["verdict"] == "reproduced"


# the Jacobian bound


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


# the cliff


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


# Lyapunov exponents


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


# the curse of memory


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


# what checkpointing costs


def test_step_counts_are_exactly_those_of_the_formula_and_of_gruslys(quick):
    found, _ = quick("checkpoint_cost")
    assert found["steps"]["T"] == 1000
    assert {int(c): row["planned"] for c, row in found["steps"]["by_states"].items()} == {
        10: 3636,
        30: 2472,
        50: 1948,
        100: 1898,
    }
    for row in found["steps"]["by_states"].values():
        assert row["planned"] == row["formula"] == row["gruslys"] - 1000
        assert row["gruslys_off"] == 0
    for row in found["timing"]["by_states"].values():
        assert row["over_full"]["low"] <= row["over_full"]["median"] <= row["over_full"]["high"]
        assert row["gradient_error"] < 1e-5
    for row in found["temporaries"]["by_states"].values():
        assert 0 < row["over_full"] < 0.5


def test_gruslys_recursion_by_memoised_python():
    @functools.cache
    def C(t, m):
        if t == 1:
            return 1
        if m == 1:
            return t * (t + 1) // 2
        return min(y + C(t - y, m - 1) + C(y, m) for y in range(1, t))

    found = checkpoint_cost.gruslys(40, 6)
    for m in range(1, 7):
        for t in range(1, 41):
            assert found[m, t] == C(t, m) == checkpoint.steps(t, m) + t
            if m > 1:
                assert checkpoint_cost.planned(t, m) == checkpoint.steps(t, m) if t in (2, 17, 40) else True


def test_a_schedule_that_wastes_steps_is_not_reproduced(monkeypatch):
    monkeypatch.setattr(checkpoint_cost, "planned", lambda T, c: checkpoint.steps(T, c) + 1)
    counted = checkpoint_cost.counts()
    monkeypatch.setattr(checkpoint_cost, "counts", lambda: counted)
    config = checkpoint_cost.Config(cell="elman", hidden_size=3, batch_size=1, steps=20, slots=(4,), rounds=1)
    verdict = checkpoint_cost.run(config, silent).numbers["verdict"]
    assert "1949 steps planned with 50 states, not 1948" in verdict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jacobian_bound", "--strengths", "0.5", "-1"], "`--strengths` must be above 0: got 0.5, -1.0"),
        (["jacobian_bound", "--seeds", "1"], "`--seeds` must be at least 2: got 1"),
        (["cliff", "--fold-w", "3"], "`--fold-w` must lie between 4 and 20: got 3.0"),
        (["cliff", "--clip-norm", "0"], "`--clip-norm` must be above 0: got 0.0"),
        (["cliff", "--grid", "1"], "`--grid` must be at least 2: got 1"),
        (["lyapunov", "--gains"], "`--gains` must be above 0: got nothing"),
        (["lyapunov", "--transient", "-1"], "`--transient` must be at least 0: got -1"),
        (["curse_of_memory", "--lambdas", "0.5", "1"], "`--lambdas` must lie between 0 and 1: got 1.0"),
        (["checkpoint_cost", "--slots", "0"], "`--slots` must be above 0: got 0"),
        (["checkpoint_cost", "--seconds", "nan"], "`--seconds` must be above 0: got nan"),
    ],
)
def test_bad_flags_are_one_clear_line(arguments, message, capsys):
    assert cli.main(["run", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("module", EXACT, ids=lambda module: module.STUDY.name)
def test_configs_are_frozen(module):
    with pytest.raises(dataclasses.FrozenInstanceError):
        module.Config().seed = 1
