"""`python -m visual_region revert`: a checkpoint with some layers set back to the backbone's weights."""

import argparse
from pathlib import Path
from typing import Any

from llava.checkpoint.adapter import ADAPTER_CONFIG, strip_wrapper_prefix
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.identity import BASE_FILE
from llava.checkpoint.opened import Checkpoint, Kind
from llava.checkpoint.write import nbytes_of, write_checkpoint
from llava.names import agree, count, listed
from llava.outputs import check_output
from visual_region.reversion import revert_adapter, reverted_shards
from visual_region.surgery import SurgeryError, describe_layers, layers_named


def run(args: argparse.Namespace) -> None:
    checkpoint = open_checkpoint(args.model_path, args.model_base, flag="--model-path")
    if checkpoint.kind is Kind.PROJECTOR:
        raise SurgeryError(f"{checkpoint.path} holds a projector only; its language model is the backbone already")
    record = checkpoint.record
    layers = layers_named(args.layers, record)
    values = dict(checkpoint.stored)
    record.set_back(layers).put(values)
    if checkpoint.kind is Kind.LORA:
        _revert_lora(args, checkpoint, layers, values)
    else:
        _revert_full(args, checkpoint, layers, values)
    where = "all layers" if len(layers) == record.depth else describe_layers(layers, record)
    print(f"{where} {agree(len(layers), 'is', 'are')} the backbone's, in {args.output}")


def _revert_full(args: argparse.Namespace, model: Checkpoint, layers: tuple[int, ...], values: dict[str, Any]) -> None:
    name = args.backbone or model.stored.get("_name_or_path")
    if not name or not Path(name).is_dir():
        recorded = f" (it records {name!r}, which is not a folder here)" if name else ""
        raise SurgeryError(f"{model.path} needs its backbone{recorded}; give --backbone the language model's folder")
    backbone = open_checkpoint(name, flag="--backbone")
    shards = reverted_shards(model, backbone, layers)
    sources = [*model.folders, *backbone.folders]
    output = check_output(args.output, sources, nbytes_of(shards), args.overwrite, stock=model.hf)
    if in_memory := sum(stored.file is None for shard in shards for stored in shard):
        passing = f"{count(in_memory, 'tensor')} {agree(in_memory, 'passes', 'pass')} through memory"
        print(f"{passing}: from .bin files, or cast to the checkpoint's dtype")
    _write(model, output, shards, values)


def _revert_lora(args: argparse.Namespace, lora: Checkpoint, layers: tuple[int, ...], values: dict[str, Any]) -> None:
    if args.backbone and Path(args.backbone).resolve() != lora.base.path.resolve():
        why = f"a LoRA's layers go back to its base {lora.base.path}, not to --backbone {args.backbone}"
        raise SurgeryError(f"{why}; merge the LoRA first to set layers back to another model")
    adapted = set(lora.adapter.layers)
    if untouched := [i for i in layers if i not in adapted]:
        print(f"the LoRA does not change {listed('layer', untouched)}; nothing to do there")
    if adapted <= set(layers):
        _write_base_and_projector(args, lora, values)
        return
    output = check_output(args.output, lora.folders, 0, args.overwrite)
    revert_adapter(lora, output, layers, values)


def _write_base_and_projector(args: argparse.Namespace, lora: Checkpoint, values: dict[str, Any]) -> None:
    """Writes base and projector as a full folder: no adapted layer is left, and PEFT has no empty adapter."""
    base = lora.base
    dtype = max(base.tensors, key=lambda stored: stored.nbytes).torch_dtype
    trained = [stored.renamed(strip_wrapper_prefix(stored.name)).cast(dtype) for stored in lora.tensors]
    replaced = {stored.name for stored in trained}
    # The config is ours, so the names are too, also of a base that is transformers' own LLaVA.
    named = ([stored.renamed(our_name(stored.name)) for stored in shard] for shard in base.tensors.shards)
    shards = [[stored for stored in shard if stored.name not in replaced] for shard in named]
    shards[-1] += trained
    output = check_output(args.output, lora.folders, nbytes_of(shards), args.overwrite)
    print("no adapted layer is left: base and projector are written as one full checkpoint")
    # How the training quantised its frozen base is not how the base is stored.
    values = {name: value for name, value in values.items() if name != "quantization_config"}
    _write(lora, output, shards, {**base.own, **values, "model_type": lora.family.model_type})


def _write(checkpoint: Checkpoint, output: Path, shards: list[list[Any]], values: dict[str, Any]) -> None:
    write_checkpoint(checkpoint.path, output, shards, values, "reverting", leave=(ADAPTER_CONFIG, BASE_FILE))
