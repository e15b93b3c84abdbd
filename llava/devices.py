"""The memory of a device, and the threads of a CPU."""

import os
from pathlib import Path

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from llava.names import count

_CGROUP = Path("/sys/fs/cgroup")


def threads_line() -> str:
    """How many threads compute on a CPU, and how they wait for each other: see llava/__init__.py."""
    waits = os.environ.get("OMP_WAIT_POLICY", "not set")
    return f"CPU: {count(torch.get_num_threads(), 'thread')}, OMP_WAIT_POLICY={waits}"


def free_memory(device: torch.device) -> int:
    """Bytes that a program can still take: on a CPU, what the machine and its container leave to one local process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = psutil.virtual_memory().available
    if (limit := _container_limit()) is not None:
        free = min(free, limit)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on any device."""
    # accelerate's test knows the text of the CPU's allocator on Linux, but not "not enough memory" on Windows.
    given_up = isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return given_up or should_reduce_batch_size(error)


def _container_limit() -> int | None:
    """Bytes that the container's limit (cgroup v2) leaves; None without a limit."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return int(limit) - int(used) if limit.isdecimal() and used.isdecimal() else None
