"""`python -m visual_region revert`: a checkpoint with some layers set back to the backbone's weights."""

import argparse
from pathlib import Path
from typing import Any

from transformers.utils import GENERATION_CONFIG_NAME

from llava.checkpoint.adapter import ADAPTER_CONFIG, strip_wrapper_prefix
from llava.checkpoint.folder import local_folder, open_checkpoint
from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.identity import BASE_FILE
from llava.checkpoint.opened import Checkpoint, CheckpointError, Kind
from llava.checkpoint.write import nbytes_of, write_checkpoint
from llava.names import agree, count, listed
from llava.outputs import check_output
from visual_region.reversion import check_recorded_backbone, revert_adapter, reverted_shards, tuned_layers
from visual_region.surgery import SurgeryError, describe_layers, layers_named


def run(args: argparse.Namespace) -> None:
    checkpoint = open_checkpoint(args.model_path, args.model_base, flag="--model-path")
    if checkpoint.kind is Kind.PROJECTOR:
        raise SurgeryError(f"{checkpoint.path} holds a projector only; its language model is the backbone already")
    record = checkpoint.record
    layers = layers_named(args.layers, record)
    source = checkpoint.base if checkpoint.kind is Kind.LORA else _backbone(args, checkpoint, layers)
    tuned = tuned_layers(source)
    back = tuple(i for i in layers if record.original[i] not in tuned)
    others = tuple(i for i in layers if i not in back)
    values = dict(checkpoint.stored)
    record.set_back(back, others).put(values)
    if checkpoint.kind is Kind.LORA:
        _revert_lora(args, checkpoint, layers, values)
    else:
        _revert_full(args, checkpoint, source, layers, values)
    if back:
        where = "all layers" if len(back) == record.depth else describe_layers(back, record)
        print(f"{where} {agree(len(back), 'is', 'are')} the backbone's, in {args.output}")
    if others:
        be, they = agree(len(others), "is", "are"), agree(len(others), "it", "they")
        where = f"{describe_layers(others, record)} {be} as in {source.name}, where {they} {be} tuned too"
        print(f"{where}: {they} {be} not recorded as a language model's")


def _backbone(args: argparse.Namespace, model: Checkpoint, layers: tuple[int, ...]) -> Checkpoint:
    """The backbone of a full checkpoint; the recorded one must be a plain language model in these layers."""
    name = args.backbone or model.stored.get("_name_or_path")
    needs = f"{model.path} needs its backbone", "; give --backbone the language model's folder, or its hub id"
    if not name:
        raise SurgeryError("".join(needs))
    try:
        backbone = open_checkpoint(name, flag="--backbone")
    except CheckpointError as error:
        if args.backbone:
            raise
        raise SurgeryError(f" (it records {name!r}, which cannot be opened: {error})".join(needs)) from error
    if not args.backbone:
        check_recorded_backbone(model, backbone, layers)
    return backbone


def _revert_full(
    args: argparse.Namespace, model: Checkpoint, backbone: Checkpoint, layers: tuple[int, ...], values: dict[str, Any]
) -> None:
    shards = reverted_shards(model, backbone, layers)
    sources = [*model.folders, *backbone.folders]
    output = check_output(args.output, sources, nbytes_of(shards), args.overwrite, stock=model.hf)
    if in_memory := sum(stored.file is None for shard in shards for stored in shard):
        passing = f"{count(in_memory, 'tensor')} {agree(in_memory, 'passes', 'pass')} through memory"
        print(f"{passing}: from .bin files, or cast to the checkpoint's dtype")
    _write(model.path, output, shards, values)


def _revert_lora(args: argparse.Namespace, lora: Checkpoint, layers: tuple[int, ...], values: dict[str, Any]) -> None:
    if args.backbone and local_folder(args.backbone).resolve() != lora.base.path.resolve():
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
    # Upstream's LoRA folders have no tokenizer, and few LoRA folders have a generation config.
    others = (base.path / GENERATION_CONFIG_NAME,)
    _write(lora.tokenizer_folder, output, shards, {**base.own, **values, "model_type": lora.family.model_type}, others)


def _write(
    source: Path, output: Path, shards: list[list[Any]], values: dict[str, Any], others: tuple[Path, ...] = ()
) -> None:
    leave = ADAPTER_CONFIG, BASE_FILE
    write_checkpoint(source, output, shards, values, "reverting", leave, others)
