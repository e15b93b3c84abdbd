"""Decoder layers set back to the backbone's weights (the paper, Figure 1, left), in folders on disk.

A full or merged folder gets the backbone's tensors; a LoRA folder loses the adapter's deltas of those layers. The
rest of the language model (embeddings, final norm, head) goes back with the layers when all of them do, as it trains
only when all of them do.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.old_adapter import ADAPTER_CONFIG, FINGERPRINT, Adapter, write_renamed_rest
from llava.checkpoint.rewrite import DTYPES, Stored, stored_shards, write_shards
from llava.checkpoint.side_files import copy_side_files, write_config
from llava.files import folder_written_whole
from visual_region.surgery import SurgeryError, layer_of, original_layers

_VISION = ("model.mm_projector.", "model.vision_tower.")
"""What a backbone has no part in."""


def backbone_index(
    config: Any, backbone: Any, tensors: Mapping[str, Stored], backbone_tensors: Mapping[str, Stored]
) -> list[int]:
    """For each layer as the model stands now, the backbone's layer that it was.

    The backbone is either whole, or pruned in the same way as the model.

    Args:
        config, backbone: configs of the two.
        tensors, backbone_tensors: what their folders hold.

    Raises:
        SurgeryError: its depth is neither; names the first tensor that differs.
    """
    own, depth = original_layers(config), config.num_hidden_layers
    theirs = original_layers(backbone)
    if own == theirs:
        return list(range(depth))
    whole = (getattr(config, "visual_region", None) or {}).get("num_layers", depth)
    if backbone.num_hidden_layers == whole and theirs == list(range(whole)):
        return own
    raise SurgeryError(
        f"the backbone has {backbone.num_hidden_layers} layers; the model has {depth}"
        + (f" of the {whole} that it was made with" if whole != depth else "")
        + first_difference(tensors, backbone_tensors)
        + ". Give --backbone the language model that it was trained from"
    )


def first_difference(tensors: Mapping[str, Stored], backbone: Mapping[str, Stored]) -> str:
    """The first tensor of the language model that only one of two models has, or that has another shape; else ""."""

    def shapes(stored: Mapping[str, Stored]) -> dict[str, str]:
        named = {our_name(name): tensor for name, tensor in stored.items()}
        return {name: _shape(t) for name, t in named.items() if not name.startswith(_VISION) and "inv_freq" not in name}

    ours, theirs = shapes(tensors), shapes(backbone)
    for name in sorted({*ours, *theirs} - {"lm_head.weight"}, key=_by_number):
        if ours.get(name) != theirs.get(name):
            return (
                f"; the first tensor that differs is {name}, {theirs.get(name, 'absent')} in the backbone and "
                f"{ours.get(name, 'absent')} in the model"
            )
    return ""


def _by_number(name: str) -> list[tuple[int, str]]:
    """Layer 10 comes after layer 9."""
    return [(int(part) if part.isdigit() else -1, part) for part in name.split(".")]


def backbone_names(names: Iterable[str], layers: Sequence[int], index: Sequence[int], path: str) -> dict[str, str]:
    """For each tensor that goes back, by its name in the model (whatever its format), its name in the backbone."""
    everything = len(set(layers)) == len(index)
    result = {}
    for name in names:
        ours = our_name(name)
        layer = layer_of(ours, path)
        if layer is not None and layer in layers:
            result[name] = ours.replace(f"{path}.{layer}.", f"{path}.{index[layer]}.", 1)
        elif layer is None and everything and not ours.startswith(_VISION):
            result[name] = ours
    return result


def reverted_shards(
    folder: Path, backbone: Mapping[str, Stored], layers: Sequence[int], index: Sequence[int], path: str
) -> list[list[Stored]]:
    """The folder's tensors with the backbone's in the given layers, in the folder's own dtypes.

    Raises:
        SurgeryError: names the first tensor that the backbone lacks or has in another shape.
    """
    shards = stored_shards(folder)
    backbone = {our_name(name): stored for name, stored in backbone.items()}
    names = backbone_names((stored.name for shard in shards for stored in shard), layers, index, path)
    tied = "model.embed_tokens.weight"
    result = []
    for shard in shards:
        new = []
        for stored in shard:
            if stored.name not in names:
                new.append(stored)
                continue
            wanted = names[stored.name]
            if wanted == "lm_head.weight" and wanted not in backbone and tied in backbone:
                wanted = tied
            if wanted not in backbone:
                if wanted.endswith("rotary_emb.inv_freq"):
                    new.append(stored)
                    continue
                raise SurgeryError(f"the backbone has no tensor {wanted}, which the model has as {stored.name}")
            theirs = backbone[wanted]
            if theirs.shape != stored.shape:
                raise SurgeryError(
                    f"the backbone is of another shape: {wanted} is {_shape(theirs)}, in the model {_shape(stored)}"
                )
            new.append(theirs.renamed(stored.name).cast(DTYPES[stored.dtype]))
        result.append(new)
    absent = set(layers) - {layer_of(our_name(name), path) for name in names}
    if absent:
        raise SurgeryError(f"{folder} holds no weights of layers {sorted(absent)} under {path!r}")
    return result


def revert_folder(source: Path, output: Path, shards: Sequence[Sequence[Stored]], values: Mapping[str, Any]) -> None:
    """Writes a full checkpoint: `shards` as `reverted_shards` gives them, `values` the new config.json."""
    with folder_written_whole(output) as aside:
        copy_side_files(source, aside, leave=(ADAPTER_CONFIG, FINGERPRINT))
        write_shards(shards, aside, "reverting")
        write_config(aside, values)


def revert_adapter(
    source: Path, output: Path, adapter: Adapter, layers: Sequence[int], values: Mapping[str, Any], path: str
) -> None:
    """Writes a LoRA folder without the adapter's deltas of the given layers."""

    def rename(name: str) -> str | None:
        return None if layer_of(name, path) in layers else name

    left = adapter.renamed(rename)
    with folder_written_whole(output) as aside:
        copy_side_files(source, aside)
        # What lies beside the adapter stays: a base's fingerprint is of the base, which does not change.
        write_renamed_rest(source, aside, lambda name: name)
        left.write(aside)
        write_config(aside, values)


def _shape(stored: Stored) -> str:
    return "x".join(map(str, stored.shape)) or "a number"
