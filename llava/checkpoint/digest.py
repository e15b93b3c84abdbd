"""A digest of weights that reads a little of every tensor, so that no change of a layer escapes it."""

import hashlib
import json
from collections.abc import Iterable, Iterator

import torch

from llava.checkpoint.rewrite import Stored

_BLOCK, _PLACES = 1 << 13, 8


def digest_of(tensors: Iterable[Stored]) -> str:
    """SHA-256 of each tensor's name, dtype and shape and of 8 blocks of 8 KiB of it (of a small tensor: all).

    It does not depend on how the tensors are spread over files: shards and `.bin` files give what one file gives.
    """
    digest = hashlib.sha256()
    for stored in sorted(tensors, key=lambda stored: stored.name):
        digest.update(json.dumps([stored.name, stored.dtype, stored.shape]).encode())
        for block in _blocks(stored):
            digest.update(block)
    return digest.hexdigest()


def _blocks(stored: Stored) -> Iterator[bytes]:
    """Bytes of a tensor: from its first to its last, and at even distances between."""
    size, length, starts = stored.nbytes, _BLOCK, [0]
    if size <= _BLOCK * _PLACES:
        length = size
    else:
        starts = [(size - _BLOCK) * place // (_PLACES - 1) for place in range(_PLACES)]
    if stored.file is not None:
        with open(stored.file, "rb", buffering=0) as file:
            for start in starts:
                file.seek(stored.start + start)
                yield file.read(length)
    elif size:
        raw = stored.tensor().detach().contiguous().reshape(-1).view(torch.uint8)
        for start in starts:
            yield raw[start : start + length].numpy().tobytes()
