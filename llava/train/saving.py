"""Writing the files of a run: nothing half written stays, and a full disk is reported as such."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint.opened import Kind

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM = 1 << 16
"""A disk with less room than this is full."""


class DiskFullError(OSError):
    """A run whose files do not fit on the disk."""


@contextlib.contextmanager
def saving(what: str, partial: Path, nbytes: int) -> Iterator[None]:
    """Inside, `what` is written to the folder `partial`, which is removed if that fails.

    torch, safetensors and tokenizers each raise another error when the disk is full.

    Args:
        nbytes: about how much is written.

    Raises:
        DiskFullError: the disk is full.
    """
    place = partial.parent
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) in _FULL or "No space left" in str(error)
        full = full or shutil.disk_usage(place).free < _ROOM
        shutil.rmtree(partial, ignore_errors=True)
        if not full:
            raise
        free = shutil.disk_usage(place).free
        needed, left, missing = (f"{n / 1e6:,.1f} MB" for n in (nbytes, free, max(nbytes - free, 0)))
        raise DiskFullError(
            f"the disk of {place} is full: {what} needs about {needed}, {left} are free, {missing} are missing. "
            "Nothing of it was left; make room, and the same command goes on from the newest checkpoint-N"
        ) from error


def size_of(model: Any, kind: Kind, optimizer: Any = None) -> int:
    """About how many bytes a result takes, or with `optimizer` a checkpoint-N."""
    tensors = [p for p in model.parameters() if p.requires_grad or kind is Kind.FULL]
    if optimizer is not None:
        states = getattr(optimizer, "state", {}).values()
        tensors += [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
