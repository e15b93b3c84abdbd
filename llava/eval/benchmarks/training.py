"""LLaVA JSON with answers from a benchmark's download, for training, `score`, `perplexity` and `prune --block`.

A sample is one question (RefCOCOg: one expression, Flickr30k: one image): `id` is the question's, `image` a name in the
folder that is printed, and the conversation is `<image>`, the benchmark's prompt, and one answer: of several answers
the most common one, and of equally common ones the first.
"""

import filecmp
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.json_items import json_items
from llava.eval.benchmarks.base import Options, Published
from llava.eval.benchmarks.parquet import Split, write_image
from llava.eval.benchmarks.preparing import PrepareError, check_count, find
from llava.eval.scoring.pairing import expecting
from llava.files import written_whole
from llava.images import missing_images
from llava.names import agree, count, some
from llava.outputs import FileKind, check_files

TRAIN = "train"
LLAVA_JSON = FileKind("LLaVA JSON", keys=frozenset({"id", "image", "conversations"}))


@dataclass(frozen=True)
class Sample:
    """One question: `key` is its id, `image` a file name, `content` the image's bytes if they are in a parquet file."""

    key: str
    image: str
    text: str
    answer: str
    content: bytes | None = None


@dataclass(frozen=True)
class Source:
    """A split of a download.

    Attributes:
        images: the folder of the images; those of parquet files are written there.
        samples: begins again at each call. With True, samples hold the images of parquet files.
        published: how many samples the split has, if it is known.
    """

    images: Path
    samples: Callable[[bool], Iterator[Sample]]
    published: Published | None = None
    in_parquet: bool = False


@dataclass(frozen=True)
class Training:
    """What a benchmark declares.

    Attributes:
        open: (raw folder, folder for images, split, options) -> the split; None if the download lacks it.
        splits: the splits that `open` knows.
        own: the split that the benchmark asks; empty if there is no benchmark.
        files: a download has one of these.
    """

    open: Callable[[Path, Path, str, Options], Source | None]
    splits: tuple[str, ...]
    own: str
    files: tuple[str, ...]


def most_common(answers: Sequence[str]) -> str:
    """The most common answer; of equally common ones the first."""
    return Counter(answers).most_common(1)[0][0]


def items(path: Path, inside: str, what: str) -> Iterator[dict[str, Any]]:
    """The items of a list in a JSON object, one at a time; an error begins with `what` the file should be."""
    with expecting(f"{path} is not {what}"), open(path, encoding="utf-8") as file:
        yield from json_items(file, inside)


def parquet_samples(
    split: Split, columns: Sequence[str], images: bool, make: Callable[[int, dict[str, Any]], Iterator[Sample]]
) -> Iterator[Sample]:
    """The samples that `make` makes of the number of a row and the row; with `images`, it has the column `image`."""
    for number, row in enumerate(split.rows(*columns, *(["image"] if images else []))):
        row["content"] = (row.pop("image", None) or {}).get("bytes")
        if images and not row["content"]:
            raise PrepareError(f"{split.files[0].parent}, row {number}: there is no image in the column image")
        with expecting(f"{split.files[0].parent}, row {number} is not of this data set"):
            yield from make(number, row)


def write_training(training: Training, name: str, raw: Path, out: Path, output: Path, options: Options) -> int:
    """Writes LLaVA JSON of a split, or of a part of it (`options.sample`); returns the number of samples.

    Two passes over the download: the first counts and looks for images, the second writes. No more than the image
    names and the drawn numbers are held in memory, besides what a source says.

    Raises:
        PrepareError: no such split, another number of samples than published, images that are missing.
    """
    check_files({"--as-training": (output, LLAVA_JSON)}, [raw / file for file in training.files])
    split, source = _source(training, raw, out, options)
    by_image: Counter[str] = Counter()
    blank = 0
    for sample in source.samples(False):
        if sample.answer.strip():
            by_image[sample.image] += 1
        else:
            blank += 1
    found = blank + by_image.total()
    if source.published:
        check_count(source.published, found, options)
    missing = set() if source.in_parquet else set(missing_images(by_image, source.images))
    if missing:
        without = sum(by_image[image] for image in missing)
        of = f"{len(missing)} of {count(len(by_image), 'image')} {agree(len(missing), 'is', 'are')} missing"
        text = f"{of} under {source.images}: {some(sorted(missing))}"
        if not options.skip_missing_images:
            raise PrepareError(f"{text}; --skip-missing-images leaves out {count(without, 'sample')} about them")
        print(f"{text}; {count(without, 'sample')} left out")
    if blank:
        print(f"{count(blank, 'sample')} without an answer left out")
    left = sum(number for image, number in by_image.items() if image not in missing)
    if not left:
        raise PrepareError(f"{raw}: the split {split} has no sample with an answer and an image")
    chosen = None
    if options.sample is not None:
        if not 0 < options.sample <= left:
            raise PrepareError(f"--limit {options.sample}; the split {split} has {count(left, 'sample')}")
        chosen = set(random.Random(options.seed).sample(range(left), options.sample))
    with written_whole(output) as aside:
        written = _write(aside, source, missing, chosen)
        if output.exists() and not options.overwrite and not filecmp.cmp(aside, output, shallow=False):
            raise PrepareError(f"--as-training {output} exists and holds other samples; --overwrite replaces it")
    print(f"{written} of {count(found, 'sample')} of {name}, split {split}, written to {output}")
    if split == training.own:
        print(f"warning: {name} asks these questions: a model that was trained on them must not be scored on {name}")
    print(f"use it as --data-path {output} --image-folder {source.images}")
    return written


def _source(training: Training, raw: Path, out: Path, options: Options) -> tuple[str, Source]:
    """The split of --split; by default the training split, else the one that the benchmark asks."""
    if options.split and options.split not in training.splits:
        raise PrepareError(f"--split {options.split}; there are {', '.join(training.splits)}")
    wanted = [options.split] if options.split else [TRAIN, training.own or training.splits[-1]]
    for split in wanted:
        if source := training.open(raw, out, split, options):
            return split, source
    find(raw, *training.files)
    raise PrepareError(
        f"{raw} has no split {' nor '.join(wanted)}; playground/data/eval/README.md says what to download"
    )


def _write(path: Path, source: Source, missing: set[str], chosen: set[int] | None) -> int:
    """Writes the samples, and the images of parquet files; returns the number of samples."""
    number, before, written = 0, "", set()
    with open(path, "w", encoding="utf-8") as file:
        file.write("[")
        for sample in source.samples(True):
            if not sample.answer.strip() or sample.image in missing:
                continue
            if chosen is None or number in chosen:
                if sample.content and sample.image not in written:
                    write_image(source.images, sample.image, sample.content)
                    written.add(sample.image)
                file.write(f"{before}\n{json.dumps(record(sample), ensure_ascii=False)}")
                before = ","
            number += 1
        file.write("\n]\n")
    return number if chosen is None else len(chosen)


def record(sample: Sample) -> dict[str, Any]:
    """A sample as upstream's training data has it."""
    turns = [("human", f"{DEFAULT_IMAGE_TOKEN}\n{sample.text}"), ("gpt", sample.answer)]
    conversations = [{"from": speaker, "value": text} for speaker, text in turns]
    return {"id": sample.key, "image": sample.image, "conversations": conversations}
