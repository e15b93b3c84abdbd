"""A checkpoint folder without some of its decoder layers, written anew; nothing is loaded whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import tqdm

from llava.checkpoint.hf_llava import is_hf_llava
from llava.checkpoint.old_adapter import Adapter, write_renamed_rest
from llava.checkpoint.rewrite import RewriteError, Stored, stored_shards, stored_tensors, write_shards
from llava.checkpoint.side_files import copy_side_files, read_config, write_config
from llava.files import folder_written_whole
from visual_region.surgery import PROVENANCE, LayerCut, SurgeryError, layer_of

HF_LAYER_PATHS = ("language_model.model.layers", "model.language_model.layers")
"""The decoder layers in transformers' own LLaVA, in its older and its newer layout."""


def cut_shards(
    folder: str | Path, cut: LayerCut, layer_paths: Sequence[str], dtype: torch.dtype | None = None
) -> list[list[Stored]]:
    """The tensors that stay, under their new names, file by file (`dtype`: cast to it).

    Raises:
        SurgeryError: the weights hold other layers than the config says.
    """
    shards = stored_shards(folder)
    gone: set[int] = set(cut.removed)
    found: set[int | None] = set()
    result = []
    for shard in shards:
        kept = []
        for stored in shard:
            new = cut.rename(stored.name, *layer_paths)
            if new is None:
                found |= {layer_of(stored.name, path) for path in layer_paths}
            else:
                kept.append(stored.renamed(new) if dtype is None else stored.renamed(new).cast(dtype))
        result.append(kept)
    if gone - found:
        raise SurgeryError(
            f"{folder} holds no weights of layers {sorted(gone - found)} under {' or '.join(layer_paths)!r}"
        )
    return result


def prune_folder(
    source: Path,
    output: Path,
    shards: Sequence[Sequence[Stored]],
    values: Mapping[str, Any],
) -> None:
    """Writes a full checkpoint: `shards` as `cut_shards` gives them, `values` the new config.json."""
    with folder_written_whole(output) as aside:
        copy_side_files(source, aside)
        write_shards(shards, aside, "pruning")
        write_config(aside, values)


def pruned_config(raw: Mapping[str, Any], config: Any, cut: LayerCut) -> dict[str, Any]:
    """A config.json after the cut.

    Args:
        raw: config.json as it stands; fields that do not change are kept as they are. Transformers' own LLaVA has
            the language model's fields one level down.
        config: the same as an object of ours, with what its class derives (layer_types of an older Qwen2 folder).
    """
    changes = cut.config_changes(config)
    if not is_hf_llava(dict(raw)):
        return {**raw, **changes}
    record = {PROVENANCE: changes.pop(PROVENANCE)}
    return {**raw, "text_config": {**raw.get("text_config", {}), **changes}, **record}


def prune_adapter(
    source: Path, output: Path, base_output: Path, adapter: Adapter, values: Mapping[str, Any], cut: LayerCut, path: str
) -> None:
    """Writes a LoRA folder whose adapter is renumbered for the pruned base `base_output`."""

    def rename(name: str) -> str | None:
        return cut.rename(name, path)

    renumbered = adapter.renamed(rename)
    with folder_written_whole(output) as aside:
        copy_side_files(source, aside)
        write_renamed_rest(source, aside, rename)
        renumbered.write(aside, str(base_output))
        write_config(aside, {**values, "_name_or_path": str(base_output)})


def difference(folder: str | Path, values: Mapping[str, Any], shards: Sequence[Sequence[Stored]]) -> str | None:
    """What a folder that stands already has otherwise than `prune_folder` would write it; None: nothing.

    Every tensor is compared whole, one at a time: a base that was tuned a little further would load as well, and
    answer wrongly.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        return "it has no config.json"
    config, values = read_config(folder), json.loads(json.dumps(values))
    there, wanted = (entry.get(PROVENANCE) or {} for entry in (config, values))
    if there.get("kept_layers") != wanted["kept_layers"]:
        gone = ", ".join(map(str, there.get("removed_layers", ()))) or "none"
        return f"layers that were removed there: {gone}"
    for key in sorted(values.keys() | config.keys()):
        if config.get(key) != values.get(key):
            return f"its config.json has {key} {config.get(key)!r} and not {values.get(key)!r}"
    try:
        found = stored_tensors(folder)
    except RewriteError as error:
        return str(error)
    written = {stored.name: stored for shard in shards for stored in shard}
    for name in sorted(written.keys() ^ found.keys()):
        return f"its weights {'lack' if name in written else 'hold'} {name}"
    for name, stored in tqdm(written.items(), desc="comparing", unit="tensor"):
        other = found[name]
        if (other.shape, other.dtype) != (stored.shape, stored.dtype) or not other.same_bytes(stored):
            return f"first tensor that differs: {name}"
    return None
