"""Which devices there are, the cores of the CPU or the GPUs, and which of them share a batch.

Whatever starts JAX is to be called before anything is computed. On a CPU every core is a device, so that a batch can be
split over them. Programs that are not split run as ever: they use one device, but the threads of all cores.
(Alternating between a process with one device and one with two, on two cores: times of plain scans and of a product of
1024³ within 3% of each other. ``bench --devices 1`` repeats that.)
"""

import json
import os
import subprocess
import sys
from typing import Any

import jax

from experiments.kit.options import BadInputError

_PATIENCE = 180  # seconds for JAX to say what devices there are


def start(gpu: bool, devices: int | None) -> None:
    """Chooses the platform and the number of devices.

    Args:
        gpu: take the GPUs there are.
        devices: CPU devices; ``None`` for one a core.

    Raises:
        BadInputError: without a GPU, or when JAX has started with another number of devices.
    """
    if gpu:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave room for torch
        try:
            backend = jax.default_backend()
        except RuntimeError as error:
            raise BadInputError(f"`--gpu`: JAX can't start its GPU: {str(error).splitlines()[0][:200]}") from None
        _require_gpu(backend)
        return
    number = devices or cores()
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError:  # JAX has started, in a session of Python's
        if devices is not None and len(jax.devices()) != devices:
            message = f"`--devices` comes too late: JAX has started with {len(jax.devices())}, got {devices}"
            raise BadInputError(message) from None


def gpus() -> list[str]:
    """What JAX calls the GPUs there are, asked in a process that ends: one that starts a GPU keeps some of its memory.

    Raises:
        BadInputError: without a GPU.
    """
    names = "[f'{device.platform}: {device.device_kind}' for device in jax.devices()]"
    code = f"import json, jax; print('\\n@devices', json.dumps([jax.default_backend(), {names}]))"
    said = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}  # or JAX's last line is about its traceback
    try:
        ran = subprocess.run([sys.executable, "-c", code], env=said, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise BadInputError(f"`--gpu`: JAX has not started its GPU in {_PATIENCE} seconds") from None
    answers = [line.removeprefix("@devices ") for line in ran.stdout.splitlines() if line.startswith("@devices ")]
    if not answers:
        reason = (ran.stderr.strip().splitlines() or [f"it ended with status {ran.returncode}"])[-1]
        raise BadInputError(f"`--gpu`: JAX can't start its GPU: {reason[:200]}")
    backend, found = json.loads(answers[-1])
    _require_gpu(backend)
    return found


def _require_gpu(backend):
    if backend != "gpu":
        raise BadInputError(
            f"`--gpu` needs a GPU, and JAX finds only {backend}: install jax for yours, such as jax[cuda13] or "
            "jax[cuda12], the same CUDA as torch's"
        )


def make_cores_devices() -> None:
    """Every core of the CPU a device, unless JAX has started; GPUs and TPUs are devices anyway."""
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:  # in a session of Python's
        return


def sharing(batch_size: int, wanted: int | None) -> tuple[Any, ...]:
    """The devices that share a batch: as many of those wanted as divide it.

    Args:
        batch_size: B.
        wanted: how many; all there are when ``None``.

    Returns:
        At least one device.

    Raises:
        BadInputError: when there are fewer than wanted.

    >>> len(sharing(7, None)) in (1, 7)
    True
    """
    here = jax.devices()
    if wanted is not None and wanted > len(here):
        raise BadInputError(f"`--devices` must be at most {len(here)}, as many as there are: got {wanted}")
    most = min(wanted or len(here), batch_size)
    return tuple(here[: next(number for number in range(most, 0, -1) if batch_size % number == 0)])


def cores() -> int:
    """Of the CPU, as far as this process may use them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
