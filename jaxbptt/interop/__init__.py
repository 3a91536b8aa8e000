"""Parameters from and to other libraries, as plain dicts of arrays. None of these libraries is imported."""

from jaxbptt.interop import equinox, flax, haiku, keras, torch

__all__ = ["equinox", "flax", "haiku", "keras", "torch"]
