"""Which base a LoRA or a projector was trained on: recorded beside it, checked when it is loaded.

Bases drift: a repository changes its weights, a folder is overwritten, a LoRA of a merged model is put on the plain
language model (Bunny#2, Bunny#82). A digest of the files would also differ between a .bin and a safetensors copy, or
between float16 and bfloat16, which are the same base; so a few values of every tensor are kept and compared.
"""

import json
from pathlib import Path
from typing import Any

from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.old_folder import CheckpointError, local_folder
from llava.checkpoint.weights import WeightFiles
from llava.files import write_json

FILE = "base_fingerprint.json"
_VALUES = 2
_RELATIVE, _ABSOLUTE = 1e-2, 1e-6


def fingerprint(name: str | Path, cache_dir: str | None = None) -> dict[str, Any] | None:
    """Shape and two values of every tensor of the language model, by name; None where there are no weight files.

    One row of each tensor is read: for a 7B model, some 300 small reads.

    Args:
        name: folder, or hub id of a model that has been loaded from `cache_dir`.
    """
    try:
        weights = WeightFiles(local_folder(name, cache_dir, download=False))
    except CheckpointError:
        return None
    tensors = {}
    for stored in weights.names():
        name = our_name(stored)
        if "mm_projector" in name or "vision_tower" in name or name.endswith("rotary_emb.inv_freq"):
            continue
        shape = weights.shape(stored)
        row = weights.row(stored, shape[0] // 2).flatten().float()
        values = [row[i * (len(row) - 1) // max(_VALUES - 1, 1)].item() for i in range(_VALUES)]
        tensors[name] = {"shape": list(shape), "values": values}
    return {"tensors": dict(sorted(tensors.items()))} if tensors else None


def write_fingerprint(folder: Path, value: dict[str, Any] | None) -> None:
    if value is not None:
        write_json(folder / FILE, value)


def check_base(adapter: Path, base: str | Path) -> None:
    """Raises `CheckpointError` where `base` is not what the checkpoint `adapter` was trained on.

    Folders that record nothing, as upstream's, pass: their shapes are checked elsewhere.
    """
    if not (adapter / FILE).is_file() or not Path(base).is_dir():
        return
    recorded = json.loads((adapter / FILE).read_text(encoding="utf-8"))["tensors"]
    found = (fingerprint(base) or {"tensors": {}})["tensors"]
    differing = [name for name in recorded if name not in found or not _same(recorded[name], found[name])]
    # A model with tied embeddings may store its head or leave it out.
    differing = [name for name in differing if not (name == "lm_head.weight" and name not in found)]
    if not differing:
        return
    raise CheckpointError(
        f"{adapter} was trained on another base than {base}: {len(differing)} of {len(recorded)} tensors differ, "
        f"first {differing[0]}. Give --model-base the very model that it was trained on (for a LoRA trained on top of "
        "a LLaVA that is that LLaVA, not the plain language model)"
    )


def _same(recorded: dict[str, Any], found: dict[str, Any]) -> bool:
    return recorded["shape"] == found["shape"] and all(
        abs(a - b) <= _ABSOLUTE + _RELATIVE * max(abs(a), abs(b))
        for a, b in zip(recorded["values"], found["values"], strict=True)
    )
