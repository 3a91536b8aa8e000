"""Right readouts, and wrong rules of them with what the check says."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import jaxbptt as jb


def _tanh_readout(theta_o, h_t):
    return jnp.tanh(h_t @ theta_o)


def _tanh_params(key, hidden_size, output_size, dtype):
    return jax.random.normal(key, (hidden_size, output_size), dtype)


READOUTS = {
    "linear": jb.readouts.linear(),
    "no-bias": jb.readouts.linear(bias=False),
    "identity": jb.readouts.identity(),
    "from_apply": jb.readouts.from_apply(_tanh_readout, _tanh_params),
    "several": jb.readouts.several(
        value=jb.readouts.linear(bias=False), policy=jb.readouts.from_apply(_tanh_readout, _tanh_params)
    ),
}


def _transposed_readout(theta_o, h_t, y_hat_bar_t):
    theta_bar, _ = READOUTS["linear"].vjp(theta_o, h_t, y_hat_bar_t)
    return theta_bar, y_hat_bar_t @ theta_o.W_o.T


def _wrong_readout(change):
    return lambda *arguments: change(*READOUTS["linear"].vjp(*arguments))


WRONG_READOUTS: dict[str, tuple[str, Callable]] = {
    "transposed": (r"`hs\[", _transposed_readout),
    "no-bias": (r"`theta_o.b\[", _wrong_readout(lambda bar, h_bar: (bar._replace(b=0 * bar.b), h_bar))),
    "none-bias": (
        r"no cotangent of the right shape for theta_o.b ",
        _wrong_readout(lambda bar, h_bar: (bar._replace(b=None), h_bar)),
    ),
    "none-h": (r"no cotangent of the right shape for hs ", _wrong_readout(lambda bar, h_bar: (bar, None))),
    "half": (r"`theta_o.W_o\[", _wrong_readout(lambda bar, h_bar: (bar._replace(W_o=bar.W_o / 2), h_bar))),
    "nan": (r"`hs\[.* is nan", _wrong_readout(lambda bar, h_bar: (bar, h_bar * jnp.nan))),
    "one-element": (
        r"`theta_o.W_o\[2, 1\]` by the hand-written rule is .*, jax.vjp gives .*\(seed=0, hidden_size=3, ",
        _wrong_readout(lambda bar, h_bar: (bar._replace(W_o=bar.W_o.at[2, 1].add(1e-8)), h_bar)),
    ),
}
