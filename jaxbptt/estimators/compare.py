"""How wrong an estimator is, and what it costs: its gradients of one batch beside the exact one.

1. g is ∂F/∂θ, ĝ_1 … ĝ_S the draws, m their mean, and v = Σ_s ‖ĝ_s - m‖²/(S - 1), which is E‖ĝ - Eĝ‖² on average.
2. E‖m - g‖² = ‖Eĝ - g‖² + v/S: the mean's own noise looks like a bias. So bias² is ‖m - g‖² - v/S, or 0 below that.
3. √(v/S)/‖g‖ is therefore the error of the bias: one that is not well above it is none that was seen.
4. The errors of cosine and norm ratio are the jackknife's, from the means without one draw.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxbptt._errors import arguments
from jaxbptt._trees import cotangents, vectors
from jaxbptt.estimators import _errors
from jaxbptt.objective import objective
from jaxbptt.types import GradientEstimator, Loss, Model, PyTree, Theta

_AT_ONCE = 16  # draws


class Agreement(NamedTuple):
    """An estimator's gradient beside the exact g, of one leaf of θ or of all. NaN where g is zero.

    Attributes:
        cosine: of the mean with g; ``cosine_error`` is its standard error, as below.
        bias: ‖E ĝ - g‖/‖g‖, the mean's noise taken off; its error is that noise.
        variance: E‖ĝ - E ĝ‖²/‖g‖².
        norm_ratio: ‖E ĝ‖/‖g‖.

    >>> agreement(np.array([[1.1, 0.0]]), np.array([1.0, 0.0])).norm_ratio
    1.1
    """

    cosine: float
    cosine_error: float
    bias: float
    bias_error: float
    variance: float
    variance_error: float
    norm_ratio: float
    norm_ratio_error: float


class Compared(NamedTuple):
    """One estimator.

    Attributes:
        name: the key it came under.
        samples: how many gradients were drawn: 1 where two keys give the same bits.
        whole: of all of θ.
        leaves: of each leaf, by its path.
        flops, bytes: of one compiled update, and what that takes beside its arguments and results; by the compiler,
            and ``None`` where it says nothing. It counts the body of a loop once, whatever T.

    >>> Compared("rtrl", 1, agreement(np.ones((1, 2)), np.ones(2)), {}, flops=None, bytes=64).samples
    1
    """

    name: str
    samples: int
    whole: Agreement
    leaves: Mapping[str, Agreement]
    flops: float | None
    bytes: int | None


class Comparison(NamedTuple):
    """A row for each estimator, and ``alignment``, the cosines of their mean gradients. ``str`` makes a table of it.

    >>> row = Compared("rtrl", 1, agreement(np.ones((1, 2)), np.ones(2)), {}, flops=None, bytes=2048)
    >>> print(Comparison((row,), np.ones((1, 1))))
    estimator  samples            cosine              bias          variance        norm ratio     flops     KiB
    rtrl             1            1.0000            0.0000            0.0000            1.0000         –     2.0
    """

    rows: tuple[Compared, ...]
    alignment: np.ndarray

    def __str__(self):
        width = max(9, *(len(row.name) for row in self.rows))
        head = "".join(f"{what:>18}" for what in ("cosine", "bias", "variance", "norm ratio"))
        lines = [f"{'estimator':{width}}  samples{head}{'flops':>10}{'KiB':>8}"]
        for row in self.rows:
            pairs = zip(row.whole[::2], row.whole[1::2], strict=True)
            cells = "".join(f"{_number(value, error):>18}" for value, error in pairs)
            flops = "–" if row.flops is None else f"{row.flops:.2g}"
            size = "–" if row.bytes is None else f"{row.bytes / 1024:.1f}"
            lines.append(f"{row.name:{width}}  {row.samples:7d}{cells}{flops:>10}{size:>8}")
        return "\n".join(lines)


def compare(
    model: Model,
    loss: Loss,
    theta: Theta,
    xs: PyTree,
    ys: PyTree,
    estimators: Mapping[str, GradientEstimator],
    *,
    h_0: PyTree | None = None,
    mask: PyTree | None = None,
    lengths: PyTree | None = None,
    samples: int = 100,
    key: Any = None,
) -> Comparison:
    """Bias, variance, direction and cost of estimators, each by one update on the whole batch.

    Args:
        model: f and g.
        loss: L.
        theta: where the gradient is taken.
        xs: ``[T, *batch, d]``.
        ys: leaves ``[T, *batch, …]``.
        estimators: by name, of the same model and loss, made with ``reduction="mean"``.
        h_0: the initial state; the model's own when ``None``.
        mask: ``[T, *batch]``, as F takes it.
        lengths: ``[*batch]``, likewise.
        samples: how many gradients an estimator that draws random numbers is asked for, at least 2.
        key: for these.

    Returns:
        A `Comparison`. Costs the updates, two compilations for each estimator, and ``samples·|θ|`` numbers.

    Raises:
        TypeError, ValueError: for no estimators, or what is none; as F and the estimators do.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> xs, ys = jax.random.normal(jax.random.key(1), (9, 3)), jnp.ones((9, 2))
    >>> loss, make = jb.losses.l2_loss, jb.estimators
    >>> each = {"rtrl": make.rtrl(model, loss), "snap": make.snap(model, loss, order=1)}
    >>> table = compare(model, loss, theta, xs, ys, each)
    >>> bool(table.rows[0].whole.bias < 1e-5 < table.rows[1].whole.bias)
    True
    """
    _errors.named_estimators(estimators)
    arguments.count("samples", samples, 2)
    options = {"mask": mask, "lengths": lengths}
    F = jax.jit(jax.grad(objective(model, loss), allow_int=True))
    exact = cotangents.from_jax(F(theta, xs, ys, h_0, **options))
    paths = [(jax.tree_util.keystr(path), _vector(leaf).size) for path, leaf in jax.tree.leaves_with_path(exact)]
    g, ends = _vector(exact), np.cumsum([size for _, size in paths])
    rows, means = [], []
    for name, one in estimators.items():
        drawn, cost = _drawn(functools.partial(_gradient, one, options), (theta, xs, ys, h_0), samples, key)
        parts = zip(paths, np.split(drawn, ends[:-1], axis=1), np.split(g, ends[:-1]), strict=True)
        leaves = {path: agreement(part, wanted) for (path, _), part, wanted in parts}
        rows.append(Compared(name, len(drawn), agreement(drawn, g), leaves, *cost))
        means.append(drawn.mean(axis=0))
    lengths_of = np.linalg.norm(means, axis=1)
    return Comparison(tuple(rows), np.stack(means) @ np.stack(means).T / np.outer(lengths_of, lengths_of))


def agreement(drawn: np.ndarray, g: np.ndarray) -> Agreement:
    """The `Agreement` of draws ``[S, P]`` with ``g [P]``; without noise where S = 1."""
    size, samples, m = np.linalg.norm(g), len(drawn), drawn.mean(axis=0)
    if size == 0:
        return Agreement(*[np.nan] * 8)
    apart = np.sum(np.square(drawn - m), axis=1)
    v = apart.sum() / max(samples - 1, 1)
    bias = np.sqrt(max(np.sum(np.square(m - g)) - v / samples, 0.0)) / size
    cosine, norm_ratio = _direction(m[None], g)
    errors = [0.0, 0.0]
    if samples > 1:
        without = (samples * m - drawn) / (samples - 1)
        errors = [np.sqrt((samples - 1) * np.mean(np.square(x - x.mean()))) for x in _direction(without, g)]
    variance_error = np.std(apart) / np.sqrt(samples) / size**2
    found = (
        cosine[0],
        errors[0],
        bias,
        np.sqrt(v / samples) / size,
        v / size**2,
        variance_error,
        norm_ratio[0],
        errors[1],
    )
    return Agreement(*map(float, found))


def _direction(means, g):
    sizes = np.linalg.norm(means, axis=1)
    with np.errstate(invalid="ignore"):  # a mean of zero has no direction
        return means @ g / (sizes * np.linalg.norm(g)), sizes / np.linalg.norm(g)


def _drawn(gradient, given, samples, key):
    """Gradients ``[samples, P]``, or one where two keys give the same bits; flops and bytes."""
    keys: Any = [None, None] if key is None else jax.random.split(key, samples)
    compiled = jax.jit(gradient).lower(*given, keys[0]).compile()
    drawn = [_vector(compiled(*given, one)) for one in keys[:2]]
    flops = (compiled.cost_analysis() or {}).get("flops")
    size = getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)
    if np.array_equal(*drawn, equal_nan=True):
        return drawn[0][None], (flops, size)
    many = jax.jit(lambda keys: jax.lax.map(lambda key: gradient(*given, key), keys, batch_size=_AT_ONCE))
    stacked = many(keys)
    return np.stack([_vector(jax.tree.map(lambda leaf, k=k: leaf[k], stacked)) for k in range(samples)]), (flops, size)


def _gradient(estimator, options, theta, xs, ys, h_0, key):
    """One gradient of an estimator, from its own beginning."""
    keys = (None, None) if key is None else jax.random.split(key)
    estimate, _ = estimator.update(theta, estimator.init(theta, h_0, key=keys[0]), xs, ys, **options, key=keys[1])
    return cotangents.from_jax(estimate.grads)


def _vector(tree):
    return np.asarray(vectors.gradient_vector(tree), np.float64)


def _number(value, error):
    return f"{value:.4f} ± {error:.1g}" if error else f"{value:.4f}"
