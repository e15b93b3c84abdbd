"""Set decoder layers of a folder back to the backbone's weights (the paper, Figure 1, left).

A full or merged folder gets the backbone's tensors; a LoRA folder loses the adapter's weights of those layers. If all
layers are set back, so is the rest of the language model, which trains only if all layers train.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.checkpoint.adapter import NON_LORA
from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.opened import Checkpoint, Kind
from llava.checkpoint.parts import is_vision
from llava.checkpoint.tensors import Stored
from llava.checkpoint.write import rewritten_folder, write_renamed_bin
from llava.names import agree, count, listed
from visual_region.surgery import SurgeryError, layer_of

_HEAD, _EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


def named_tensors(checkpoint: Checkpoint) -> dict[str, Stored]:
    """The tensors of a full checkpoint by our names, whatever its format."""
    return {our_name(stored.name): stored for stored in checkpoint.tensors}


def tuned_layers(model: Checkpoint) -> frozenset[int]:
    """The layers of a full checkpoint, by their numbers in the original model, that are not a language model's own.

    Those that were tuned or healed, and not set back; of a LLaVA that records none, such as upstream's, all.
    """
    record = model.record
    changed = {*(record.layers or ()), *(record.healed or {}).get("layers", ())}
    if not changed:
        return frozenset(record.original if model.tower else ())
    return frozenset(record.original) & (changed - set(record.reverted))


def check_recorded_backbone(model: Checkpoint, backbone: Checkpoint, layers: Iterable[int]) -> None:
    """Raises `SurgeryError` if the model that a checkpoint was trained from is tuned itself in some of the layers."""
    tuned = sorted({model.record.original[i] for i in layers} & tuned_layers(backbone))
    if tuned:
        raise SurgeryError(
            f"{model.path} was trained from {backbone.name}, in which {listed('layer', tuned)} "
            f"{agree(len(tuned), 'is', 'are')} tuned too; give --backbone the language model's folder, or that folder "
            "if its layers are meant"
        )


def backbone_index(model: Checkpoint, backbone: Checkpoint) -> list[int]:
    """For each present layer of a full checkpoint, its index in the backbone.

    Raises `SurgeryError` unless the backbone is a full checkpoint, whole or pruned in the same way as the model.
    """
    if backbone.kind is not Kind.FULL:
        kind = backbone.kind.value
        raise SurgeryError(f"--backbone {backbone.name} is a {kind} checkpoint; give a full checkpoint")
    ours, theirs = model.record, backbone.record
    if ours.original == theirs.original:
        return list(range(ours.depth))
    whole = ours.original_depth
    if theirs.depth == whole and theirs.original == list(range(whole)):
        return ours.original
    raise SurgeryError(
        f"the backbone has {count(theirs.depth, 'layer')}; the model has {ours.depth}"
        + (f" of the {whole} that it was made with" if whole != ours.depth else "")
        + _first_difference(model, backbone)
        + ". Give --backbone the language model that it was trained from"
    )


def _first_difference(model: Checkpoint, backbone: Checkpoint) -> str:
    """Names the first tensor of the language model that is missing, or has another shape, in one of two models."""
    ours, theirs = (
        {n: _shape(t) for n, t in named_tensors(c).items() if not is_vision(n) and "inv_freq" not in n}
        for c in (model, backbone)
    )
    # With zeros, layer 10 comes after layer 9.
    for name in sorted({*ours, *theirs} - {_HEAD}, key=lambda name: re.sub(r"\d+", lambda n: n[0].zfill(4), name)):
        if ours.get(name) != theirs.get(name):
            shapes = f"{theirs.get(name, 'absent')} in the backbone and {ours.get(name, 'absent')} in the model"
            return f"; the first tensor that differs is {name}, {shapes}"
    return ""


def backbone_names(names: Iterable[str], layers: Sequence[int], index: Sequence[int], path: str) -> dict[str, str]:
    """The name in the backbone of each tensor that is set back, by its name in the model, in any format.

    `index` is that of `backbone_index`; `path` is where the decoder layers are, in our names.
    """
    everything = len(set(layers)) == len(index)
    result = {}
    for name in names:
        ours = our_name(name)
        layer = layer_of(ours, path)
        if layer is not None and layer in layers:
            result[name] = ours.replace(f"{path}.{layer}.", f"{path}.{index[layer]}.", 1)
        elif layer is None and everything and not is_vision(ours):
            result[name] = ours
    return result


def reverted_shards(model: Checkpoint, backbone: Checkpoint, layers: Sequence[int]) -> list[list[Stored]]:
    """The tensors of a full checkpoint with the backbone's in the given layers, in the model's own dtypes.

    Raises `SurgeryError` that names the first tensor that the backbone lacks or has in another shape.
    """
    path, theirs = model.family.layer_path, named_tensors(backbone)
    names = backbone_names(model.tensors.by_name, layers, backbone_index(model, backbone), path)
    missing = set(layers) - {layer_of(our_name(name), path) for name in names}
    if missing:
        raise SurgeryError(f"{model.path} holds no weights of {listed('layer', sorted(missing))} under {path!r}")
    return [[reverted(stored, names.get(stored.name), theirs) for stored in shard] for shard in model.tensors.shards]


def reverted(stored: Stored, wanted: str | None, backbone: Mapping[str, Stored]) -> Stored:
    """The tensor with the values of the backbone's tensor `wanted` (None: unchanged), in its own dtype."""
    if wanted == _HEAD and wanted not in backbone and _EMBEDDINGS in backbone:
        wanted = _EMBEDDINGS
    # Old checkpoints contain the rotation's frequencies, which follow from the config.
    if wanted is None or (wanted not in backbone and wanted.endswith("rotary_emb.inv_freq")):
        return stored
    if wanted not in backbone:
        raise SurgeryError(f"the backbone has no tensor {wanted}, which the model has as {stored.name}")
    theirs = backbone[wanted]
    if wanted in (_HEAD, _EMBEDDINGS) and theirs.shape[1:] == stored.shape[1:] and theirs.shape[0] > stored.shape[0]:
        # Upstream's merge leaves out the rows that have no token.
        theirs = theirs.first_rows(stored.shape[0])
    if theirs.shape != stored.shape:
        shapes = f"{wanted} is {_shape(theirs)}, in the model {_shape(stored)}"
        raise SurgeryError(f"the backbone is of another shape: {shapes}")
    return theirs.renamed(stored.name).cast(stored.torch_dtype)


def revert_adapter(lora: Checkpoint, output: Path, layers: Sequence[int], values: Mapping[str, Any]) -> None:
    """Writes a LoRA folder without the adapter's weights of the given layers."""

    def rename(name: str) -> str | None:
        return None if layer_of(name, lora.family.layer_path) in layers else name

    with rewritten_folder(lora.path, output, values) as aside:
        lora.adapter.write(aside, rename)
        # Other trained weights stay, and so does the fingerprint of the base.
        write_renamed_bin(lora.path / NON_LORA, aside / NON_LORA, str)


def _shape(stored: Stored) -> str:
    return "x".join(map(str, stored.shape)) or "a number"
