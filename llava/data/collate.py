"""Samples to a padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX


@dataclass
class DataCollatorForSupervisedDataset:
    """Pads on the right and joins the images of all rows in reading order (upstream: the class in train.py).

    The mask comes from lengths, not from comparing ids with the padding id: with pad = unk, upstream masked real
    unknown tokens away.

    Args:
        model_max_length: rows are cut to it; an image whose token is cut off goes with it.
        dummy: `("images" or "image_features", tensor)` of one empty image, sent for a batch of text only where every
            rank must run tower and projector.
    """

    tokenizer: PreTrainedTokenizerBase
    model_max_length: int | None = None
    dummy: tuple[str, torch.Tensor] | None = None

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
        limit = self.model_max_length
        ids = [item["input_ids"][:limit] for item in instances]
        labels = [item["labels"][:limit] for item in instances]
        pad = torch.nn.utils.rnn.pad_sequence
        batch: dict[str, Any] = {
            "input_ids": pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0),
            "labels": pad(labels, batch_first=True, padding_value=IGNORE_INDEX),
            "attention_mask": pad([torch.ones_like(row, dtype=torch.bool) for row in ids], batch_first=True),
        }
        for key in ("images", "image_features"):
            kept = []
            for item, row in zip(instances, ids, strict=True):
                if key in item:
                    tokens_left, tokens = (int((r == IMAGE_TOKEN_INDEX).sum()) for r in (row, item["input_ids"]))
                    # Counts that differ in the data itself stay as they are, for the model to refuse.
                    kept += item[key][:tokens_left] if tokens_left < tokens else item[key]
            if kept:
                same = all(entry.shape == kept[0].shape for entry in kept)
                batch[key] = torch.stack(kept) if same else kept
        if self.dummy is not None and "images" not in batch and "image_features" not in batch:
            key, empty = self.dummy
            batch[key] = empty.unsqueeze(0)
        return batch
