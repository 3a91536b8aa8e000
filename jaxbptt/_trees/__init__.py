"""Trees of arrays: cotangents, real vectors, and over which axes of a mesh they vary."""
