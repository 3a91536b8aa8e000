"""Each diagnostic's result becomes a figure by one call; what is drawn are its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import jaxbptt as jb
from experiments.kit import plots
from jaxbptt import diagnostics


def given(*batch):
    model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=2, output_size=2)
    xs = jax.random.normal(jax.random.key(1), (9, *batch, 2))
    return model, theta, xs, model.initial_state(theta, batch)


def rendered(made, path):
    made.savefig(path, dpi=60)
    assert path.stat().st_size > 5000
    return made


def colour_at(made, axes, mu):
    """Red, green and blue of the pixel where a real eigenvalue is drawn."""
    canvas = FigureCanvasAgg(made)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(int)
    x, y = axes.transData.transform((mu, 0.0))
    return pixels[pixels.shape[0] - 1 - round(y), round(x)]


def test_gradient_flow_of_a_batch(tmp_path):
    model, theta, xs, h_0 = given(3)
    flow = diagnostics.gradient_flow(model, jb.losses.l2_loss, theta, xs, xs, h_0, lags=4)
    made = rendered(plots.gradient_flow(flow), tmp_path / "flow.png")
    drawn = made.axes[0].lines[0].get_ydata()
    wanted = np.asarray(flow.delta_norms).reshape(10, -1)
    np.testing.assert_allclose(drawn, np.median(wanted, axis=1), rtol=1e-6)
    assert [text.get_text() for text in made.axes[2].get_legend().get_texts()] == ["W_x", "W_h", "b"]
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in made.axes[1].lines}
    assert len(looks) == len(made.axes[1].lines) == 3  # told apart without colour


@pytest.mark.parametrize(("eigenvalues", "batch"), [(True, (3,)), (False, ())])
def test_jacobian_spectrum(tmp_path, eigenvalues, batch):
    model, theta, xs, h_0 = given(*batch)
    spectrum = diagnostics.jacobian_spectrum(model.cell, theta.h, xs, h_0, eigenvalues=eigenvalues)
    made = rendered(plots.jacobian_spectrum(spectrum), tmp_path / "spectrum.png")
    assert len(made.axes) == 2 + eigenvalues
    (legend,) = made.legends
    assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in made.axes)
    wanted = np.median(np.asarray(spectrum.singular_values).reshape(9, -1, 4), axis=1)
    np.testing.assert_allclose(made.axes[0].lines[0].get_ydata(), wanted[:, 0], rtol=1e-6)


def test_lyapunov_spectrum_and_power_iteration(tmp_path):
    model, theta, xs, h_0 = given()
    found = diagnostics.lyapunov_spectrum(model.cell, theta.h, xs, h_0)
    made = rendered(plots.lyapunov_spectrum(found), tmp_path / "lyapunov.png")
    np.testing.assert_allclose(made.axes[0].lines[0].get_ydata(), found.exponents, rtol=1e-6)
    norms = diagnostics.power_iteration(model.cell, theta.h, xs, h_0, iterations=10)
    rendered(plots.power_iteration(norms), tmp_path / "power.png")


def test_fixed_points(tmp_path):
    theta_h = jb.cells.ElmanParams(W_x=jnp.ones((2, 1)), W_h=2.0 * jnp.eye(2), b=jnp.zeros(2))
    guesses = 1.2 * jax.random.normal(jax.random.key(0), (40, 2))
    found = diagnostics.fixed_points(jb.cells.elman(), theta_h, jnp.zeros(1), guesses, steps=30)
    made = rendered(plots.fixed_points(found), tmp_path / "points.png")
    stable, unstable = (text.get_text() for text in made.legends[0].get_texts())
    assert stable == "stable: 4"
    assert unstable.startswith("unstable: ")
    colour = colour_at(made, made.axes[1], mu=2 * (1 - float(jnp.max(jnp.abs(found.h))) ** 2))  # c = (1 - h²) W_h
    assert colour[2] > colour[0] + 50  # blue, though the saddles have this eigenvalue too
    none = found._replace(distinct=np.zeros(40, bool))
    rendered(plots.fixed_points(none), tmp_path / "none.png")


def test_a_comparison_of_estimators(tmp_path):
    model, theta, xs, _ = given()
    make, loss = jb.estimators, jb.losses.l2_loss
    each = {"rtrl": make.rtrl(model, loss), "snap": make.snap(model, loss, order=1), "uoro": make.uoro(model, loss)}
    found = jb.estimators.compare(model, loss, theta, xs, xs, each, samples=8, key=jax.random.key(2))
    made = rendered(plots.comparison(found), tmp_path / "comparison.png")
    bias, *_, noise = (np.asarray(line.get_xdata(), float) for line in made.axes[0].lines)
    np.testing.assert_allclose(bias, [row.whole.bias for row in found.rows])
    np.testing.assert_allclose(noise, [row.whole.variance**0.5 for row in found.rows])
    assert [tick.get_text() for tick in made.axes[0].get_yticklabels()] == list(each)
    written = [text.get_text() for text in made.axes[1].texts]
    assert written == [f"{cosine:.2f}" for cosine in found.alignment.ravel()]
