"""The zoo: its stacks are those of written-out traces in NumPy, and each of its verdicts can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import jaxbptt as jb
from experiments.kit import online
from experiments.studies.estimator_zoo import measure, stack, study
from experiments.study import silent


def traced(layers, xs, y):
    """∂F/∂(θ, W) of each layer: its own trace, times the error that comes down at the last step."""
    states, traces = [], []
    for k, (theta, W) in enumerate(layers):
        xs = xs if k == 0 else np.tanh(xs)
        d, s, a_d, a_W, outputs = 1 / (1 + np.exp(-theta)), 0 * theta, 0 * theta, 0 * W, []
        for x_t in xs:
            a_d, a_W = d * (1 - d) * s + d * a_d, x_t + d[:, None] * a_W
            s = d * s + W @ x_t
            outputs.append(s)
        xs = np.array(outputs)
        states.append(s)
        traces.append((a_d, a_W))
    error, grads = states[-1] - y, []
    for k in reversed(range(len(layers))):
        a_d, a_W = traces[k]
        grads.insert(0, (error * a_d, error[:, None] * a_W))
        error = (1 - np.tanh(states[k - 1]) ** 2) * (layers[k][1].T @ error)
    return grads


def test_one_trace_a_layer_is_the_gradient_that_forgets_below(x64):
    rng = np.random.default_rng(0)
    n = stack.UNITS
    layers = [(rng.normal(size=n), rng.normal(size=(n, n)) / 4) for _ in range(3)]
    xs, y = rng.normal(size=(stack.STEPS, n)), rng.normal(size=n)
    found = jax.grad(lambda layers: stack.loss(layers, xs, y, is_online=True))(jax.tree.map(jnp.asarray, layers))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(traced(layers, xs, y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_local_rule_is_a_trace_with_the_leak_alone(x64):
    """θ of the candidate's W_x in a GRU: a_t = b_t + z_t a_{t-1}, with the gates as they are."""
    model = jb.rnn(jb.cells.gru(), jb.readouts.identity())
    theta = jb.Theta(model.cell.init(jax.random.key(0), 1, 3, jnp.float64), ())
    xs, ys = np.random.default_rng(1).normal(size=(6, 1)), np.zeros((6, 3))
    estimator = online.local(model, jb.losses.l2_loss)
    estimate, _ = estimator.update(theta, estimator.init(theta), jnp.asarray(xs), jnp.asarray(ys))
    W_x, W_h, b_x, b_h = (np.asarray(leaf) for leaf in theta.h)
    h, a, total = np.zeros(3), np.zeros(3), np.zeros(3)
    for x_t in xs:
        (rx, zx, nx), (rh, zh, nh) = np.split(W_x @ x_t + b_x, 3), np.split(W_h @ h + b_h, 3)
        r, z = 1 / (1 + np.exp(-rx - rh)), 1 / (1 + np.exp(-zx - zh))
        candidate = np.tanh(nx + r * nh)
        a = (1 - z) * (1 - candidate**2) * x_t[0] + z * a
        h = (1 - z) * candidate + z * h
        total += h * a
    scale = jax.grad(lambda h: jb.losses.l2_loss(h, jnp.zeros(3)))(jnp.ones(3))[0]  # of a loss that is a mean, or not
    np.testing.assert_allclose(estimate.grads.h.W_x[6:, 0], scale * total / len(xs), rtol=1e-10)


def test_each_kind_is_judged():
    exact = {"kind": "exact", "cosines": {"float32": 1.0, "float64": 1.0}}
    zoo = {"GRU": {"a": exact, "b": {"kind": "unbiased", "off": 3.0}, "c": {"kind": "biased", "bias": 0.1}}}
    stacks = {depth: np.array([wanted, (1.0, 1.0)]) for depth, wanted in study.BOTTOM.items()}
    assert study.judge(zoo, stacks) == "reproduced"
    rounded = {"float32": 1.0, "float64": 1 - 1e-9}
    bad = {"a": exact | {"cosines": rounded}, "b": {"kind": "unbiased", "off": 6.0}, "c": {"kind": "biased", "bias": 0}}
    stacks[2] = np.array([(0.84, 0.69), (0.9, 1.0)])
    assert study.judge({"GRU": bad}, stacks) == (
        "not reproduced: GRU, a: 1 - cosine is 1.0e-09 in float64; GRU, b: the mean is off by 6.0 standard errors; "
        "GRU, c: the bias is 0.0e+00 only; 2 layers: 1 - cosine of the top one is 1.0e-01; "
        "2 layers: the bottom cosine of d is 0.840, not 0.78"
    )


def test_a_quick_run_finds_each_as_it_says(monkeypatch):
    """Of three estimators of one network: the others are the same code, and cost seconds to compile."""
    ways, few = measure.ways, ("BPTT", "KF-RTRL", "SnAp-1")
    monkeypatch.setattr(study, "CELLS", ("Elman",))
    monkeypatch.setattr(measure, "ways", lambda *given: {name: ways(*given)[name] for name in few})
    found = study.run(study.Config(**study.STUDY.quick), silent)
    assert not any(said in found.numbers["verdict"] for said in ("Elman", "top"))
    rows = found.numbers["estimators"]["Elman"]
    assert [rows[name]["kind"] for name in few] == ["exact", "unbiased", "biased"]
    assert rows["KF-RTRL"]["noise"] > 0.01
    assert set(found.figures) == {"estimator_zoo"}
