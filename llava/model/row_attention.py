"""Attention within the rows of a batch that are joined to one row, without padding.

The decoder then computes no padding: linear modules and norms see `(1, total, hidden)`. Transformers' flash attention
takes such rows from `cu_seq_lens_q`; its sdpa would build a mask of total x total. The attention here, registered with
transformers as "rows", computes each row by itself.
"""

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    # Before torch 2.10.
    varlen_attn = None

ROWS = "rows"
"""The name of this attention for `set_attn_implementation`."""
_VARLEN_HEADS = (8, 256)
"""`varlen_attn` takes heads whose size is a multiple of the first and at most the second."""
_VARLEN_ARGUMENTS = frozenset(inspect.signature(varlen_attn).parameters if varlen_attn else ())
"""What this release's kernel takes."""


def row_arguments(lengths: list[int], device: torch.device, shared: int = 0) -> dict[str, Any]:
    """The keyword arguments that tell the decoder's attention where rows of these lengths end.

    `shared`: how many positions of the first row the other rows begin with; their lengths do not count them.
    """
    ends = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    longest = max(lengths)
    kernel = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
    return kernel | {"row_lengths": lengths, "shared_positions": shared}


def shares_positions(device: torch.device) -> bool:
    """Whether attention on this device lets rows share their first positions; torch's CUDA kernel takes whole rows."""
    return device.type == "cpu"


def row_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    row_lengths: list[int] | None = None,
    shared_positions: int = 0,
    cu_seq_lens_q: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention; query `(batch, heads, length, size)`, key and value with their own number of heads.

    Rows end as `row_lengths` says; without it, where positions jump (StableLM's layers pass nothing else
    on). Returns `(batch, length, heads, size)` and None.
    """
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if attention_mask is not None or key.shape[2] > query.shape[2]:
        # A padded batch, or new tokens after a cache; a single new token has no mask.
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, **options
        )
        return found.transpose(1, 2).contiguous(), None
    if row_lengths is None and position_ids is not None and len(query) == len(position_ids) == 1:
        row_lengths, shared_positions = _rows_of(position_ids[0])
    if row_lengths is None:
        rows = [(query, key, value)]
    elif not dropout and _has_varlen(query):
        ends = row_arguments(row_lengths, query.device)["cu_seq_lens_q"] if cu_seq_lens_q is None else cu_seq_lens_q
        return _varlen(query, key, value, ends, max(row_lengths), sliding_window, options), None
    else:
        rows = list(zip(*(states.split(row_lengths, dim=2) for states in (query, key, value)), strict=True))
    if shared_positions:
        begin = [states[:, :, :shared_positions] for states in rows[0]]
        rows[1:] = [[torch.cat(parts, dim=2) for parts in zip(begin, row, strict=True)] for row in rows[1:]]
    found = [_causal(*row, sliding_window, dropout, options) for row in rows]
    # The shared positions are the first row's results.
    found[1:] = [states[:, :, shared_positions:] for states in found[1:]]
    return (found[0] if len(found) == 1 else torch.cat(found, dim=2)).transpose(1, 2).contiguous(), None


def _rows_of(positions: torch.Tensor) -> tuple[list[int], int]:
    """The lengths of joined rows, and how many positions they share, from their positions `(total,)`."""
    starts = [0, *((positions.diff() != 1).nonzero().flatten() + 1).tolist()]
    lengths = [end - start for start, end in pairwise([*starts, len(positions)])]
    return lengths, int(positions[starts[-1]])


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    dropout: float,
    options: dict[str, Any],
) -> torch.Tensor:
    length, mask = query.shape[2], None
    if window is not None and window < length:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, **options
    )


def _has_varlen(query: torch.Tensor) -> bool:
    """Whether torch's kernel for rows of different lengths can run; before torch 2.11 it takes no window."""
    multiple, largest = _VARLEN_HEADS
    sizes = query.shape[-1] % multiple == 0 and query.shape[-1] <= largest
    half = query.dtype in (torch.float16, torch.bfloat16)
    able = query.is_cuda and half and sizes and torch.cuda.get_device_capability(query.device)[0] >= 8
    return able and "window_size" in _VARLEN_ARGUMENTS


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    window: int | None,
    options: dict[str, Any],
) -> torch.Tensor:
    if "enable_gqa" not in _VARLEN_ARGUMENTS:
        # torch 2.11 wants as many heads of keys as of queries.
        options = {"scale": options["scale"]}
        key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
    rows = (states[0].transpose(0, 1) for states in (query, key, value))
    # The window counts earlier positions, without the position itself.
    before = -1 if window is None else window - 1
    return varlen_attn(*rows, ends, ends, longest, longest, window_size=(before, 0), **options).unsqueeze(0)


def _row_mask(*, attention_mask: torch.Tensor | None, q_length: int, kv_length: int, **kwargs: Any) -> Any:
    """No mask where `row_attention` is causal by itself; transformers' mask for padded batches and with a cache."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(attention_mask=attention_mask, q_length=q_length, kv_length=kv_length, **kwargs)


AttentionInterface.register(ROWS, row_attention)
AttentionMaskInterface.register(ROWS, _row_mask)
