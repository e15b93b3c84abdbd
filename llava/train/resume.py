"""Where a run starts: a run is resumed with the settings that it was started with, or not at all.

A folder that an earlier version wrote has no run_settings.json; it is compared by what its other files hold.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from llava.checkpoint.adapter import ADAPTER_CONFIG
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import base_difference
from llava.checkpoint.opened import CheckpointError
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.safe import load_pickled
from llava.conversation import TemplateError
from llava.train.arguments import TrainingArguments
from llava.train.checkpoint import (
    checkpoints,
    held_kind,
    held_zero_stage,
    last_checkpoint,
    missing_to_resume,
    sharding_problem,
    step_of,
)
from llava.train.flag_names import ConfigurationError
from llava.train.plan import RunPlan
from llava.train.run_record import RUN_FILE, RunRecord, template_text, zero_stage_of

_STATE = "trainer_state.json"
_SAME_NAME = ("mm_vision_select_layer", "mm_vision_select_feature", "mm_projector_lr", "image_aspect_ratio")
"""Settings that config.json holds under the flag's name."""
_LORA = {"r": "lora_r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}


@dataclass(frozen=True)
class Start:
    """Where a run starts: at a checkpoint-N, or at the base.

    Attributes:
        done: there is nothing left to do.
        again: the output folder holds a start of the same run that was killed.
    """

    checkpoint: Path | None = None
    done: bool = False
    again: bool = False


@dataclass(frozen=True)
class Earlier:
    """What an earlier run left: the checkpoint-N to go on from, whether there is a result, and the folders of both."""

    checkpoint: Path | None
    result: bool
    folders: tuple[Path, ...]

    @property
    def deepspeed(self) -> int | None:
        """The ZeRO stage of the first folder's run; None without DeepSpeed."""
        begun = _recorded(self.folders[0])
        return zero_stage_of(begun["settings"]["deepspeed"]) if begun else held_zero_stage(self.folders[0])


def earlier_run(training: TrainingArguments) -> Earlier:
    """What the run goes on from. Raises `ConfigurationError` if it is not what --resume_from_checkpoint asks for."""
    output = Path(training.output_dir)
    result = (output / "config.json").is_file() and (output / _STATE).is_file()
    checkpoint = _checkpoint(training, result)
    folders = [checkpoint] if checkpoint else []
    if checkpoint is None or checkpoint.resolve().parent != output.resolve():
        # The output may hold another run, whose checkpoints this one would delete.
        held = output if result else last_checkpoint(output) if checkpoint else None
        folders += [held] if held else []
    return Earlier(checkpoint, result, tuple(folders))


def starting_point(record: RunRecord, plan: RunPlan, training: TrainingArguments, earlier: Earlier) -> Start:
    """Where the run starts. Raises `ConfigurationError` if its output folder holds another run."""
    output, checkpoint, result, held = Path(training.output_dir), earlier.checkpoint, earlier.result, earlier.folders
    problems = {folder: _differences(folder, record, plan, training) for folder in held}
    zero_ranks = training.world_size if training.deepspeed else None
    if checkpoint and (sharding := sharding_problem(checkpoint, zero_ranks)):
        problems[checkpoint].append(sharding)
    if others := [str(folder) for folder, lines in problems.items() if lines]:
        lines = "\n".join(f"- {line}" for line in dict.fromkeys(chain(*problems.values())))
        raise ConfigurationError(
            f"{others[0]} was written by a run with other settings:\n{lines}\n"
            "Give the earlier settings to go on with that run, or another --output_dir to start a new one (what may "
            "change, such as steps, logging, saving and workers, is in docs/training.md)"
        )
    begun = _recorded(output)
    done = result and _is_done(output, begun, record, plan)
    if not done and (ahead := _checkpoints_ahead(output, checkpoint)):
        named, flag = ", ".join(ahead), training.resume_from_checkpoint
        newest = "leave out --resume_from_checkpoint to go on from the newest, " if flag else ""
        raise ConfigurationError(
            f"--output_dir {output} holds {named}, but this run starts at {checkpoint or 'step 0'}. Its own "
            "checkpoints would be older ones, which --save_total_limit deletes and a later start does not take; "
            f"{newest}delete {named}, or give another --output_dir"
        )
    # A run that was killed between its result and the last line of its record starts again.
    if result and not done and checkpoint is None and (begun is None or begun["finished"]):
        raise ConfigurationError(
            f"--output_dir {output} holds the result of a run of another length, and no checkpoint-N to go on from; "
            "give another --output_dir, or delete that folder"
        )
    return Start(checkpoint, done, again=begun is not None and not begun["finished"] and _is_same_run(begun, record))


def _checkpoint(training: TrainingArguments, result: bool) -> Path | None:
    """The checkpoint-N that --resume_from_checkpoint means: a folder, True, False, or by default the newest."""
    wanted, output = training.resume_from_checkpoint, training.output_dir
    flag = f"--resume_from_checkpoint {wanted}"
    names = ", ".join(folder.name for folder in checkpoints(output))
    if wanted in (None, "") or str(wanted).lower() == "true":
        newest = last_checkpoint(output)
        if wanted and newest is None:
            raise ConfigurationError(
                f"{flag}: {output} holds no complete checkpoint-N; without the flag a new run starts"
            )
        return newest
    if str(wanted).lower() == "false":
        if names or result:
            raise ConfigurationError(
                f"{flag} starts a new run, but --output_dir {output} holds {names or 'the result of an earlier one'}; "
                "delete that folder, or give another --output_dir"
            )
        return None
    folder = Path(wanted)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{flag}: there is no such folder; {output} holds {names or 'no checkpoint-N'}. True takes the newest"
        )
    if missing := missing_to_resume(folder):
        raise ConfigurationError(f"{flag}: {', '.join(missing)} missing; give the folder of a complete checkpoint-N")
    return folder


def _checkpoints_ahead(output: Path, start: Path | None) -> list[str]:
    """The checkpoint-N of an output folder with more steps than the start: of another run, or not whole."""
    done = _read(start / _STATE)["global_step"] if start else 0
    return [f"checkpoint-{step}" for step in map(step_of, checkpoints(output)) if step > done]


def _differences(folder: Path, record: RunRecord, plan: RunPlan, training: TrainingArguments) -> list[str]:
    """How the run that wrote a checkpoint-N or a result differs from this one."""
    begun = _recorded(folder)
    now = dict(record.settings)
    lines = []
    if begun is None:
        before = _of_earlier_version(folder, record, training)
        if different := base_difference(folder, plan.base.tensors) if plan.base.tensors else None:
            lines.append(f"--model_name_or_path: now {plan.base.name}, which is another model ({different})")
    else:
        before = begun["settings"]
    if "data_path" in before and not _same(before["data_path"], now["data_path"]):
        # Its images are others because the data are.
        now["image_folder"] = now["image_folder"] | {"identity": None}
    for name in now:
        if name in before and not _same(before[name], now[name]):
            flag = name if " " in name else f"--{name}"
            lines.append(f"{flag}: before {_shown(before[name], now[name])}, now {_shown(now[name])}")
    state = _read(folder / _STATE)
    done = state["global_step"]
    if 0 < training.max_steps < done:
        lines.append(f"--max_steps {training.max_steps}: it has made {done} steps already")
    elif training.max_steps <= 0 and training.num_train_epochs + 1e-3 < (state.get("epoch") or 0):
        lines.append(f"--num_train_epochs {training.num_train_epochs:g}: it has made {state['epoch']:.2f} already")
    return lines


def _is_same_run(begun: Mapping[str, Any], record: RunRecord) -> bool:
    before, now = begun["settings"], record.settings
    return all(name in before and _same(before[name], value) for name, value in now.items())


def _same(before: Any, now: Any) -> bool:
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return before == now
    if before["identity"] is None or now["identity"] is None:
        # Without a content to compare: a hub id, or a path that an earlier version recorded.
        return Path(before["name"] or "").name == Path(now["name"] or "").name
    return before["identity"] == now["identity"]


def _shown(value: Any, other: Any = None) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    same = isinstance(other, Mapping) and other["name"] == value["name"]
    return f"{value['name']}" + (" with another content" if same else "")


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What the run that wrote a checkpoint-N or a result recorded of itself."""
    places = (folder, folder.parent) if folder.name.startswith("checkpoint-") else (folder,)
    file = next((place / RUN_FILE for place in places if (place / RUN_FILE).is_file()), None)
    return _read(file) if file else None


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read ({error}); delete its folder to start again") from error


def _of_earlier_version(folder: Path, record: RunRecord, training: TrainingArguments) -> dict[str, Any]:
    """What config.json, the adapter and the scheduler tell of the settings."""
    config = _read(folder / "config.json")
    found: dict[str, Any] = {"what trains": held_kind(folder).value}
    found |= {name: config[name] for name in _SAME_NAME if name in config}
    if config.get("tokenizer_model_max_length"):
        found["model_max_length"] = config["tokenizer_model_max_length"]
    if config.get("mm_vision_tower"):
        found["vision_tower"] = {"name": config["mm_vision_tower"], "identity": None}
    if name := config.get("conversation_template"):
        found["version"] = {"name": name, "identity": _template_text(name)}
    layers = LayerRecord.of(config)
    if layers.layers is not None:
        # A healing leaves the tuned region, and has its own layers.
        trained = layers.healed["layers"] if layers.healed and "teacher" in record.settings else layers.layers
        found["tune_layers"] = {"name": f"layers {trained}", "identity": trained}
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = _read(folder / ADAPTER_CONFIG)
        found |= {flag: adapter[name] for name, flag in _LORA.items() if name in adapter}
    if (folder / "scheduler.pt").is_file():
        rates = set(load_pickled(folder / "scheduler.pt")["base_lrs"])
        if other := rates - {training.learning_rate, training.mm_projector_lr}:
            found["learning_rate"] = max(other)
    return found


def _template_text(name: str) -> list[str | None] | None:
    try:
        return template_text(name)
    except TemplateError:
        return None


def _is_done(output: Path, begun: Mapping[str, Any] | None, record: RunRecord, plan: RunPlan) -> bool:
    """Whether the result in the output folder is whole and of the length that is asked for."""
    length = record.length
    if begun is not None:
        # Epochs have no effect with --max_steps.
        compared = ("max_steps",) if length["max_steps"] > 0 else tuple(length)
        finished = begun["finished"] and all(begun["length"].get(name) == length[name] for name in compared)
    elif length["max_steps"] > 0:
        finished = _read(output / _STATE)["global_step"] == length["max_steps"]
    else:
        finished = _read(output / _STATE)["num_train_epochs"] == math.ceil(length["num_train_epochs"])
    if finished:
        try:
            open_checkpoint(output, package=plan.base.family.package, with_base=False)
        except CheckpointError as error:
            raise ConfigurationError(
                f"--output_dir {output} holds a damaged result: {error}; delete it, or give another folder"
            ) from error
    return finished
