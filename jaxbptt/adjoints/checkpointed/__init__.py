"""Backpropagation through time in bounded memory.

`adjoint` says how much to keep, `revolve` says when, and `rule` does it.
"""

from jaxbptt.adjoints.checkpointed.adjoint import Checkpointed, checkpointed

__all__ = ["Checkpointed", "checkpointed"]
