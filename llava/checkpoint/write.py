"""The one writer of checkpoint folders: weights tensor by tensor, the files beside them, and config.json last.

Bytes are copied from file to file and no model is loaded. A tensor that stays as it is goes from file to file inside
the kernel; tensors of `.bin` files, and those that change, pass through memory one at a time.
"""

import contextlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers.utils.logging import tqdm

from llava.checkpoint.tensors import DTYPES, INDEXES, Stored, TensorFileError
from llava.files import folder_written_whole

# What belongs to the run that made a folder and not to the model.
_LEFT_BEHIND = {"config.json", "trainer_state.json", "training_args.bin", "README.md"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
_CHUNK = 1 << 26


@contextlib.contextmanager
def rewritten_folder(
    source: Path, output: str | Path, config: Mapping[str, Any], leave: Sequence[str] = ()
) -> Iterator[Path]:
    """Yields a folder to write weights to; when the block ends without an error it becomes `output`, whole.

    It holds the source's tokenizer, generation config and the like from the start, and `config` as config.json at the
    end, as the sign that everything is there.

    Args:
        leave: further names of files that are not copied.
    """
    with folder_written_whole(output) as aside:
        copy_side_files(source, aside, leave)
        yield aside
        write_config(aside, config)


def write_checkpoint(
    source: Path,
    output: str | Path,
    shards: Sequence[Iterable[Stored]],
    config: Mapping[str, Any],
    desc: str,
    leave: Sequence[str] = (),
) -> None:
    """Writes a full checkpoint: `shards` as its weights, `config` as config.json, the other files from `source`."""
    with rewritten_folder(source, output, config, leave) as aside:
        write_shards(shards, aside, desc)


def copy_side_files(source: Path, target: Path, leave: Sequence[str] = ()) -> None:
    """Copies tokenizer, generation config and the like: every file that is neither weights nor of a training run."""
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in {*_LEFT_BEHIND, *leave} and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, target / file.name)


def write_config(folder: Path, values: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_renamed_bin(source: Path, target: Path, rename: Callable[[str], str | None]) -> None:
    """Copies a file such as non_lora_trainables.bin, if it exists, without the tensors whose new name is None."""
    if source.is_file():
        tensors = torch.load(source, map_location="cpu", weights_only=True)
        torch.save({new: value for name, value in tensors.items() if (new := rename(name)) is not None}, target)


def nbytes_of(shards: Iterable[Iterable[Stored]]) -> int:
    """Bytes of all tensors of some shards."""
    return sum(stored.nbytes for shard in shards for stored in shard)


def write_shards(shards: Sequence[Iterable[Stored]], folder: Path, desc: str) -> int:
    """Writes `model.safetensors`, or shards with their index, into `folder`; an empty shard is not written.

    Returns:
        bytes of tensors written.
    """
    full = [list(shard) for shard in shards]
    full = [shard for shard in full if shard]
    total = nbytes_of(full)
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
    with contextlib.ExitStack() as stack, open(path, "wb", buffering=0) as sink:
        sources: dict[Path, BinaryIO] = {}
        _write_all(sink, struct.pack("<Q", len(text)) + text)
        for stored in ordered:
            if stored.file is None:
                _write_all(sink, _bytes_of(stored))
                bar.update(stored.nbytes)
            else:
                if stored.file not in sources:
                    sources[stored.file] = stack.enter_context(open(stored.file, "rb", buffering=0))
                _copy(sources[stored.file], sink, stored, bar)
        os.fsync(sink.fileno())


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
                # Two file systems, or one that cannot: the bytes go through memory.
                in_kernel = False
                continue
        else:
            chunk = os.pread(source.fileno(), count, position)
            _write_all(sink, chunk)
            moved = len(chunk)
        if not moved:
            raise TensorFileError(f"{stored.file} ends inside the tensor {stored.name}")
        position, left = position + moved, left - moved
        bar.update(moved)
