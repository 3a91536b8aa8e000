"""Vanishing and exploding, measured, and what helps. For any cell; under ``jax.jit`` and ``jax.vmap``.

`gradient_flow` measures a gradient. `jacobian_spectrum`, `power_iteration` and `verdict` measure c_t and its products;
`jacobian_bound` needs no trajectory. `lyapunov_spectrum` and `fixed_points` show the long run.

Remedies: the regularisers `omega` and `flossing`; `clipped_delta` inside the reverse pass; `spectral_clipping` of a
weight; and at the beginning `jaxbptt.initializers.orthogonal` and `jaxbptt.initializers.spectral_radius`.

After training with `jaxbptt.data_parallel` θ lies on all devices, and programs that read it run on all of them. On the
cores of a CPU, a QR in such a program was seen to wait for good (jax 0.10.2). Give `lyapunov_spectrum`, `flossing` and
`jacobian_spectrum` ``jax.device_get(theta)``.
"""

from jaxbptt.diagnostics.clipping import clipped_delta, spectral_clipping
from jaxbptt.diagnostics.fixed_points import FixedPoints, fixed_points
from jaxbptt.diagnostics.flossing import flossing
from jaxbptt.diagnostics.gradient_flow import GradientFlow, gradient_flow
from jaxbptt.diagnostics.jacobian_spectrum import JacobianSpectrum, jacobian_spectrum
from jaxbptt.diagnostics.lyapunov_spectrum import (
    LyapunovSpectrum,
    kaplan_yorke_dimension,
    largest_exponent,
    lyapunov_spectrum,
)
from jaxbptt.diagnostics.omega import omega
from jaxbptt.diagnostics.power_iteration import (
    PowerIteration,
    ProductPowerIteration,
    power_iteration,
    product_power_iteration,
)
from jaxbptt.diagnostics.verdict import JacobianBound, Verdict, jacobian_bound, verdict

__all__ = [
    "FixedPoints", "GradientFlow", "JacobianBound", "JacobianSpectrum", "LyapunovSpectrum", "PowerIteration",
    "ProductPowerIteration", "Verdict", "clipped_delta", "fixed_points", "flossing", "gradient_flow", "jacobian_bound",
    "jacobian_spectrum", "kaplan_yorke_dimension", "largest_exponent", "lyapunov_spectrum", "omega", "power_iteration",
    "product_power_iteration", "spectral_clipping", "verdict",
]  # fmt: skip
