"""`python -m visual_region prune`: a checkpoint without some of its layers."""

import argparse
from pathlib import Path
from typing import Any

from llava.checkpoint.side_files import family_at, read_config
from llava.files import folder_written_whole, write_json
from llava.outputs import (
    BLOCK_SCORES,
    OutputError,
    check_apart,
    check_cache,
    check_files,
    check_folder,
    check_output,
)
from visual_region.surgery import (
    LayerCut,
    SurgeryError,
    layers_named,
    layers_told,
    lowest_outside,
    region_now,
    remove_layers,
    removed_before,
)

HELP = "remove layers and write a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-path", required=True, help="full, merged or LoRA folder")
    parser.add_argument("--model-base", help="base of a LoRA; default: the one that it records")
    parser.add_argument("--vision-tower", help="tower folder to record, in place of the checkpoint's")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="default: as stored; of a merged LoRA fp32")
    which = parser.add_argument_group("which layers (numbers are of the model as it stands now)")
    which.add_argument("--layers", help="layers to remove, in the grammar of --tune_layers")
    which.add_argument("--scores", help="score file; removes the lowest")
    which.add_argument("--metric", default="angular", help="a metric of the score file")
    which.add_argument("--remove", type=int, default=1, help="how many, by lowest score")
    which.add_argument(
        "--block",
        type=int,
        help="remove this many consecutive layers, of lowest angular distance across them (Gromov et al. 2024)",
    )
    which.add_argument("--block-scores", help="file of block distances; measured on --data-path where it is not there")
    which.add_argument("--anywhere", action="store_true", help="the tuned region is not protected")
    data = parser.add_argument_group("what blocks are measured on")
    data.add_argument("--data-path", help="LLaVA JSON, or image-caption pairs")
    data.add_argument("--image-folder", default="")
    data.add_argument("--samples", default="64", help="how many, drawn at random; or 'all'")
    data.add_argument("--seed", type=int, default=0)
    data.add_argument("--batch-size", type=int, default=16)
    data.add_argument("--conv-mode")
    data.add_argument("--vision-feature-cache")
    parser.add_argument("--output", required=True)
    parser.add_argument(
        "--base-output",
        help="of a LoRA: write the pruned base here and a renumbered adapter to --output; without it both are merged",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --output holds")


def run(args: argparse.Namespace) -> None:
    """Removes layers from a checkpoint and writes a folder that loads like any other."""
    from llava.checkpoint.old_folder import Kind, read_checkpoint
    from llava.model.builder import resolve_base

    _check_outputs(args)
    checkpoint = read_checkpoint(args.model_path)
    if args.base_output and checkpoint.kind is not Kind.LORA:
        raise SurgeryError(
            f"--base-output is for LoRA folders; {checkpoint.path} is a {checkpoint.kind.value} checkpoint"
        )
    base = checkpoint.path if checkpoint.kind is Kind.FULL else Path(resolve_base(checkpoint, args.model_base))
    base_raw = checkpoint.config if checkpoint.kind is Kind.FULL else read_checkpoint(base).config
    raw = checkpoint.config if checkpoint.kind is Kind.FULL else {**base_raw, **checkpoint.config}
    family, config = family_at("--model-path", args.model_path, raw)
    gone_before = removed_before(config)
    if gone_before:
        print(
            f"layers {', '.join(map(str, gone_before))} of the unpruned model were removed before; numbers are of the "
            f"{config.num_hidden_layers} layers as they stand now"
        )
    cut = LayerCut.without(choose_layers(args, config, family.layer_path), config)

    if checkpoint.kind is Kind.FULL:
        _prune_full(args, checkpoint, config, cut, family.layer_path)
    elif args.base_output:
        _prune_beside_base(args, checkpoint, base, base_raw, cut, family.layer_path)
    else:
        _prune_merged(args, checkpoint, base, config, cut, family.layer_path)
    print(f"removed {layers_told(cut.removed, config)}; {len(cut.keep)} remain, in {args.output}")


def _check_outputs(args: argparse.Namespace) -> None:
    """All that can be said of the outputs before it is known what will be written."""
    check_output(args.output, [args.model_path, args.model_base, args.base_output], 0, args.overwrite)
    if args.base_output:
        check_apart(args.base_output, [args.model_path, args.model_base], "--base-output")
        check_folder(args.base_output, "--base-output")
    check_files({"--block-scores": (args.block_scores, BLOCK_SCORES)}, [args.data_path, args.scores])
    check_cache(args.vision_feature_cache)


def choose_layers(args: argparse.Namespace, config: Any, layer_path: str) -> tuple[int, ...]:
    """The layers to remove, by list, score or block, checked against the tuned region that the config records."""
    if sum(given is not None for given in (args.layers, args.scores, args.block)) != 1:
        raise SurgeryError("give either --layers, or --scores with --remove, or --block")
    depth, region = config.num_hidden_layers, region_now(config)
    protected = () if args.anywhere else region
    if args.block is not None:
        return _choose_block(args, depth, protected, layer_path)
    if args.scores is not None:
        if args.remove < 1:
            raise SurgeryError(f"--remove {args.remove} removes nothing; give at least 1")
        return lowest_outside(read_scores(args, config), args.remove, protected)
    gone = layers_named(args.layers, config)
    inside = sorted(set(gone) & set(region))
    if inside and not args.anywhere:
        raise SurgeryError(f"layers {inside} belong to the tuned region; --anywhere removes them all the same")
    return gone


def _choose_block(args: argparse.Namespace, depth: int, protected: tuple[int, ...], layer_path: str) -> tuple[int, ...]:
    """The block of lowest distance, from --block-scores or measured now."""
    from llava.checkpoint.old_folder import read_checkpoint
    from visual_region.importance.blocks import (
        block_distances,
        block_entry,
        check_block,
        lowest_block,
        read_block_values,
    )
    from visual_region.importance.score_file import identity_of

    check_block(args.block, depth, protected)
    identity = identity_of(read_checkpoint(args.model_path), args.model_base)
    if args.block_scores and Path(args.block_scores).is_file() and Path(args.block_scores).stat().st_size:
        values = read_block_values(args.block_scores, args.block, depth, identity)
    else:
        from visual_region.importance.inputs import checked_samples, make_reader

        if not args.data_path:
            raise SurgeryError("--block needs --data-path to measure on, or --block-scores of an earlier measurement")
        samples = checked_samples(args)
        distances = block_distances(make_reader(args, samples), samples, args.block, layer_path, args.batch_size)
        found = {"model": str(Path(args.model_path).resolve()), "identity": identity, "num_layers": depth}
        found |= {"data": {"file": args.data_path, "sha256": samples.sha256}} | block_entry(distances, args.block)
        values = found["values"]
        if args.block_scores:
            write_json(args.block_scores, found)
            print(f"block distances written to {args.block_scores}")
    for start, value in enumerate(values):
        print(f"layers {start:3d} to {start + args.block - 1:3d}  {value:.4f}")
    return lowest_block(values, args.block, protected)


def read_scores(args: argparse.Namespace, config: Any) -> list[float]:
    """One value a layer of `--metric`, found to be of this very model."""
    from visual_region.importance.score_file import ScoreFile

    scores = ScoreFile.read(args.scores)
    values = scores.entry(args.metric)["values"]
    if scores.num_layers != config.num_hidden_layers:
        gone = removed_before(config)
        before = f" (layers {', '.join(map(str, gone))} were removed from it before)" if gone else ""
        raise SurgeryError(
            f"{args.scores} is of {scores.num_layers} layers, the model has {config.num_hidden_layers}{before}; "
            "score the model as it stands now"
        )
    scores.check_fits(args.model_path, args.model_base)
    return values


def _prune_full(args: argparse.Namespace, checkpoint: Any, config: Any, cut: LayerCut, layer_path: str) -> None:
    from visual_region.pruning import HF_LAYER_PATHS, cut_shards, prune_folder, pruned_config

    source, dtype = checkpoint.path, _dtype(args.dtype)
    if checkpoint.hf and args.vision_tower:
        raise SurgeryError("--vision-tower: transformers' own LLaVA holds its tower; leave the flag out")
    shards = cut_shards(source, cut, HF_LAYER_PATHS if checkpoint.hf else (layer_path,), dtype)
    values = pruned_config(read_config(source), config, cut)
    if dtype is not None:
        values["dtype"] = str(dtype).removeprefix("torch.")
    if args.vision_tower:
        values["mm_vision_tower"] = args.vision_tower
    nbytes = sum(stored.nbytes for shard in shards for stored in shard)
    output = check_output(args.output, [source], nbytes, args.overwrite)
    prune_folder(source, output, shards, values)


def _prune_beside_base(
    args: argparse.Namespace, checkpoint: Any, base: Path, base_raw: dict[str, Any], cut: LayerCut, layer_path: str
) -> None:
    from llava.checkpoint.old_adapter import Adapter
    from llava.model.builder import family_config
    from visual_region.pruning import cut_shards, difference, prune_adapter, prune_folder, pruned_config

    values = pruned_config(checkpoint.config, family_config({**base_raw, **checkpoint.config})[1], cut)
    base_config = family_config(base_raw)[1]
    base_values = pruned_config(base_raw, base_config, cut)
    adapter = Adapter.read(checkpoint.path)
    adapter.renamed(lambda name: cut.rename(name, layer_path))
    lost = sorted(set(adapter.layers(layer_path)) & set(cut.removed))
    if lost:
        print(f"the adapter's weights of layers {', '.join(map(str, lost))} go with these layers")

    base_output = Path(args.base_output)
    reads = [checkpoint.path, base]
    output = check_output(args.output, [*reads, base_output], 0, args.overwrite)
    check_apart(base_output, reads, "--base-output")
    shards = cut_shards(base, cut, (layer_path,), _dtype(args.dtype))
    differing = difference(base_output, base_values, shards)
    if differing is None:
        print(f"the pruned base stands already in {base_output}")
    else:
        if (base_output / "config.json").is_file() and not args.overwrite:
            raise OutputError(
                f"--base-output {base_output} holds another model than {base} without these layers ({differing}); "
                "give another folder, or --overwrite to replace it"
            )
        nbytes = sum(stored.nbytes for shard in shards for stored in shard)
        check_output(base_output, reads, nbytes, args.overwrite, "--base-output")
        prune_folder(base, base_output, shards, base_values)
    prune_adapter(checkpoint.path, output, base_output, adapter, values, cut, layer_path)


def _prune_merged(
    args: argparse.Namespace, checkpoint: Any, base: Path, config: Any, cut: LayerCut, layer_path: str
) -> None:
    import torch

    from llava.checkpoint.rewrite import stored_file
    from llava.checkpoint.weights import weight_files
    from llava.model.builder import load_pretrained_model
    from visual_region.pruning import cut_shards

    dtype = _dtype(args.dtype) or torch.float32
    shards = cut_shards(base, cut, (layer_path,))
    # The tower is written too, and what trained beside the LoRA: the projector, at times the tower once more.
    shards += map(stored_file, checkpoint.weight_files)
    tower = Path(args.vision_tower or getattr(config, "mm_vision_tower", None) or "")
    shards += map(stored_file, weight_files(tower) if (tower / "config.json").is_file() else ())
    nbytes = sum(stored.cast(dtype).nbytes for shard in shards for stored in shard)
    output = check_output(args.output, [checkpoint.path, base], nbytes, args.overwrite)
    tokenizer, model, _, _ = load_pretrained_model(
        args.model_path, args.model_base, vision_tower=args.vision_tower, dtype=dtype
    )
    remove_layers(model, cut.removed, layer_path)
    with folder_written_whole(output) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def _dtype(name: str | None) -> Any:
    from llava.eval.answering.arguments import DTYPES

    return DTYPES[name] if name else None
