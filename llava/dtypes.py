"""The dtypes that --dtype names."""

import torch

from llava.flags import DTYPE_NAMES

DTYPES: dict[str, torch.dtype] = dict(zip(DTYPE_NAMES, (torch.float32, torch.float16, torch.bfloat16), strict=True))


def dtype_of(name: str | None) -> torch.dtype | None:
    """The dtype that a value of --dtype names; None for None."""
    return DTYPES[name] if name else None
