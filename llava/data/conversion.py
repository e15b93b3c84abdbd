"""From LLaVA JSON to an Arrow file: reading, checking and counting, in several processes if the file is large."""

import multiprocessing
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.json_items import json_items
from llava.files import written_whole

FORMAT = "4"
"""The version of the file's content; it is part of its name."""
ROLES = ("human", "gpt")
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
_LARGE = 1 << 26
"""Bytes of a data file from which further processes are worth their start."""
_WORKERS = 3
"""Reading the JSON in this process keeps no more of them busy."""


class DataFormatError(ValueError):
    """A data file that is not LLaVA JSON; the message names the item and what is wrong with it."""


def convert(data_path: Path, arrow_path: Path) -> None:
    """Writes the records of LLaVA JSON as an Arrow file; raises `DataFormatError` for anything else.

    This process reads the JSON. In a large file the items are checked and counted by others, which Linux forks: they
    have the modules already, and use neither threads nor a device.
    """
    others = min(_WORKERS, (psutil.cpu_count() or 1) - 1)
    pool = None
    if others and sys.platform == "linux" and data_path.stat().st_size >= _LARGE:
        pool = ProcessPoolExecutor(others, multiprocessing.get_context("fork"))
    try:
        with written_whole(arrow_path) as aside, pa.OSFile(str(aside), "wb") as sink:
            writer = pa.ipc.new_file(sink, _SCHEMA)
            for batch in _batches(data_path, pool, others):
                writer.write_batch(batch)
            writer.close()
            if not writer.stats.num_record_batches:
                raise DataFormatError(f"{data_path} holds no samples")
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _batches(data_path: Path, pool: ProcessPoolExecutor | None, others: int) -> Iterator[pa.RecordBatch]:
    """The batches of rows in the order of the file. Of several errors the first one in the file is raised."""
    chunks = _chunks(read_items(data_path))
    if pool is None:
        for start, chunk in chunks:
            yield _batch(chunk, start, data_path)
        return
    waiting: deque[Future[pa.RecordBatch]] = deque()
    failure = None
    more = True
    while more or waiting:
        try:
            start, chunk = next(chunks)
            waiting.append(pool.submit(_batch, chunk, start, data_path))
        except StopIteration:
            more = False
        except DataFormatError as error:
            more, failure = False, error
        # Few wait at a time, so that memory stays small.
        if len(waiting) > 2 * others or (waiting and not more):
            yield waiting.popleft().result()
    if failure is not None:
        raise failure


def _chunks(items: Iterator[Any]) -> Iterator[tuple[int, list[Any]]]:
    """The items in lists, each with the number of its first; the items before an error come before the error."""
    start, chunk = 0, []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == _ROWS_PER_BATCH:
                yield start, chunk
                start, chunk = start + _ROWS_PER_BATCH, []
    except DataFormatError:
        if chunk:
            yield start, chunk
        raise
    if chunk:
        yield start, chunk


def _batch(items: list[Any], start: int, data_path: Path) -> pa.RecordBatch:
    """The rows of items, the first of which is number `start` of the file."""
    columns = zip(*(_row(item, start + i, data_path) for i, item in enumerate(items)), strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )


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


def _row(item: Any, index: int, data_path: Path) -> tuple[Any, ...]:
    """The values of the columns of an item."""

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
    return name, images, values, not skip, len(text.split()), tokens


def _is_utf8(*texts: str) -> bool:
    return all(text.isascii() or not _HALF.search(text) for text in texts)


def _check_text(text: str, where: str, wrong: Callable[[str], DataFormatError]) -> None:
    """Raises the error that `wrong` makes for text that UTF-8 cannot encode."""
    if half := _HALF.search(text):
        code = ord(half[0])
        if 0xDC80 <= code <= 0xDCFF:
            raise wrong(f"{where} holds the byte 0x{code - 0xDC00:02x}, which is not UTF-8; convert the file to UTF-8")
        raise wrong(f"{where} holds half of a surrogate pair (\\u{code:04x}), which is no character; remove it")
