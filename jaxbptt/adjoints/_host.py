"""Arrays kept in the memory of the host while an accelerator computes. The one file that says where an array lies."""

import jax


def store(tree):
    """`tree` in the host's memory."""
    return jax.device_put(tree, jax.memory.Space.Host)


def fetch(tree):
    """`tree` in the device's memory."""
    return jax.device_put(tree, jax.memory.Space.Device)
