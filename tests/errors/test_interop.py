"""Weights that are not those of the library they are said to be of."""

import jaxbptt as jb
from tests.errors.rows import PARAMS, assert_refused, each, ones, table

ROWS, row = table()
TORCH = {"weight_ih_l0": ones(4, 3), "weight_hh_l0": ones(4, 4), "bias_ih_l0": ones(4), "bias_hh_l0": ones(4)}
DENSE = {"kernel": ones(4, 4)}
FLAX_GRU = dict.fromkeys(("ir", "iz", "in", "hr", "hz", "hn"), DENSE)
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
row("torch-kinds", ValueError, r"`state_dict` must have one kind of cell.*GRUParams with n=4.*LSTMParams", lambda: (
    torch.from_torch({"weight_ih_l0": ones(12, 3), "weight_hh_l0": ones(12, 4), "weight_ih_l1": ones(16, 4),
                      "weight_hh_l1": ones(16, 4)})))  # fmt: skip
row("torch-input-of-layer-1", ValueError, r"`weight_ih_l1` must have shape \[4, 4\]: got \[4, 5\]", lambda: (
    torch.from_torch(TORCH | {key.replace("0", "1"): value for key, value in TORCH.items()}
                     | {"weight_ih_l1": ones(4, 5)})))  # fmt: skip
row("to-torch-kinds", ValueError, r"`theta_h` must have one kind of cell.*; convert them one by one", lambda: (
    torch.to_torch((PARAMS["gru"], PARAMS["lstm"]))))  # fmt: skip
row("to-torch-directions", ValueError, r"and as many directions in all layers", lambda: (
    torch.to_torch((jb.layers.Directions(PARAMS["gru"], PARAMS["gru"]), PARAMS["gru"]))))  # fmt: skip
row("to-torch", TypeError, r"`theta_h` must be a tuple of ElmanParams, .*: got LinearParams", lambda: (
    torch.to_torch((PARAMS["linear"],))))  # fmt: skip
row("to-torch-one", TypeError, r"`theta_h` must be a tuple of ElmanParams, .*: got ElmanParams", lambda: (
    torch.to_torch(PARAMS["elman"])))  # fmt: skip
row("flax-other", ValueError, r"`params` must be the parameters of one SimpleCell, .*: got layers", lambda: (
    flax.from_flax({"Dense": {"kernel": ones(3, 4)}})))  # fmt: skip
row("flax-missing", ValueError, r"of the closest, missing \['hn'\], extra \['ln'\]; pass `variables", lambda: (
    flax.from_flax({"ln": DENSE} | {name: DENSE for name in FLAX_GRU if name != "hn"})))  # fmt: skip
row("flax-no-kernel", ValueError, r"`params\['i'\]` must have the keys .*: missing \['kernel'\]", lambda: (
    flax.from_flax({"i": {"bias": ones(4)}, "h": DENSE})))  # fmt: skip
row("flax-scale", ValueError, r"`params\['h'\]` must have the keys .*: missing \[\], extra \['scale'\]", lambda: (
    flax.from_flax({"i": DENSE, "h": DENSE | {"scale": ones(4)}})))  # fmt: skip
row("flax-kernel", ValueError, r"`params\['h'\]\['kernel'\]` must be a matrix \[inputs, n\]: got shape \[4\]", lambda: (
    flax.from_flax({"i": DENSE, "h": {"kernel": ones(4)}})))  # fmt: skip
row("flax-bias", ValueError, r"`params\['h'\]\['bias'\]` must have shape \[4\]: got \[5\]", lambda: (
    flax.from_flax({"i": DENSE, "h": DENSE | {"bias": ones(5)}})))  # fmt: skip
row("flax-gate", ValueError, r"`params\['hn'\]\['kernel'\]` must have shape \[4, 4\]: got \[4, 5\]", lambda: (
    flax.from_flax(FLAX_GRU | {"hn": {"kernel": ones(4, 5)}})))  # fmt: skip
row("flax-two-gates", ValueError, r"kernels of h \[n, n\], \[n, 3n\] or \[n, 4n\]: got kernels \[4, 8\]", lambda: (
    flax.from_flax({"dense_i": {"kernel": ones(3, 8)}, "dense_h": {"kernel": ones(4, 8)}})))  # fmt: skip
row("flax-two-cells", ValueError, r"`params, the biases of h` must have shape \[12\]: got \[16\]", lambda: (
    flax.from_flax({"dense_i": {"kernel": ones(3, 12)}, "dense_h": {"kernel": ones(4, 16)}})))  # fmt: skip
row("to-flax", TypeError, r"`theta_h` must be ElmanParams, GRUParams or LSTMParams", lambda: flax.to_flax(ones(3)))
row("equinox", ValueError, r"`cell` must be the parameters of an equinox GRUCell or LSTMCell: got", lambda: (
    jb.interop.equinox.from_equinox({"weight_hh": ones(8, 4)})))  # fmt: skip
row("equinox-arrays", ValueError, r"`cell` must have arrays of one cell: got LSTMParams with W_x \[12, 3\]", lambda: (
    jb.interop.equinox.from_equinox({"weight_ih": ones(12, 3), "weight_hh": ones(16, 4)})))  # fmt: skip
row("equinox-bias_n", ValueError, r"`bias_n` must have shape \[4\]: got \[12\]", lambda: (
    jb.interop.equinox.from_equinox(
        {"weight_ih": ones(12, 3), "weight_hh": ones(12, 4), "bias": ones(12), "bias_n": ones(12)})))  # fmt: skip
row("to-equinox", TypeError, r"`theta_h` must be GRUParams or LSTMParams, .*: got ElmanParams", lambda: (
    jb.interop.equinox.to_equinox(PARAMS["elman"])))  # fmt: skip
row("haiku-two", ValueError, r"got modules \['lstm/linear', 'lstm_1/linear'\]; pass those of one core", lambda: (
    haiku.from_haiku({f"{at}/linear": {"w": ones(7, 16), "b": ones(16)} for at in ("lstm", "lstm_1")})))  # fmt: skip
row("haiku-missing", ValueError, r"`params\['gru'\]` must have the keys .*: missing \['b'\], extra \[\]", lambda: (
    haiku.from_haiku({"gru": {"w_i": ones(3, 12), "w_h": ones(4, 12)}})))  # fmt: skip
row("haiku-arrays", TypeError, r"`params\['gru'\]` must be a dict of arrays, as haiku has it: got ndarray", lambda: (
    haiku.from_haiku({"gru": ones(3)})))  # fmt: skip
row("haiku-columns", ValueError, r"`params\['lstm/linear'\]\['w'\]` must be a matrix \[inputs, 4n\]: got", lambda: (
    haiku.from_haiku({"lstm/linear": {"w": ones(7, 15), "b": ones(15)}})))  # fmt: skip
row("to-haiku", TypeError, r"`theta_h` must be ElmanParams, GRUParams or LSTMParams", lambda: (
    haiku.to_haiku(PARAMS["linear"])))  # fmt: skip
row("haiku", ValueError, r"`params` must be the parameters of one VanillaRNN, GRU or LSTM of haiku", lambda: (
    haiku.from_haiku({"linear": {"w": ones(3, 5)}})))  # fmt: skip
row("keras", ValueError, r"`weights` must be the parameters of one layer, .*: got 4 of them", lambda: (
    keras.from_keras([ones(3)] * 4)))  # fmt: skip
row("keras-biases", ValueError, r"`weights\[2\]` must have shape \[2, 12\]: got \[3, 12\]", lambda: (
    keras.from_keras([ones(3, 12), ones(4, 12), ones(3, 12)])))  # fmt: skip
row("to-keras", TypeError, r"`theta_h` must be ElmanParams, GRUParams or LSTMParams", lambda: (
    keras.to_keras(PARAMS["linear"])))  # fmt: skip
row("keras-kernel", ValueError, r"got a recurrent kernel of shape \[4, 8\]", lambda: (
    keras.from_keras([ones(3, 8), ones(4, 8)])))  # fmt: skip
row(
    "keras-reset", ValueError, r"`reset` must be one of 'after', 'before': got 'no'", lambda: keras.to_keras(None, "no")
)  # pyright: ignore[reportArgumentType]


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
