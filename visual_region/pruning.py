"""A checkpoint folder without some of its decoder layers, written anew; nothing is loaded whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llava.files import folder_written_whole
from visual_region.adapter import Adapter, write_renamed_rest
from visual_region.folders import copy_side_files, write_config
from visual_region.rewrite import Stored, stored_shards, write_shards
from visual_region.surgery import LayerCut, SurgeryError, original_layers


def cut_shards(
    folder: str | Path, cut: LayerCut, layer_path: str, dtype: torch.dtype | None = None
) -> list[list[Stored]]:
    """The tensors that stay, under their new names, file by file (`dtype`: cast to it).

    Raises:
        SurgeryError: the weights hold other layers than the config says.
    """
    shards = stored_shards(folder)
    gone, found = set(cut.removed), set()
    result = []
    for shard in shards:
        kept = []
        for stored in shard:
            new = cut.rename(stored.name, layer_path)
            if new is None:
                found.add(stored.name)
            else:
                kept.append(stored.renamed(new) if dtype is None else stored.renamed(new).cast(dtype))
        result.append(kept)
    seen = {int(name[len(layer_path) + 1 :].split(".")[0]) for name in found}
    if gone - seen:
        raise SurgeryError(f"{folder} holds no weights of layers {sorted(gone - seen)} under {layer_path!r}")
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
        raw: config.json as it stands; fields that do not change are kept as they are.
        config: the same as an object, with what its class derives (layer_types of an older Qwen2 folder).
    """
    return {**raw, **cut.config_changes(config)}


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


def same_cut(config: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether a base that stands already has the very layers that `wanted` (changes of a cut) leaves."""
    return original_layers(config) == wanted["visual_region"]["kept_layers"]
