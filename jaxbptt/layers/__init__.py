"""Networks of layers, each over all of its sequence before the next."""

from jaxbptt.layers.bidirectional import Bidirectional, Directions, bidirectional
from jaxbptt.layers.network import Layers

__all__ = ["Bidirectional", "Directions", "Layers", "bidirectional"]
