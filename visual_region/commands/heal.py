"""`python -m visual_region heal`: trains a pruned model on the unpruned model's outputs."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.hf_argparser import string_to_bool

from llava.checkpoint.folder import open_checkpoint, recorded_name
from llava.checkpoint.identity import digest, digest_of
from llava.checkpoint.opened import Checkpoint, Kind
from llava.checkpoint.record import LayerRecord
from llava.dtypes import DTYPES
from llava.flags import Parser
from llava.model.builder import load_checkpoint, load_tokenizer
from llava.outputs import OutputError, Paths, check_apart, check_cache, check_folder
from llava.tiling import ANYRES, FLAT
from llava.train import train
from llava.train.flag_names import AUTO
from llava.train.zero import weights_whole
from visual_region.distill import Distillation, DistillationTrainer
from visual_region.layers import LayerSelection
from visual_region.surgery import SurgeryError

_SAME = ("vocab_size", "mm_vision_select_layer", "mm_vision_select_feature")
"""Settings in which teacher and student must agree."""


def run(args: argparse.Namespace) -> None:
    """Trains and writes a folder that loads; a second run continues where the first stopped."""
    limits = {"--steps": (args.steps, 1), "--batch-size": (args.batch_size, 1), "--save-steps": (args.save_steps, 1)}
    limits["--lora-r"] = args.lora_r, 0
    wrong = [f"{flag} {value} must be at least {least}" for flag, (value, least) in limits.items() if value < least]
    if not args.learning_rate > 0:
        wrong.append(f"--learning-rate {args.learning_rate} must be above 0")
    if _trains_tower(args.trainer_flags):
        wrong.append("--unfreeze_vision_tower: the tower stays frozen, as both models share it; leave the flag out")
    if wrong:
        raise SurgeryError("; ".join(wrong))
    distillation = Distillation(args.temperature, args.ce_weight, recorded_name(args.teacher))
    student = open_checkpoint(args.model_path, flag="--model-path")
    teacher = open_checkpoint(args.teacher, args.teacher_base, flag="--teacher")
    _check_pair(student, teacher, args.vision_tower)
    _check_output(args, [*student.folders, *teacher.folders, args.vision_tower])
    LayerSelection.parse(args.tune_layers, student.depth)

    def make_trainer(**kwargs: Any) -> DistillationTrainer:
        # A device with its number: without one, a machine's GPUs would share the teacher.
        options = {"device": str(kwargs["args"].device), "vision_tower": args.vision_tower, "load_tower": False}
        # With ZeRO-3 transformers would load a part of each weight, and only the student's are put together again.
        with weights_whole(kwargs["args"]):
            loaded = load_checkpoint(teacher, dtype=DTYPES[args.dtype], **options)[1]
        return DistillationTrainer(**kwargs, teacher=loaded, distillation=distillation, record=student.record)

    settings = {
        "teacher": {"name": args.teacher, "identity": digest(teacher)},
        "temperature": args.temperature,
        "ce-weight": args.ce_weight,
    }
    train.train(AUTO, _trainer_argv(args, student), make_trainer=make_trainer, settings=settings)


def _trains_tower(trainer_flags: Sequence[str]) -> bool:
    """Whether the trainer's flags ask for a tower that trains, in one of the spellings that the trainer accepts."""
    parser = Parser(add_help=False).raising(SurgeryError)
    spellings = ("--unfreeze_vision_tower", "--unfreeze-vision-tower")
    parser.add_argument(*spellings, nargs="?", type=string_to_bool, const=True, default=False)
    return parser.parse_known_args(trainer_flags)[0].unfreeze_vision_tower


def _check_output(args: argparse.Namespace, reads: Paths) -> None:
    """Accepts a new folder, or one of an earlier run, but none of the models that are read."""
    check_apart(args.output, reads, inputs=[args.data_path, args.image_folder])
    check_folder(args.output, "--output")
    config = Path(args.output, "config.json")
    if config.is_file():
        record = LayerRecord.of(json.loads(config.read_text(encoding="utf-8")))
        if record.healed is None or not config.with_name("trainer_state.json").is_file():
            raise OutputError(f"--output {args.output} holds a checkpoint that heal did not write; give another folder")
    check_cache(args.vision_feature_cache, reads)


def _check_pair(student: Checkpoint, teacher: Checkpoint, vision_tower: str | None) -> None:
    """Raises `SurgeryError` unless teacher and student have the same tokens and the same tower.

    `vision_tower` takes the place of both recorded towers.
    """
    if student.kind is not Kind.FULL:
        hint = "heal a full checkpoint (prune merges a LoRA unless --base-output is given)"
        raise SurgeryError(f"{student.path} is a {student.kind.value} checkpoint; {hint}")
    configs = teacher.model_config(), student.model_config()
    pairs = {name: tuple(getattr(config, name, None) for config in configs) for name in _SAME}
    towers = (None, None) if vision_tower else (_tower(teacher), _tower(student))
    wrong = [
        f"{name} is {theirs!r} in the teacher and {ours!r} in the student"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    ]
    if towers[0] != towers[1]:
        recorded = f"mm_vision_tower is {towers[0]!r} in the teacher and {towers[1]!r} in the student"
        wrong.append(f"{recorded}; if both are the same tower, give --vision-tower its folder here")
    if not wrong:
        theirs, ours = (load_tokenizer(model.tokenizer_folder).get_vocab() for model in (teacher, student))
        wrong = ["their tokenizers differ"] * (theirs != ours)
    if not wrong and digest(teacher) == digest(student):
        wrong = ["they are the same model"]
    if wrong:
        problems = "; ".join(wrong)
        raise SurgeryError(f"{teacher.name} cannot teach {student.name}: {problems}. Give the model that was pruned")


def _tower(checkpoint: Checkpoint) -> str | None:
    """The recorded tower; of transformers' own LLaVA, whose folder holds the tower, a digest of its weights."""
    if not checkpoint.hf:
        return recorded_name(checkpoint.tower)
    return digest_of(stored for stored in checkpoint.tensors if "vision_tower." in stored.name)


def _trainer_argv(args: argparse.Namespace, student: Checkpoint) -> list[str]:
    """The trainer's flags: settings of the student and of the command, then `trainer_flags`, which override them."""
    config = student.model_config()
    flags: dict[str, Any] = {
        "model_name_or_path": student.name,
        "version": student.template,
        "data_path": args.data_path,
        "image_folder": args.image_folder,
        "model_max_length": getattr(config, "tokenizer_model_max_length", None) or 2048,
        "mm_vision_select_layer": getattr(config, "mm_vision_select_layer", -2),
        "mm_vision_select_feature": getattr(config, "mm_vision_select_feature", "patch"),
        "mm_projector_type": getattr(config, "mm_projector_type", "linear"),
        **_views(config),
        **({"vision_tower": args.vision_tower} if args.vision_tower else {}),
        "freeze_mm_mlp_adapter": not args.train_projector,
        "tune_layers": args.tune_layers,
        "bf16": args.dtype == "bf16",
        "max_steps": args.steps,
        "per_device_train_batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "weight_decay": "0.",
        "save_strategy": "steps",
        "save_steps": args.save_steps,
        "save_total_limit": 1,
        "logging_steps": 10,
        "report_to": "none",
        "output_dir": args.output,
    }
    if args.lora_r:
        flags |= {"lora_enable": True, "lora_r": args.lora_r, "lora_alpha": 2 * args.lora_r, "lora_dropout": 0.0}
    if args.vision_feature_cache:
        flags["vision_feature_cache"] = args.vision_feature_cache
    argv = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return argv + list(args.trainer_flags)


def _views(config: Any) -> dict[str, Any]:
    """The flags of how the model reads images."""
    ratio = getattr(config, "image_aspect_ratio", None) or "square"
    if ratio != ANYRES:
        return {"image_aspect_ratio": ratio, "mm_patch_merge_type": FLAT}
    names = ("mm_patch_merge_type", "image_grid_pinpoints")
    return {"image_aspect_ratio": ratio} | {name: value for name in names if (value := getattr(config, name, None))}
