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


def shared_length(ids: list[torch.Tensor], labels: list[torch.Tensor]) -> int:
    """How many text ids all rows begin with, before any image and before the position that predicts a first label.

    `ids` are the rows' ids without padding, `labels` those of the spliced rows. Each row keeps at least one position.
    """
    first, shared = ids[0], min(len(row) for row in labels) - 1
    for row in ids:
        both = min(len(first), len(row))
        ends = (first[:both] != row[:both]) | (row[:both] == IMAGE_TOKEN_INDEX)
        shared = min([shared, both, *ends.nonzero().flatten()[:1].tolist()])
    for row in labels:
        # The label of a row's first own position would be predicted by a position that is another row's too.
        shared = min([shared, *((row[1:] != IGNORE_INDEX).nonzero().flatten()[:1]).tolist()])
    return max(0, shared)


def join_rows(
    rows: list[tuple[torch.Tensor, torch.Tensor]], shared: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joins rows of vectors and labels to one row without padding: embeds, labels, positions; each `(1, total, ...)`.

    The first `shared` positions, with which all rows begin, are in the first row only. Positions count from 0 in the
    first row and from `shared` in the others. A row's first label is -100: the position before it is of another row.
    """
    starts = [0] + [shared] * (len(rows) - 1)
    embeds, labels, positions = [], [], []
    for start, (vectors, targets) in zip(starts, rows, strict=True):
        embeds.append(vectors[start:])
        labels += [targets.new_full((min(1, len(targets)),), IGNORE_INDEX), targets[start + 1 :]]
        positions.append(torch.arange(start, len(targets), device=targets.device))
    return torch.cat(embeds).unsqueeze(0), torch.cat(labels).unsqueeze(0), torch.cat(positions).unsqueeze(0)
