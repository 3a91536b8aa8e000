"""What `test_interop` does not ask of torch: relu, whose memory it is, and what a module with projections says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.interop.torch import from_torch, to_torch
from tests.interop.test_interop import B, d, drawn, n, xs

torch = pytest.importorskip("torch")


def drawn_module(make, **options):
    """All of its weights and biases random, and large enough to tell."""
    module = make(d, n, dtype=torch.float64, **options)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.6)
    return module


@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
def test_relu(layers, both):
    module = drawn_module(torch.nn.RNN, nonlinearity="relu", num_layers=layers, bidirectional=both)
    theta_h = from_torch(module.state_dict())
    cell = jb.cells.elman("relu")
    model = jb.rnn((jb.bidirectional(cell) if both else cell,) * layers, jb.readouts.identity())

    def F(theta_h):
        hs = model.apply(jb.Theta(theta_h, ()), jnp.asarray(xs))
        return jnp.sum(jnp.sin(hs)), hs

    (_, hs), bar = jax.value_and_grad(F, has_aux=True)(jax.tree.map(jnp.asarray, theta_h))
    outputs, _ = module(torch.tensor(xs))
    torch.sum(torch.sin(outputs)).backward()
    np.testing.assert_allclose(hs, outputs.detach().numpy(), rtol=1e-12, atol=1e-12)
    wanted = dict(module.named_parameters())
    found = to_torch(bar)  # either of two biases has the gradient of their sum
    for name in wanted:
        ours = found[name.replace("bias_hh", "bias_ih")]
        assert np.any(ours)
        np.testing.assert_allclose(ours, wanted[name].grad.numpy(), rtol=1e-12, atol=1e-12)


def test_training_there_changes_nothing_here():
    module = drawn_module(torch.nn.GRU)
    theta_h = from_torch(module.state_dict())
    before = jax.tree.map(np.copy, theta_h)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    for a, b in zip(jax.tree.leaves(theta_h), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)


def test_jax_arrays_go_where_torch_may_write():
    theta_h = jax.tree.map(jnp.asarray, (drawn("gru"),))
    tensors = {name: torch.from_numpy(array) for name, array in to_torch(theta_h).items()}
    module = torch.nn.GRU(d, n, dtype=torch.float64)
    module.load_state_dict(tensors)
    tensors["weight_ih_l0"].zero_()
    back = from_torch(module.state_dict())
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(theta_h), strict=True):
        np.testing.assert_array_equal(a, b)


def test_projections_are_refused():
    with pytest.raises(NotImplementedError, match="`weight_hr_l0` is of an LSTM with `proj_size`"):
        from_torch(torch.nn.LSTM(d, n, proj_size=2).state_dict())


def test_one_cell_of_torch_is_no_layer():
    with pytest.raises(ValueError, match=r"missing .*'weight_hh_l0'.*extra .*'weight_hh'"):
        from_torch(torch.nn.GRUCell(d, B).state_dict())
