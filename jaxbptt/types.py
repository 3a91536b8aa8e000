"""The specification: what a cell, a readout, a model and an estimator are. No logic.

The letters are those of the formulas::

    h_t = f(x_t, h_{t-1}; θ_h)      ŷ_t = g(h_t; θ_o)      F = 1/T Σ_t L(ŷ_t, y_t)

f is a `Cell`, g a `Readout`, both together a `Model`. Everything is a NamedTuple of pure functions. Two objects made of
the same functions are equal and hashable, and safe to close over under ``jax.jit``.

Layout: time-major with any batch axes in between, ``xs [T, *batch, d]``, ``h [*batch, n]``.
A suffix names the step: ``_t``, ``_tm1`` = t-1, ``_tp1`` = t+1. Or it names a dual quantity: ``_bar`` is the cotangent
∂F/∂·, ``_dot`` a tangent. ``delta_t`` is the cotangent ∂F/∂h_t along all paths.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax

from jaxbptt._slots import (  # isort: skip
    Apply, ApplyModel, ApplyReadout, Check, CheckReadout, Init, InitEstimator, InitialState, InitModel, InitReadout,
    Project, Residuals, Step, StepModel, StepVjp, Vjp, VjpOverTime, VjpReadout,
)  # fmt: skip

Array = jax.Array
PyTree = Any
"""Any pytree of arrays: a bare array, a NamedTuple of arrays, a dict of tuples."""


class Keyed(NamedTuple):
    """A noisy input: ``x [T, *batch, …]``, and ``key [T]`` or ``[T, *batch]``; on x alone it draws nothing.

    >>> Keyed(x=jax.numpy.ones((3, 4)), key=jax.random.split(jax.random.key(0), 3)).key.shape
    (3,)
    """

    x: PyTree
    key: Any


class TimeSplit(NamedTuple):
    """Which part of a cell is sequential in time, and which is parallel over it.

    ``f(x_t, h_{t-1}; θ_h)`` is ``step(θ_h, project(θ_h, x_t), h_{t-1})[0]``. *Parallel* functions take steps stacked
    along a leading time axis, ``xs [T, *batch, d]``, which may have length 1. *Sequential* ones take one step. They are
    the body of a scan and should do as little as possible.

    Attributes:
        project: ``(theta_h, xs) -> us``, parallel (`Project`).
        step: ``(theta_h, u_t, h_tm1) -> (h_t, residuals_t)``, sequential (`Step`).
        residuals: ``(theta_h, us, hs_tm1, hs) -> residuals``, parallel (`Residuals`).
        step_vjp: ``(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t) -> (z_bar_t, h_bar_tm1)``, sequential (`StepVjp`).
        param_vjp: ``(theta_h, xs, hs_tm1, hs, residuals, z_bars) -> theta_bar``, parallel (`VjpOverTime`).
        input_vjp: ``(theta_h, xs, hs_tm1, hs, residuals, z_bars) -> xs_bar``, parallel.
        operands: ``theta_h -> theta_h`` as the products read it, such as rounded to bfloat16: made once, before a loop.
            The functions above give the same for both. ``None``: θ_h as it is.
        of: ``(apply, vjp)``, the two functions that are split here. Only a cell with exactly these uses the split. For
            any other, one is implied from the cell's own pair.
        jacobian: ``"diagonal"`` where each unit of h_t reads the same unit of h_{t-1} and no other, in each leaf.
        affine: whether f is affine in h_{t-1}. `jaxbptt.check_cell` finds either where it is false.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> split = jb.cells.linear().split
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> us = split.project(theta_h, jnp.ones((3, 1)))  # three steps at once
    >>> split.step(theta_h, us[0], jnp.array([4.0]))[0].tolist()  # one
    [3.0]
    """

    project: Project
    step: Step
    residuals: Residuals
    step_vjp: StepVjp
    param_vjp: VjpOverTime
    input_vjp: VjpOverTime
    operands: Callable[[Any], Any] | None = None
    of: tuple[Apply, Vjp] | None = None
    jacobian: Literal["dense", "diagonal"] = "dense"
    affine: bool = False


class Cell(NamedTuple):
    """f: one step of the recursion, ``h_t = f(x_t, h_{t-1}; θ_h)``, and its pullback.

    Attributes:
        init: ``(key, input_size, hidden_size, dtype=float32) -> theta_h``.
        initial_state: ``(theta_h, batch_shape=()) -> h_0``.
        apply: ``(theta_h, x_t, h_tm1) -> h_t``.
        vjp: ``(theta_h, x_t, h_tm1, h_t, h_bar_t) -> (theta_bar, x_bar_t, h_bar_tm1)`` (`Vjp`).
        output: ``h_t -> `` the part that g reads; must not depend on parameters.
        split: how `apply` and `vjp` divide over time (`TimeSplit`), for speed. For ``None``, or the split of another
            pair, one is implied from the two.
        check: ``(theta_h, xs, h_0) -> None`` (`Check`); ``None`` checks only what every cell must satisfy.
        mixed: ``Cell -> Cell``: this cell with bfloat16 operands in its products. ``None`` leaves them to JAX
            (`jaxbptt.cells.mixed_precision`), which is right for an `apply` of your own.
        draws: ``"step"`` where f draws by ``Keyed(x_t, key_t)``. F, estimators and models then make the keys of theirs,
            one a step and member; with ``"sequence"`` one a member. Without a key f reads x_t.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> cell, theta_h = jb.cells.linear(), jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> x_t, h_tm1 = jnp.array([1.0]), jnp.array([4.0])
    >>> h_t = cell.apply(theta_h, x_t, h_tm1)
    >>> h_t.item(), cell.vjp(theta_h, x_t, h_tm1, h_t, jnp.array([1.0]))[2].item()  # and h_bar_tm1
    (3.0, 0.5)
    """

    init: Init
    initial_state: InitialState
    apply: Apply
    vjp: Vjp
    output: Callable[[Any], Any]
    split: TimeSplit | None = None
    check: Check | None = None
    mixed: "Callable[[Cell], Cell] | None" = None
    draws: Literal["step", "sequence"] | None = None

    def __repr__(self):
        return f"Cell({_name(self.apply if self.split is None else self.split.step)})"


class Readout(NamedTuple):
    """g: from state to prediction, ``ŷ_t = g(h_t; θ_o)``, and its pullback.

    Attributes:
        init: ``(key, hidden_size, output_size, dtype=float32) -> theta_o``.
        apply: ``(theta_o, h_t) -> y_hat_t``.
        vjp: ``(theta_o, h_t, y_hat_bar_t) -> (theta_bar, h_bar_t)`` (`VjpReadout`).
        vjp_over_time: the same for stacked steps, ``(theta_o, hs, y_hat_bars) -> (theta_bar, h_bars)``;
            ``None`` when `vjp` takes time as one more leading axis.
        check: ``(theta_o, hs) -> None`` (`CheckReadout`).
        mixed: ``Readout -> Readout``, as for a `Cell`.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> g, theta_o = jb.readouts.linear(bias=False), jb.readouts.LinearReadoutParams(W_o=jnp.array([[2.0]]), b=None)
    >>> theta_bar, h_bar_t = g.vjp(theta_o, jnp.array([3.0]), jnp.array([1.0]))
    >>> theta_bar.W_o.item(), h_bar_t.item()
    (3.0, 2.0)
    """

    init: InitReadout
    apply: ApplyReadout
    vjp: VjpReadout
    vjp_over_time: VjpReadout | None = None
    check: CheckReadout | None = None
    mixed: "Callable[[Readout], Readout] | None" = None

    def __repr__(self):
        return f"Readout({_name(self.apply)})"


def _name(function):
    """The library's file that a function is of, or the name of a user's own."""
    while inner := getattr(function, "func", None) or getattr(function, "__wrapped__", None):  # partial, jit
        function = inner
    module = getattr(function, "__module__", "") or ""
    own = getattr(function, "__qualname__", type(function).__name__)
    return module.rpartition(".")[2] if module.startswith("jaxbptt.") else own


class Policy(NamedTuple):
    """The precision a model computes in, as a change of its cell and one of its readout.

    Attributes:
        cell: ``Cell -> Cell`` of the same parameters, inputs and states.
        readout: ``Readout -> Readout`` of the same parameters and predictions.

    >>> import jaxbptt as jb
    >>> rounded_readout = Policy(cell=lambda cell: cell, readout=jb.readouts.mixed_precision)
    >>> jb.rnn(jb.cells.gru(), jb.readouts.linear(), policy=rounded_readout).cell == jb.cells.gru()
    True
    """

    cell: Callable[[Cell], Cell]
    readout: Callable[[Readout], Readout]


class Theta(NamedTuple):
    """All parameters: ``h`` is θ_h of the cell, ``o`` is θ_o of the readout.

    >>> theta = Theta(h={"W": 1.0}, o=())
    >>> theta._replace(h={"W": 2.0})
    Theta(h={'W': 2.0}, o=())
    >>> jax.tree.map(jax.numpy.zeros_like, theta)  # of arrays, how many numbers
    Theta(h=dict, o=tuple, 1 parameter)
    """

    h: PyTree
    o: PyTree

    def __repr__(self):
        leaves = jax.tree.leaves(self)
        if not leaves or not all(isinstance(getattr(leaf, "size", None), int) for leaf in leaves):  # shapes, or words
            return f"Theta(h={self.h!r}, o={self.o!r})"
        number = sum(leaf.size for leaf in leaves)
        kinds = f"h={type(self.h).__name__}, o={type(self.o).__name__}"
        return f"Theta({kinds}, {number:,} parameter{'' if number == 1 else 's'})"


class Model(NamedTuple):
    """A cell and a readout: ``ŷ_{1..T}`` from ``x_{1..T}``.

    Attributes:
        init: ``(key, *, input_size, hidden_size, output_size, dtype=float32) -> Theta``.
        initial_state: ``(theta, batch_shape=()) -> h_0``.
        apply: ``(theta, xs, h_0=None, *, mask=None, lengths=None, key=None, adjoint=None, return_state=False) ->
            y_hats``, or ``(y_hats, h_T)``.
        cell: f; ``None`` for layers that no causal cell equals.
        readout: g.
        step: ``(theta, x_t, h_tm1, *, key=None) -> (y_hat_t, h_t)``, for serving and sampling.
        layers: the `jaxbptt.layers.Layers` that are run, if the model was made of layers.
        generate: ``(theta, x_0, h_0=None, *, steps, key=None, sample=None) -> y_hats [steps, *batch, m]``, closed loop.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> model.initial_state(theta, batch_shape=(4,)).shape, model.apply(theta, jnp.ones((7, 4, 3))).shape
    ((4, 5), (7, 4, 2))
    """

    init: InitModel
    initial_state: InitialState
    apply: ApplyModel
    cell: Any
    readout: Readout
    step: StepModel
    layers: Any = None
    generate: Callable[..., Any] = NotImplemented

    def __repr__(self):
        f = self.cell if self.layers is None else self.layers.layers
        return f"Model({f!r}, {self.readout!r})"


class Estimate(NamedTuple):
    """The result of an estimator for one chunk.

    Attributes:
        loss: F over the chunk, a scalar.
        grads: ∂F/∂θ or its approximation, with the tree of θ, as ``jax.grad`` gives it: ready for ``optax``. Where θ is
            complex, optax wants the conjugate (`jaxbptt.training.trainer` sees to that).
        info: a NamedTuple to look at; nothing in it need be carried.

    >>> Estimate(loss=0.5, grads=Theta(h=1.0, o=2.0), info=()).grads.o
    2.0
    """

    loss: Array
    grads: PyTree
    info: Any


class Update(Protocol):
    def __call__(
        self, theta: Any, state: Any, xs: Any, ys: Any, *, mask: Any = None, lengths: Any = None, key: Any = None
    ) -> tuple[Estimate, Any]:
        """``(Estimate, state)`` of one chunk of T steps: all of a sequence, some, or one."""
        ...


class GradientEstimator(NamedTuple):
    """A way to evaluate the double sum over time, exact or not.

    Attributes:
        init: ``(theta, h_0=None, *, key=None) -> state`` (`InitEstimator`).
        update: ``(theta, state, xs, ys, *, mask=None, lengths=None, key=None) -> (Estimate, state)`` (`Update`).

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> estimator = jb.estimators.rtrl(jb.rnn(jb.cells.elman(), jb.readouts.identity()), jb.losses.l2_loss)
    >>> theta = jb.Theta(jb.cells.elman().init(jax.random.key(0), input_size=3, hidden_size=5), ())
    >>> state = estimator.init(theta, jnp.zeros(5))
    >>> for x, y in zip(jnp.ones((2, 1, 3)), jnp.zeros((2, 1, 5))):  # one step at a time
    ...     estimate, state = estimator.update(theta, state, x, y)
    >>> estimate.grads.h.W_h.shape
    (5, 5)
    """

    init: InitEstimator
    update: Update


class Loss(Protocol):
    def __call__(self, y_hat_t: Any, y_t: Any, /) -> Array:
        """L of one step: one number for each member of the batch, ``[*batch]``."""
        ...


class Adjoint(Protocol):
    def __call__(self, cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, /) -> tuple[PyTree, PyTree]:
        """``(h_T, hs)`` as `jaxbptt.unroll` gives them, differentiable in its own way."""
        ...
