"""What trains, printed before the first step."""

from collections import defaultdict
from typing import Any

from torch import nn

from llava.tables import text_table
from visual_region.layers import LayerSelection


def training_table(model: nn.Module, groups: list[dict[str, Any]], selection: LayerSelection | None) -> str:
    """Parameters and learning rate per trained group, and the picture of the stack."""
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    sizes: dict[tuple[str, float], int] = defaultdict(int)
    total = 0
    for name, parameter in model.named_parameters():
        total += _size(parameter)
        if parameter.requires_grad:
            sizes[(_group_of(name), rates[id(parameter)])] += _size(parameter)
    rows = [("group", "parameters", "learning rate")]
    rows += [(group, f"{size:,}", f"{rate:g}") for (group, rate), size in sizes.items()]
    trained = sum(sizes.values())
    rows.append(("all that trains", f"{trained:,}", f"{100 * trained / total:.2f}% of {total:,}"))
    lines = [text_table(rows, align="<><")]
    if selection is not None:
        lines.append("decoder layers that train: " + selection.describe().replace("\n", "\n  "))
    return "\n".join(lines)


def _size(parameter: nn.Parameter) -> int:
    # Under ZeRO-3 a parameter is empty here; `ds_numel` is its true size.
    return getattr(parameter, "ds_numel", parameter.numel())


def _group_of(name: str) -> str:
    if "mm_projector" in name:
        return "projector"
    if "vision_tower" in name:
        return "vision tower"
    kind = "LoRA" if "lora_" in name else "weights"
    return f"decoder layers ({kind})" if ".layers." in name else f"rest of the language model ({kind})"
