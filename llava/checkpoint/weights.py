"""The tensors of a checkpoint folder, one at a time: safetensors or .bin, in one file or in shards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights (empty: none); shards are named by their index, there or not."""
    for name in INDEXES:
        if (folder / name).is_file():
            index = json.loads((folder / name).read_text(encoding="utf-8"))
            return [folder / shard for shard in sorted(set(index["weight_map"].values()))]
    return [folder / name for name in WHOLE if (folder / name).is_file()][:1]


class WeightFiles:
    """Names and tensors of a folder. Files are memory-mapped: a tensor is read when it is asked for.

    Args:
        folder: holds `model.safetensors` or `pytorch_model.bin`, or an index and its shards.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files = weight_files(self.folder)
        self._open: dict[Path, Any] = {}
        self._file_of = {name: file for file in self.files for name in self._names(file)}

    def names(self) -> list[str]:
        return list(self._file_of)

    def file_of(self, name: str) -> Path:
        return self._file_of[name]

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor, as stored."""
        source = self._source(self._file_of[name])
        return source[name] if isinstance(source, dict) else source.get_tensor(name)

    def row(self, name: str, index: int) -> torch.Tensor:
        """Entry `index` of the first dimension; only that part of a file is read."""
        source = self._source(self._file_of[name])
        return source[name][index] if isinstance(source, dict) else source.get_slice(name)[index]

    def shape(self, name: str) -> tuple[int, ...]:
        source = self._source(self._file_of[name])
        return tuple(source[name].shape if isinstance(source, dict) else source.get_slice(name).get_shape())

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self._file_of:
            yield name, self.tensor(name)

    def _names(self, file: Path) -> list[str]:
        source = self._source(file)
        return list(source if isinstance(source, dict) else source.keys())

    def _source(self, file: Path) -> Any:
        if file not in self._open:
            if file.suffix == ".safetensors":
                self._open[file] = safe_open(file, framework="pt")
            else:
                try:
                    self._open[file] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
                except RuntimeError:
                    # Files from before torch 1.6 are not zip archives and cannot be mapped.
                    self._open[file] = torch.load(file, map_location="cpu", weights_only=True)
        return self._open[file]
