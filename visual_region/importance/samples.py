"""The samples that layers are scored on, from LLaVA JSON or image-caption pairs, as batches for the decoder."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import Conversation
from llava.data.collate import DataCollatorForSupervisedDataset
from llava.data.conversion import DataFormatError, read_items
from llava.data.dataset import LazySupervisedDataset
from llava.data.records import Records, open_records
from llava.files import cache_root, sha256_of, write_json
from llava.images import missing_images
from llava.names import agree, count, some
from visual_region.importance.tokens import ANSWER, IMAGE, PADDING, PROMPT, TokenBatch
from visual_region.scores import ScoreError

CAPTION_TEMPLATE = "plain"


@dataclass(frozen=True)
class SampleSet:
    """Samples of a data file: the records `indices`, in the order in which they are run.

    `captions`: the file holds image-caption pairs.
    """

    path: str
    sha256: str
    records: Records
    indices: tuple[int, ...]
    captions: bool

    @property
    def with_images(self) -> int:
        return int(self.records.has_image[list(self.indices)].sum())

    @property
    def images(self) -> list[str]:
        return list(dict.fromkeys(name for i in self.indices for name in self.records[i].images))

    def check_images(self, folder: Path) -> None:
        """Raises `ScoreError` for missing images."""
        if missing := missing_images(self.images, folder):
            verb = agree(len(missing), "is", "are")
            raise ScoreError(
                f"{len(missing)} of {count(len(self.images), 'image')} {verb} missing under {str(folder)!r}: "
                f"{some(missing)}; "
                "give --image-folder the folder that contains the paths of the data file"
            )


def open_samples(path: str, count: int | None, seed: int) -> SampleSet:
    """`count` random samples of a data file (None: all), ordered by length, then content, not by place in the file.

    The file is LLaVA JSON or JSON lines, or has items `{"image": ..., "caption": text or list of texts}`. Raises
    FileNotFoundError or DataFormatError for others.
    """
    if Path(path).is_dir():
        raise DataFormatError(f"data file {path} is a folder; give the JSON file itself")
    if not Path(path).is_file():
        raise FileNotFoundError(f"data file {path} does not exist")
    captions = _holds_captions(Path(path))
    records = open_records(_captions_as_llava(Path(path)) if captions else path)
    words = records.words

    def length_and_content(i: int) -> tuple[int, str]:
        content = json.dumps([records[i].images, records[i].turns])
        return int(words[i]), hashlib.sha256(content.encode()).hexdigest()

    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed)).tolist()
    return SampleSet(path, sha256_of(path), records, tuple(sorted(order[:count], key=length_and_content)), captions)


def _holds_captions(path: Path) -> bool:
    """Whether the first item has a `caption` and no `conversations`."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 16).lstrip().removeprefix("[").lstrip()
    try:
        item, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return False
    return isinstance(item, dict) and "caption" in item and "conversations" not in item


def _captions_as_llava(path: Path) -> Path:
    """The pairs as LLaVA JSON in the cache, one item per caption."""
    target = cache_root() / "captions" / f"{path.stem}-{sha256_of(path)[:16]}.json"
    if target.exists():
        return target
    items = []
    for i, row in enumerate(read_items(path)):
        captions, image = (row.get("caption"), row.get("image")) if isinstance(row, dict) else (None, None)
        captions = [captions] if isinstance(captions, str) else captions
        good = isinstance(captions, list) and captions and all(isinstance(c, str) and c.strip() for c in captions)
        if not good or not isinstance(image, str) or not image:
            need = "it needs 'image' (a path) and 'caption' (a text or a list of texts)"
            raise DataFormatError(f"{path}: item {i} is not an image-caption pair; {need}")
        for caption in captions:
            turns = [{"from": "human", "value": DEFAULT_IMAGE_TOKEN}, {"from": "gpt", "value": caption}]
            items.append({"id": f"{row.get('id', i)}", "image": image, "conversations": turns})
    write_json(target, items)
    return target


@dataclass
class Reader:
    """Makes batches for a loaded model; with `feature_cache` the image processor is not used."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    processor: Any
    template: Conversation
    image_folder: Path
    feature_cache: Any = None

    def batches(self, samples: SampleSet, groups: Sequence[Sequence[int]]) -> Iterator[TokenBatch]:
        """One batch for each group of record indices, on the model's device."""
        config = self.model.config
        limit = getattr(config, "tokenizer_model_max_length", None)
        collate = DataCollatorForSupervisedDataset(self.tokenizer, limit)
        dataset = LazySupervisedDataset(
            samples.records,
            self.tokenizer,
            self.template,
            self.image_folder,
            self.processor,
            getattr(config, "image_aspect_ratio", None) or "square",
            limit,
            self.feature_cache,
            mm_use_im_start_end=bool(getattr(config, "mm_use_im_start_end", False)),
            tiling=self.model.tiling,
            answers_only=True,
        )
        for group in groups:
            yield self.token_batch(collate([dataset[i] for i in group]), tuple(group))

    @torch.no_grad()
    def token_batch(self, batch: dict[str, Any], group: tuple[int, ...]) -> TokenBatch:
        """The decoder's inputs for the collator's `batch`, whose labels say what is an answer; rows are of `group`."""
        device, dtype = self.model.device, self.model.dtype
        mask = batch["attention_mask"].bool()
        # Kinds pass as labels through the splicing, which labels image tokens and padding with -100.
        kinds = torch.where(batch["labels"] != IGNORE_INDEX, ANSWER, PROMPT).masked_fill(~mask, IGNORE_INDEX)
        pixels, features = (_to(batch.get(key), device, dtype) for key in ("images", "image_features"))
        ids, positions, mask, _, embeds, kinds = self.model.prepare_inputs_labels_for_multimodal(
            batch["input_ids"].to(device),
            torch.zeros_like(batch["input_ids"]).to(device),
            mask.to(device),
            None,
            kinds.to(device),
            pixels,
            image_sizes=batch.get("image_sizes"),
            image_features=features,
        )
        if embeds is None:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
        kinds = torch.where(mask.bool(), torch.where(kinds == IGNORE_INDEX, IMAGE, kinds), PADDING)
        state = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        return TokenBatch(state | {"attention_mask": mask, "position_ids": positions}, kinds, group)


def _to(images: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(images, list):
        return [image.to(device, dtype) for image in images]
    return None if images is None else images.to(device, dtype)


def groups_of(samples: SampleSet, batch_size: int) -> list[tuple[int, ...]]:
    """Batches of similar length, longest first, so that a lack of memory shows at once."""
    longest_first = samples.indices[::-1]
    return [longest_first[start : start + batch_size] for start in range(0, len(longest_first), batch_size)]
