"""Samples per second and peak memory of a training step: layers, label-only logits and feature cache, in one run.

`python scripts/bench/train_step.py [--preset 7b] [--device cuda --dtype bf16]`

Trains a Llama with a frozen CLIP tower, both with random weights, on random images. Each variant runs in a separate
process, so that its peak memory is measured separately. `--preset 7b` has LLaVA-1.5-7B's shape and is meant for a GPU.
`--tune-layers SPEC` measures one variant and prints it as JSON; scripts/bench/gpu.py measures many in that way.
"""

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.devices import free_memory, peak_memory
from llava.dtypes import dtype_of
from llava.families import FAMILIES
from llava.flags import Parser, positive, run_program
from llava.model.kernels import CHOICES, apply_kernels, choose_kernels
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.tables import text_table
from scripts.bench.shared import in_process, wait
from visual_region.activations import ActivationMeter
from visual_region.cost import ModelShape, Recipe, flops_per_sample
from visual_region.layers import LayerSelection
from visual_region.memory import StepMemory, tower_cost
from visual_region.tuning import apply_lora, recompute_layers

TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SMALL_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
# "length" counts all tokens of a sample with --lengths equal, "text" is the range of text tokens with --lengths mixed.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": 64, "layers": 8, "heads": 4, "vocabulary": 500, "length": 32, "batch": 2, "image": 56}
    | {"text": (4, 40), "tower": _SMALL_TOWER},
    "laptop": {"hidden": 512, "layers": 16, "heads": 8, "vocabulary": 32000, "length": 192, "batch": 4, "image": 112}
    | {"text": (16, 256), "tower": TOWER},
    "7b": {"hidden": 4096, "layers": 32, "heads": 32, "vocabulary": 32000, "length": 768, "batch": 8, "image": 336}
    | {"text": (30, 700), "tower": TOWER},
}
_PATCH = 14
FAMILY = FAMILIES["llava_llama"]
_WARM_UP = 2
LAYERS = {"all layers": "all", "25% of layers": "sparse-uniform:25%"}
VARIANTS = {
    "whole logits": [],
    "label-only logits": ["--label-only"],
    "label-only logits, feature cache": ["--label-only", "--cached"],
}


def language_config(preset: str) -> Any:
    shape = PRESETS[preset]
    return FAMILY.load_config_class()(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["hidden"] * 11 // 4,
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        use_cache=False,
        mm_hidden_size=shape["tower"]["hidden_size"],
        mm_projector_type="mlp2x_gelu",
    )


def tower_config(preset: str) -> CLIPVisionConfig:
    return CLIPVisionConfig(**PRESETS[preset]["tower"], image_size=PRESETS[preset]["image"], patch_size=_PATCH)


def language_model(preset: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The LLaVA with random weights, made on the device; its projector is in float32."""
    config = language_config(preset)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = FAMILY.load_model_class()(config)
        torch.set_default_dtype(torch.float32)
    model.model.mm_projector = build_vision_projector(config).to(device)
    return model


@dataclass(frozen=True)
class Rows:
    """The text tokens of the rows of each micro-batch, and the image tokens of every row."""

    text: list[list[int]]
    image: int
    padding_free: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Rows":
        """Rows of equal length, the same in each step; or of lengths drawn for each step, with a seed of their own."""
        shape = PRESETS[args.preset]
        image = (shape["image"] // _PATCH) ** 2
        text = [[shape["length"] - image] * shape["batch"]]
        if args.lengths == "mixed":
            draw = random.Random(0)
            steps = range(args.steps + _WARM_UP)
            text = [[draw.randint(*shape["text"]) for _ in range(shape["batch"])] for _ in steps]
        return cls(text, image, args.padding_free)

    def recipe(self, batches: list[list[int]], args: argparse.Namespace) -> Recipe:
        """How these micro-batches train: the average sample as it is computed, that is with its padding."""
        labels = [_labelled(text) for batch in batches for text in batch]
        if not self.padding_free:
            batches = [[max(batch)] * len(batch) for batch in batches]
        lengths = [text for batch in batches for text in batch]
        return Recipe(
            "lora",
            text_tokens=round(sum(lengths) / len(lengths)),
            image_tokens=self.image,
            labelled_tokens=max(1, round(sum(labels) / len(labels))),
            lora_r=args.rank,
            label_only_logits=args.label_only,
        )

    def largest(self) -> list[int]:
        return max(self.text, key=sum if self.padding_free else max)


def _labelled(text: int) -> int:
    return text // 8 + 1


@cache
def shape_and_meter(preset: str, dtype: torch.dtype, cached: bool) -> tuple[ModelShape, ActivationMeter]:
    config, build = language_config(preset), FAMILY.load_model_class()
    flops, parameters = (None, None) if cached else tower_cost(SimpleNamespace(cfg_only=tower_config(preset)))
    with torch.device("meta"):
        model, projector = build(config), build_vision_projector(config)
    shape = ModelShape.of(model, FAMILY.layer_path, projector, tower_flops=flops, tower_parameters=parameters)
    return shape, ActivationMeter(build, config, FAMILY.layer_path, dtype, 0.0)


def recomputation(args: argparse.Namespace, memory: StepMemory) -> tuple[int, ...]:
    """The layers that --checkpointing recomputes; auto chooses as the trainer does."""
    if args.checkpointing != "auto":
        return tuple(range(len(memory.shape.layers))) if args.checkpointing == "true" else ()
    free = free_memory(torch.device(args.device))
    return memory.fewest_recomputed(min(free, round(args.memory * 2**30)) if args.memory else free)[0]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measures one variant: `samples_per_second` after two warm-up steps, `peak_gib`, the last step's `loss`.

    Also `estimated_gib`, what `auto` expects; how many layers were `recomputed`; and `tflops`, the speed by the FLOPs
    that the rows need without padding and without recomputing.
    """
    preset, device, dtype = PRESETS[args.preset], torch.device(args.device), dtype_of(args.dtype)
    selection = LayerSelection.parse(args.tune_layers, preset["layers"])
    rows, on_gpu = Rows.of(args), device.type == "cuda"
    shape, meter = shape_and_meter(args.preset, dtype, args.cached)
    memory = StepMemory(shape, meter, selection, rows.recipe([rows.largest()], args), preset["batch"])
    if on_gpu:
        limit = args.memory * 2**30 / torch.cuda.get_device_properties(device).total_memory if args.memory else 1.0
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit), device.index or 0)
    recomputed = recomputation(args, memory)
    kernels = choose_kernels(args.kernels, FAMILY, device).name

    torch.manual_seed(0)
    model = language_model(args.preset, device, dtype)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        tower = CLIPVisionModel(tower_config(args.preset)).eval()
        torch.set_default_dtype(torch.float32)
    model.label_only_logits = args.label_only
    if args.padding_free:
        model.compute_without_padding()
    apply_kernels(model, kernels)
    if args.checkpointing == "true":
        model.enable_input_require_grads()
    model.requires_grad_(False)
    lora = {"r": args.rank, "lora_alpha": 2 * args.rank, "lora_dropout": 0.0}
    wrapped = apply_lora(model, selection, FAMILY.layer_path, **lora).train()
    model.model.mm_projector.requires_grad_(True)
    if recomputed:
        recompute_layers(model, recomputed, FAMILY.layer_path)
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-4)

    batches = [_batch(text, preset["vocabulary"], device) for text in rows.text]
    pixels = torch.randn(preset["batch"], 3, preset["image"], preset["image"], device=device, dtype=dtype)

    @torch.no_grad()
    def see() -> torch.Tensor:
        return tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    features = see() if args.cached else None
    loss = torch.zeros(())
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for step, batch in zip(range(args.steps + _WARM_UP), cycle(batches), strict=False):
        if step == _WARM_UP:
            wait(device)
            begin = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            image_features = features if args.cached else see()
            loss = wrapped(**batch, image_features=image_features).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    wait(device)
    seconds = time.perf_counter() - begin
    peak = peak_memory(device)
    speed = args.steps * preset["batch"] / seconds
    needed = Rows(rows.text[-args.steps :], rows.image, padding_free=True)
    flops = flops_per_sample(shape, selection, needed.recipe(needed.text, args)).total
    return {
        "samples_per_second": speed,
        "peak_gib": peak / 2**30,
        "loss": loss.item(),
        "estimated_gib": memory.needed(recomputed) / 2**30,
        "recomputed": len(recomputed),
        "tflops": speed * flops / 1e12,
    }


def _batch(text: list[int], vocabulary: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Random ids with an image in each row; labels on the last eighth of each row's text."""
    ids = torch.randint(3, vocabulary, (len(text), max(text) + 1), device=device)
    ids[:, 1] = IMAGE_TOKEN_INDEX
    columns, lengths = torch.arange(ids.shape[1], device=device), torch.tensor(text, device=device).unsqueeze(1)
    labels = ids.masked_fill(columns < lengths - lengths // 8, IGNORE_INDEX)
    if len(set(text)) == 1:
        return {"input_ids": ids, "labels": labels}
    mask = columns <= lengths
    return {"input_ids": ids, "labels": labels.masked_fill(~mask, IGNORE_INDEX), "attention_mask": mask}


def make_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rank", type=positive, default=32)
    parser.add_argument("--steps", type=positive, default=6, help="timed steps, after two that warm up")
    lengths_help = "mixed: rows of different lengths, drawn for each step"
    parser.add_argument("--lengths", choices=("equal", "mixed"), default="equal", help=lengths_help)
    parser.add_argument("--padding-free", action="store_true", help="compute the rows without padding")
    checkpointing_help = "recompute all layers, none, or as few as the memory asks for"
    parser.add_argument("--checkpointing", choices=("true", "false", "auto"), default="false", help=checkpointing_help)
    parser.add_argument("--kernels", choices=CHOICES, default="none", help="of the decoder layers")
    parser.add_argument("--memory", type=float, metavar="GIB", help="as on a device with this much memory")
    parser.add_argument("--tune-layers", help="measure one variant, with LoRA in these layers")
    parser.add_argument("--label-only", action="store_true", help="of one variant: label-only logits")
    parser.add_argument("--cached", action="store_true", help="of one variant: a feature cache")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    if args.tune_layers:
        print(json.dumps(measure(args)))
        return
    print(f"preset {args.preset} {PRESETS[args.preset]}, {args.device} {args.dtype}, LoRA r {args.rank}", flush=True)
    rows = [("variant", "samples/s", "ratio", "peak GiB", "loss")]
    first = None
    for layers, tuned in LAYERS.items():
        for variant, flags in VARIANTS.items():
            result = in_process(__file__, *sys.argv[1:], "--tune-layers", tuned, *flags)
            speed = result["samples_per_second"]
            first = first or speed
            numbers = f"{speed:.2f}", f"{speed / first:.2f}", f"{result['peak_gib']:.2f}", f"{result['loss']:.4f}"
            rows.append((f"{layers}, {variant}", *numbers))
    print(text_table(rows))


if __name__ == "__main__":
    run_program(main, interrupted="")
