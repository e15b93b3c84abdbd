"""What trains, printed before the first step."""

from collections import defaultdict
from typing import Any

from torch import nn
from transformers import PrinterCallback
from transformers.trainer_callback import ProgressCallback

from llava.checkpoint.parts import is_projector
from llava.tables import text_table
from visual_region.layers import LayerSelection


def log_line(logs: dict[str, Any]) -> str:
    """A step's numbers with four digits, as upstream prints them; transformers 5 prints them as quoted texts."""
    kept = {name: value for name, value in logs.items() if name != "total_flos"}
    return str({name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in kept.items()})


class Progress(ProgressCallback):
    """Prints the log lines above the progress bar."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None:
            self.training_bar.write(log_line(logs))


class Printer(PrinterCallback):
    """Prints the log lines, without a progress bar (--disable_tqdm True)."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_local_process_zero:
            print(log_line(logs))


def training_table(model: nn.Module, groups: list[dict[str, Any]], selection: LayerSelection | None) -> str:
    """Parameters and learning rate per trained group, and the picture of the stack."""
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    sizes: dict[tuple[str, float], int] = defaultdict(int)
    total = 0
    for name, parameter in model.named_parameters():
        total += size_of(parameter)
        if parameter.requires_grad:
            sizes[(_group_of(name), rates[id(parameter)])] += size_of(parameter)
    rows = [("group", "parameters", "learning rate")]
    rows += [(group, f"{size:,}", f"{rate:g}") for (group, rate), size in sizes.items()]
    trained = sum(sizes.values())
    rows.append(("all that trains", f"{trained:,}", f"{100 * trained / total:.2f}% of {total:,}"))
    lines = [text_table(rows, align="<><")]
    if selection is not None:
        lines.append("decoder layers that train: " + selection.describe().replace("\n", "\n  "))
    return "\n".join(lines)


def size_of(parameter: nn.Parameter) -> int:
    """The number of elements of a parameter, also of a sharded one."""
    # Under ZeRO-3 a parameter is empty here; `ds_numel` is its true size.
    return getattr(parameter, "ds_numel", parameter.numel())


def _group_of(name: str) -> str:
    if is_projector(name):
        return "projector"
    if "vision_tower" in name:
        return "vision tower"
    kind = "LoRA" if "lora_" in name else "weights"
    return f"decoder layers ({kind})" if ".layers." in name else f"rest of the language model ({kind})"
