"""The gradients of recurrent models: one sum over time, many orders of evaluation.

    h_t = f(x_t, h_{t-1}; θ_h)          ŷ_t = g(h_t; θ_o)          F = 1/T Σ_t L(ŷ_t, y_t)

>>> import jax, jax.numpy as jnp, jaxbptt as jb
>>> model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
>>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
>>> F = jb.objective(model, jb.losses.l2_loss)
>>> jax.grad(F)(theta, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2))).h.W_h.shape
(20, 5)
"""

from jaxbptt import (  # isort: skip
    adjoints, cells, checking, closed_form, diagnostics, estimators, initializers, interop, jacobians, layers, losses,
    policies, readouts, sequences, training, types,
)  # fmt: skip
from jaxbptt.checking import check_cell, check_gradients, check_readout
from jaxbptt.data_parallel import data_parallel
from jaxbptt.layers import bidirectional
from jaxbptt.model import rnn
from jaxbptt.objective import objective
from jaxbptt.plan import plan
from jaxbptt.types import Cell, Estimate, GradientEstimator, Model, Readout, Theta
from jaxbptt.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "Cell", "Estimate", "GradientEstimator", "Model", "Readout", "Theta", "adjoints", "bidirectional", "cells",
    "check_cell", "check_gradients", "check_readout", "checking", "closed_form", "data_parallel", "diagnostics",
    "estimators", "initializers", "interop", "jacobians", "layers", "losses", "objective", "plan", "policies",
    "readouts", "rnn", "sequences", "training", "types", "unroll",
]  # fmt: skip
