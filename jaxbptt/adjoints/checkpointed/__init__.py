"""Backpropagation through time in bounded memory: `adjoint` says how much to keep, `revolve` when, `rule` does it."""

from jaxbptt.adjoints.checkpointed.adjoint import Checkpointed, checkpointed

__all__ = ["Checkpointed", "checkpointed"]
