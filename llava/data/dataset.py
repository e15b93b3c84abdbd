"""Samples for training: ids, labels, and pixels or cached features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from llava.conversation import Conversation
from llava.data.feature_cache import FeatureCache
from llava.data.preprocess import preprocess
from llava.data.records import Record, Records
from llava.images import image_size, image_sizes, open_image
from llava.mm_utils import process_image
from llava.tiling import Tiling


class SampleError(ValueError):
    """A sample that cannot be made, such as one with a broken image."""

    def __init__(self, message: str) -> None:
        # From a worker process torch raises it again with the whole traceback as its message.
        super().__init__(message.rpartition(f"{SampleError.__qualname__}: ")[2].strip())


@dataclass(eq=False, repr=False)
class LazySupervisedDataset(Dataset):
    """The samples of a data file, made when needed (upstream: the class of the same name in train.py).

    An item holds `input_ids` and `labels`, int64 `(length,)`, and `images`, a list of float32 `(3, h, w)`, or
    `image_features`, a list of `(tokens, mm_hidden_size)`, if a feature cache is given. With several views per image
    these have one dimension more in front, the views, and `image_sizes` is a list of widths and heights in pixels.

    Args:
        indices: the samples to use; default all.
        tiling: of the model; None for one view per image.
        answers_only: as of `preprocess`.
    """

    records: Records
    tokenizer: PreTrainedTokenizerBase
    template: Conversation
    image_folder: str | Path | None
    image_processor: BaseImageProcessor | None
    image_aspect_ratio: str
    model_max_length: int | None
    feature_cache: FeatureCache | None = None
    indices: np.ndarray | None = None
    mm_use_im_start_end: bool = False
    tiling: Tiling | None = None
    answers_only: bool = False

    def __post_init__(self) -> None:
        self.image_folder = Path(self.image_folder or "")
        if self.indices is None:
            self.indices = np.arange(len(self.records))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.records[int(self.indices[i])]
        try:
            return self._item(record)
        except (ValueError, OSError) as error:
            raise SampleError(f"sample {record.id} of {self.records.source} cannot be used: {error}") from error

    def _item(self, record: Record) -> dict[str, Any]:
        input_ids, labels = preprocess(
            record.turns,
            self.tokenizer,
            self.template,
            len(record.images),
            self.model_max_length,
            self.mm_use_im_start_end,
            self.answers_only,
        )
        item: dict[str, Any] = {"input_ids": input_ids, "labels": labels}
        paths = [self.image_folder / name for name in record.images]
        if paths and self.feature_cache is not None:
            item["image_features"] = [self.feature_cache.features(path) for path in paths]
        elif paths:
            transform = self.image_processor, self.image_aspect_ratio, self.tiling
            item["images"] = [process_image(open_image(path), *transform) for path in paths]
        if paths and self._several:
            item["image_sizes"] = [image_size(path) for path in paths]
        return item

    @property
    def _several(self) -> bool:
        return self.tiling is not None and self.tiling.several

    @property
    def modality_lengths(self) -> np.ndarray:
        """int `(n,)`: words per sample, negative for text only: upstream's key for grouping.

        A sample without words counts 1. Where images have several views, as many as their size asks for, their tokens
        count too.
        """
        words = np.maximum(self.records.words[self.indices], 1)
        if self._several:
            images = self.records.table["images"].to_pylist()
            images = [images[i] for i in self.indices]
            sizes = image_sizes((name for names in images for name in names), self.image_folder)
            tokens = {name: self.tiling.tokens(size) for name, size in sizes.items()}
            words = words + [sum(tokens[name] for name in names) for names in images]
        return np.where(self.records.has_image[self.indices], words, -words)
