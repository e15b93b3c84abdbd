"""Which attention kernels a run uses, decided once and printed."""

import torch
from transformers.utils import is_flash_attn_2_available

from llava.train.flag_names import AUTO

CHOICES = (AUTO, "flash_attention_2", "sdpa", "eager")


def why_not_flash(dtype: torch.dtype) -> str | None:
    """Why flash attention cannot run here in `dtype`; None if it can.

    It needs its package, an Ampere GPU or later (a V100 fails in the first step), and 16-bit numbers.
    """
    if not torch.cuda.is_available():
        return "there is no GPU"
    if torch.cuda.get_device_capability()[0] < 8:
        return "this GPU is older than Ampere"
    if dtype == torch.float32:
        return "the run computes in float32; flash needs --bf16 True or --fp16 True"
    if not is_flash_attn_2_available():
        return "flash-attn is not installed"
    return None


def choose_attention(wanted: str | None, dtype: torch.dtype) -> str | None:
    """The `attn_implementation` to load a model with; None leaves it to transformers (sdpa).

    Args:
        wanted: `--attn_implementation`; "auto" takes flash if it can run here, else torch's own kernels.

    Raises:
        ValueError: an unknown name, or flash if it cannot run here.
    """
    if wanted in (None, "sdpa", "eager"):
        return wanted
    if wanted not in CHOICES:
        raise ValueError(f"--attn_implementation {wanted!r}; allowed: {', '.join(CHOICES)}")
    reason = why_not_flash(dtype)
    if reason is None:
        return "flash_attention_2"
    if wanted == AUTO:
        return "sdpa"
    raise ValueError(f"--attn_implementation {wanted} cannot run: {reason}; use sdpa, or auto to fall back by itself")


def computes_padding(chosen: str | None, padding_free: bool) -> bool:
    """Whether rows are padded. Eager attention always needs it: it computes one mask for the whole batch."""
    return chosen == "eager" or not padding_free


def describe_attention(
    wanted: str | None, chosen: str | None, dtype: torch.dtype, padding_free: bool, shares: bool = False
) -> str:
    """The line that is printed before a run; `shares`: rows compute once what all of them begin with."""
    reason = f" ({why_not_flash(dtype)})" if wanted == AUTO and chosen == "sdpa" else ""
    rows = "padded to the longest" if computes_padding(chosen, padding_free) else "without padding"
    rows += ", their common first text computed once" if shares and not computes_padding(chosen, padding_free) else ""
    return f"attention: {chosen or 'sdpa'}{reason}; rows {rows}"
