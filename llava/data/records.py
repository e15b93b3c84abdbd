"""LLaVA JSON, parsed once into an Arrow file that every process maps into memory.

The 665K samples of LLaVA-1.5 are 1 GB of JSON and several GB of Python objects, too much for every worker process.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.json_items import json_items
from llava.files import cache_root, sha256_of, written_whole

ROLES = ("human", "gpt")
_FORMAT = "4"
_ROWS_PER_BATCH = 4096
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
"""The first two bytes of a UTF-16 file, as they are read here."""
_HALF = re.compile("[\ud800-\udfff]")
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("turns", pa.list_(pa.string())),
        ("first_is_human", pa.bool_()),
        ("words", pa.int32()),
        ("image_tokens", pa.int32()),
    ]
)


class DataFormatError(ValueError):
    """A data file that is not LLaVA JSON; the message names the item and what is wrong with it."""


@dataclass(frozen=True)
class Record:
    """One sample: `turns` alternate human, gpt, human, ..., beginning with the human."""

    id: str
    images: tuple[str, ...]
    turns: tuple[str, ...]


class Records:
    """The samples of a data file, by index; picklable, and shared between processes through the page cache.

    `source` is the data file, for messages.
    """

    def __init__(self, arrow_path: Path, source: str | Path) -> None:
        self.path = arrow_path
        self.source = str(source)
        self._table: pa.Table | None = None

    @property
    def table(self) -> pa.Table:
        if self._table is None:
            with pa.memory_map(str(self.path)) as source:
                self._table = pa.ipc.open_file(source).read_all()
        return self._table

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_table": None}

    @property
    def content(self) -> str:
        """The beginning of the SHA-256 of the data file."""
        return self.path.stem.rsplit("-", 2)[1]

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> Record:
        row = self.table.slice(index, 1).to_pylist()[0]
        turns = row["turns"] if row["first_is_human"] else row["turns"][1:]
        return Record(id=row["id"], images=tuple(row["images"]), turns=tuple(turns))

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    @property
    def has_image(self) -> np.ndarray:
        """bool `(n,)`: whether the sample names an image."""
        return self.image_counts > 0

    @property
    def words(self) -> np.ndarray:
        """int32 `(n,)`: whitespace-separated words over all turns (upstream's measure of length)."""
        return self.table["words"].to_numpy()

    @property
    def image_tokens(self) -> np.ndarray:
        """int32 `(n,)`: number of `<image>` in the sample's text after `collect_images`."""
        return self.table["image_tokens"].to_numpy()

    @property
    def image_counts(self) -> np.ndarray:
        """int32 `(n,)`: number of image files that the sample names."""
        return pc.list_value_length(self.table["images"]).to_numpy()

    def unique_images(self) -> list[str]:
        """Every image path of the file once, in order of first use."""
        return pc.unique(self.table["images"].combine_chunks().flatten()).to_pylist()


def open_records(data_path: str | Path, cache_dir: Path | None = None) -> Records:
    """The records of a LLaVA JSON (a list of items) or JSON-lines file.

    Raises:
        FileNotFoundError: no such file.
        DataFormatError: a folder, or the content is not LLaVA JSON.
    """
    data_path = Path(data_path)
    if data_path.is_dir():
        raise DataFormatError(f"data file {data_path} is a folder; give the JSON file in it")
    if not data_path.is_file():
        raise FileNotFoundError(f"data file {data_path} does not exist")
    folder = cache_dir or cache_root() / "records"
    arrow_path = folder / f"{data_path.stem}-{sha256_of(data_path)[:16]}-v{_FORMAT}.arrow"
    if not arrow_path.exists():
        _convert(data_path, arrow_path)
    return Records(arrow_path, data_path)


def _convert(data_path: Path, arrow_path: Path) -> None:
    with written_whole(arrow_path) as aside, pa.OSFile(str(aside), "wb") as sink:
        writer = pa.ipc.new_file(sink, _SCHEMA)
        rows = (_row(item, index, data_path) for index, item in enumerate(read_items(data_path)))
        while batch := list(islice(rows, _ROWS_PER_BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=_SCHEMA))
        writer.close()
        if not writer.stats.num_record_batches:
            raise DataFormatError(f"{data_path} holds no samples")


def read_items(data_path: Path) -> Iterator[Any]:
    """The items of a JSON list or of JSON lines, as they are; raises `DataFormatError` for what is not JSON."""
    # A byte that is not UTF-8 becomes half of a surrogate pair, which `_check_text` finds with its item.
    with open(data_path, encoding="utf-8", errors="surrogateescape") as file:
        if file.read(2) in _UTF_16:
            raise DataFormatError(f"{data_path} is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
        file.seek(0)
        try:
            yield from json_items(file)
        except ValueError as error:
            raise DataFormatError(f"{data_path} is not LLaVA JSON: {error}") from error


def _row(item: Any, index: int, data_path: Path) -> dict[str, Any]:
    def wrong(why: str) -> DataFormatError:
        name = f" (id {item['id']!r})" if isinstance(item, dict) and "id" in item else ""
        return DataFormatError(f"{data_path} is not LLaVA JSON: item {index}{name} {why}")

    if not isinstance(item, dict):
        raise wrong(f"is a {type(item).__name__}, not an object with 'conversations'")
    conversations = item.get("conversations")
    if not isinstance(conversations, list) or not conversations:
        raise wrong("has no list 'conversations' with at least one turn")
    before = None
    for t, turn in enumerate(conversations):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise wrong(f"turn {t} is not an object with 'from' and a text 'value'")
        speaker = turn.get("from")
        if speaker not in ROLES:
            raise wrong(f"turn {t} is from {speaker!r}; allowed: {', '.join(ROLES)}")
        if speaker == before:
            raise wrong(f"turn {t} is from {speaker!r} where {ROLES[speaker == ROLES[0]]!r} should speak")
        before = speaker
    # A leading gpt turn is left out of the conversation, as upstream does.
    skip = int(conversations[0]["from"] == "gpt")
    image = item.get("image")
    images = [] if image is None else [image] if isinstance(image, str) else image
    if not isinstance(images, list) or not all(isinstance(path, str) and path for path in images):
        raise wrong(f"'image' is {image!r}, not a path or a list of paths")
    values = [turn["value"] for turn in conversations]
    # All turns at once: a file has millions of them. A line break joins no words and makes no <image>.
    text, name = "\n".join(values), str(item.get("id", index))
    if not _is_utf8(text, name, *images):
        for where, part in [("'id'", name), *(("'image'", path) for path in images)]:
            _check_text(part, where, wrong)
        for t, value in enumerate(values):
            _check_text(value, f"turn {t}", wrong)
    tokens = text.count(DEFAULT_IMAGE_TOKEN)
    if tokens:
        # Upstream joins the <image> of a turn into one; with a list of images each one counts.
        per_turn = [value.count(DEFAULT_IMAGE_TOKEN) for value in values[skip:]]
        tokens = sum(per_turn) if len(images) > 1 else sum(min(count, 1) for count in per_turn)
    return {
        "id": name,
        "images": images,
        "turns": values,
        "first_is_human": not skip,
        "words": len(text.split()),
        "image_tokens": tokens,
    }


def _is_utf8(*texts: str) -> bool:
    return all(text.isascii() or not _HALF.search(text) for text in texts)


def _check_text(text: str, where: str, wrong: Callable[[str], DataFormatError]) -> None:
    """Raises the error that `wrong` makes for text that UTF-8 cannot encode."""
    if half := _HALF.search(text):
        code = ord(half[0])
        if 0xDC80 <= code <= 0xDCFF:
            raise wrong(f"{where} holds the byte 0x{code - 0xDC00:02x}, which is not UTF-8; convert the file to UTF-8")
        raise wrong(f"{where} holds half of a surrogate pair (\\u{code:04x}), which is no character; remove it")
