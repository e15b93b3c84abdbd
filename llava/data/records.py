"""LLaVA JSON, parsed once into an Arrow file that every process maps into memory.

The 665K samples of LLaVA-1.5 are 1 GB of JSON and several GB of Python objects, too much for every worker process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.conversion import FORMAT, DataFormatError, convert
from llava.files import cache_root, sha256_of


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

    @property
    def are_captions(self) -> np.ndarray:
        """bool `(n,)`: whether the sample has two turns, a human's with `<image>` and an answer."""
        found = [np.zeros(0, dtype=bool)]
        for batch in self.table.select(["turns", "first_is_human"]).to_batches():
            turns, first = batch["turns"], batch["first_is_human"].to_numpy(zero_copy_only=False)
            captions = turns.value_lengths().to_numpy() - ~first == 2
            places = turns.offsets.to_numpy()[:-1] + ~first
            asked = turns.values.take(pa.array(places[captions]))
            captions[captions] = pc.match_substring(asked, DEFAULT_IMAGE_TOKEN).to_numpy(zero_copy_only=False)
            found.append(captions)
        return np.concatenate(found)

    def unique_images(self, indices: np.ndarray | None = None) -> list[str]:
        """Every image path of the file, or of the samples with these indices, once, in order of first use."""
        images = self.table["images"] if indices is None else self.table["images"].take(pa.array(indices))
        return pc.unique(images.combine_chunks().flatten()).to_pylist()


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
    arrow_path = folder / f"{data_path.stem}-{sha256_of(data_path)[:16]}-v{FORMAT}.arrow"
    if not arrow_path.exists():
        convert(data_path, arrow_path)
    return Records(arrow_path, data_path)
