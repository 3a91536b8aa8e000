"""What the processor is called, and what it can do, where the system tells."""

import platform
from pathlib import Path


def processor() -> str:
    """Its name."""
    return _cpuinfo("model name") or platform.machine()


def multiplies_bfloat16() -> bool:
    """Whether it has units for products of bfloat16 matrices."""
    return "amx_bf16" in _cpuinfo("flags").split()


def _cpuinfo(field):
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return ""
