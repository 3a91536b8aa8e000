"""Weights of other libraries: there and back the same bits, and their outputs and gradients."""
