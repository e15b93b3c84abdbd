"""Samples per second and peak memory of a training step: layers, label-only logits and feature cache, in one run.

`python scripts/bench/train_step.py [--preset 7b] [--device cuda --dtype bf16]`

Trains a Llama with a frozen CLIP tower, both with random weights, on random images. Each variant runs in a separate
process, so that its peak memory is measured separately. `--preset 7b` has LLaVA-1.5-7B's shape and is meant for a GPU.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

PRESETS = {
    "laptop": {"hidden": 512, "layers": 16, "heads": 8, "vocabulary": 32000, "length": 192, "batch": 4, "image": 112},
    "7b": {"hidden": 4096, "layers": 32, "heads": 32, "vocabulary": 32000, "length": 768, "batch": 8, "image": 336},
}
VARIANTS = [
    ("all layers, whole logits", "all", False, False),
    ("all layers, label-only logits", "all", True, False),
    ("all layers, label-only logits, feature cache", "all", True, True),
    ("25% of layers, whole logits", "sparse-uniform:25%", False, False),
    ("25% of layers, label-only logits", "sparse-uniform:25%", True, False),
    ("25% of layers, label-only logits, feature cache", "sparse-uniform:25%", True, True),
]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Measures one variant: `samples_per_second` after two warm-up steps, `peak_gib`, the last step's `loss`."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from llava.families import FAMILIES
    from visual_region.layers import LayerSelection
    from visual_region.tuning import apply_lora

    family, shape = FAMILIES["llava_llama"], PRESETS[args.preset]
    device, dtype = torch.device(args.device), {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    torch.manual_seed(0)
    config = family.load_config_class()(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["hidden"] * 11 // 4,
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"],
        use_cache=False,
    )
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = family.load_model_class()(config)
        tower = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                image_size=shape["image"],
                patch_size=14,
            )
        ).eval()
        torch.set_default_dtype(torch.float32)
    tokens = (shape["image"] // 14) ** 2
    model.model.mm_projector = torch.nn.Sequential(
        torch.nn.Linear(1024, shape["hidden"]), torch.nn.GELU(), torch.nn.Linear(shape["hidden"], shape["hidden"])
    ).to(device)
    model.label_only_logits = args.label_only
    model.requires_grad_(False)
    wrapped = apply_lora(
        model,
        LayerSelection.parse(args.tune_layers, shape["layers"]),
        family.layer_path,
        r=args.rank,
        lora_alpha=2 * args.rank,
        lora_dropout=0.0,
    ).train()
    model.model.mm_projector.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-4)

    text = shape["length"] - tokens
    ids = torch.randint(3, shape["vocabulary"], (shape["batch"], text + 1), device=device)
    ids[:, 1] = -200
    labels = ids.clone()
    labels[:, : text - text // 8] = -100
    pixels = torch.randn(shape["batch"], 3, shape["image"], shape["image"], device=device, dtype=dtype)

    @torch.no_grad()
    def see() -> torch.Tensor:
        return tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    features = see() if args.cached else None
    loss = torch.zeros(())
    for step in range(args.steps + 2):
        if step == 2:
            _wait(device)
            begin = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            image_features = features if args.cached else see()
            loss = wrapped(input_ids=ids, labels=labels, image_features=image_features).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _wait(device)
    seconds = time.perf_counter() - begin
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"samples_per_second": args.steps * shape["batch"] / seconds, "peak_gib": peak, "loss": loss.item()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    own = SimpleNamespace(**vars(args))
    first = None
    print(f"preset {own.preset} {PRESETS[own.preset]}, {own.device} {own.dtype}, LoRA r {own.rank}")
    print(f"{'variant':50s} samples/s   ratio   peak GiB   loss")
    for name, layers, label_only, cached in VARIANTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--tune-layers", layers]
        command += ["--label-only"] * label_only + ["--cached"] * cached
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        first = first or result["samples_per_second"]
        speed = result["samples_per_second"]
        print(
            f"{name:50s} {speed:9.2f}  {speed / first:6.2f}  {result['peak_gib']:8.2f}  {result['loss']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
