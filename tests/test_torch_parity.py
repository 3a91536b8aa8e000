"""The same weights in torch.nn and here give the same outputs, final states and gradients, in float64.

torch has two biases everywhere: they are added for the Elman network and the LSTM, and kept apart in the GRU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import assert_close

torch = pytest.importorskip("torch")

ELMAN = {"tanh": jb.cells.elman(), "relu": jb.cells.elman("relu")}
KINDS = {"RNN-tanh": ELMAN["tanh"], "RNN-relu": ELMAN["relu"], "GRU": jb.cells.gru(), "LSTM": jb.cells.lstm()}
SIZES = [(5, 3, 2, 4), (1, 2, 1, 3), (12, 1, 6, 5)]  # T, B, d, n


def build(kind, d, n, layers, seed):
    """The torch module, every weight and bias random and of a size that saturates no gate."""
    torch.manual_seed(seed)
    if kind.startswith("RNN"):
        module = torch.nn.RNN(d, n, layers, nonlinearity=kind.split("-")[1], dtype=torch.float64)
    else:
        module = getattr(torch.nn, kind)(d, n, layers, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.6)
    return module


def numbers(tensor):
    return np.array(tensor.detach().numpy())


def params(kind, module, layer, read):
    """One layer's weights as ours; `read` takes what is wanted of a torch parameter (its value, or its gradient)."""
    W_x, W_h, b_x, b_h = (
        read(getattr(module, f"{name}_l{layer}")) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    if kind == "GRU":
        return jb.cells.GRUParams(W_x, W_h, b_x, b_h)
    return (jb.cells.LSTMParams if kind == "LSTM" else jb.cells.ElmanParams)(W_x, W_h, (b_x, b_h))


def values(kind, module, layer):
    theta_h = params(kind, module, layer, numbers)
    return theta_h if kind == "GRU" else theta_h._replace(b=sum(theta_h.b))


def gradients(kind, module, layer):
    """∂F/∂b of a sum of two biases is the gradient of either."""
    theta_bar = params(kind, module, layer, lambda parameter: numbers(parameter.grad))
    return theta_bar if kind == "GRU" else theta_bar._replace(b=theta_bar.b[0])


def states(kind, tensors, layers):
    """torch's ``[layers, B, n]`` (a pair of them for the LSTM) as the tuple of our states."""
    if kind == "LSTM":
        h, c = map(numbers, tensors)
        return tuple(jb.cells.LSTMState(h[layer], c[layer]) for layer in range(layers))
    return tuple(numbers(tensors))


def run_torch(kind, T, B, d, n, layers, seed):
    """Everything both sides are to agree on, by torch: inputs, cotangents, then outputs and gradients."""
    module = build(kind, d, n, layers, seed)
    xs = torch.randn(T, B, d, dtype=torch.float64, requires_grad=True)
    pair = [torch.randn(layers, B, n, dtype=torch.float64, requires_grad=True) for _ in range(1 + (kind == "LSTM"))]
    hs, h_T = module(xs, tuple(pair) if kind == "LSTM" else pair[0])
    lasts = list(h_T) if kind == "LSTM" else [h_T]
    # random cotangents for the output at every step and for the final state of every layer
    hs_bar, lasts_bar = torch.randn_like(hs), [torch.randn_like(last) for last in lasts]
    torch.autograd.backward([hs, *lasts], [hs_bar, *lasts_bar])

    def one_or_pair(tensors):
        return tensors if kind == "LSTM" else tensors[0]

    given = (
        tuple(values(kind, module, layer) for layer in range(layers)),
        numbers(xs),
        states(kind, one_or_pair(pair), layers),
        (states(kind, one_or_pair(lasts_bar), layers), numbers(hs_bar)),
    )
    wanted = (
        (states(kind, one_or_pair(lasts), layers), numbers(hs)),
        tuple(gradients(kind, module, layer) for layer in range(layers)),
        numbers(xs.grad),
        states(kind, one_or_pair([tensor.grad for tensor in pair]), layers),
    )
    return given, wanted


def run(cell, adjoint, theta_h, xs, h_0, bars):
    @jax.jit
    def outputs_and_gradients(theta_h, xs, h_0, bars):
        outputs, pull = jax.vjp(lambda *primals: jb.unroll(cell, *primals, adjoint=adjoint), theta_h, xs, h_0)
        return outputs, *pull(bars)

    return outputs_and_gradients(*jax.tree.map(jnp.asarray, (theta_h, xs, h_0, bars)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "seed"), list(zip(SIZES, (0, 1, 2), strict=True)), ids=str)
def test_one_layer(kind, size, seed):
    (theta_h, xs, h_0, bars), wanted = run_torch(kind, *size, layers=1, seed=seed)
    (h_T_bar, hs_bar) = bars
    (h_T, hs), theta_bar, xs_bar, h_0_bar = run(
        KINDS[kind], jb.adjoints.full(), theta_h[0], xs, h_0[0], (h_T_bar[0], hs_bar)
    )
    assert_close((((h_T,), hs), (theta_bar,), xs_bar, (h_0_bar,)), wanted, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "seed"), [((7, 3, 2, 4), 3), ((2, 2, 5, 3), 4)], ids=str)
def test_two_layers(kind, size, seed):
    given, wanted = run_torch(kind, *size, layers=2, seed=seed)
    cell = jb.cells.stacked(KINDS[kind], KINDS[kind])
    assert_close(run(cell, jb.adjoints.full(), *given), wanted, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss(kind):
    """The whole of F with a readout: mean squared error as torch spells it, through `jb.objective`."""
    T, B, d, n, m = 6, 3, 2, 4, 5
    module = build(kind, d, n, 1, seed=5)
    readout = torch.nn.Linear(n, m, dtype=torch.float64)
    xs, ys = torch.randn(T, B, d, dtype=torch.float64), torch.randn(T, B, m, dtype=torch.float64)
    loss = 0.5 * m * torch.nn.functional.mse_loss(readout(module(xs)[0]), ys)
    loss.backward()
    theta = jb.Theta(values(kind, module, 0), jb.readouts.LinearReadoutParams(*map(numbers, readout.parameters())))
    F = jb.objective(jb.rnn(KINDS[kind], jb.readouts.linear()), jb.losses.l2_loss)
    value, theta_bar = jax.value_and_grad(F)(jax.tree.map(jnp.asarray, theta), numbers(xs), numbers(ys))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    assert_close(theta_bar.h, gradients(kind, module, 0), 1e-10)
    assert_close(theta_bar.o, [numbers(parameter.grad) for parameter in readout.parameters()], 1e-10)
