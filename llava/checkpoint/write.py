"""Writes checkpoint folders: weights tensor by tensor, the other files, and config.json last.

No model is loaded. The kernel copies unchanged tensors from file to file; tensors of `.bin` files, and changed ones,
pass through memory one at a time.
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
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.checkpoint.card import write_card
from llava.checkpoint.older_config import with_older_fields
from llava.checkpoint.safe import load_pickled
from llava.checkpoint.tensors import DTYPES, INDEXES, WHOLE, Stored, TensorFileError
from llava.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from llava.files import folder_written_whole, give_usual_modes
from llava.sentencepiece_bpe import FILE as TOKENIZER_MODEL

# Files of the training run and not of the model.
_LEFT_BEHIND = {"config.json", "trainer_state.json", "training_args.bin", "README.md"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
_CHUNK = 1 << 26


@contextlib.contextmanager
def rewritten_folder(
    source: Path,
    output: str | Path,
    config: Mapping[str, Any],
    leave: Sequence[str] = (),
    nbytes: int = 0,
    others: Sequence[Path] = (),
) -> Iterator[Path]:
    """Yields a folder to write weights to; it becomes `output` when the block ends without an error.

    It gets the source's tokenizer, generation config and the like first, except the files named in `leave`, and
    `config` as config.json last. `nbytes` are those of the weights; of `others`, files that exist are copied unless the
    source has its own.
    """
    with folder_written_whole(output, nbytes) as aside:
        for file in filter(Path.is_file, others):
            shutil.copyfile(file, aside / file.name)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in {*_LEFT_BEHIND, *leave} and not file.name.endswith(_WEIGHTS):
                shutil.copyfile(file, aside / file.name)
        if (source / TOKENIZER_MODEL).is_file():
            # The source may have no tokenizer.json, and transformers 5 would make a wrong one.
            save_tokenizer(load_tokenizer(source), aside)
        yield aside
        _write_config(aside, config, Path(output).name)


def finish_folder(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    name: str | None = None,
    run: Path | None = None,
    base: str | None = None,
) -> None:
    """Completes a folder that transformers wrote: tokenizer, older fields of config.json, model card, the files' modes.

    `name` and `run`: as of `write_card`. `base`: the model that it was trained from, as config.json records it; current
    releases of transformers leave that out.
    """
    save_tokenizer(tokenizer, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if base:
        config["_name_or_path"] = base
    _write_config(folder, config, name, run)
    give_usual_modes(folder)


def _write_config(folder: Path, config: Mapping[str, Any], name: str | None, run: Path | None = None) -> None:
    code = str(config.get("auto_map", ""))
    if code and not any(folder.glob("*.py")) and "--" not in code:
        # It names Python files that were not copied, as of a Bunny from the hub.
        config = {name: value for name, value in config.items() if name != "auto_map"}
    text = json.dumps(with_older_fields(config), indent=2, sort_keys=True) + "\n"
    write_card(folder, config, name, run)
    (folder / "config.json").write_text(text, encoding="utf-8")


def write_checkpoint(
    source: Path,
    output: str | Path,
    shards: Sequence[Iterable[Stored]],
    config: Mapping[str, Any],
    desc: str,
    leave: Sequence[str] = (),
    others: Sequence[Path] = (),
) -> None:
    """Writes a full checkpoint: `shards` as its weights, the rest as `rewritten_folder`."""
    with rewritten_folder(source, output, config, leave, nbytes_of(shards), others) as aside:
        write_shards(shards, aside, desc)


def write_renamed_bin(source: Path, target: Path, rename: Callable[[str], str | None]) -> None:
    """Copies a file such as non_lora_trainables.bin, if it exists, without the tensors whose new name is None."""
    if source.is_file():
        tensors = load_pickled(source)
        torch.save({new: value for name, value in tensors.items() if (new := rename(name)) is not None}, target)


def bytes_of(state: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def nbytes_of(shards: Iterable[Iterable[Stored]]) -> int:
    return sum(stored.nbytes for shard in shards for stored in shard)


def write_shards(shards: Sequence[Iterable[Stored]], folder: Path, desc: str) -> int:
    """Writes `model.safetensors`, or the shards that are not empty and their index; returns the bytes of tensors."""
    full = [shard for shard in map(list, shards) if shard]
    total = nbytes_of(full)
    names = [f"model-{i:05d}-of-{len(full):05d}.safetensors" for i in range(1, len(full) + 1)]
    if len(full) == 1:
        names = [WHOLE[0]]
    with tqdm(total=total, desc=desc, unit="B", unit_scale=True) as bar:
        for name, shard in zip(names, full, strict=True):
            _write_file(shard, folder / name, bar)
    if len(full) > 1:
        where = {stored.name: name for name, shard in zip(names, full, strict=True) for stored in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / INDEXES[0]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total


def _write_file(shard: list[Stored], path: Path, bar: Any) -> None:
    # Wide dtypes first, as in safetensors, so that every tensor begins at a multiple of its item size.
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
                _write_all(sink, memoryview(stored.raw_bytes().numpy()))
                bar.update(stored.nbytes)
                continue
            if stored.file not in sources:
                sources[stored.file] = stack.enter_context(open(stored.file, "rb", buffering=0))
            _copy(sources[stored.file], sink, stored, bar)
        os.fsync(sink.fileno())


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
                # Not possible on these file systems: the bytes go through memory.
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
