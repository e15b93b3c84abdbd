"""What is wrong with a run's flags, whatever they name."""

import math
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from llava.tiling import ANYRES, FLAT, IMAGE_ASPECT_RATIOS
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.hub import hub_problem

_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "model_max_length": 1,
    "dataloader_num_workers": 0,
    "learning_rate": 0,
    "mm_projector_lr": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
}
_LEAST_OF_LORA = {"lora_r": 1, "lora_alpha": 1, "lora_dropout": 0}


def wrong_flags(model: ModelArguments, data: DataArguments, training: TrainingArguments) -> list[str]:
    """What is wrong with the flags alone."""
    errors = [*training.refused, *_wrong_numbers(training), *_wrong_reports(training)]
    if model.freeze_backbone:
        errors.append("--freeze_backbone left lm_head training in upstream; use --tune_mm_mlp_adapter True instead")
    if model.tune_mm_mlp_adapter and model.tune_layers is not None:
        errors.append("--tune_layers with --tune_mm_mlp_adapter True: stage 1 trains the projector only; give one")
    if model.tune_mm_mlp_adapter and training.lora_enable:
        errors.append("--lora_enable with --tune_mm_mlp_adapter True: stage 1 trains the projector only; give one")
    if model.tune_mm_mlp_adapter and training.freeze_mm_mlp_adapter:
        errors.append("--freeze_mm_mlp_adapter with --tune_mm_mlp_adapter leaves nothing to train; give one")
    if model.unfreeze_vision_tower and data.vision_feature_cache:
        errors.append("--vision_feature_cache with --unfreeze_vision_tower: features of a tower that trains change")
    if model.mm_use_im_start_end or model.mm_use_im_patch_token:
        errors.append("--mm_use_im_start_end and --mm_use_im_patch_token are not supported (LLaVA-1.5 uses neither)")
    if training.bits != 16 and not training.lora_enable:
        errors.append(f"--bits {training.bits} freezes the language model; it needs --lora_enable True")
    if training.bits != 16 and training.zero_stage == 3:
        errors.append(
            f"--bits {training.bits} with ZeRO-3: quantised weights cannot be sharded; use ./scripts/zero2.json"
        )
    if training.use_liger_kernel:
        errors.append("--use_liger_kernel True knows none of this project's models; use --kernels liger")
    if training.label_smoothing_factor:
        # The Trainer would smooth labels of the text, where the logits have the images' positions too.
        errors.append(
            f"--label_smoothing_factor {training.label_smoothing_factor:g} is not supported; leave it out, or give 0"
        )
    if training.lora_bias != "none":
        errors.append(f"--lora_bias {training.lora_bias} is not supported; allowed: none")
    if data.image_aspect_ratio not in IMAGE_ASPECT_RATIOS:
        errors.append(f"--image_aspect_ratio {data.image_aspect_ratio!r}; allowed: {', '.join(IMAGE_ASPECT_RATIOS)}")
    elif data.image_aspect_ratio != ANYRES:
        of_views = {"mm_patch_merge_type": model.mm_patch_merge_type, "image_grid_pinpoints": data.image_grid_pinpoints}
        errors += [
            f"--{name} {value} is of several views per image; it needs --image_aspect_ratio {ANYRES}"
            for name, value in of_views.items()
            if value not in (None, FLAT)
        ]
    if data.bad_samples not in ("fail", "skip"):
        errors.append(f"--bad_samples {data.bad_samples!r}; allowed: fail, skip")
    return errors


def _wrong_numbers(training: TrainingArguments) -> list[str]:
    least: dict[str, Any] = _LEAST | (_LEAST_OF_LORA if training.lora_enable else {})
    given = {name: getattr(training, name) for name in least}
    errors = [
        f"--{name} {value} must be at least {least[name]}"
        for name, value in given.items()
        if value is not None and not least[name] <= value < math.inf
    ]
    if training.lora_enable and training.lora_dropout >= 1:
        errors.append(f"--lora_dropout {training.lora_dropout:g} must be below 1")
    if training.max_steps == 0 or training.max_steps < -1:
        errors.append(f"--max_steps {training.max_steps}: give at least 1 step, or -1 to count --num_train_epochs")
    elif training.max_steps == -1 and not 0 < training.num_train_epochs < math.inf:
        errors.append(f"--num_train_epochs {training.num_train_epochs:g} trains nothing; give more than 0")
    if training.save_strategy == "steps" and training.save_steps <= 0:
        errors.append(f"--save_steps {training.save_steps:g} must be above 0")
    return errors


def _wrong_reports(training: TrainingArguments) -> list[str]:
    """Trackers that are unknown or not installed, and a Hub that cannot be written."""
    known, installed = INTEGRATION_TO_CALLBACK, get_available_reporting_integrations()
    errors = [
        f"--report_to {name}: its package is not installed (pip install -e '.[trackers]' has tensorboard and wandb)"
        if name in known
        else f"--report_to {name}; allowed: none, {', '.join(known)}"
        for name in training.report_to
        if name not in installed
    ]
    problem = hub_problem(training.hub_token) if training.push_to_hub else None
    return [*errors, problem] if problem else errors
