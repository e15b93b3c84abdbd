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

    The mask comes from lengths: upstream compares ids with the padding id and masks real unknown tokens if pad = unk.

    Args:
        model_max_length: rows are cut to it, and images whose tokens are cut off are removed.
        empty: `("images" or "image_features", tensor)` of one image of zeros, which a batch without images gets.
    """

    tokenizer: PreTrainedTokenizerBase
    model_max_length: int | None = None
    empty: tuple[str, torch.Tensor] | None = None

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
        ids, labels = ([item[key][: self.model_max_length] for item in instances] for key in ("input_ids", "labels"))
        pad = torch.nn.utils.rnn.pad_sequence
        batch: dict[str, Any] = {
            "input_ids": pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0),
            "labels": pad(labels, batch_first=True, padding_value=IGNORE_INDEX),
            "attention_mask": pad([torch.ones_like(row, dtype=torch.bool) for row in ids], batch_first=True),
        }
        for key in ("images", "image_features", "image_sizes"):
            kept = []
            for item, row in zip(instances, ids, strict=True):
                if key in item:
                    tokens_left, tokens = (int((r == IMAGE_TOKEN_INDEX).sum()) for r in (row, item["input_ids"]))
                    # The model reports counts that differ in the data itself.
                    kept += item[key][:tokens_left] if tokens_left < tokens else item[key]
            if kept:
                alike = key != "image_sizes" and len({entry.shape for entry in kept}) == 1
                batch[key] = torch.stack(kept) if alike else kept
        if self.empty is not None and not batch.keys() & {"images", "image_features"}:
            batch[self.empty[0]] = self.empty[1].unsqueeze(0)
        return batch
