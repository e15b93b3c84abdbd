"""`python -m visual_region revert`: a checkpoint with some layers set back to the backbone's weights."""

import argparse
from pathlib import Path
from typing import Any

from llava.checkpoint.side_files import family_at, read_config
from llava.outputs import check_output
from visual_region.layers import GRAMMAR
from visual_region.surgery import PROVENANCE, SurgeryError, layers_named, layers_told, reverted_record

HELP = "set layers back to the backbone's weights and write a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-path", required=True, help="full, merged or LoRA folder")
    parser.add_argument("--backbone", help="folder of the plain language model; a LoRA's own base needs none")
    parser.add_argument("--model-base", help="base of a LoRA; default: the one that it records")
    parser.add_argument("--layers", required=True, help="layers to set back: " + GRAMMAR.replace("%", "%%"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --output holds")


def run(args: argparse.Namespace) -> None:
    """Sets layers back and writes a folder that loads like any other."""
    from llava.checkpoint.old_folder import Kind, read_checkpoint
    from llava.model.builder import resolve_base

    checkpoint = read_checkpoint(args.model_path)
    if checkpoint.kind is Kind.PROJECTOR:
        raise SurgeryError(f"{checkpoint.path} holds a projector only; its language model is the backbone already")
    if checkpoint.kind is Kind.LORA:
        base = Path(resolve_base(checkpoint, args.model_base))
        raw = {**read_checkpoint(base).config, **checkpoint.config}
    else:
        raw = checkpoint.config
    family, config = family_at("--model-path", args.model_path, raw)
    layers = layers_named(args.layers, config)
    values = {
        **(read_config(checkpoint.path) if checkpoint.hf else checkpoint.config),
        PROVENANCE: reverted_record(config, layers),
    }

    if checkpoint.kind is Kind.LORA:
        if args.backbone and Path(args.backbone).resolve() != base.resolve():
            raise SurgeryError(
                f"a LoRA's layers go back to its base {base}, not to --backbone {args.backbone}; merge the LoRA first "
                "to set layers back to another model"
            )
        _revert_lora(args, checkpoint, base, layers, values, family)
    else:
        _revert_full(args, checkpoint, layers, values, config, family.layer_path)
    where = "all layers" if len(layers) == config.num_hidden_layers else layers_told(layers, config)
    print(f"{where} are the backbone's, in {args.output}")


def _revert_full(
    args: argparse.Namespace, checkpoint: Any, layers: tuple[int, ...], values: dict[str, Any], config: Any, path: str
) -> None:
    from llava.checkpoint.old_folder import Kind, read_checkpoint
    from llava.checkpoint.rewrite import stored_tensors
    from visual_region.reversion import backbone_index, revert_folder, reverted_shards

    name = args.backbone or checkpoint.recorded_base
    if not name or not Path(name).is_dir():
        recorded = f" (it records {name!r}, which is not a folder here)" if name else ""
        raise SurgeryError(
            f"{checkpoint.path} needs its backbone{recorded}; give --backbone the language model's folder"
        )
    backbone = read_checkpoint(name)
    if backbone.kind is not Kind.FULL:
        raise SurgeryError(f"--backbone {name} is a {backbone.kind.value} checkpoint; give a folder with whole weights")
    tensors = stored_tensors(backbone.path)
    theirs = family_at("--backbone", name, backbone.config)[1]
    index = backbone_index(config, theirs, stored_tensors(checkpoint.path), tensors)
    shards = reverted_shards(checkpoint.path, tensors, layers, index, path)
    nbytes = sum(stored.nbytes for shard in shards for stored in shard)
    output = check_output(args.output, [checkpoint.path, backbone.path], nbytes, args.overwrite)
    cast = sum(stored.file is None for shard in shards for stored in shard if stored.load is not None)
    if cast:
        print(f"{cast} tensors pass through memory: they come from .bin files or are cast to the checkpoint's dtype")
    revert_folder(checkpoint.path, output, shards, values)


def _revert_lora(
    args: argparse.Namespace, checkpoint: Any, base: Path, layers: tuple[int, ...], values: dict[str, Any], family: Any
) -> None:
    from llava.checkpoint.old_adapter import Adapter
    from visual_region.reversion import revert_adapter

    adapter = Adapter.read(checkpoint.path)
    adapted = adapter.layers(family.layer_path)
    untouched = [i for i in layers if i not in adapted]
    if untouched:
        print(f"the LoRA leaves layers {', '.join(map(str, untouched))} as the base has them; nothing to do there")
    if set(adapted) <= set(layers):
        _write_base_and_projector(args, checkpoint, base, values)
        return
    output = check_output(args.output, [checkpoint.path, base], 0, args.overwrite)
    revert_adapter(checkpoint.path, output, adapter, layers, values, family.layer_path)


def _write_base_and_projector(args: argparse.Namespace, checkpoint: Any, base: Path, values: dict[str, Any]) -> None:
    """No adapted layer is left, and PEFT knows no empty adapter: the result is a full folder, base and projector."""
    import torch

    from llava.checkpoint.old_folder import NON_LORA, read_checkpoint
    from llava.checkpoint.rewrite import DTYPES, of_tensor, stored_shards
    from llava.model.builder import strip_wrapper_prefix
    from visual_region.reversion import revert_folder

    shards = stored_shards(base)
    dtype = max((s for shard in shards for s in shard), key=lambda stored: stored.nbytes).dtype
    rest = torch.load(checkpoint.path / NON_LORA, map_location="cpu", weights_only=True)
    beside = {strip_wrapper_prefix(name): tensor for name, tensor in rest.items()}
    shards = [[stored for stored in shard if stored.name not in beside] for shard in shards]
    shards[-1] += [of_tensor(name, tensor).cast(DTYPES[dtype]) for name, tensor in beside.items()]
    nbytes = sum(stored.nbytes for shard in shards for stored in shard)
    output = check_output(args.output, [checkpoint.path, base], nbytes, args.overwrite)
    print("no adapted layer is left: base and projector are written as one full checkpoint")
    base_values = read_checkpoint(base).config
    family_type = {"model_type": _model_type({**base_values, **values})}
    revert_folder(checkpoint.path, output, shards, {**base_values, **values, **family_type})


def _model_type(values: dict[str, Any]) -> str:
    from llava.families import family_of

    return family_of(values).model_type
