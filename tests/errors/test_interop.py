"""Weights that are not those of the library they are said to be of."""

import jaxbptt as jb
from tests.errors.rows import PARAMS, assert_refused, each, ones, table

ROWS, row = table()
TORCH = {"weight_ih_l0": ones(4, 3), "weight_hh_l0": ones(4, 4), "bias_ih_l0": ones(4), "bias_hh_l0": ones(4)}
torch, flax, haiku, keras = jb.interop.torch, jb.interop.flax, jb.interop.haiku, jb.interop.keras


def without(name):
    return {key: value for key, value in TORCH.items() if key != name}


row("torch-list", TypeError, r"`state_dict` must be a dict of arrays, as torch has it: got list", lambda: (
    torch.from_torch([])))  # fmt: skip
row("torch-missing", ValueError, r"missing \['bias_hh_l0'\], extra \[\]", lambda: (
    torch.from_torch(without("bias_hh_l0"))))  # fmt: skip
row("torch-extra", ValueError, r"missing \[\], extra \['out.weight'\]", lambda: (
    torch.from_torch(TORCH | {"out.weight": ones(2, 4)})))  # fmt: skip
row("torch-rows", ValueError, r"`weight_hh_l0` must be the parameters of RNN \[n, n\].*: got shape \[8, 4\]", lambda: (
    torch.from_torch(TORCH | {"weight_hh_l0": ones(8, 4)})))  # fmt: skip
row("torch-shape", ValueError, r"`bias_ih_l0` must have shape \[4\]: got \[5\]", lambda: (
    torch.from_torch(TORCH | {"bias_ih_l0": ones(5)})))  # fmt: skip
row("torch-projection", NotImplementedError, r"`weight_hr_l0` is of an LSTM with `proj_size`", lambda: (
    torch.from_torch(TORCH | {"weight_hr_l0": ones(2, 4)})))  # fmt: skip
row("to-torch", TypeError, r"`theta_h` must be a tuple of ElmanParams, .*: got LinearParams", lambda: (
    torch.to_torch((PARAMS["linear"],))))  # fmt: skip
row("to-torch-one", TypeError, r"`theta_h` must be a tuple of ElmanParams, .*: got ElmanParams", lambda: (
    torch.to_torch(PARAMS["elman"])))  # fmt: skip
row("flax-other", ValueError, r"`params` must be the parameters of one SimpleCell, .*: got layers", lambda: (
    flax.from_flax({"Dense": {"kernel": ones(3, 4)}})))  # fmt: skip
row("flax-no-kernel", ValueError, r"`params\['i'\]` must be the parameters of a dense layer", lambda: (
    flax.from_flax({"i": {"bias": ones(4)}})))  # fmt: skip
row("to-flax", TypeError, r"`theta_h` must be ElmanParams, GRUParams or LSTMParams", lambda: flax.to_flax(ones(3)))
row("equinox", ValueError, r"`cell` must be the parameters of an equinox GRUCell or LSTMCell: got", lambda: (
    jb.interop.equinox.from_equinox({"weight_hh": ones(8, 4)})))  # fmt: skip
row("haiku", ValueError, r"`params` must be the parameters of one VanillaRNN, GRU or LSTM of haiku", lambda: (
    haiku.from_haiku({"linear": {"w": ones(3, 5)}})))  # fmt: skip
row("keras", ValueError, r"`weights` must be the parameters of one layer, .*: got 4 of them", lambda: (
    keras.from_keras([ones(3)] * 4)))  # fmt: skip
row("keras-kernel", ValueError, r"got a recurrent kernel of shape \[4, 8\]", lambda: (
    keras.from_keras([ones(3, 8), ones(4, 8)])))  # fmt: skip
row(
    "keras-reset", ValueError, r"`reset` must be one of 'after', 'before': got 'no'", lambda: keras.to_keras(None, "no")
)  # pyright: ignore[reportArgumentType]


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
