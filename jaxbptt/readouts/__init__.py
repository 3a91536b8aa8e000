"""g: from the state to the prediction, ``ŷ_t = g(h_t; θ_o)``, each with its pullback. One file a readout."""

from jaxbptt.readouts._over_time import by_jax as by_jax
from jaxbptt.readouts._over_time import fits as fits
from jaxbptt.readouts._over_time import over_time as over_time
from jaxbptt.readouts._over_time import vjp_over_time as vjp_over_time
from jaxbptt.readouts.from_apply import from_apply
from jaxbptt.readouts.identity import identity
from jaxbptt.readouts.linear import LinearReadoutParams, linear
from jaxbptt.readouts.mixed_precision import mixed_precision
from jaxbptt.readouts.several import several

__all__ = ["LinearReadoutParams", "from_apply", "identity", "linear", "mixed_precision", "several"]
