"""Arrays kept in the host's memory while an accelerator computes. Only this file says where an array lies."""

import jax


def store(tree):
    """`tree` in the host's memory."""
    return jax.device_put(tree, jax.memory.Space.Host)


def fetch(tree):
    """`tree` in the device's memory."""
    return jax.device_put(tree, jax.memory.Space.Device)
