"""What only a GPU can show: its kernels give the loss and the gradients of plain padded attention. Rows of gpu.py."""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.utils import parameters_to_vector

from llava.checkpoint.folder import open_checkpoint
from llava.constants import IGNORE_INDEX
from llava.dtypes import dtype_of
from llava.families import FAMILIES
from llava.model.builder import load_base
from llava.model.kernels import apply_kernels, choose_kernels
from llava.model.quantization import quantization_for
from llava.model.row_attention import ROWS, _has_varlen
from llava.train.attention import choose_attention
from scripts.bench.shared import wait
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora

_LENGTHS = (120, 37, 80, 1)
_HEADS, _WINDOW = 4, 24
_ROUNDING = {"fp32": 1e-5, "bf16": 5e-3}
"""How far a loss may be from that in float32."""


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """The device's own speed: a large matrix product, and a copy."""
    device, dtype = torch.device(args.device), dtype_of(args.dtype)
    size = 8192 if device.type == "cuda" else 256
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = _seconds(lambda: left @ right, device)
    large = torch.randn(size, 8 * size, device=device)
    target = torch.empty_like(large)
    moved = 2 * large.nbytes / _seconds(lambda: target.copy_(large), device)
    tflops = 2 * size**3 / seconds / 1e12
    return {"tflops": tflops, "note": f"{size} x {size} x {size}; a copy reads and writes {moved / 1e9:.0f} GB/s"}


def _seconds(run: Callable[[], Any], device: torch.device, times: int = 20) -> float:
    for _ in range(3):
        run()
    wait(device)
    begin = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - begin) / times


def _model(args: argparse.Namespace, head: int, window: int | None = None, grouped: bool = True) -> Any:
    """Two layers, with weights that are exact in the run's dtype."""
    torch.manual_seed(0)
    family = FAMILIES["llava_mistral" if window else "llava_llama"]
    config = family.load_config_class()(
        vocab_size=1000,
        hidden_size=_HEADS * head,
        intermediate_size=2 * _HEADS * head,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS // 4 if grouped else _HEADS,
        use_cache=False,
        **({"sliding_window": window} if window else {}),
    )
    with torch.device(args.device):
        return family.load_model_class()(config).to(dtype_of(args.dtype)).train()


def _batch(args: argparse.Namespace) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 1000, (len(_LENGTHS), max(_LENGTHS)), device=args.device)
    mask = torch.arange(max(_LENGTHS), device=args.device) < torch.tensor(_LENGTHS, device=args.device).unsqueeze(1)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~mask, IGNORE_INDEX)}


def _run(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The loss and all gradients, as one vector."""
    model.label_only_logits = True
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), parameters_to_vector([p.grad.double() for p in model.parameters()])


def _compare(args: argparse.Namespace, model: Any, change: Callable[[Any], None]) -> dict[str, Any]:
    """Compares a changed copy of the model, without padding, with the padded model in float32.

    The gradients may be twice as far from it as rounding puts those of the padded model in the run's dtype.
    """
    batch, changed = _batch(args), copy.deepcopy(model)
    change(changed)
    changed.compute_without_padding()
    loss, gradients = _run(copy.deepcopy(model).float(), batch)
    found, changed_gradients = _run(changed, batch)
    off, usual = (
        ((other - gradients).norm() / gradients.norm()).item() for other in (changed_gradients, _run(model, batch)[1])
    )
    kernel = changed.config._attn_implementation
    if kernel == ROWS and _has_varlen(
        torch.empty(1, 1, 1, model.config.head_dim, device=args.device, dtype=model.dtype)
    ):
        kernel = "torch's varlen kernel"
    note = f"{kernel}; loss {found:.5f} for {loss:.5f}; gradients off by {off:.1e}, padded ones by {usual:.1e}"
    if not (abs(found - loss) <= _ROUNDING[args.dtype] * loss and off <= 2 * usual + 1e-5):
        raise ValueError(f"not equal: {note}")
    return {"note": note}


def _without_padding(args: argparse.Namespace, **shape: Any) -> dict[str, Any]:
    return _compare(args, _model(args, **shape), lambda model: None)


def _kernels(name: str, args: argparse.Namespace) -> dict[str, Any]:
    chosen = choose_kernels(name, FAMILIES["llava_llama"], torch.device(args.device)).name
    return _compare(args, _model(args, 128), lambda model: apply_kernels(model, chosen))


def _flash(args: argparse.Namespace) -> dict[str, Any]:
    chosen = choose_attention("flash_attention_2", dtype_of(args.dtype))
    return _compare(args, _model(args, 128), lambda model: model.set_attn_implementation(chosen))


def _four_bits(args: argparse.Namespace) -> dict[str, Any]:
    """A QLoRA's steps on one batch make its loss smaller."""
    dtype, device, family = dtype_of(args.dtype), torch.device(args.device), FAMILIES["llava_llama"]
    quantization = quantization_for(4, dtype)
    with tempfile.TemporaryDirectory() as folder:
        _model(args, 128).save_pretrained(folder)
        base = open_checkpoint(folder)
        place = {"": device}
        model = load_base(base, base.model_config(), dtype, quantization_config=quantization, device_map=place)
    kind = type(model.model.layers[0].mlp.up_proj.weight).__name__
    model.requires_grad_(False)
    model.label_only_logits = True
    model.compute_without_padding()
    wrapped = apply_lora(model, LayerSelection.parse("all", 2), family.layer_path, r=8, lora_alpha=16, lora_dropout=0.0)
    optimizer = torch.optim.AdamW([p for p in wrapped.train().parameters() if p.requires_grad], lr=1e-3)
    batch, losses = _batch(args), []
    for _ in range(4):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = wrapped(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    note = f"{kind}; losses {' '.join(f'{loss:.4f}' for loss in losses)}"
    if not losses[-1] < losses[0]:
        raise ValueError(f"the loss does not fall: {note}")
    return {"note": note}


CHECKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "the device's matrix product": speed,
    "rows without padding, heads of 128": partial(_without_padding, head=128, grouped=False),
    "rows without padding, grouped heads of 128": partial(_without_padding, head=128),
    "rows without padding, grouped heads of 64": partial(_without_padding, head=64),
    "rows without padding, sliding window": partial(_without_padding, head=128, window=_WINDOW),
    "kernels liger": partial(_kernels, "liger"),
    "flash_attention_2": _flash,
    "QLoRA in 4 bits": _four_bits,
    "kernels compile": partial(_kernels, "compile"),
}
"""The last one compiles, which takes longest."""
