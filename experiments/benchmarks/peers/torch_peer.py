"""torch.nn: RNN, GRU and LSTM, eager, by oneDNN on a CPU and cuDNN on a GPU, with all the threads it takes itself."""

import jax
import numpy as np

from experiments.benchmarks.peers.contender import Built, Contender, LeftOutError, states
from experiments.benchmarks.peers.work import Work


def build(work: Work) -> Built:
    """The same weights; the second bias is b_h, or 0."""
    import torch  # pyright: ignore[reportMissingImports]

    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise LeftOutError("this torch has no CUDA")
    if on_gpu:
        torch.backends.cudnn.allow_tf32 = True  # its default, and JAX's
    device = "cuda" if on_gpu else "cpu"

    def put(array):
        return torch.tensor(array, device=device)

    make = {"elman": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[work.cell]
    module = make(work.shape.d, work.shape.n, device=device)
    own = {"weight_ih_l0": work.weights["W_x"], "weight_hh_l0": work.weights["W_h"], "bias_ih_l0": work.weights["b"]}
    own["bias_hh_l0"] = work.weights.get("b_h", np.zeros_like(work.weights["b"]))
    module.load_state_dict({name: put(value) for name, value in own.items()})
    xs = put(work.xs).requires_grad_()
    h_0 = tuple(put(h[None]).requires_grad_() for h in work.h_0)
    parameters = dict(module.named_parameters())
    wanted = [parameters[name] for name in own] + [xs, *h_0]

    def run():
        hs, _ = module(xs, h_0 if work.cell == "lstm" else h_0[0])
        F = hs.square().mean()
        return F, torch.autograd.grad(F, wanted)

    def wait(result):
        if on_gpu:
            torch.cuda.synchronize()
        return result

    def gradient(result):
        F, bars = result
        F, W_x, W_h, b, b_h, xs_bar, *h_0_bar = (bar.detach().cpu().numpy() for bar in (F, *bars))
        found = {"F": F, "W_x": W_x, "W_h": W_h, "b": b, "xs": xs_bar, **states(tuple(h[0] for h in h_0_bar))}
        return found | ({"b_hn": b_h[2 * work.shape.n :]} if work.cell == "gru" else {})

    return Built(run, wait, gradient, None, None)


CONTENDERS = (Contender("torch.nn", "other", build, flag="torch", package="torch"),)
