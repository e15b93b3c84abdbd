"""A data set of the size and shape of LLaVA-1.5's mix, made from a seed: conversations, most with an image."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from llava.files import written_whole

SAMPLES = 665_298
_WORDS = (
    *("the", "a", "is", "of", "in", "and", "there", "on", "what", "image", "person", "left", "right", "color", "red"),
    *("standing", "background", "photograph", "several", "wearing", "street", "visible", "describe", "question"),
    *("answer", "kitchen", "umbrella", "skateboard", "because", "situation", "overall", "however,", "possible"),
    *("activities", "large", "small", "sign", "1985", "reading:", "author", "book", "white", "table.", "two", "people"),
)
_PAGE = 1 << 18
"""Words of the text that all turns are taken from."""
_POOL = 64
"""JPEG files at most; all image names are hard links to one of them, so that the disk is not filled."""
_SIZES = ((640, 480), (480, 640), (640, 427), (500, 375), (427, 640), (800, 600))


class _Kind(NamedTuple):
    """Samples of one source: their share, images per sample, and least and most rounds and words."""

    folder: str
    share: float
    images: float
    rounds: tuple[int, int]
    question: tuple[int, int]
    answer: tuple[int, int]


_KINDS = (
    _Kind("coco/train2017", 0.548, 0.32, (1, 8), (5, 20), (1, 75)),
    _Kind("gqa/images", 0.108, 1.0, (4, 16), (5, 14), (1, 2)),
    _Kind("ocr_vqa/images", 0.12, 1.0, (3, 7), (4, 9), (1, 10)),
    _Kind("textvqa/train_images", 0.033, 1.0, (1, 1), (20, 60), (6, 20)),
    _Kind("vg/VG_100K", 0.13, 1.0, (5, 20), (8, 18), (3, 10)),
    _Kind("", 0.061, 0, (1, 9), (5, 160), (20, 320)),
)


def make_mix(folder: Path, samples: int, seed: int = 0) -> tuple[Path, Path]:
    """The data file and the image folder, below `folder`; what is there from an earlier run is used again."""
    data, images = folder / f"mix-{samples}.json", folder / f"images-{samples}"
    if not data.exists():
        print(f"making {samples:,} samples in {folder}", flush=True)
        _make_images(images, samples, seed)
        with written_whole(data) as aside, open(aside, "w") as file:
            for number, item in enumerate(_items(samples, seed)):
                file.write(f"{',' if number else '['}\n{json.dumps(item)}")
            file.write("\n]\n")
    return data, images


def _names(kind: _Kind, samples: int) -> list[str]:
    count = max(1, round(samples * kind.share * kind.images))
    return [f"{kind.folder}/{number:012d}.jpg" for number in range(count)] if kind.folder else []


def _items(samples: int, seed: int) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    page = draw.choices(_WORDS, k=_PAGE)
    names = {kind.folder: _names(kind, samples) for kind in _KINDS}

    def text(words: tuple[int, int]) -> str:
        # Most texts are short, as in the mix.
        length = words[0] + int((words[1] - words[0]) * draw.random() ** 2)
        start = draw.randrange(_PAGE - length)
        return " ".join(page[start : start + length])

    for number in range(samples):
        (kind,) = draw.choices(_KINDS, [kind.share for kind in _KINDS])
        turns = []
        for _ in range(draw.randint(*kind.rounds)):
            turns.append({"from": "human", "value": text(kind.question)})
            turns.append({"from": "gpt", "value": text(kind.answer)})
        item = {"id": f"{number:012d}"}
        if kind.folder:
            item["image"] = draw.choice(names[kind.folder])
            turns[0]["value"] = "<image>\n" + turns[0]["value"]
        yield item | {"conversations": turns}


def _make_images(folder: Path, samples: int, seed: int) -> None:
    """A pool of pictures with about as many details as photographs, and a hard link to one of it per image name."""
    draw = np.random.default_rng(seed)
    pool = folder / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(min(_POOL, 1 + samples // 100)):
        width, height = _SIZES[number % len(_SIZES)]
        coarse = Image.fromarray(draw.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
        fine = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        picture = Image.blend(coarse.resize((width, height)), fine.filter(ImageFilter.GaussianBlur(1)), 0.25)
        files.append(pool / f"{number}.jpg")
        picture.save(files[-1], quality=90)
    for kind in _KINDS:
        (folder / kind.folder).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(_names(kind, samples)):
            if not (folder / name).exists():
                os.link(files[number % len(files)], folder / name)
