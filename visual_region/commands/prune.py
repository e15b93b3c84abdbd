"""`python -m visual_region prune`: a checkpoint without some of its layers."""

import argparse
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint import identity
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint, Kind
from llava.checkpoint.tensors import Tensors, weight_files
from llava.checkpoint.write import bytes_of, finish_folder, nbytes_of, write_checkpoint
from llava.dtypes import dtype_of
from llava.files import folder_written_whole, write_json
from llava.model.builder import load_checkpoint
from llava.names import agree, count, listed
from llava.outputs import OutputError, check_apart, check_cache, check_files, check_folder, check_output
from visual_region.importance import inputs
from visual_region.importance.blocks import (
    BLOCK_SCORES,
    block_distances,
    check_block,
    check_finite,
    lowest_block,
    read_block_values,
)
from visual_region.pruning import cut_shards, difference, metric_values, prune_adapter, pruned_config
from visual_region.surgery import LayerCut, SurgeryError, describe_layers, layers_named, lowest_outside, remove_layers


def run(args: argparse.Namespace) -> None:
    checkpoint = open_checkpoint(args.model_path, args.model_base, flag="--model-path")
    _check_outputs(args, checkpoint)
    if args.base_output and checkpoint.kind is not Kind.LORA:
        kind = checkpoint.kind.value
        raise SurgeryError(f"--base-output is for LoRA folders; {checkpoint.path} is a {kind} checkpoint")
    if checkpoint.hf and args.vision_tower:
        raise SurgeryError("--vision-tower: transformers' own LLaVA holds its tower; leave the flag out")
    record = checkpoint.record
    if record.removed:
        before = f"{listed('layer', record.removed)} of the unpruned model {agree(len(record.removed), 'was', 'were')}"
        print(f"{before} removed before; numbers are of the {count(record.depth, 'layer')} that the model has now")
    cut = LayerCut.without(choose_layers(args, checkpoint), record)
    if checkpoint.kind is Kind.FULL:
        _prune_full(args, checkpoint, cut)
    elif args.base_output:
        _prune_beside_base(args, checkpoint, cut)
    else:
        _prune_merged(args, checkpoint, cut)
    left = count(len(cut.keep), "layer remains", "layers remain")
    print(f"removed {describe_layers(cut.removed, record)}; {left}, in {args.output}")


def _check_outputs(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """The checks of outputs that do not depend on their size."""
    reads = [*checkpoint.folders, args.vision_tower]
    inputs = [args.data_path, args.image_folder, args.scores, args.block_scores, args.vision_feature_cache]
    sources = [*reads, args.base_output]
    check_output(args.output, sources, 0, args.overwrite, inputs=inputs, stock=checkpoint.hf)
    if args.base_output:
        check_apart(args.base_output, reads, "--base-output", inputs)
        check_folder(args.base_output, "--base-output")
    check_files({"--block-scores": (args.block_scores, BLOCK_SCORES)}, [args.data_path, args.scores])
    check_cache(args.vision_feature_cache, reads)


def choose_layers(args: argparse.Namespace, checkpoint: Checkpoint) -> tuple[int, ...]:
    """The layers to remove, by list, score or block; the recorded tuned region is protected."""
    if [args.layers, args.scores, args.block].count(None) != 2:
        raise SurgeryError("give either --layers, or --scores with --remove, or --block")
    protected = () if args.anywhere else checkpoint.record.region
    if args.block is not None:
        return _choose_block(args, checkpoint, protected)
    if args.scores is not None:
        if args.remove < 1:
            raise SurgeryError(f"--remove {args.remove} removes nothing; give at least 1")
        return lowest_outside(metric_values(args.scores, args.metric, checkpoint), args.remove, protected)
    gone = layers_named(args.layers, checkpoint.record)
    inside = sorted(set(gone) & set(protected))
    if inside:
        belong = f"{listed('layer', inside)} {agree(len(inside), 'belongs', 'belong')} to the tuned region"
        raise SurgeryError(f"{belong}; --anywhere removes the protection")
    return gone


def _choose_block(args: argparse.Namespace, checkpoint: Checkpoint, protected: tuple[int, ...]) -> tuple[int, ...]:
    """The block of lowest distance, from --block-scores or from a new measurement."""
    depth, digest = checkpoint.depth, identity.digest(checkpoint)
    check_block(args.block, depth, protected)
    samples = measured_on = None
    if args.data_path:
        samples = inputs.checked_samples(args, checkpoint)
        template = inputs.sample_template(args, checkpoint, samples)
        # Which samples of all are drawn depends on the seed.
        seed = args.seed if len(samples.indices) < len(samples.records) else None
        measured_on = {"sha256": samples.sha256, "seed": seed, "template": template}
        measured_on |= {"angular_at": inputs.angle_place(template), "samples": len(samples.indices)}
    if args.block_scores and Path(args.block_scores).is_file() and Path(args.block_scores).stat().st_size:
        values = read_block_values(args.block_scores, args.block, depth, digest, measured_on)
        print(f"block distances read from {args.block_scores}")
    else:
        if samples is None:
            raise SurgeryError("--block needs --data-path to measure on, or --block-scores of an earlier measurement")
        reader = inputs.make_reader(args, checkpoint, samples)
        print(f"the distance of a block is measured at the {measured_on['angular_at']}")
        distances = block_distances(reader, samples, args.block, checkpoint.family.layer_path, args.batch_size)
        values = distances.mean(0).tolist()
        check_finite(values)
        if args.block_scores:
            found = {"model": str(checkpoint.path.resolve()), "identity": digest, "num_layers": depth}
            found["data"] = {"file": args.data_path} | measured_on
            write_json(args.block_scores, found | {"block": args.block, "samples": len(distances), "values": values})
            print(f"block distances written to {args.block_scores}")
    for start, value in enumerate(values):
        print(f"layers {start:3d} to {start + args.block - 1:3d}  {value:.4f}")
    return lowest_block(values, args.block, protected)


def _prune_full(args: argparse.Namespace, checkpoint: Checkpoint, cut: LayerCut) -> None:
    dtype = dtype_of(args.dtype)
    shards = cut_shards(checkpoint, cut, dtype)
    values = _with_dtype(pruned_config(checkpoint.stored, checkpoint.model_config(), cut), dtype)
    if args.vision_tower:
        values["mm_vision_tower"] = args.vision_tower
    output = check_output(args.output, [], nbytes_of(shards), args.overwrite, stock=checkpoint.hf)
    write_checkpoint(checkpoint.path, output, shards, values, "pruning")


def _with_dtype(values: dict[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """A config's values with the dtype that weights are written in; None: as they were stored."""
    return values if dtype is None else values | {"dtype": str(dtype).removeprefix("torch.")}


def _prune_beside_base(args: argparse.Namespace, lora: Checkpoint, cut: LayerCut) -> None:
    base = lora.base
    lora.adapter.check_renaming(lambda name: cut.rename(name, lora.family.layer_path))
    lost = sorted(set(lora.adapter.layers) & set(cut.removed))
    if lost:
        print(f"the adapter's weights of {listed('layer', lost)} are removed too")
    output, base_output = Path(args.output), Path(args.base_output)
    dtype = dtype_of(args.dtype)
    shards, values = (
        cut_shards(base, cut, dtype),
        _with_dtype(pruned_config(base.stored, base.model_config(), cut), dtype),
    )
    differing = difference(base_output, values, shards)
    if differing is None:
        print(f"the pruned base is already in {base_output}")
    elif (base_output / "config.json").is_file() and not args.overwrite:
        raise OutputError(
            f"--base-output {base_output} holds another model than {base.path} without these layers ({differing}); "
            "give another folder, or --overwrite to replace it"
        )
    else:
        check_output(base_output, [], nbytes_of(shards), args.overwrite, "--base-output")
        write_checkpoint(base.path, base_output, shards, values, "pruning")
    prune_adapter(lora, output, base_output, pruned_config(lora.stored, lora.model_config(), cut), cut)


def _prune_merged(args: argparse.Namespace, checkpoint: Checkpoint, cut: LayerCut) -> None:
    dtype = dtype_of(args.dtype) or torch.float32
    tower = Path(args.vision_tower or checkpoint.tower or "")
    # The tower is written too, and what was trained apart from the LoRA: the projector, sometimes the tower again.
    shards = cut_shards(checkpoint.base, cut) + checkpoint.tensors.shards
    shards += Tensors(weight_files(tower) if (tower / "config.json").is_file() else []).shards
    nbytes = nbytes_of([stored.cast(dtype) for stored in shard] for shard in shards)
    output = check_output(args.output, [], nbytes, args.overwrite)
    tokenizer, model, _, _ = load_checkpoint(checkpoint, vision_tower=args.vision_tower, dtype=dtype, device="cpu")
    remove_layers(model, cut.removed, checkpoint.family.layer_path)
    with folder_written_whole(output, bytes_of(model.state_dict())) as aside:
        model.save_pretrained(aside)
        finish_folder(aside, tokenizer, Path(output).name)
