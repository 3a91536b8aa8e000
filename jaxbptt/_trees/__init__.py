"""Trees of arrays: their cotangents, real vectors, and the axes of a mesh over which they vary."""
