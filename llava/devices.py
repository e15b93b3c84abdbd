"""The name and the memory of a device, and the threads of a CPU."""

import os
import platform
from pathlib import Path

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from llava.names import count

_CGROUP = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_PROCESSOR = Path("/proc/cpuinfo")


def threads_line() -> str:
    """How many threads compute on a CPU, and how they wait for each other: see llava/__init__.py."""
    waits = [f"{name}={os.environ[name]}" for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ]
    return ", ".join([f"CPU: {count(torch.get_num_threads(), 'thread')}", *waits])


def free_memory(device: torch.device) -> int:
    """Bytes that a program can still take: on a CPU, what the machine and its container leave to one local process."""
    if device.type == "cuda":
        # What torch keeps for later tensors is free for them.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = psutil.virtual_memory().available
    if (limit := _container_limit()) is not None:
        free = min(free, limit)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: of the GPU's memory, or resident (VmHWM) on a CPU.

    Not getrusage: it includes what the parent process held before it started this program.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return status_bytes("VmHWM") if _STATUS.is_file() else psutil.Process().memory_info().rss


def status_bytes(name: str) -> int:
    """A size that Linux reports of this process, such as VmHWM or RssAnon, in bytes."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def device_name(device: torch.device) -> str:
    """The model of a GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = (line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _cpuinfo() -> str:
    """What Linux reports of the processor; nothing elsewhere."""
    return _PROCESSOR.read_text() if _PROCESSOR.is_file() else ""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast: on a GPU from Ampere on, or a processor with instructions for it (AVX512-BF16, AMX)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return any(name in _cpuinfo() for name in ("avx512_bf16", "amx_bf16"))


def bfloat16_line(device: torch.device) -> str:
    """Whether bfloat16 is fast on a device, and the flags for what is fast there."""
    if has_fast_bfloat16(device):
        return "bfloat16 is fast here; train with --bf16 True, evaluate with --dtype bf16"
    if device.type == "cpu":
        return "bfloat16 is slow here; use float32: BF16=False for the scripts, --dtype fp32"
    return "bfloat16 is slow here; use float16: BF16=False and --fp16 True for the scripts, --dtype fp16"


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
