"""One list of all cells, adjoints and estimators: what is added here is held to every law.

To add a cell, write its step once more in `oracles.py` and add a `CellCase`; to add an adjoint or an estimator, add
a line.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.skeletons.cell import sine


class CellCase(NamedTuple):
    """A cell, the same step in NumPy, what a readout sees of a NumPy state, and how its inputs are drawn."""

    name: str
    cell: jb.Cell
    step: Callable
    output: Callable = lambda h: h
    inputs: Callable | None = None


def normal(key, shape, dtype=jnp.float64, scale=1.0):
    """By NumPy: every shape that JAX draws is one more program to compile."""
    assert jnp.issubdtype(dtype, jnp.inexact), "only floating-point numbers are drawn"
    rng = _generator(key)
    drawn = scale * rng.standard_normal(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        drawn = (drawn + 1j * scale * rng.standard_normal(shape)) / np.sqrt(2)
    return jnp.asarray(drawn.astype(dtype))


def _generator(key, stream=0):
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)), stream])


def _normal_input(key, shape, d, dtype=jnp.float64):
    return normal(key, (*shape, d), dtype)


def _flags(key, p, shape):
    """Of more than one some are True and some False, or a law would be held of half a cell."""
    size, rng = math.prod(shape), _generator(key, stream=1)  # another one than that of x
    if size == 1:
        return jnp.asarray(rng.random(shape) < 0.5)
    true = min(max(round(p * size), 1), size - 1)
    return jnp.asarray(rng.permutation(np.arange(size) < true).reshape(shape))


def _masked_input(key, shape, d, dtype=jnp.float64):
    return jb.cells.MaskedInput(normal(key, (*shape, d), dtype), _flags(key, 0.6, shape))


def _reset_input(key, shape, d, dtype=jnp.float64):
    return jb.cells.ResetInput(normal(key, (*shape, d), dtype), _flags(key, 0.3, shape))


def _h(state):
    return state.h


def _user_step(theta_h, x_t, h_tm1):
    """A cell of a user: dict parameters, a pair of states, a product of states in it."""
    slow, fast = h_tm1["slow"], h_tm1["fast"]
    drive = x_t @ theta_h["in"].T + fast @ theta_h["rec"].T + jnp.broadcast_to(theta_h["bias"], fast.shape)
    fast = jnp.tanh(drive) * (1 + slow)
    return {"slow": 0.9 * slow + 0.1 * fast * fast, "fast": fast}


def _user_init(key, d, n, dtype=jnp.float64):
    keys = jax.random.split(key, 3)
    return {
        "in": jax.random.normal(keys[0], (n, d), dtype),
        "rec": jax.random.normal(keys[1], (n, n), dtype),
        "bias": jax.random.normal(keys[2], (n,), dtype),
    }


def _user_state(theta_h, batch_shape=()):
    zero = jnp.zeros((*batch_shape, theta_h["rec"].shape[0]), theta_h["rec"].dtype)
    return {"slow": zero, "fast": zero}


def _user_output(h_t):
    return h_t["fast"]


def _user_oracle(theta, x, h):
    drive = np.einsum("nd,...d->...n", theta["in"], x) + np.einsum("nk,...k->...n", theta["rec"], h["fast"])
    fast = np.tanh(drive + theta["bias"]) * (1 + h["slow"])
    return {"slow": 0.9 * h["slow"] + 0.1 * fast * fast, "fast": fast}


def _stacked_oracle(theta, x, h):
    lower = oracles.gru_step(theta[0], x, h[0])
    return lower, oracles.lstm_step(theta[1], lower, h[1])


def _zoneout_oracle(theta, x, h):
    new = oracles.lstm_step(theta, x, h)
    return type(h)(h=0.3 * h.h + 0.7 * new.h, c=0.6 * h.c + 0.4 * new.c)


def _masked_oracle(theta, x, h):
    new = oracles.lstm_step(theta, x.x, h)
    # the mask was made complex with everything else
    return type(h)(*(np.where(x.mask[..., None].real > 0, a, b) for a, b in zip(new, h, strict=True)))


def _reset_oracle(theta, x, h):
    return oracles.gru_step(theta, x.x, np.where(x.reset[..., None].real > 0, 0, h))


def _learned_oracle(theta, x, h):
    return oracles.gru_step(theta.cell, x.x, np.where(x.reset[..., None].real > 0, theta.h_0, h))


def _learned_leak_oracle(theta, x, h):
    return oracles.leaky_step("sigmoid", oracles.sigmoid(theta.a))(theta, x, h)


def _forgetting_step(theta_h, x_t, h_tm1):
    """Diagonal and affine: each unit forgets at a rate of its own, which the input sets."""
    b, p = (jnp.broadcast_to(theta_h[name], h_tm1.shape) for name in "bp")
    a = jax.nn.sigmoid(p + x_t @ theta_h["U"].T)
    return a * h_tm1 + (1 - a) * jnp.tanh(x_t @ theta_h["W"].T + b)


def _switched_step(theta_h, x_t, h_tm1):
    """Affine: a full matrix that the input changes."""
    return h_tm1 @ theta_h["W_h"].T + (x_t @ theta_h["U"].T) * h_tm1 + x_t @ theta_h["W_x"].T


def _drawn(axes, key, d, n, dtype=jnp.float64):
    """θ_h of matrices and vectors, each with its axes by their letters."""
    sizes = {"d": d, "n": n}
    return {name: jax.random.normal(key, [sizes[axis] for axis in shape], dtype) for name, shape in axes.items()}


def _at_rest(theta_h, batch_shape=()):
    return jnp.zeros((*batch_shape, theta_h["U"].shape[0]), theta_h["U"].dtype)


forgetting = jb.cells.from_step(
    _forgetting_step,
    init=functools.partial(_drawn, {"W": "nd", "U": "nd", "b": "n", "p": "n"}),
    initial_state=_at_rest,
    jacobian="diagonal",
    affine=True,
)
switched = jb.cells.from_step(
    _switched_step,
    init=functools.partial(_drawn, {"W_h": "nn", "U": "nd", "W_x": "nd"}),
    initial_state=_at_rest,
    affine=True,
)
user = jb.cells.from_step(_user_step, init=_user_init, initial_state=_user_state, output=_user_output)
# The same rule with no division over time of its own: what somebody writes who fills in a Cell by hand.
_elman = jb.cells.elman()
by_hand = jb.Cell(_elman.init, _elman.initial_state, _elman.apply, _elman.vjp, _elman.output)

CELLS = [
    CellCase("linear", jb.cells.linear(), oracles.linear_step),
    CellCase("elman-tanh", jb.cells.elman(), oracles.elman_step("tanh")),
    CellCase("elman-relu", jb.cells.elman("relu"), oracles.elman_step("relu")),
    CellCase("elman-sigmoid", jb.cells.elman("sigmoid"), oracles.elman_step("sigmoid")),
    CellCase("gru", jb.cells.gru(), oracles.gru_step),
    CellCase("reset-before", jb.cells.gru(reset="before"), oracles.gru_before_step),
    CellCase("lstm", jb.cells.lstm(), oracles.lstm_step, _h),
    CellCase("leaky", jb.cells.leaky(alpha=0.3), oracles.leaky_step("tanh", 0.3), np.tanh),
    CellCase("leaky-learned", jb.cells.leaky("sigmoid", "learned"), _learned_leak_oracle, oracles.PHI["sigmoid"]),
    CellCase("skeleton", sine(), oracles.sine_step),
    CellCase("stacked", jb.cells.stacked(jb.cells.gru(), jb.cells.lstm()), _stacked_oracle, lambda h: h[1].h),
    CellCase("masked", jb.cells.masked(jb.cells.lstm()), _masked_oracle, _h, _masked_input),
    CellCase(  # without a key: the mean
        "zoneout",
        jb.cells.zoneout(jb.cells.lstm(), jb.cells.LSTMState(h=0.3, c=0.6)),
        _zoneout_oracle,
        _h,
    ),
    CellCase("resettable", jb.cells.resettable(jb.cells.gru()), _reset_oracle, inputs=_reset_input),
    CellCase(  # a reset is what reads h_0 of θ_h where the sequence is given one
        "learned_start",
        jb.cells.resettable(jb.cells.learned_start(jb.cells.gru())),
        _learned_oracle,
        inputs=_reset_input,
    ),
    CellCase("diagonal", forgetting, oracles.forgetting_step),
    CellCase("affine", switched, oracles.switched_step),
    CellCase("from_step", user, _user_oracle, lambda h: h["fast"]),
    CellCase("by_hand", by_hand, oracles.elman_step("tanh")),
]

BUILT_IN = [case for case in CELLS if case.name.split("-")[0] in ("linear", "elman", "gru", "lstm")]

ADJOINTS = {
    "full": jb.adjoints.full(),
    "full-states": jb.adjoints.full(residuals="states"),
    "full-blocks": jb.adjoints.full(block=2),  # with a rest where T is odd
    "full-blocks-states": jb.adjoints.full(block=4, residuals="states"),
    "tangent": jb.adjoints.tangent(),
    "tangent-blocks": jb.adjoints.tangent(block=2),
    "parallel": jb.adjoints.parallel(),
    "checkpointed": jb.adjoints.checkpointed(slots=2),
    "checkpointed-two-level": jb.adjoints.checkpointed(),
    "checkpointed-states": jb.adjoints.checkpointed(slots=3, block=2, residuals="states"),
    "autodiff": jb.adjoints.autodiff(),
}

# One of each kind, with the options that have most to go wrong: for what no option changes.
EACH_ADJOINT = {
    name: ADJOINTS[name]
    for name in ("full", "full-blocks-states", "tangent-blocks", "parallel", "checkpointed-states", "autodiff")
}

# Each exact estimator as a function of (model, loss, reduction).
EXACT_ESTIMATORS = {
    "bptt": lambda model, loss, **options: jb.estimators.bptt(model, loss, **options),
    "bptt-autodiff": lambda model, loss, **options: jb.estimators.bptt(
        model, loss, adjoint=jb.adjoints.autodiff(), **options
    ),
    "rtrl": lambda model, loss, **options: jb.estimators.rtrl(model, loss, **options),
    "windowed": lambda model, loss, **options: jb.estimators.windowed(model, loss, window=9, **options),  # T and more
}
# Those that stay exact when a sequence comes in chunks.
ONLINE_ESTIMATORS = {name: EXACT_ESTIMATORS[name] for name in ("rtrl", "windowed")}
# Those right on average, which need a key, and the cells each is held to.
STOCHASTIC_ESTIMATORS = {
    "uoro": (jb.estimators.uoro, ("elman-tanh", "gru", "lstm", "stacked", "from_step")),
    "kf_rtrl": (jb.estimators.kf_rtrl, ("linear", "elman-sigmoid")),
}
# Those that leave out what goes through W_h, and cells they are for.
LOCAL_ESTIMATORS = {
    "eprop": (jb.estimators.eprop, ("elman-tanh", "gru", "lstm", "leaky")),
    "rflo": (jb.estimators.rflo, ("elman-sigmoid", "leaky", "leaky-learned")),
}


def name(case):
    return case.name if isinstance(case, CellCase) else str(case)


class Problem(NamedTuple):
    """A model with everything F needs, all of it random, non-zero and of different sizes."""

    case: CellCase
    model: jb.Model
    theta: jb.Theta
    xs: Any
    ys: jax.Array
    h_0: Any


def problem(case, *, seed=0, T=6, batch=(2,), d=3, n=4, m=2, dtype=jnp.float64, bias=True):
    """A `Problem`: W_h is a random Gaussian matrix, so neither symmetric nor normal; every bias and h_0 is non-zero."""
    keys = jax.random.split(jax.random.key(seed), 6)
    model = jb.rnn(case.cell, jb.readouts.linear(bias=bias))
    init = functools.partial(model.init, input_size=d, hidden_size=n, output_size=m, dtype=dtype)
    theta = randomised(jax.eval_shape(init, keys[0]), keys[1], 0.6)
    xs = inputs(case, keys[2], (T, *batch), d, dtype)
    ys = normal(keys[3], (T, *batch, m), dtype)
    h_0 = randomised(jax.eval_shape(lambda theta: model.initial_state(theta, batch), theta), keys[4], 0.5)
    return Problem(case, model, theta, xs, ys, h_0)


def inputs(case, key, shape, d, dtype=jnp.float64):
    return (case.inputs or _normal_input)(key, shape, d, dtype)


def randomised(tree, key, scale):
    """Numbers like those of `tree`, or of the shapes in it."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten([normal(k, leaf.shape, leaf.dtype, scale) for k, leaf in zip(keys, leaves, strict=True)])


def oracle(problem, mask=None):
    """F and its gradient with respect to (theta, xs, h_0), from `oracles` alone. Flags in xs get ``None``."""
    tree = (problem.theta, problem.xs, problem.h_0)
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    ys = np.asarray(problem.ys)
    smooth = [k for k, leaf in enumerate(leaves) if leaf.dtype != bool]

    def F(arrays):
        filled = list(leaves)
        for k, array in zip(smooth, arrays, strict=True):
            filled[k] = array
        theta, xs, h_0 = treedef.unflatten(filled)
        steps = [jax.tree.map(lambda leaf, t=t: leaf[t], xs) for t in range(len(ys))]
        return oracles.objective(problem.case.step, problem.case.output, theta.h, theta.o, steps, ys, h_0, mask)

    numbers = [leaves[k] for k in smooth]
    value = float(np.real(F([number.astype(complex) for number in numbers])))
    bars: list[Any] = [None] * len(leaves)
    for k, bar in zip(smooth, oracles.gradient(F, numbers), strict=True):
        bars[k] = bar
    return value, treedef.unflatten(bars)


def assert_close(got, wanted, rtol=1e-10):
    """Leaf by leaf, relative to the leaf's largest number; every leaf must have a non-zero one."""
    got_leaves, wanted_leaves = jax.tree.leaves(got), jax.tree.leaves(wanted)
    assert len(got_leaves) == len(wanted_leaves) > 0
    for g, w in zip(got_leaves, wanted_leaves, strict=True):
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape
        scale = np.max(np.abs(w))
        assert scale > 0, "a gradient that is zero everywhere tests nothing"
        np.testing.assert_array_less(np.abs(g - w), rtol * scale)


def turns(*axes, times=1):
    """Rows in which every choice of every axis comes up `times` times at least.

    The first goes with the first, the second with the second, a short axis from its beginning again; then once more
    with the axes shifted against the longest.
    """
    axes = [list(axis) for axis in axes]
    longest = max(range(len(axes)), key=lambda place: len(axes[place]))
    return [
        tuple(axis[(k + time * (place - longest)) % len(axis)] for place, axis in enumerate(axes))
        for time in range(times)
        for k in range(len(axes[longest]))
    ]


def in_turn(*axes, times=1):
    """`turns` for `pytest.mark.parametrize`. An axis is a list, or a dictionary with names for its choices."""
    return [_param(row) for row in turns(*map(_named, axes), times=times)]


def pairwise(*axes):
    """Rows in which any two choices of two axes meet, one by one the row with most of the pairs still missing."""
    named = [_named(axis) for axis in axes]
    product = [tuple(enumerate(row)) for row in itertools.product(*(range(len(choices)) for choices in named))]
    pairs = {row: set(itertools.combinations(row, 2)) for row in product}
    missing, rows = set().union(*pairs.values()), []
    while missing:
        best = max(product, key=lambda row: len(pairs[row] & missing))
        missing -= pairs[best]
        rows.append([named[place][choice] for place, choice in best])
    return [_param(row) for row in rows]


def _named(axis):
    return list(axis.items()) if isinstance(axis, dict) else [(_label(choice), choice) for choice in axis]


def _label(choice):
    return name(choice) if isinstance(choice, CellCase) else getattr(choice, "__name__", None) or str(choice)


def _param(row):
    return pytest.param(*(choice for _, choice in row), id="-".join(label for label, _ in row))
