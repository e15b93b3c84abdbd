"""What is wrong with a data set, before an hour of GPU is spent on it.

`python -m llava.data.check --data_path D --image_folder I --model_name_or_path M --version v1 [--image_tokens 576]`

The cheap part (numbers of images, files that are missing) is run by the trainer itself; the whole of it also opens
every image and tokenises every sample.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation
from llava.data.records import Records, open_records

SHOWN = 5


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
        """One line a kind: how many samples, and the ids of the first few."""
        lines = []
        for kind, indices in self.by_kind.items():
            first = ", ".join(records[i].id for i in indices[:SHOWN])
            more = ", ..." if len(indices) > SHOWN else ""
            lines.append(f"{len(indices)} samples: {kind} (ids {first}{more})")
        return "\n".join(lines)


def cheap_problems(records: Records, image_folder: str | Path | None) -> Problems:
    """Counts of `<image>` against images for every sample, and image files that do not exist."""
    problems = Problems()
    counts, tokens = records.image_counts, records.image_tokens
    without = (counts > 0) & (tokens == 0)
    problems.add("they name an image but have no <image> in the text", np.flatnonzero(without))
    differ = (counts > 0) & (tokens > 0) & (counts != tokens)
    problems.add("their numbers of <image> in the text and of images differ", np.flatnonzero(differ))
    missing = set(_missing_files(records.unique_images(), Path(image_folder or "")))
    if missing:
        rows = records.table["images"].to_pylist()
        problems.add(
            f"image files are missing under {image_folder or 'the current folder'} (such as {sorted(missing)[0]})",
            (i for i, images in enumerate(rows) if any(name in missing for name in images)),
        )
    return problems


def _missing_files(names: list[str], folder: Path) -> list[str]:
    # One listing a folder: asking for 665K files one by one takes minutes on a network disk.
    listings: dict[Path, set[str]] = {}
    missing = []
    for name in names:
        path = folder / name
        if path.parent not in listings:
            try:
                listings[path.parent] = {entry.name for entry in os.scandir(path.parent)}
            except OSError:
                listings[path.parent] = set()
        if path.name not in listings[path.parent]:
            missing.append(name)
    return missing


def label_problems(
    records: Records,
    tokenizer: PreTrainedTokenizerBase,
    template: Conversation,
    max_length: int,
    image_tokens: int,
) -> Problems:
    """Tokenises every sample: labels that are all masked, all cut off, or cut in part."""
    from llava.data.preprocess import preprocess

    problems = Problems()
    for i in tqdm(range(len(records)), desc="labels", unit="sample"):
        record = records[i]
        try:
            ids, labels = preprocess(record.turns, tokenizer, template, len(record.images))
        except ValueError as error:
            problems.add(f"they do not fit the template: {error}", [i])
            continue
        # Where each token stands once the images have taken their room.
        position = (1 + (ids == IMAGE_TOKEN_INDEX) * (image_tokens - 1)).cumsum(0)
        labelled = labels != IGNORE_INDEX
        if not labelled.any():
            problems.add("no label at all: nothing in them would be trained", [i])
        elif not (labelled & (position <= max_length)).any():
            problems.add(f"every label lies past model_max_length {max_length} and would be cut off", [i])
        elif position[-1] > max_length:
            problems.add(f"longer than model_max_length {max_length} with their images, cut in part", [i])
    return problems


def broken_images(records: Records, image_folder: str | Path | None, workers: int) -> dict[str, str]:
    """Decodes every image; name -> what is wrong."""
    names = records.unique_images()
    check = partial(_image_error, Path(image_folder or ""))
    with ProcessPoolExecutor(workers) as pool:
        found = tqdm(pool.map(check, names, chunksize=64), total=len(names), desc="images", unit="image")
        return {name: error for name, error in zip(names, found, strict=True) if error}


def _image_error(folder: Path, name: str) -> str | None:
    from llava.data.dataset import BrokenImageError, open_image

    try:
        open_image(folder / name, name)
    except BrokenImageError as error:
        return error.why
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Find what is wrong with LLaVA JSON and its images")
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--image_folder")
    parser.add_argument("--model_name_or_path", help="whose tokenizer to count with; without it labels go unchecked")
    parser.add_argument("--version", default="v1", help="conversation template")
    parser.add_argument("--model_max_length", type=int, default=2048)
    parser.add_argument("--image_tokens", type=int, default=576, help="tokens an image becomes (CLIP-336: 576)")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    try:
        found = check(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if found.by_kind else 0)


def check(args: argparse.Namespace) -> Problems:
    """Prints what is wrong with a data file; raises `ValueError` or `OSError` for one that cannot be read."""
    from llava.conversation import get_template
    from llava.model.builder import load_tokenizer
    from llava.tokenization import check_template

    records = open_records(args.data_path)
    problems = cheap_problems(records, args.image_folder)
    broken = broken_images(records, args.image_folder, args.workers)
    if broken:
        rows = records.table["images"].to_pylist()
        first = next(iter(broken.items()))
        problems.add(
            f"images cannot be opened (such as {first[0]}: {first[1]})",
            (i for i, images in enumerate(rows) if any(name in broken for name in images)),
        )
    if args.model_name_or_path:
        tokenizer = load_tokenizer(args.model_name_or_path)
        template = get_template(args.version)
        check_template(args.version, tokenizer)
        found = label_problems(records, tokenizer, template, args.model_max_length, args.image_tokens)
        for kind, indices in found.by_kind.items():
            problems.add(kind, indices)
    print(f"{args.data_path}: {len(records)} samples, {int(records.has_image.sum())} with images")
    print(problems.describe(records) or "nothing wrong found")
    return problems


if __name__ == "__main__":
    main()
