"""The device module of the platform "cpu": torch.cpu plus the memory, cache and RNG functions that verl calls.

Memory figures are the process's resident set, the nearest thing that a CPU process has to allocator statistics.
"""

import resource
import sys
from typing import Any

import psutil
import torch


def empty_cache() -> None:
    """Nothing is cached."""


def ipc_collect() -> None:
    """Nothing is shared between processes."""


def memory_allocated(device: Any = None) -> int:
    """Resident set of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def max_memory_allocated(device: Any = None) -> int:
    """Peak resident set of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """The operating system's peak cannot be reset."""


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(available, total) memory of the machine in bytes."""
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """A process's memory is not limited."""


def get_device_name(device: Any = None) -> str:
    """The device type; verl looks peak FLOPS up under this name."""
    return "cpu"


def get_rng_state(device: Any = None) -> torch.Tensor:
    """State of torch's CPU generator."""
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
    """Set the state of torch's CPU generator."""
    torch.set_rng_state(state)


def manual_seed(seed: int) -> None:
    """Seed torch's CPU generator."""
    torch.manual_seed(seed)


manual_seed_all = manual_seed


def __getattr__(name: str) -> Any:
    return getattr(torch.cpu, name)
