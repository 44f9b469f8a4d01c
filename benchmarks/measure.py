"""What the full-size benchmarks share: how a pass is timed, and what figures belong to."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import torch

REPEATS = 3


def measured(work: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> tuple[float, float, Any]:
    """Median seconds of `work` after one pass to warm up, the peak of allocated memory in GiB, and its result."""
    result = work()
    seconds = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats):
        del result
        synchronise(device)
        start = time.perf_counter()
        result = work()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak_gib(device), result


def peak_gib(device: torch.device) -> float:
    """Memory that tensors took at most since the last reset, GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def about(device: torch.device, commit: str, packages: Sequence[str]) -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "driver": _driver() if device.type == "cuda" else "",
        "versions": {name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "commit": commit,
        "command": f"python {' '.join(sys.argv)}",
    }


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
