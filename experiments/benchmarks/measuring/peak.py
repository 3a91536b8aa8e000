"""Peak memory of a process that does one contender's work and nothing else.

``python -m experiments.benchmarks.measuring.peak '{…}'`` does it, and prints one line of JSON; `peak` starts it.
The high-water mark of the process is set back (Linux) after compiling, so that it is that of running. That of an
accelerator can't be set back with JAX: where running went no higher than compiling, which tries products out, it is
a bound.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.peers import contenders
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender, LeftOutError
from experiments.kit import devices

_TIMEOUT = 300
_CALLS = 3
_ANSWER = "@peak "  # how the line begins: libraries print as well


class Peak(NamedTuple):
    """Bytes of one process.

    Attributes:
        before: resident after compiling, with the inputs, before the first gradient.
        peak: the most resident while running; the program's own, libraries and inputs included.
        device: the most on the accelerator; ``None`` on a CPU and where it isn't counted.
        device_before: the most there before the first gradient; ``None`` where `device` is of running alone.
    """

    before: int
    peak: int
    device: int | None
    device_before: int | None


def peak(work: works.Work, contender: Contender, seed: int, gpu: bool, devices: int | None) -> Peak:
    """Of one contender, in a process of its own.

    Raises:
        LeftOutError: when it can't do the work, or the process ends or hangs.
    """
    task = {"cell": work.cell, "shape": str(work.shape), "contender": contender.name, "seed": seed}
    return _in_a_process(task | {"gpu": gpu, "devices": devices})


def _in_a_process(task):
    command = [sys.executable, "-m", "experiments.benchmarks.measuring.peak", json.dumps(task)]
    root = Path(__file__).parents[3]
    said = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}  # or JAX's last line is about its traceback
    try:
        ran = subprocess.run(command, cwd=root, env=said, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise LeftOutError(f"took more than {_TIMEOUT} seconds") from None
    answers = [line.removeprefix(_ANSWER) for line in ran.stdout.splitlines() if line.startswith(_ANSWER)]
    if not answers:
        raise LeftOutError((ran.stderr.strip().splitlines() or [f"ended with status {ran.returncode}"])[-1][:200])
    answer = json.loads(answers[-1])  # whatever became of the process after it
    if "left_out" in answer:
        raise LeftOutError(answer["left_out"])
    return Peak(**answer)


def measure(task: dict) -> dict:
    """What the process does: builds, compiles, then runs a few times."""
    devices.start(task["gpu"], task["devices"])
    everybody = (*contenders.OURS, *contenders.PEERS, *contenders.GPU_PEERS)
    contender = next(contender for contender in everybody if contender.name == task["contender"])
    work = works.make(task["cell"], works.shape(task["shape"]), task["seed"])
    try:
        built = contenders.build(contender, work)
    except LeftOutError as reason:
        return {"left_out": str(reason)}
    forget()
    before, device_before = resident("VmRSS"), _on_the_device(contender)
    for _ in range(_CALLS):
        built.wait(built.run())
    device = _on_the_device(contender)
    return Peak(before, resident("VmHWM"), device, None if contender.flag == "torch" else device_before)._asdict()


def forget() -> None:
    """Sets the high-water mark of this process back, where the system lets it."""
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then that of compiling too
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def resident(field: str) -> int:
    """Bytes of this process, now (VmRSS) or at most (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _on_the_device(contender):
    if contender.flag == "torch":
        import torch  # pyright: ignore[reportMissingImports]

        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    import jax

    stats = jax.devices()[0].memory_stats()
    return (stats or {}).get("peak_bytes_in_use")


def _end_with(parent):
    """Where that is killed, nobody else would end this process."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    print(f"\n{_ANSWER}{json.dumps(measure(json.loads(sys.argv[1])))}", flush=True)
