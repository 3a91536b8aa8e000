"""What a cell, a model and parameters say of themselves: one line."""

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb

C, R = jb.cells, jb.readouts


def leak(theta_h, x_t, h_tm1):
    return h_tm1 * theta_h + x_t


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        *((getattr(C, name)(), f"Cell({name})") for name in ("linear", "elman", "gru", "lstm")),
        (C.stacked(C.gru(), C.lstm()), "Cell(stacked)"),
        (C.masked(C.lstm()), "Cell(masked)"),
        (C.from_step(leak), "Cell(from_step)"),
        (C.mixed_precision(C.gru()), "Cell(gru)"),
        (C.gru()._replace(apply=leak, split=None), "Cell(leak)"),
        (R.linear(), "Readout(linear)"),
        (R.several(R.linear()), "Readout(several)"),
        (R.from_apply(lambda theta_o, h_t: h_t), "Readout(<lambda>)"),
        (R.mixed_precision(R.linear()), "Readout(linear)"),
        (jb.rnn(C.gru(), R.identity()), "Model(Cell(gru), Readout(identity))"),
        (jb.Theta({"U": jnp.ones((50, 30))}, ()), "Theta(h=dict, o=tuple, 1,500 parameters)"),
        (jb.Theta(C.LinearParams((30, 20), (30, 30)), ()), "Theta(h=LinearParams(W_x=(30, 20), W_h=(30, 30)), o=())"),
        (jb.Theta((), ()), "Theta(h=(), o=())"),
    ],
)  # fmt: skip
def test_what_it_says_of_itself(value, wanted):
    assert repr(value) == wanted


def test_a_tree_of_words_is_shown_whole():
    """Messages describe a θ so."""
    theta = jax.tree.map(lambda leaf: f"{leaf.dtype}", jb.Theta({"W": jnp.ones(1, jnp.float32)}, ()))
    assert repr(theta) == "Theta(h={'W': 'float32'}, o=())"
