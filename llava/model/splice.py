"""Replaces `<image>` tokens by image features, and pads rows to one batch (upstream: llava/model/llava_arch.py)."""

import torch
from torch import nn

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX


def deal_blocks(blocks: list[torch.Tensor], counts: list[int]) -> list[list[torch.Tensor]]:
    """Assigns image blocks to rows with `counts` `<image>` tokens, in reading order.

    It accepts one block per token, and upstream's convention with an empty image for each row without an image;
    raises `ValueError` for other numbers of blocks.
    """
    padded = [max(count, 1) for count in counts]
    if len(blocks) == sum(counts) or (len(blocks) == 1 and not sum(counts)):
        # A batch of text has one empty image from our collator.
        taken = counts
    elif len(blocks) == sum(padded):
        taken = padded
    else:
        raise ValueError(
            f"{len(blocks)} images were given for {sum(counts)} <image> tokens (per row: {counts}); "
            "give one image for each <image> token"
        )
    rows, start = [], 0
    for count, take in zip(counts, taken, strict=True):
        rows.append(blocks[start : start + count])
        start += take
    return rows


def splice_row(
    ids: torch.Tensor, labels: torch.Tensor, blocks: list[torch.Tensor], words: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row without padding, with its images inserted: vectors `(length, hidden)` and labels `(length,)`.

    `words` are the embeddings of the ids, `(length, hidden)`; those of image tokens are not used.
    """
    if not blocks:
        return words, labels
    vectors, targets, start = [], [], 0
    for block, position in zip(blocks, (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist(), strict=True):
        vectors += [words[start:position], block.to(dtype=words.dtype, device=words.device)]
        targets += [labels[start:position], labels.new_full((len(block),), IGNORE_INDEX)]
        start = position + 1
    return torch.cat([*vectors, words[start:]]), torch.cat([*targets, labels[start:]])


def pad_rows(
    rows: list[tuple[torch.Tensor, torch.Tensor]], side: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pads rows of vectors and labels to one batch: embeds, labels, bool mask, positions (0 on padding)."""
    if side not in ("left", "right"):
        raise ValueError(f"tokenizer_padding_side is {side!r}; allowed: left, right")
    longest = max(len(targets) for _, targets in rows)
    embeds, labels, masks, positions = [], [], [], []
    for vectors, targets in rows:
        pad = longest - len(targets)
        ends = (pad, 0) if side == "left" else (0, pad)
        embeds.append(nn.functional.pad(vectors, (0, 0, *ends)))
        labels.append(nn.functional.pad(targets, ends, value=IGNORE_INDEX))
        masks.append(nn.functional.pad(torch.ones_like(targets, dtype=torch.bool), ends, value=False))
        positions.append(nn.functional.pad(torch.arange(len(targets), device=targets.device), ends))
    return torch.stack(embeds), torch.stack(labels), torch.stack(masks), torch.stack(positions)


def join_rows(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joins rows of vectors and labels to one row without padding: embeds, labels, positions; each `(1, total, ...)`.

    Positions count from 0 in each row. A row's first label is -100: the position before it is of another row.
    """
    embeds = torch.cat([vectors for vectors, _ in rows])
    first = [targets.new_full((min(1, len(targets)),), IGNORE_INDEX) for _, targets in rows]
    labels = torch.cat([part for start, (_, targets) in zip(first, rows, strict=True) for part in (start, targets[1:])])
    positions = torch.cat([torch.arange(len(targets), device=targets.device) for _, targets in rows])
    return embeds.unsqueeze(0), labels.unsqueeze(0), positions.unsqueeze(0)
