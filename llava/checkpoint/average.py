"""Weighted average of full checkpoints, one shard in memory at a time.

Bunny's published models are averages of two merged recipes (its tutorials: 0.5/0.5, 0.3/0.7, 0.42/0.58).
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.utils.logging import tqdm

from llava.checkpoint.old_folder import CheckpointError, Kind, read_checkpoint
from llava.checkpoint.weights import INDEXES, WeightFiles
from llava.files import folder_written_whole
from llava.model.multimodal_encoder.tower_weights import tower_was_trained
from llava.outputs import check_output
from visual_region.surgery import PROVENANCE

_SUM_TOLERANCE = 1e-6


def average_checkpoints(
    paths: Sequence[str | Path], weights: Sequence[float] | None, output: str | Path, overwrite: bool = False
) -> None:
    """Writes `sum(weight * tensor)`, taken in float32 and cast to the last model's dtype, as safetensors.

    Config, tokenizer and the division into shards are the last model's. `config.json` records the models and their
    weights under `averaged_from`, and the union of their tuned layers.

    Raises:
        CheckpointError: not all full checkpoints of the same tensors.
        ValueError: the weights are not one each, or do not sum to 1.
        OutputError: `output` is one of the models, or holds something already (`overwrite`: a checkpoint goes).
    """
    weights = [1 / len(paths)] * len(paths) if weights is None else list(weights)
    if len(paths) < 2:
        raise ValueError("an average needs two models or more: give --model-paths A B")
    if len(weights) != len(paths) or abs(sum(weights) - 1) > _SUM_TOLERANCE:
        raise ValueError(f"--weights needs {len(paths)} numbers that sum to 1, not {weights}")
    checkpoints = [read_checkpoint(path) for path in paths]
    for checkpoint in checkpoints:
        if checkpoint.kind is not Kind.FULL or checkpoint.hf:
            what = "transformers' own LLaVA" if checkpoint.hf else f"a {checkpoint.kind.value} checkpoint"
            raise CheckpointError(f"{checkpoint.path} is {what}; only full (merged) checkpoints can be averaged")
    check_output(output, [checkpoint.path for checkpoint in checkpoints], 0, overwrite)
    files = [WeightFiles(checkpoint.path) for checkpoint in checkpoints]
    _check_same_tensors(files)
    config = json.loads((checkpoints[-1].path / "config.json").read_text(encoding="utf-8"))
    config["averaged_from"] = [[str(path), weight] for path, weight in zip(paths, weights, strict=True)]
    if any(tower_was_trained(checkpoint.config) for checkpoint in checkpoints):
        # A tower that only one recipe trained is averaged too, and is then nobody's published one.
        config["unfreeze_vision_tower"] = True
    region = _joint_region([checkpoint.config for checkpoint in checkpoints])
    if region:
        config[PROVENANCE] = region
    with folder_written_whole(output) as aside:
        _copy_the_rest(files[-1], aside)
        _write_shards(files, weights, aside)
        (aside / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_same_tensors(files: Sequence[WeightFiles]) -> None:
    shapes = [{name: source.shape(name) for name in source.names()} for source in files]
    for source, found in zip(files[:-1], shapes, strict=False):
        differing = sorted(set(found.items()) ^ set(shapes[-1].items()))
        if differing:
            raise CheckpointError(
                f"{source.folder} and {files[-1].folder} are not of one architecture: {len(differing)} tensors differ "
                f"in name or shape, such as {differing[0][0]} {list(differing[0][1])}"
            )


def _joint_region(configs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last model's record with the layers that any of them was tuned in."""
    records = [config.get(PROVENANCE) or {} for config in configs]
    if len({json.dumps(record.get("kept_layers")) for record in records}) > 1:
        raise CheckpointError("the models have had different layers removed (config.json, visual_region); no average")
    if not any(records):
        return None
    joint = dict(records[-1])
    layers = {layer for record in records for layer in record.get("layers", ())}
    if layers:
        joint["layers"] = sorted(layers)
        joint["tune_layers"] = ",".join(dict.fromkeys(r["tune_layers"] for r in records if "tune_layers" in r))
        joint["num_layers"] = max(record.get("num_layers", 0) for record in records)
    return joint


def _copy_the_rest(source: WeightFiles, target: Path) -> None:
    """Everything beside the weights that makes the folder loadable."""
    skipped = {file.name for file in source.files} | set(INDEXES) | {"config.json", "training_args.bin"}
    for file in source.folder.iterdir():
        if file.is_file() and file.name not in skipped and file.suffix not in (".bin", ".safetensors", ".pt"):
            shutil.copyfile(file, target / file.name)


def _write_shards(files: Sequence[WeightFiles], weights: Sequence[float], target: Path) -> None:
    last = files[-1]
    index, size = {}, 0
    with tqdm(total=len(last.names()), desc="averaging", unit="tensor") as bar:
        for file in last.files:
            name = file.with_suffix(".safetensors").name.replace("pytorch_model", "model")
            shard = {}
            for tensor_name in (n for n in last.names() if last.file_of(n) == file):
                tensors = [source.tensor(tensor_name) for source in files]
                if tensors[-1].is_floating_point():
                    total = torch.zeros(tensors[-1].shape)
                    for tensor, weight in zip(tensors, weights, strict=True):
                        total += weight * tensor.float()
                    shard[tensor_name] = total.to(tensors[-1].dtype)
                else:
                    shard[tensor_name] = tensors[-1].clone()
                index[tensor_name] = name
                size += shard[tensor_name].nbytes
                bar.update()
            save_file(shard, target / name, {"format": "pt"})
    if len(last.files) > 1:
        content = {"metadata": {"total_size": size}, "weight_map": index}
        (target / INDEXES[0]).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
