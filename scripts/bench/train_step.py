"""Samples per second and peak memory of a training step: layers, label-only logits and feature cache, in one run.

`python scripts/bench/train_step.py [--preset 7b] [--device cuda --dtype bf16]`

Trains a Llama with a frozen CLIP tower, both with random weights, on random images. Each variant runs in a separate
process, so that its peak memory is measured separately. `--preset 7b` has LLaVA-1.5-7B's shape and is meant for a GPU.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.dtypes import dtype_of
from llava.families import FAMILIES
from llava.flags import Parser, run_program
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.tables import text_table
from scripts.bench.shared import in_process, peak_memory, wait
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora

PRESETS = {
    "laptop": {"hidden": 512, "layers": 16, "heads": 8, "vocabulary": 32000, "length": 192, "batch": 4, "image": 112},
    "7b": {"hidden": 4096, "layers": 32, "heads": 32, "vocabulary": 32000, "length": 768, "batch": 8, "image": 336},
}
TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
TOWER |= {"patch_size": 14}
LAYERS = {"all layers": "all", "25% of layers": "sparse-uniform:25%"}
VARIANTS = {
    "whole logits": [],
    "label-only logits": ["--label-only"],
    "label-only logits, feature cache": ["--label-only", "--cached"],
}


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Measures one variant: `samples_per_second` after two warm-up steps, `peak_gib`, the last step's `loss`."""
    family, shape = FAMILIES["llava_llama"], PRESETS[args.preset]
    device, dtype = torch.device(args.device), dtype_of(args.dtype)
    torch.manual_seed(0)
    config = family.load_config_class()(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["hidden"] * 11 // 4,
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        use_cache=False,
        mm_hidden_size=1024,
        mm_projector_type="mlp2x_gelu",
    )
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = family.load_model_class()(config)
        tower = CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=shape["image"])).eval()
        torch.set_default_dtype(torch.float32)
    tokens = (shape["image"] // 14) ** 2
    model.model.mm_projector = build_vision_projector(config).to(device)
    model.label_only_logits = args.label_only
    model.requires_grad_(False)
    selection = LayerSelection.parse(args.tune_layers, shape["layers"])
    lora = {"r": args.rank, "lora_alpha": 2 * args.rank, "lora_dropout": 0.0}
    wrapped = apply_lora(model, selection, family.layer_path, **lora).train()
    model.model.mm_projector.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-4)

    text = shape["length"] - tokens
    ids = torch.randint(3, shape["vocabulary"], (shape["batch"], text + 1), device=device)
    ids[:, 1] = IMAGE_TOKEN_INDEX
    labels = ids.clone()
    labels[:, : text - text // 8] = IGNORE_INDEX
    pixels = torch.randn(shape["batch"], 3, shape["image"], shape["image"], device=device, dtype=dtype)

    @torch.no_grad()
    def see() -> torch.Tensor:
        return tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    features = see() if args.cached else None
    loss = torch.zeros(())
    for step in range(args.steps + 2):
        if step == 2:
            wait(device)
            begin = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            image_features = features if args.cached else see()
            loss = wrapped(input_ids=ids, labels=labels, image_features=image_features).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    wait(device)
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    speed = args.steps * shape["batch"] / seconds
    return {"samples_per_second": speed, "peak_gib": peak / 2**30, "loss": loss.item()}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tune-layers", dest="tune_layers", help=argparse.SUPPRESS)
    parser.add_argument("--label-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cached", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
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
