"""Finds what is wrong with a data set.

`python -m llava.data.check --data_path D --image_folder I --model_name_or_path M --version v1 [--image_tokens 576]`

The trainer runs the cheap part (numbers of images, missing files). The program also opens every image and tokenises
every sample.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.checkpoint.folder import open_checkpoint
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, get_template
from llava.data.preprocess import preprocess
from llava.data.records import Record, Records, open_records
from llava.flags import Parser, run_program
from llava.images import MISSING, BrokenImageError, image_size, missing_images, unreadable_images
from llava.model.builder import load_tokenizer
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.vision_modules import tiling_of
from llava.names import count, some
from llava.tiling import Tiling
from llava.tokenization import check_template


@dataclass
class Problems:
    """Kind of problem -> indices of the samples that have it."""

    by_kind: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: str, indices: Iterable[int]) -> None:
        indices = list(indices)
        if indices:
            self.by_kind.setdefault(kind, []).extend(indices)

    @property
    def samples(self) -> set[int]:
        return {i for indices in self.by_kind.values() for i in indices}

    def describe(self, records: Records) -> str:
        """One line per kind: how many samples, and the ids of the first few."""
        return "\n".join(
            f"{count(len(indices), 'sample')}: {kind} (ids {some([records[i].id for i in indices])})"
            for kind, indices in self.by_kind.items()
        )


def cheap_problems(records: Records, image_folder: str | Path | None, captions: bool = False) -> Problems:
    """Counts of `<image>` against images for every sample, and image files that do not exist.

    Args:
        captions: the template is that of captions, which other samples do not fit.
    """
    problems = Problems()
    if captions:
        why = "they are not captions: the template 'plain' takes exactly two turns with <image> in the first"
        problems.add(why, np.flatnonzero(~records.are_captions))
    counts, tokens = records.image_counts, records.image_tokens
    differ = (counts > 0) & (counts != tokens)
    problems.add("they name an image but have no <image> in the text", np.flatnonzero(differ & (tokens == 0)))
    problems.add("their numbers of <image> in the text and of images differ", np.flatnonzero(differ & (tokens > 0)))
    missing = missing_images(records.unique_images(), image_folder or "")
    if missing:
        where = image_folder or "the current folder"
        problems.add(f"image files are missing under {where} (such as {min(missing)})", _with_any(records, missing))
    return problems


def _with_any(records: Records, images: Iterable[str]) -> list[int]:
    """Indices of the samples that name one of the images."""
    images = set(images)
    return [i for i, names in enumerate(records.table["images"].to_pylist()) if not images.isdisjoint(names)]


def label_problem(
    record: Record,
    tokenizer: PreTrainedTokenizerBase,
    template: Conversation,
    max_length: int,
    tiling: Tiling,
    image_folder: str | Path | None,
) -> tuple[str | None, bool]:
    """What is wrong with the labels of a sample, if anything, and whether there is one to learn from."""
    try:
        ids, labels = preprocess(record.turns, tokenizer, template, len(record.images))
    except ValueError as error:
        return f"they do not fit the template: {error}", False
    tokens = [_tokens_of(Path(image_folder or "", name), tiling) for name in record.images]
    # The position of each token after the images' tokens are inserted. `cheap_problems` tells of wrong numbers.
    lengths = torch.ones_like(ids)
    for place, length in zip((ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist(), tokens, strict=False):
        lengths[place] = length
    position = lengths.cumsum(0)
    labelled = labels != IGNORE_INDEX
    if not labelled.any():
        return "no label at all: nothing in them would be trained", False
    if not (labelled & (position <= max_length)).any():
        return f"every label lies past model_max_length {max_length} and would be cut off", False
    if position[-1] > max_length:
        return f"longer than model_max_length {max_length} with their images, cut in part", True
    return None, True


def _tokens_of(image: Path, tiling: Tiling) -> int:
    """The tokens of an image; of one that cannot be opened, as many as an image can have."""
    if not tiling.several:
        return tiling.per_view
    try:
        return tiling.tokens(image_size(image))
    except BrokenImageError:
        return tiling.most_tokens


def check(args: argparse.Namespace) -> Problems:
    """Prints what is wrong with a data file; raises `ValueError` or `OSError` for one that cannot be read."""
    records = open_records(args.data_path)
    problems = cheap_problems(records, args.image_folder)
    found = unreadable_images(records.unique_images(), args.image_folder or "", whole=True, workers=args.workers)
    broken = {name: why for name, why in found.items() if why != MISSING}
    if broken:
        name, why = next(iter(broken.items()))
        problems.add(f"images cannot be opened (such as {name}: {why})", _with_any(records, broken))
    if args.model_name_or_path:
        tokenizer = load_tokenizer(args.model_name_or_path)
        template = get_template(args.version)
        check_template(args.version, tokenizer)
        tiling = _tiling(args.model_name_or_path) if args.image_tokens is None else Tiling(0, args.image_tokens)
        most = "up to " if tiling.several else ""
        print(f"labels are counted with {most}{tiling.most_tokens} tokens per image")
        for i in tqdm(range(len(records)), desc="labels", unit="sample"):
            limits = args.model_max_length, tiling, args.image_folder
            problem, _ = label_problem(records[i], tokenizer, template, *limits)
            if problem:
                problems.add(problem, [i])
    print(f"{args.data_path}: {count(len(records), 'sample')}, {int(records.has_image.sum())} with images")
    print(problems.describe(records) or "nothing wrong found")
    return problems


def _tiling(path: str) -> Tiling:
    """The tiling of a LLaVA whose tower can be read; else CLIP-336's 576 tokens per image."""
    try:
        config = open_checkpoint(path, weights=False, with_base=False).model_config()
        return tiling_of(config, build_vision_tower(config, delay_load=True))
    except ValueError:
        return Tiling(336, 576)


def main() -> None:
    run_program(_main, interrupted="")


def _main() -> None:
    parser = Parser(description="Find what is wrong with LLaVA JSON and its images")
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--image_folder")
    parser.add_argument("--model_name_or_path", help="model whose tokenizer counts; without it labels are not checked")
    parser.add_argument("--version", default="v1", help="conversation template")
    parser.add_argument("--model_max_length", type=int, default=2048)
    parser.add_argument("--image_tokens", type=int, help="tokens per image; default: a LLaVA's own, else 576")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    sys.exit(1 if check(parser.parse_args()).by_kind else 0)


if __name__ == "__main__":
    main()
