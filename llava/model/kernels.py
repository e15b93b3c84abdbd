"""Faster kernels for the decoder layers of one model: Liger's, compiled layers, or ours for a CPU; the same loss.

Only the model that is given changes: neither the classes of transformers nor other models.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from llava.families import ModelFamily, family_of
from llava.model.cpu_kernels import apply_cpu_kernels, with_rotary

CHOICES = ("auto", "none", "liger", "cpu", "compile")
_COMPILED_AT_MOST = 64
_INSTALL = "pip install -e '.[kernels]'"


@dataclass(frozen=True)
class Kernels:
    """The kernels of a run, `none`, `liger`, `cpu` or `compile`, and the line that says why."""

    name: str
    line: str


def choose_kernels(wanted: str, family: ModelFamily, device: torch.device, zero_stage: int = 0) -> Kernels:
    """The kernels that a run uses. "auto" takes ours on a CPU, Liger's on a GPU if they can run there, else none.

    Raises:
        ValueError: an unknown name, or kernels that cannot run here.
    """
    if wanted not in CHOICES:
        raise ValueError(f"--kernels {wanted!r}; allowed: {', '.join(CHOICES)}")
    if wanted == "none":
        return Kernels("none", "kernels: none")
    name = {"auto": "cpu" if device.type == "cpu" else "liger"}.get(wanted, wanted)
    if name == "cpu":
        reason = None if device.type == "cpu" else "they are for a CPU"
    else:
        reason = why_not_compile(device, zero_stage) if name == "compile" else why_not_liger(family, device)
    if reason is None:
        return Kernels(name, f"kernels: {name}")
    if wanted == "auto":
        return Kernels("none", f"kernels: none ({reason})")
    raise ValueError(f"--kernels {wanted} cannot run: {reason}; use none, or auto to fall back by itself")


def why_not_liger(family: ModelFamily, device: torch.device) -> str | None:
    """Why Liger's kernels cannot run; None if they can."""
    if device.type != "cuda":
        return "Liger's kernels need a GPU"
    if importlib.util.find_spec("liger_kernel") is None:
        return f"liger-kernel is not installed; {_INSTALL}"
    try:
        known = _liger_functions()
    except ImportError as error:
        return f"liger-kernel cannot be imported: {error}"
    if family.backbone_type not in known:
        return f"liger-kernel has none for {family.backbone_type}"
    return None


def why_not_compile(device: torch.device, zero_stage: int) -> str | None:
    """Why decoder layers cannot be compiled; None if they can."""
    if zero_stage == 3:
        return "ZeRO-3 gathers weights in the hooks of each module, which is not tested with compiled layers"
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "it needs triton"
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"it needs a C++ compiler; {compiler} is not there"


def apply_kernels(model: Any, name: str) -> None:
    """Makes the model compute with the kernels that `choose_kernels` returned; call it after LoRA was added."""
    if name == "cpu":
        apply_cpu_kernels(model)
    elif name == "liger":
        _apply_liger(model)
    elif name == "compile":
        # Layers share their compiled code; it is another one for layers that train or are recomputed, and for each
        # number of rows of a micro-batch. Beyond the limit, which is 8, torch would not compile.
        torch._dynamo.config.recompile_limit = _COMPILED_AT_MOST
        for layer in _layers(model):
            layer.compile(dynamic=True)


def _layers(model: Any) -> Any:
    return model.get_submodule(family_of(model.config).layer_path)


def _liger_functions() -> dict[str, Callable[..., None]]:
    """Liger's functions that change a model, by the `model_type` of transformers."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return MODEL_TYPE_TO_APPLY_LIGER_FN


def _apply_liger(model: Any) -> None:
    """Liger's norms, MLPs and rotary embedding; the loss stays ours.

    Liger also replaces names in transformers' module, which would change every model that is built later. They are
    set back; the rotary embedding, which attention finds by its name, is replaced only while this model's attention
    runs.
    """
    layers = _layers(model)
    names = vars(sys.modules[layers[0].self_attn.forward.__func__.__module__])
    before = dict(names)
    _liger_functions()[family_of(model.config).backbone_type](
        model=model, cross_entropy=False, fused_linear_cross_entropy=False
    )
    rotary = names["apply_rotary_pos_emb"]
    names.update(before)
    for layer in layers:
        layer.self_attn.forward = partial(with_rotary, layer.self_attn, rotary)
