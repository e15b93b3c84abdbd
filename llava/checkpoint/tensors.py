"""Reads stored tensors, or parts of them, from safetensors or .bin files.

Tensors of a safetensors file are ranges of bytes that are read and not mapped: mapped pages count as the process's
memory. torch maps the tensors of a .bin file if the file allows it.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from llava.checkpoint.safe import TensorFileError, load_pickled

WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The names of dtypes in safetensors."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    """A tensor: bytes from `start` on in `file`, or what `load` returns; `dtype` is safetensors' name ("BF16")."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path | None = None
    start: int = 0
    load: Callable[[], torch.Tensor] | None = None

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> "Stored":
        """A tensor in memory, or mapped into it."""
        return cls(name, _NAMES[tensor.dtype], tuple(tensor.shape), load=lambda: tensor)

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.torch_dtype.itemsize

    def renamed(self, name: str) -> "Stored":
        return replace(self, name=name)

    def first_rows(self, number: int) -> "Stored":
        whole, shape = self.load, (number, *self.shape[1:])
        return replace(self, shape=shape, load=None if whole is None else lambda: whole()[:number])

    def cast(self, dtype: torch.dtype) -> "Stored":
        """The tensor in another dtype; an integer tensor is not changed."""
        old = self.torch_dtype
        if old == dtype or not old.is_floating_point:
            return self
        return self.changed(lambda: self.tensor().to(dtype), dtype)

    def changed(self, load: Callable[[], torch.Tensor], dtype: torch.dtype | None = None) -> "Stored":
        """The tensor with the values that `load` returns: same shape, in `dtype` (default: the stored one)."""
        return Stored(self.name, _NAMES[dtype] if dtype else self.dtype, self.shape, load=load)

    def tensor(self) -> torch.Tensor:
        if self.load is not None:
            return self.load()
        return self._read(0, self.elements).reshape(self.shape)

    def row(self, index: int) -> torch.Tensor:
        """Row `index` of the first dimension; only that part of the file is read."""
        if self.load is not None:
            return self.load()[index]
        size = math.prod(self.shape[1:])
        return self._read(index * size, size).reshape(self.shape[1:])

    def pieces(self, count: int) -> Iterator[torch.Tensor]:
        """The values in row order, flat, at most `count` at a time; each piece overwrites the previous one."""
        if self.load is not None:
            yield from self.load().detach().reshape(-1).split(count)
            return
        buffer = torch.empty(min(self.elements, count), dtype=self.torch_dtype)
        with open(self.file, "rb") as file:
            file.seek(self.start)
            for begin in range(0, self.elements, count):
                piece = buffer[: self.elements - begin]
                if file.readinto(piece.view(torch.uint8).numpy()) != piece.nbytes:
                    raise self._ends_early()
                yield piece

    def raw_bytes(self) -> torch.Tensor:
        """The whole tensor as flat uint8."""
        return self.tensor().detach().contiguous().reshape(-1).view(torch.uint8)

    def same_bytes(self, other: "Stored") -> bool:
        return torch.equal(self.raw_bytes(), other.raw_bytes())

    def _read(self, first: int, count: int) -> torch.Tensor:
        dtype = self.torch_dtype
        buffer = bytearray(count * dtype.itemsize)
        with open(self.file, "rb") as source:
            source.seek(self.start + first * dtype.itemsize)
            if source.readinto(buffer) != len(buffer):
                raise self._ends_early()
        return torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)

    def _ends_early(self) -> TensorFileError:
        return TensorFileError(f"{self.file} ends inside the tensor {self.name}; was it changed while it was read?")


class Tensors:
    """The tensors of some safetensors or .bin files, by name and per file; each file is opened once, when needed.

    Args:
        source: the files, or a folder whose weights may be downloaded later; until all are there, it has none.
    """

    def __init__(self, source: Sequence[Path] | Path) -> None:
        self._source = source
        self._shards: list[list[Stored]] = []
        self._by_name: dict[str, Stored] = {}

    @property
    def files(self) -> list[Path]:
        if not isinstance(self._source, Path):
            return list(self._source)
        files = weight_files(self._source)
        return files if all(map(Path.is_file, files)) else []

    @property
    def shards(self) -> list[list[Stored]]:
        """The tensors of each file, in the order of their bytes."""
        if not self._shards:
            found = [_of_safetensors(file) if file.suffix == ".safetensors" else _of_bin(file) for file in self.files]
            self._shards = found
        return self._shards

    @property
    def by_name(self) -> dict[str, Stored]:
        if not self._by_name:
            self._by_name = {stored.name: stored for shard in self.shards for stored in shard}
        return self._by_name

    def __getitem__(self, name: str) -> Stored:
        return self.by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[Stored]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def loaded(self) -> dict[str, torch.Tensor]:
        """Every tensor by name, in memory."""
        return {stored.name: stored.tensor() for stored in self}


def weight_files(folder: Path) -> list[Path]:
    """The files with a model's weights; if no format is whole, some of those that an index names are missing."""
    formats = []
    for name in INDEXES:
        if (folder / name).is_file():
            index = json.loads((folder / name).read_text(encoding="utf-8"))
            formats.append([folder / shard for shard in sorted(set(index["weight_map"].values()))])
    formats += [[folder / name] for name in WHOLE if (folder / name).is_file()]
    whole = (files for files in formats if all(map(Path.is_file, files)))
    return next(whole, formats[0] if formats else [])


def tensors_in(folder: str | Path) -> Tensors:
    """The tensors of a folder with a whole model, such as a tower; raises `TensorFileError` without weights."""
    tensors = Tensors(Path(folder))
    if not tensors.files:
        raise TensorFileError(f"{folder} holds no weights ({', '.join(WHOLE)}, or an index with all its shards)")
    return tensors


def _of_safetensors(file: Path) -> list[Stored]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.offset_keys()}
            found = [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()]
    except SafetensorError as error:
        why = f"has no readable header ({error})"
        if "IncompleteBuffer" in str(error) or "incomplete metadata" in str(error):
            why = f"should be of another size than its {file.stat().st_size} bytes, by its own header"
        raise TensorFileError(f"{file.name} {why}") from error
    unknown = sorted({dtype for _, dtype, _ in found} - set(DTYPES))
    if unknown:
        raise TensorFileError(f"{file.name} holds tensors of dtype {', '.join(unknown)}, which are not supported")
    tensors = [Stored(name, dtype, shape, file) for name, dtype, shape in found]
    # The format requires the tensors to follow each other without gaps up to the end of the file.
    start = file.stat().st_size - sum(stored.nbytes for stored in tensors)
    placed = []
    for stored in tensors:
        placed.append(replace(stored, start=start))
        start += stored.nbytes
    return placed


def _of_bin(file: Path) -> list[Stored]:
    return [Stored.of(name, tensor) for name, tensor in load_pickled(file, mmap=True).items()]
