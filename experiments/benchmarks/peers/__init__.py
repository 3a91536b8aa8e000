"""Who computes the gradient: this library and the others, from the same weights and inputs."""
