"""All that runs over time: the loop, time in blocks, θ_h as a loop reads it, the two sweeps, the associative scan."""
