"""The one reader of stored tensors: safetensors or .bin files, one tensor or a part of one at a time.

A safetensors file is opened for its header, and its tensors are then ranges of bytes. They are read and not mapped:
pages of a mapped file count as the process's memory, so a map of 13 GB is a peak of 13 GB. The tensors of a .bin file
are mapped by torch where the file allows it.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

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


class TensorFileError(ValueError):
    """A file of weights that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: bytes from `start` on in `file`, or, where `file` is None, what `load` returns.

    Attributes:
        dtype: the name that safetensors has for it ("BF16").
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path | None = None
    start: int = 0
    load: Callable[[], torch.Tensor] | None = None

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> "Stored":
        """A tensor that is in memory, or mapped into it."""
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

    def cast(self, dtype: torch.dtype) -> "Stored":
        """The tensor in another dtype; an integer tensor, or one that has the dtype already, stays as it is."""
        old = self.torch_dtype
        if old == dtype or not old.is_floating_point:
            return self
        return self.changed(lambda: self.tensor().to(dtype), dtype)

    def changed(self, load: Callable[[], torch.Tensor], dtype: torch.dtype | None = None) -> "Stored":
        """The tensor with other values of the same shape: what `load` returns, in `dtype` (default: the stored one)."""
        return Stored(self.name, _NAMES[dtype] if dtype else self.dtype, self.shape, load=load)

    def tensor(self) -> torch.Tensor:
        """The whole tensor, as stored."""
        if self.load is not None:
            return self.load()
        return self._read(0, self.elements).reshape(self.shape)

    def row(self, index: int) -> torch.Tensor:
        """Entry `index` of the first dimension; only that part of the file is read."""
        if self.load is not None:
            return self.load()[index]
        size = math.prod(self.shape[1:])
        return self._read(index * size, size).reshape(self.shape[1:])

    def pieces(self, count: int) -> Iterator[torch.Tensor]:
        """The values in row order, flat, at most `count` at a time; the next piece overwrites the one before."""
        if self.load is not None:
            yield from self.load().detach().reshape(-1).split(count)
            return
        buffer = torch.empty(min(self.elements, count), dtype=self.torch_dtype)
        raw = memoryview(buffer.view(torch.uint8).numpy())
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self.start)
            for begin in range(0, self.elements, count):
                size = min(count, self.elements - begin)
                wanted = raw[: size * buffer.element_size()]
                while wanted:
                    read = file.readinto(wanted)
                    if not read:
                        raise self._ends_early()
                    wanted = wanted[read:]
                yield buffer[:size]

    def same_bytes(self, other: "Stored") -> bool:
        """Whether two tensors of one dtype and shape hold exactly the same values."""
        one, two = (stored.tensor().detach().contiguous().reshape(-1).view(torch.uint8) for stored in (self, other))
        return torch.equal(one, two)

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
    """The tensors of some files, by name and file by file. Each file is opened once, when its names are asked for.

    Args:
        files: safetensors or .bin files, mixed or not.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._given = list(files)

    @cached_property
    def files(self) -> list[Path]:
        return self._given

    @cached_property
    def shards(self) -> list[list[Stored]]:
        """The tensors of each file, in the order of their bytes."""
        return [_of_safetensors(file) if file.suffix == ".safetensors" else _of_bin(file) for file in self.files]

    @cached_property
    def by_name(self) -> dict[str, Stored]:
        return {stored.name: stored for shard in self.shards for stored in shard}

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


class FolderTensors(Tensors):
    """The tensors of a folder whose weights may arrive later: of a hub id that only its config was downloaded of."""

    def __init__(self, folder: Path) -> None:
        super().__init__([])
        self.folder = folder

    @cached_property
    def files(self) -> list[Path]:
        return weight_files(self.folder)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights (empty: none); an index names its shards, whether they exist or not."""
    for name in INDEXES:
        if (folder / name).is_file():
            index = json.loads((folder / name).read_text(encoding="utf-8"))
            return [folder / shard for shard in sorted(set(index["weight_map"].values()))]
    return [folder / name for name in WHOLE if (folder / name).is_file()][:1]


def tensors_in(folder: str | Path) -> Tensors:
    """The tensors of a folder that holds a whole model: a tower's, say, which is no checkpoint.

    Raises:
        TensorFileError: the folder holds no weights.
    """
    files = weight_files(Path(folder))
    if not files:
        raise TensorFileError(f"{folder} holds no weights ({', '.join(WHOLE)}, or an index of shards)")
    return Tensors(files)


def _of_safetensors(file: Path) -> list[Stored]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.offset_keys()}
            found = [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()]
    except SafetensorError as error:
        raise TensorFileError(_header_problem(file, str(error))) from error
    unknown = sorted({dtype for _, dtype, _ in found} - set(DTYPES))
    if unknown:
        raise TensorFileError(f"{file.name} holds tensors of dtype {', '.join(unknown)}, which are not supported")
    tensors = [Stored(name, dtype, shape, file) for name, dtype, shape in found]
    # The tensors lie one behind the other, without gaps, up to the end of the file: the format asks for it.
    start = file.stat().st_size - sum(stored.nbytes for stored in tensors)
    placed = []
    for stored in tensors:
        placed.append(replace(stored, start=start))
        start += stored.nbytes
    return placed


def _header_problem(file: Path, error: str) -> str:
    if "IncompleteBuffer" in error or "incomplete metadata" in error:
        return f"{file.name} should be of another size than its {file.stat().st_size} bytes, by its own header"
    return f"{file.name} has no readable header ({error})"


def _of_bin(file: Path) -> list[Stored]:
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files from before torch 1.6 are not zip archives and cannot be mapped.
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    return [Stored.of(name, tensor) for name, tensor in tensors.items()]
