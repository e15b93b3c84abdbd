"""Writes GGUF files tensor by tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from transformers.utils.logging import tqdm

from llava.checkpoint.tensors import Stored
from llava.checkpoint.write import nbytes_of

FILE_TYPES = {
    torch.float32: LlamaFileType.ALL_F32,
    torch.float16: LlamaFileType.MOSTLY_F16,
    torch.bfloat16: LlamaFileType.MOSTLY_BF16,
}
"""The dtypes that can be written, and `general.file_type` of a file in them."""
_TYPES = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}


@dataclass(frozen=True)
class GGUFFile:
    """A file to write: a writer that has the keys already, and the tensors by their names in the file."""

    writer: GGUFWriter
    tensors: list[Stored]

    @property
    def nbytes(self) -> int:
        return nbytes_of([self.tensors])


def in_dtype(stored: Stored, dtype: torch.dtype) -> Stored:
    """The tensor in `dtype`; vectors in float32, which llama.cpp requires of norms and biases."""
    return stored.cast(dtype if len(stored.shape) > 1 else torch.float32)


def write_files(files: Mapping[str, GGUFFile], folder: Path) -> None:
    """Writes files by name; one tensor at a time is in memory."""
    with tqdm(total=sum(file.nbytes for file in files.values()), desc="exporting", unit="B", unit_scale=True) as bar:
        for name, file in files.items():
            _write(file, folder / name, bar)


def _write(file: GGUFFile, path: Path, bar: Any) -> None:
    writer = file.writer
    for stored in file.tensors:
        # The bytes are written as they are, so numpy's dtype has no part: it lacks bfloat16.
        kind = _TYPES[stored.torch_dtype]
        writer.add_tensor_info(stored.name, stored.shape, np.dtype(np.void), stored.nbytes, raw_dtype=kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for stored in file.tensors:
            writer.write_tensor_data(stored.raw_bytes().numpy())
            bar.update(stored.nbytes)
    finally:
        writer.close()
