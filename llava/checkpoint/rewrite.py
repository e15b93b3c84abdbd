"""Checkpoints on disk, rewritten tensor by tensor: bytes are copied from file to file, never a whole model loaded.

safetensors files are read by their header; a tensor that stays as it is goes from file to file inside the kernel.
Tensors of `.bin` files and those that change pass through memory one at a time.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers.utils.logging import tqdm

from llava.checkpoint.weights import INDEXES, WHOLE, weight_files

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
"""safetensors' names of dtypes."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CHUNK = 1 << 26


class RewriteError(ValueError):
    """Weights that cannot be rewritten."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: bytes `start` to `stop` of `file`, or, where that is None, what `load` gives.

    Attributes:
        dtype: safetensors' name ("BF16").
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path | None = None
    start: int = 0
    load: Callable[[], torch.Tensor] | None = None

    @property
    def nbytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * DTYPES[self.dtype].itemsize

    def renamed(self, name: str) -> "Stored":
        return Stored(name, self.dtype, self.shape, self.file, self.start, self.load)

    def tensor(self) -> torch.Tensor:
        if self.load is not None:
            return self.load()
        buffer = bytearray(self.nbytes)
        with open(self.file, "rb") as source:
            source.seek(self.start)
            if source.readinto(buffer) != len(buffer):
                raise RewriteError(f"{self.file} ends inside the tensor {self.name}")
        if not buffer:
            return torch.empty(self.shape, dtype=DTYPES[self.dtype])
        return torch.frombuffer(buffer, dtype=DTYPES[self.dtype]).reshape(self.shape)

    def same_bytes(self, other: "Stored") -> bool:
        """Whether both hold the very same values; of two of the same dtype and shape."""
        one, two = (stored.tensor().detach().contiguous().reshape(-1).view(torch.uint8) for stored in (self, other))
        return torch.equal(one, two)

    def cast(self, dtype: torch.dtype) -> "Stored":
        """The tensor in another dtype; integers, and what has it already, as they are."""
        old = DTYPES[self.dtype]
        if old == dtype or not old.is_floating_point:
            return self
        return Stored(self.name, _NAMES[dtype], self.shape, load=lambda: self.tensor().to(dtype))


def of_tensor(name: str, tensor: torch.Tensor) -> Stored:
    """A tensor that is (or is mapped) in memory."""
    return Stored(name, _NAMES[tensor.dtype], tuple(tensor.shape), load=lambda: tensor)


def stored_shards(folder: str | Path) -> list[list[Stored]]:
    """The tensors of a folder, file by file, in the order of their bytes; headers only are read."""
    files = weight_files(Path(folder))
    if not files:
        raise RewriteError(f"{folder} holds no weights ({', '.join(WHOLE)}, or an index of shards)")
    return [stored_file(file) for file in files]


def stored_file(file: Path) -> list[Stored]:
    """The tensors of one file, in the order of their bytes."""
    return _of_safetensors(file) if file.suffix == ".safetensors" else _of_bin(file)


def stored_tensors(folder: str | Path) -> dict[str, Stored]:
    """The tensors of a folder by name."""
    return {stored.name: stored for shard in stored_shards(folder) for stored in shard}


def _of_safetensors(file: Path) -> list[Stored]:
    with open(file, "rb") as source:
        length = struct.unpack("<Q", source.read(8))[0]
        header = json.loads(source.read(length))
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    unknown = sorted({entry["dtype"] for _, entry in entries} - set(DTYPES))
    if unknown:
        raise RewriteError(f"{file} holds tensors of dtype {', '.join(unknown)}, which cannot be copied here")
    begin = 8 + length
    return [
        Stored(name, entry["dtype"], tuple(entry["shape"]), file, begin + entry["data_offsets"][0])
        for name, entry in entries
    ]


def _of_bin(file: Path) -> list[Stored]:
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files from before torch 1.6 are not zip archives and cannot be mapped.
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    return [of_tensor(name, tensor) for name, tensor in tensors.items()]


def write_shards(shards: Sequence[Iterable[Stored]], folder: Path, desc: str) -> int:
    """Writes `model.safetensors`, or shards with their index, into `folder`; shards left empty are not written.

    Returns:
        bytes of tensors written.
    """
    full = [list(shard) for shard in shards]
    full = [shard for shard in full if shard]
    total = sum(stored.nbytes for shard in full for stored in shard)
    names = (
        ["model.safetensors"]
        if len(full) == 1
        else [f"model-{i:05d}-of-{len(full):05d}.safetensors" for i in range(1, len(full) + 1)]
    )
    with tqdm(total=total, desc=desc, unit="B", unit_scale=True) as bar:
        for name, shard in zip(names, full, strict=True):
            _write_file(shard, folder / name, bar)
    if len(full) > 1:
        where = {stored.name: name for name, shard in zip(names, full, strict=True) for stored in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / INDEXES[0]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total


def _write_file(shard: list[Stored], path: Path, bar: Any) -> None:
    # Wide dtypes first, as safetensors writes them, so that every tensor begins at a multiple of its item size.
    ordered = sorted(shard, key=lambda stored: -DTYPES[stored.dtype].itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for stored in ordered:
        end = offset + stored.nbytes
        header[stored.name] = {"dtype": stored.dtype, "shape": list(stored.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    sources: dict[Path, BinaryIO] = {}
    try:
        with open(path, "wb", buffering=0) as sink:
            _write_all(sink, struct.pack("<Q", len(text)) + text)
            for stored in ordered:
                if stored.file is None:
                    _write_all(sink, _bytes_of(stored))
                    bar.update(stored.nbytes)
                else:
                    if stored.file not in sources:
                        sources[stored.file] = open(stored.file, "rb", buffering=0)  # noqa: SIM115
                    _copy(sources[stored.file], sink, stored, bar)
            os.fsync(sink.fileno())
    finally:
        for source in sources.values():
            source.close()


def _bytes_of(stored: Stored) -> memoryview:
    tensor = stored.tensor().detach().contiguous().reshape(-1)
    return memoryview(tensor.view(torch.uint8).numpy())


def _write_all(sink: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]


def _copy(source: BinaryIO, sink: BinaryIO, stored: Stored, bar: Any) -> None:
    position, left = stored.start, stored.nbytes
    in_kernel = hasattr(os, "copy_file_range")
    while left:
        count = min(left, _CHUNK)
        if in_kernel:
            try:
                moved = os.copy_file_range(source.fileno(), sink.fileno(), count, offset_src=position)
            except OSError:
                # Two file systems, or one that cannot: through memory then.
                in_kernel = False
                continue
        else:
            chunk = os.pread(source.fileno(), count, position)
            _write_all(sink, chunk)
            moved = len(chunk)
        if not moved:
            raise RewriteError(f"{stored.file} ends inside the tensor {stored.name}")
        position, left = position + moved, left - moved
        bar.update(moved)
