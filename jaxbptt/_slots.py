"""The functions of a cell, a readout, a model and an estimator: what each takes, returns and promises.

*Parallel* functions take steps stacked along a leading time axis, which may have length 1. *Sequential* ones take one
step. The letters are those of `jaxbptt.types`.
"""

from typing import Any, Protocol


class Project(Protocol):
    def __call__(self, theta_h: Any, xs: Any, /) -> Any:
        """Parallel: the products that don't read h_{t-1}.

        Elementwise work, such as adding a bias, costs less in `Step`: here it is one more pass over all of time.
        """


class Step(Protocol):
    def __call__(self, theta_h: Any, u_t: Any, h_tm1: Any, /) -> tuple[Any, Any]:
        """Sequential: the rest of f, ``(h_t, residuals_t)``.

        Residuals are kept for the pullback, which also gets x_t, h_{t-1} and h_t.
        """
        ...


class Residuals(Protocol):
    def __call__(self, theta_h: Any, us: Any, hs_tm1: Any, hs: Any, /) -> Any:
        """Parallel: the residuals of `Step`, computed again from states. The same tree, with the same numbers."""


class StepVjp(Protocol):
    def __call__(
        self, theta_h: Any, x_t: Any, residuals_t: Any, h_tm1: Any, h_t: Any, delta_t: Any, /
    ) -> tuple[Any, Any]:
        """Sequential: ``(z_bar_t, h_bar_tm1)``, linear in delta_t.

        z_bar_t is the cotangent of the pre-activations. Its leaves begin with the batch axes, as those of delta_t do.
        h_bar_tm1 is c_tᵀ delta_t.
        """
        ...


class VjpOverTime(Protocol):
    # `*args, **kwargs`: callers unpack the stack of steps from a tuple, and a type checker does not know its length.
    def __call__(
        self, theta_h: Any, xs: Any, hs_tm1: Any, hs: Any, residuals: Any, z_bars: Any, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Parallel: Σ b_tᵀ delta_t over time and batch (`param_vjp`), or ∂F/∂x_t (`input_vjp`). Linear in z_bars."""


class Init(Protocol):
    def __call__(self, key: Any, input_size: int, hidden_size: int, dtype: Any = ...) -> Any:
        """θ_h, drawn, in float32 by default."""


class InitialState(Protocol):
    def __call__(self, theta: Any, /, batch_shape: tuple[int, ...] = ()) -> Any:
        """h_0 for a batch of this shape. A `Cell` takes θ_h, a `Model` takes θ."""


class Apply(Protocol):
    def __call__(self, theta_h: Any, x_t: Any, h_tm1: Any, /) -> Any:
        """One step of f: h_t."""


class Vjp(Protocol):
    def __call__(self, theta_h: Any, x_t: Any, h_tm1: Any, h_t: Any, h_bar_t: Any, /) -> tuple[Any, Any, Any]:
        """``(theta_bar, x_bar_t, h_bar_tm1)``, linear in ``h_bar_t``. Sums ``theta_bar`` over every leading axis, time
        included. A leaf without a derivative, such as an integer, gets ``None``.
        """
        ...


class Check(Protocol):
    def __call__(self, theta_h: Any, xs: Any, h_0: Any, /) -> None:
        """Raises when shapes or dtypes don't fit."""


class InitReadout(Protocol):
    def __call__(self, key: Any, hidden_size: int, output_size: Any, dtype: Any = ...) -> Any:
        """θ_o, drawn. Several heads take a tree of output sizes."""


class ApplyReadout(Protocol):
    def __call__(self, theta_o: Any, h_t: Any, /) -> Any:
        """g: ŷ_t."""


class VjpReadout(Protocol):
    def __call__(self, theta_o: Any, h_t: Any, y_hat_bar_t: Any, /) -> tuple[Any, Any]:
        """``(theta_bar, h_bar_t)``, ``theta_bar`` summed over leading axes."""
        ...


class CheckReadout(Protocol):
    def __call__(self, theta_o: Any, hs: Any, /) -> None:
        """Raises when shapes or dtypes don't fit."""


class InitModel(Protocol):
    def __call__(self, key: Any, *, input_size: int, hidden_size: int, output_size: Any, dtype: Any = ...) -> Any:
        """θ, drawn by the initialisers of cell and readout."""
        ...


class ApplyModel(Protocol):
    def __call__(
        self, theta: Any, xs: Any, h_0: Any = None, *, mask: Any = None, lengths: Any = None, key: Any = None,
        adjoint: Any = None, return_state: bool = False,
    ) -> Any:  # fmt: skip
        """``y_hats [T, *batch, m]``, or with ``return_state`` the pair ``(y_hats, h_T)``."""


class StepModel(Protocol):
    def __call__(self, theta: Any, x_t: Any, h_tm1: Any, *, key: Any = None) -> tuple[Any, Any]:
        """``(y_hat_t, h_t)``, for serving and sampling."""
        ...


class InitEstimator(Protocol):
    def __call__(self, theta: Any, h_0: Any = None, *, key: Any = None) -> Any:
        """Everything that must be carried from chunk to chunk.

        Without h_0, a stream starts from the model's initial state for the batch of the first chunk.
        """
