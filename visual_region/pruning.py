"""Write a checkpoint folder without some of its decoder layers; no model is loaded."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import tqdm

from llava.checkpoint.adapter import NON_LORA
from llava.checkpoint.hf_llava import is_hf_llava
from llava.checkpoint.identity import digest, rename_base_values
from llava.checkpoint.older_config import without_older_fields
from llava.checkpoint.opened import Checkpoint
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.tensors import Stored, TensorFileError, tensors_in
from llava.checkpoint.write import rewritten_folder, write_renamed_bin
from llava.names import agree, count, listed
from visual_region.scores import ScoreFile
from visual_region.surgery import LayerCut, SurgeryError, layer_of

HF_LAYER_PATHS = ("language_model.model.layers", "model.language_model.layers")
"""The decoder layers in transformers' own LLaVA, in its older and its newer layout."""


def cut_shards(checkpoint: Checkpoint, cut: LayerCut, dtype: torch.dtype | None = None) -> list[list[Stored]]:
    """The tensors of a full checkpoint that remain, under their new names, file by file; None: the dtype as stored.

    Raises:
        SurgeryError: a removed layer has no weights.
    """
    paths = HF_LAYER_PATHS if checkpoint.hf else (checkpoint.family.layer_path,)
    present = {layer_of(stored.name, path) for stored in checkpoint.tensors for path in paths}
    if missing := set(cut.removed) - present:
        where = " or ".join(paths)
        raise SurgeryError(f"{checkpoint.path} holds no weights of {listed('layer', sorted(missing))} under {where!r}")
    shards = ([(cut.rename(stored.name, *paths), stored) for stored in shard] for shard in checkpoint.tensors.shards)
    return [[old.renamed(new).cast(dtype or old.torch_dtype) for new, old in shard if new] for shard in shards]


def pruned_config(stored: Mapping[str, Any], config: Any, cut: LayerCut) -> dict[str, Any]:
    """A config.json after the cut.

    Args:
        stored: config.json as it is. Transformers' own LLaVA has the language model's fields in `text_config`.
        config: the same as a config object, with what its class derives (layer_types of an older Qwen2 folder).
    """
    changes = cut.config_changes(config)
    if is_hf_llava(dict(stored)):
        changes = {"text_config": {**stored.get("text_config", {}), **changes}}
    values = {**stored, **changes}
    LayerRecord.of(config).cut(cut.keep).put(values)
    return values


def prune_adapter(lora: Checkpoint, output: Path, base_output: Path, values: Mapping[str, Any], cut: LayerCut) -> None:
    """Writes a LoRA folder with its adapter renumbered for the pruned base `base_output`."""

    def rename(name: str) -> str | None:
        return cut.rename(name, lora.family.layer_path)

    with rewritten_folder(lora.path, output, {**values, "_name_or_path": str(base_output)}) as aside:
        lora.adapter.write(aside, rename, str(base_output))
        write_renamed_bin(lora.path / NON_LORA, aside / NON_LORA, rename)
        rename_base_values(aside, rename)


def difference(folder: Path, values: Mapping[str, Any], shards: Sequence[Sequence[Stored]]) -> str | None:
    """How a folder differs from a full checkpoint of `shards` and config `values`; None if it does not.

    Every byte is compared: a base that was tuned a little further would load too, and give wrong answers.
    """
    if not (folder / "config.json").is_file():
        return "it has no config.json"
    read = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config, values = without_older_fields(read), without_older_fields(json.loads(json.dumps(values)))
    there, wanted = LayerRecord.of(config), LayerRecord.of(values)
    if there.kept != wanted.kept:
        return f"layers that were removed there: {', '.join(map(str, there.removed)) or 'none'}"
    # Written only where the Python files that it names are copied too; it does not change the model.
    for key in sorted((values.keys() | config.keys()) - {"auto_map"}):
        if config.get(key) != values.get(key):
            return f"its config.json has {key} {config.get(key)!r} and not {values.get(key)!r}"
    try:
        found = tensors_in(folder).by_name
    except TensorFileError as error:
        return str(error)
    written = {stored.name: stored for shard in shards for stored in shard}
    for name in sorted(written.keys() ^ found.keys()):
        return f"its weights {'lack' if name in written else 'hold'} {name}"
    for name, stored in tqdm(written.items(), desc="comparing", unit="tensor"):
        other = found[name]
        if (other.shape, other.dtype) != (stored.shape, stored.dtype) or not other.same_bytes(stored):
            return f"first tensor that differs: {name}"
    return None


def metric_values(scores_file: str, metric: str, checkpoint: Checkpoint) -> list[float]:
    """One value per layer of a metric; raises `ValueError` for scores of another model, or that are no numbers."""
    scores, record = ScoreFile.read(scores_file), checkpoint.record
    values = scores.values(metric)
    if scores.num_layers != record.depth:
        gone = f"{listed('layer', record.removed)} {agree(len(record.removed), 'was', 'were')} removed from it before"
        has = f"{record.depth} ({gone})" if record.removed else f"{record.depth}"
        many = count(scores.num_layers, "layer")
        raise SurgeryError(f"{scores_file} is of {many}, the model has {has}; score this model")
    scores.check_fits(checkpoint.name, digest(checkpoint))
    return values
