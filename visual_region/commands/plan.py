"""`python -m visual_region plan`: what a run would train and cost, from the model's config."""

import argparse
import math
from dataclasses import asdict, replace
from typing import Any

from llava.checkpoint.folder import open_checkpoint
from llava.data.records import open_records
from llava.dtypes import DTYPES
from llava.files import write_json
from llava.model.multimodal_encoder.builder import VisionTowerError, build_vision_tower
from llava.model.multimodal_projector.builder import image_tokens
from llava.model.vision_modules import tiling_of
from llava.outputs import FileKind, check_files
from llava.tables import text_table
from llava.tiling import Tiling
from visual_region.activations import ActivationMeter
from visual_region.cost import CostError, ModelShape, Recipe, bytes_needed, flops_per_sample, trained_parameters
from visual_region.layers import LayerSelection
from visual_region.memory import shape_and_meter, tower_cost

PLAN = FileKind("a plan", keys=frozenset({"assumed", "selections"}))
_ASSUMED = ("mode", "dtype", "image_tokens", "text_tokens", "labelled_tokens", "samples", "epochs", "batch_size")


def run(args: argparse.Namespace) -> None:
    check_files({"--output": (args.output, PLAN)}, [args.data_path])
    found = price(args)
    print(describe_assumed(found["assumed"]))
    print(_table(found["selections"]))
    for note in found["assumed"]["notes"]:
        print(f"note: {note}")
    if args.output:
        write_json(args.output, found)
        print(f"the plan is in {args.output}")


def price(args: argparse.Namespace) -> dict[str, Any]:
    """What the file of --output holds: `assumed`, and for each of the `selections` what it trains and costs."""
    _check(args)
    # config.json is enough: weights, and the base of a LoRA, may be missing.
    checkpoint = open_checkpoint(args.model_path, flag="--model-path", weights=False, with_base=False)
    config = checkpoint.model_config(args.vision_tower)
    config.mm_projector_type = args.mm_projector_type or getattr(config, "mm_projector_type", None) or "mlp2x_gelu"
    specs = args.tune_layers or ["all", "sparse-uniform:25%"]
    depth, stage_1 = config.num_hidden_layers, args.mode == "projector"
    selections = [None] if stage_1 else [LayerSelection.parse(spec, depth) for spec in specs]
    tower, notes = _read_tower(args, config)
    if args.samples is None:
        args.samples = len(open_records(args.data_path)) if args.data_path else 665_298
    if args.labelled_tokens is None:
        args.labelled_tokens = max(1, round(0.4 * args.text_tokens))
    shape, meter = shape_and_meter(checkpoint, config, DTYPES[args.dtype], args.lora_dropout, **tower)
    rows = [_price(args, shape, meter, selection) for selection in selections]
    assumed = {"model": str(args.model_path), "num_layers": depth, "notes": notes}
    assumed |= {name: getattr(args, name) for name in _ASSUMED}
    assumed["lora_r"] = args.lora_r if args.mode == "lora" else None
    assumed |= {"tflops": args.tflops, "utilization": args.utilization if args.tflops else None}
    return {"assumed": assumed, "selections": rows}


def _check(args: argparse.Namespace) -> None:
    positive = ("epochs", "batch_size", "text_tokens", "lora_r", "utilization", "samples", "tflops", "mm_hidden_size")
    wrong = [
        f"--{name.replace('_', '-')} {value} must be above 0"
        for name in positive
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf
    ]
    if args.utilization > 1:
        wrong.append(f"--utilization {args.utilization:g} is a share of the peak and must be at most 1")
    if not 0 <= args.lora_dropout < 1:
        wrong.append(f"--lora-dropout {args.lora_dropout:g} must be from 0 to below 1")
    if args.image_tokens is not None and args.image_tokens < 0:
        wrong.append(f"--image-tokens {args.image_tokens} must be at least 0")
    if args.samples and args.data_path:
        wrong.append("give either --samples or --data-path")
    if args.mode == "projector" and args.tune_layers:
        wrong.append("--tune-layers with --mode projector: stage 1 trains the projector only; give one")
    if args.mode == "projector" and args.freeze_mm_mlp_adapter:
        wrong.append("--freeze-mm-mlp-adapter with --mode projector leaves nothing to train; give one")
    if wrong:
        raise CostError("this cannot be planned:\n" + "\n".join(f"- {line}" for line in wrong))


def _read_tower(args: argparse.Namespace, config: Any) -> tuple[dict[str, int | None], list[str]]:
    """The tower's fields of `ModelShape`, and notes; sets `args.image_tokens` and `config.mm_hidden_size`."""
    notes: list[str] = []
    tower = None
    if getattr(config, "mm_vision_tower", None):
        try:
            tower = build_vision_tower(config, delay_load=True)
        except VisionTowerError as error:
            if args.vision_tower:
                raise
            notes.append(f"the tower is missing ({error})")
    width = args.mm_hidden_size or (tower.hidden_size if tower else getattr(config, "mm_hidden_size", None) or 1024)
    config.mm_hidden_size = width
    tiling = tiling_of(config, tower) if tower else Tiling.of(config, 336, image_tokens(config, 576))
    tokens = args.image_tokens = tiling.most_tokens if args.image_tokens is None else args.image_tokens
    if tiling.several:
        views = f"up to {tiling.most_views} views and {tiling.most_tokens} tokens"
        notes.append(f"an image has {views}; --image-tokens sets the tokens of a typical image")
    if not tower:
        notes.append(f"sizes of CLIP ViT-L/14-336 or of the flags: {tokens} image tokens of width {width}")
    flops, parameters = tower_cost(tower) if tower else (None, None)
    if flops is None and tokens:
        notes.append("the tower's own FLOPs and weights are not counted")
    return {"tower_flops": flops and flops * tiling.most_views, "tower_parameters": parameters}, notes


def _price(
    args: argparse.Namespace, shape: ModelShape, meter: ActivationMeter, selection: LayerSelection | None
) -> dict[str, Any]:
    plain = Recipe(
        args.mode,
        args.text_tokens,
        args.image_tokens,
        args.labelled_tokens,
        args.lora_r,
        label_only_logits=not args.all_logits,
        train_projector=not args.freeze_mm_mlp_adapter,
        cuda_autocast=args.dtype != "fp32",
    )
    trained = trained_parameters(shape, selection, plain)
    if not trained.trained:
        raise CostError("nothing would train")
    needed = bytes_needed(shape, trained, plain, DTYPES[args.dtype].itemsize)
    result: dict[str, Any] = {
        "tune_layers": selection.spec if selection else "(stage 1)",
        "layers": list(selection or ()),
        "picture": selection.picture() if selection else "",
        "parameters": {**asdict(trained), "trained": trained.trained},
        "bytes": asdict(needed),
    }
    for name, recipe in (("plain", plain), ("gradient_checkpointing", replace(plain, gradient_checkpointing=True))):
        flops = flops_per_sample(shape, selection, recipe)
        activations = meter.peak(shape, selection, recipe, args.batch_size)
        total = flops.total * args.samples * args.epochs
        result[name] = {
            "flops_per_sample": {**asdict(flops), "total": flops.total},
            "flops_per_run": total,
            "activation_bytes": activations,
            "memory_bytes": needed.weights + needed.gradients + needed.optimizer + activations,
            "device_hours": total / (args.tflops * 1e12 * args.utilization) / 3600 if args.tflops else None,
        }
    return result


def describe_assumed(assumed: dict[str, Any]) -> str:
    """What a plan was made for, in two lines."""
    rank = f", LoRA rank {assumed['lora_r']}" if assumed["lora_r"] else ""
    peak, reached = assumed["tflops"], assumed["utilization"]
    speed = f", {peak:g} TFLOP/s, {100 * reached:g}% of it reached" if peak else ""
    return (
        f"{assumed['model']}: {assumed['num_layers']} layers, {assumed['mode']}{rank}, {assumed['dtype']}\n"
        f"{assumed['samples']:,} samples x {assumed['epochs']:g} epochs of {assumed['image_tokens']} image and "
        f"{assumed['text_tokens']} text tokens ({assumed['labelled_tokens']} labelled); one device, "
        f"{assumed['batch_size']} samples at once, nothing sharded{speed}"
    )


def _table(rows: list[dict[str, Any]]) -> str:
    pictures = [f"{row['tune_layers']}: {row['picture']}" for row in rows if row["picture"]]
    return "\n".join([*pictures, text_table([("", *(row["tune_layers"] for row in rows)), *quantities(rows)])])


def quantities(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of a table: one row per quantity, with its name first and then one column per selection."""
    first = rows[0]["plain"]["flops_per_run"]
    columns = [_column(row, first) for row in rows]
    return [(column[0][0], *(cell for _, cell in column)) for column in zip(*columns, strict=True)]


def _column(row: dict[str, Any], first: float) -> list[tuple[str, str]]:
    """A selection's quantities and their values; `first` is the run's FLOPs of the first selection."""

    def gigabytes(value: float) -> str:
        return f"{value / 1e9:,.2f} GB"

    parameters, sizes = row["parameters"], row["bytes"]
    lines = [("layers", f"{len(row['layers'])}")] if row["layers"] else []
    lines += [
        ("trained parameters", f"{parameters['trained']:,}"),
        ("  of all", f"{100 * parameters['trained'] / parameters['total']:.2f}%"),
    ]
    titles = {"optimizer": "optimizer (AdamW)", "result": "result on disk", "checkpoint": "each checkpoint-N"}
    lines += [(titles.get(name, name), gigabytes(size)) for name, size in sizes.items()]
    for key, title in (("plain", "without checkpointing"), ("gradient_checkpointing", "with gradient checkpointing")):
        part = row[key]
        lines += [
            (title, ""),
            ("  TFLOP per sample", f"{part['flops_per_sample']['total'] / 1e12:.4g}"),
            ("  PFLOP per run", f"{part['flops_per_run'] / 1e15:,.4g}"),
            ("  against the first", f"{part['flops_per_run'] / first:.3f}"),
            ("  activations", gigabytes(part["activation_bytes"])),
            ("  memory in all", gigabytes(part["memory_bytes"])),
        ]
        if part["device_hours"] is not None:
            lines.append(("  device hours", f"{part['device_hours']:,.1f}"))
    return lines
