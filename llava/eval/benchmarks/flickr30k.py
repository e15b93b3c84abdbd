"""Flickr30k's captions as training data; no benchmark of this project asks for them.

Downloads: Karpathy's dataset_flickr30k.json, which has the splits; the authors' results_20130124.token, which has none;
copies on the Hub, such as lmms-lab/flickr30k.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Options, Published
from llava.eval.benchmarks.parquet import find_split
from llava.eval.benchmarks.preparing import PrepareError, find
from llava.eval.benchmarks.training import Sample, Source, Training, items, most_common, parquet_samples
from llava.eval.scoring.pairing import expecting

PROMPT = "Provide a one-sentence caption for the provided image."
KARPATHY, TOKENS = "dataset_flickr30k.json", "results_20130124.token"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
ALL = "all"
SPLITS = {
    **{"train": Published(29000, "images"), "val": Published(1014, "images"), "test": Published(1000, "images")},
    ALL: Published(31783, "images", also=(31014,)),
}
"""Karpathy's, which leave out some of the images; and all that a download has."""


def open_split(raw: Path, out: Path, split: str, options: Options) -> Source | None:
    if (raw / KARPATHY).is_file():
        return Source(find(raw, *FOLDERS), lambda _: _of_karpathy(raw / KARPATHY, split), SPLITS[split])
    if (raw / TOKENS).is_file():
        return Source(find(raw, *FOLDERS), lambda _: _of_tokens(raw / TOKENS), SPLITS[ALL]) if split == ALL else None
    return _of_hub(raw, out, split)


def _of_karpathy(file: Path, split: str) -> Iterator[Sample]:
    for image in items(file, "images", "Karpathy's file of captions"):
        with expecting(f"{file}: an image without split, filename or sentences"):
            if split in (ALL, image["split"]):
                yield _sample(image["filename"], [sentence["raw"] for sentence in image["sentences"]])


def _of_tokens(file: Path) -> Iterator[Sample]:
    """Lines IMAGE.jpg#NUMBER, a tab, and a caption; those of an image follow one another."""
    seen: set[str] = set()
    with (
        expecting(f"{file} does not hold lines of IMAGE#NUMBER, a tab and a caption"),
        open(file, encoding="utf-8") as lines,
    ):
        parted = (line.rstrip("\n").split("\t", 1) for line in lines if line.strip())
        named = ((key.rsplit("#", 1), caption) for key, caption in parted)
        for image, group in groupby(((image, caption) for (image, _), caption in named), key=lambda pair: pair[0]):
            if image in seen:
                raise PrepareError(f"{file}: the captions of {image} are in two places")
            seen.add(image)
            yield _sample(image, [caption for _, caption in group])


def _of_hub(raw: Path, out: Path, split: str) -> Source | None:
    """A copy with files for each split; or with one file for all, whose rows may name their split."""
    hub = find_split(raw, {"val": "validation"}.get(split, split)) or find_split(raw, split)
    whole = None if find_split(raw, "train") else find_split(raw, "test")
    if whole:
        hub = whole if split == ALL or "split" in whole.columns else None
    if hub is None:
        return None
    by_row = whole is not None and "split" in whole.columns

    def of_row(number: int, row: dict[str, Any]) -> Iterator[Sample]:
        if not by_row or split in (ALL, row["split"]):
            yield _sample(row["filename"], row["caption"], row["content"])

    columns = ("filename", "caption", *(["split"] if by_row else []))
    return Source(out / FOLDERS[-1], lambda i: parquet_samples(hub, columns, i, of_row), SPLITS[split], True)


def _sample(image: str, captions: list[str], content: bytes | None = None) -> Sample:
    return Sample(Path(image).stem, image, PROMPT, most_common(captions).strip(), content)


FLICKR30K_TRAINING = Training(open_split, tuple(SPLITS), "", (KARPATHY, TOKENS))
