"""Downloads of the Hub: a split as parquet files, with its images inside.

`unpack` makes the images files, once; the benchmark writes its rows in the form of the official download, and its
preparation goes on with that.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llava.eval.benchmarks.preparing import Options, PrepareError, Row, Rows
from llava.files import written_whole
from llava.names import some

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_ROWS_AT_ONCE = 32
"""Rows in memory: a page of DocVQA is a megabyte."""


@dataclass(frozen=True)
class Split:
    """The parquet files of one split, in order."""

    files: list[Path]

    def __len__(self) -> int:
        return sum(_open(file).metadata.num_rows for file in self.files)

    @property
    def columns(self) -> list[str]:
        return list(_open(self.files[0]).schema_arrow.names)

    def rows(self, *columns: str) -> Iterator[Row]:
        """Its rows with these columns; raises `PrepareError` for a file that lacks one or is broken."""
        for file in self.files:
            source = _open(file)
            if lacking := [name for name in columns if name not in source.schema_arrow.names]:
                has = f"no column {', '.join(lacking)}; it has {some(source.schema_arrow.names)}"
                raise PrepareError(f"{file} has {has}: is it another data set?")
            try:
                for batch in source.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                    yield from batch.to_pylist()
            except (OSError, ValueError) as error:
                raise PrepareError(f"{file} cannot be read ({error}); download it again") from error


def _open(file: Path) -> "ParquetFile":
    # Only these downloads need the library, which takes a while to load.
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        raise PrepareError(f"{file} is not a whole parquet file ({error}); download it again") from error


def find_split(raw: Path, split: str, *folders: str) -> Split | None:
    """The files of a split in one of the folders of a download, or in the download itself; None without any.

    Their names are SPLIT-00000-of-00003.parquet, maybe with a hash at the end, or end in SPLIT.parquet.
    """
    pattern = re.compile(rf"(?:.*-)?{split}(?:-(\d+)-of-(\d+)(?:-\w+)?)?\.parquet")
    for folder in (*folders, "data", ""):
        found = {f: m for f in sorted((raw / folder).glob("*.parquet")) if (m := pattern.fullmatch(f.name))}
        if not found:
            continue
        numbers, counts = ([int(m[i] or i - 1) for m in found.values()] for i in (1, 2))
        if numbers != list(range(counts[0])) or len(set(counts)) > 1:
            names = f"not all there, or of several downloads: {some(file.name for file in found)}"
            raise PrepareError(f"{raw / folder}: the files of the split {split} are {names}")
        return Split(list(found))
    return None


def unpack(
    split: Split, columns: Sequence[str], folder: Path, name: Callable[[int, Row], str], all_have_one: bool = True
) -> Rows:
    """Writes the images of a split (its column `image`) as files, and returns its rows. What is written already stays.

    Args:
        columns: the other columns to read.
        folder: where the images go.
        name: (number of the row, row) -> the image's file in the folder. Rows with the same file have the same image.
        all_have_one: a row without an image is an error.

    Returns:
        The rows; `image` is the file's name, or None without an image.
    """
    rows, written = [], set()
    for number, row in enumerate(split.rows(*columns, "image")):
        content = (row["image"] or {}).get("bytes")
        if all_have_one and not content:
            raise PrepareError(f"{split.files[0].parent}, row {number}: there is no image in the column image")
        row["image"] = file = name(number, row) if content else None
        rows.append(row)
        if file is None or file in written:
            continue
        written.add(file)
        write_image(folder, file, content, f"{split.files[0].parent}, row {number}: ")
    print(f"{len(written)} images of {len(rows)} rows are in {folder}")
    return rows


def write_image(folder: Path, file: str, content: bytes, where: str = "") -> None:
    """Writes an image as a file in a folder, unless it is there with this size; `where` it is from begins errors."""
    path = folder / file
    if folder.is_symlink():
        raise PrepareError(f"{folder} is a link to another download; remove the link, or give another --out")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PrepareError(f"{where}the image name {file!r} leaves {folder}")
    if not path.is_file() or path.stat().st_size != len(content):
        # Not `written_whole`, which looks through the folder for each file: OCR-VQA has 20,796. What a killed run
        # leaves has the name of the file that the next run writes first.
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.partial")
        aside.write_bytes(content)
        os.replace(aside, path)


def write_made(path: Path, text: str, options: Options) -> None:
    """Writes a file in the form of the official download; raises `PrepareError` if another file is there."""
    content = text.encode()
    if path.is_symlink() or path.exists():
        if not path.is_symlink() and path.read_bytes() == content:
            return
        if not options.overwrite:
            raise PrepareError(f"{path} exists and is of another download; --overwrite replaces it")
        path.unlink()
    with written_whole(path) as aside:
        aside.write_bytes(content)
