"""Saves and restores everything trainable, at every checkpoint, in upstream's file formats."""

import copy
import shutil
from pathlib import Path

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import safe_globals

from llava.checkpoint.adapter import ADAPTER_WEIGHTS, NON_LORA
from llava.checkpoint.folder import PROJECTOR
from llava.checkpoint.identity import write_base_values
from llava.checkpoint.opened import CheckpointError, Kind
from llava.checkpoint.parts import is_projector
from llava.checkpoint.safe import UntrustedError, check_pickles, load_pickled
from llava.files import written_whole
from llava.train.flag_names import say
from llava.train.zero import gathered

_REST = {Kind.LORA: NON_LORA, Kind.PROJECTOR: PROJECTOR}
_REQUIRED_TO_RESUME = ("trainer_state.json", "optimizer.pt", "scheduler.pt")


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter that trains, the projector even if frozen, and all of a tower that trains, by full name.

    Under ZeRO-3 every rank must call this; parameters are gathered one at a time.
    """
    named = list(model.named_parameters())
    tower_trains = any(parameter.requires_grad for name, parameter in named if "vision_tower." in name)
    state = {}
    for name, parameter in named:
        whole = is_projector(name) or (tower_trains and "vision_tower." in name)
        if parameter.requires_grad or whole:
            with gathered([parameter]):
                state[name] = parameter.detach().cpu().clone().contiguous()
    return state


def save_trained(model: nn.Module, kind: Kind, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Writes what a stage-1 or LoRA run trains, and the config, to `folder`.

    Stage 1: `mm_projector.bin`; LoRA: the adapter and `non_lora_trainables.bin`. Under ZeRO-3, `state` is the
    `trainable_state` that all ranks gathered.
    """
    state = trainable_state(model) if state is None else state
    folder.mkdir(parents=True, exist_ok=True)
    base = model.get_base_model() if kind is Kind.LORA else model
    named = base.file_names(state)
    write_base_values(folder, getattr(base, "base_fingerprint", None))
    if kind is Kind.LORA:
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
        named = {name: value for name, value in named.items() if "lora_" not in name}
    # As an open file: torch writes a file's name into it, and the name aside is random.
    with written_whole(folder / _REST[kind]) as aside, open(aside, "wb") as file:
        torch.save(named, file)
    config = copy.deepcopy(base.config)
    # A QLoRA's adapter belongs to the base in 16 bits.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)


def restore_trained(model: nn.Module, kind: Kind, folder: Path) -> None:
    """Restores what `save_trained` wrote; raises `CheckpointError` if a trainable parameter is missing."""
    restored = set()
    if kind is Kind.LORA:
        adapter = load_file(folder / "adapter_model.safetensors")
        result = set_peft_model_state_dict(model, adapter)
        if result.unexpected_keys:
            raise CheckpointError(
                f"{folder} was trained on other layers than this run's --tune_layers: it holds "
                f"{result.unexpected_keys[0]}. Give the same flags, or another --output_dir"
            )
        restored = {
            name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.") for name in adapter
        }
    rest = load_pickled(folder / _REST[kind])
    unexpected = model.load_state_dict(rest, strict=False).unexpected_keys
    base = model.get_base_model() if kind is Kind.LORA else model
    trains = base.file_names({name: p for name, p in model.named_parameters() if p.requires_grad})
    missing = set(trains) - restored - set(rest)
    if unexpected or missing:
        raise CheckpointError(
            f"{folder} does not hold what this run trains (missing {sorted(missing)[:2]}, unknown {unexpected[:2]}); "
            "give the same flags as before, or another --output_dir"
        )


def sharding_problem(folder: Path, zero_ranks: int | None) -> str | None:
    """Why a checkpoint-N cannot be loaded as this run is sharded; None if it can.

    DeepSpeed loads what fits, and a trainer without it starts a new optimizer if there is none; neither reports it.

    Args:
        zero_ranks: number of ranks under DeepSpeed; None without it.
    """
    sharded = bool(list(folder.glob("global_step*")))
    if sharded != (zero_ranks is not None):
        return f"{folder} was written " + (
            "with --deepspeed, this run has none" if sharded else "without --deepspeed, this run has it"
        )
    # One file per rank; none at stage 0, which shards nothing.
    shards = len(list(folder.glob("global_step*/*_optim_states.pt")))
    if shards and shards != zero_ranks:
        return f"{folder} was written by {shards} processes, this run has {zero_ranks}; DeepSpeed needs as many"
    return None


def held_zero_stage(folder: Path) -> int | None:
    """The ZeRO stage of the run that wrote a checkpoint-N, by its files: 3 or 2; None without DeepSpeed."""
    if not list(folder.glob("global_step*")):
        return None
    return 3 if list(folder.glob("global_step*/zero_pp_rank_*_model_states.pt")) else 2


def held_kind(folder: Path) -> Kind:
    """What kind of run wrote a checkpoint-N or a result."""
    lora = any((folder / name).is_file() for name in ADAPTER_WEIGHTS)
    return Kind.LORA if lora else Kind.PROJECTOR if (folder / PROJECTOR).exists() else Kind.FULL


def missing_to_resume(folder: Path) -> list[str]:
    """Files that a checkpoint-N lacks; none if a run can be resumed from it."""
    sharded = list(folder.glob("global_step*"))
    return [name for name in _REQUIRED_TO_RESUME if not sharded and not (folder / name).exists()]


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The folders checkpoint-N of a run, in the order of their steps, also incomplete ones."""
    found = [folder for folder in Path(output_dir).glob("checkpoint-*") if folder.name[11:].isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """N of a folder checkpoint-N."""
    return int(checkpoint.name.partition("-")[2])


def check_trusted(folder: Path) -> None:
    """Raises `UntrustedError` if a file of a checkpoint-N holds more than tensors and the trainer's own classes.

    transformers does not name the file that it refuses, and DeepSpeed would run any code in its files.
    """
    allowed: list[type] = []
    if list(folder.glob("global_step*")):
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        allowed = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    latest = folder / "latest"
    if latest.is_file() and Path(tag := latest.read_text().strip()).name != tag:
        raise UntrustedError(f"{latest} is refused: it names {tag!r}, which is not a folder next to it")
    files = [file for kind in ("*.pt", "*.pth", "*.bin") for file in sorted(folder.rglob(kind))]
    with safe_globals():
        check_pickles([file for file in files if file.name != TRAINING_ARGS_NAME], allowed)


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint-N of a run that can be resumed; incomplete ones are skipped."""
    newest = None
    for folder in checkpoints(output_dir):
        if missing := missing_to_resume(folder):
            say(f"{folder} is not whole ({', '.join(missing)} missing) and is skipped")
        else:
            newest = folder
    return newest


def move_files(source: Path, target: Path) -> None:
    """Moves files into a folder one by one; `config.json` last, as the sign that all are there."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir(), key=lambda item: item.name == "config.json"):
        destination = target / file.name
        if destination.is_dir():
            shutil.rmtree(destination)
        file.replace(destination)


def describe_output(kind: Kind, folder: str | Path) -> str:
    """What a finished run has written, and where."""
    what = {Kind.PROJECTOR: PROJECTOR, Kind.LORA: f"the adapter and {NON_LORA}", Kind.FULL: "the whole model"}[kind]
    return f"{what}, config and tokenizer are in {folder}"
