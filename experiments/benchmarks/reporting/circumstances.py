"""Under what circumstances was measured: machine, versions, date, settings."""

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks.config import QUICK, Config
from experiments.benchmarks.measuring import machine
from experiments.kit import devices, output

_OF_ONE_SITTING = {"out", "resume", "markdown"}  # flags that say nothing of what is measured
_PACKAGES = ("flax", "equinox", "dm-haiku", "torch", "jax-cuda12-plugin", "jax-cuda13-plugin")
_PACKAGES += ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12", "nvidia-cublas")
_PACKAGES += ("nvidia-nccl-cu12", "nvidia-nccl-cu13")
_SETTINGS = (  # in the environment, they change what is measured
    "JAX_",
    "XLA_",
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_",
    "CUBLAS_",
    "CUDNN_",
    "TORCH_",
    "OMP_",
    "GLIBC_TUNABLES",
)
_WHICH_DEVICE = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}  # but for these: what kind it is says the machine


def of(config: Config, devices_there: Sequence[str] | None = None) -> dict[str, Any]:
    """Machine, versions, date and settings: `result.json` can be read without anything beside it."""
    found = output.circumstances((), devices_there)
    default = Config(**(QUICK if config.quick else {}))
    changed = [
        f"--{field.name.replace('_', '-')} {_written(getattr(config, field.name))}".strip()
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(default, field.name) and field.name not in _OF_ONE_SITTING
    ]
    here = {**found["machine"], "processor": machine.processor(), "cores": devices.cores()}
    versions = {**found["versions"], **{package: output.version(package) for package in _PACKAGES}}
    command = " ".join(["python -m experiments bench", *changed])
    set_outside = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)}
    about = {"date": found["date"], "versions": versions, "machine": here, "settings": command}
    return {**about, "environment": set_outside}


def that_must_be_the_same(config: Config, about: Mapping[str, Any]) -> dict[str, Any]:
    """Flags and circumstances without which a run that was cut off doesn't go on."""
    flags = {f"--{name}": value for name, value in output.flags(config).items() if name not in _OF_ONE_SITTING}
    environment = {name: value for name, value in about["environment"].items() if name not in _WHICH_DEVICE}
    return {**flags, "machine": about["machine"], "versions": about["versions"], "environment": environment}


def _written(value):
    if isinstance(value, bool):
        return ""
    return " ".join(map(shlex.quote, map(str, value if isinstance(value, tuple) else (value,))))
