"""Everything that can be known to be wrong before weights are loaded, told at once."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from llava.checkpoint.old_folder import CheckpointError, Kind, read_checkpoint
from llava.conversation import Conversation, TemplateError, get_template
from llava.data.check import cheap_problems
from llava.data.records import DataFormatError, Records, open_records
from llava.families import ModelFamily, UnknownFamilyError
from llava.mm_utils import IMAGE_ASPECT_RATIOS
from llava.model.builder import family_config, load_tokenizer
from llava.model.multimodal_encoder.builder import VisionTowerError, build_vision_tower
from llava.model.multimodal_projector.builder import (
    ProjectorError,
    build_vision_projector,
    check_projector_weights,
    read_projector,
)
from llava.model.quantization import quantization_for
from llava.tokenization import check_template, end_turns_with
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.attention import choose_attention
from visual_region.layers import LayerSelection, LayerSelectionError

_EXPECTED = (
    LayerSelectionError,
    DataFormatError,
    UnknownFamilyError,
    CheckpointError,
    VisionTowerError,
    ProjectorError,
    TemplateError,
    FileNotFoundError,
    ValueError,
)


class ConfigurationError(ValueError):
    """Everything that is wrong with a run's settings, a line each."""


@dataclass
class RunPlan:
    """What a run will do.

    `mode` is "projector", "lora" or "full"; `selection` is None in stage 1; `trains_tower`: the vision tower too.
    """

    mode: str
    family: ModelFamily
    config: Any
    selection: LayerSelection | None
    tokenizer: PreTrainedTokenizerBase
    template: Conversation
    records: Records
    indices: np.ndarray
    trains_tower: bool
    eval_records: Records | None


def make_plan(model: ModelArguments, data: DataArguments, training: TrainingArguments) -> RunPlan:
    """Reads configs, tokenizer and data; no weights.

    Raises:
        ConfigurationError: lists every error that was found.
    """
    errors: list[str] = []

    @contextlib.contextmanager
    def collecting() -> Iterator[None]:
        try:
            yield
        except _EXPECTED as error:
            errors.append(str(error))

    _check_flags(model, data, training, errors)
    family = config = selection = tokenizer = template = records = None
    indices = np.arange(0)
    with collecting():
        if not model.model_name_or_path:
            raise ValueError("--model_name_or_path is missing: give the folder of a language model or a LLaVA")
        if Path(model.model_name_or_path).is_dir():
            base = read_checkpoint(model.model_name_or_path)
            if base.kind is not Kind.FULL:
                raise ValueError(
                    f"--model_name_or_path {base.path} is a {base.kind.value} checkpoint; merge it into its base first"
                )
        family, config = family_config(model.model_name_or_path, model.package)
    if config is not None:
        with collecting():
            model.check_family(family)
        if not model.tune_mm_mlp_adapter:
            with collecting():
                selection = LayerSelection.parse(
                    "all" if model.tune_layers is None else model.tune_layers, config.num_hidden_layers
                )
        with collecting():
            _check_vision(model, config)
        with collecting():
            model.version = model.template_name(family)
            template = get_template(model.version)
            tokenizer = load_tokenizer(model.model_name_or_path)
            check_template(model.version, tokenizer)
            end_turns_with(template, tokenizer)
    with collecting():
        records = open_records(data.data_path) if data.data_path else None
        if records is None:
            raise ValueError("--data_path is missing: give a LLaVA JSON file")
        if data.image_folder and not Path(data.image_folder).is_dir():
            raise FileNotFoundError(f"--image_folder {data.image_folder} does not exist")
        indices = _usable(records, data)
    eval_records = None
    with collecting():
        if data.eval_data_path:
            eval_records = open_records(data.eval_data_path)
            problems = cheap_problems(eval_records, data.image_folder)
            if problems.by_kind:
                told = problems.describe(eval_records)
                raise ValueError(f"--eval_data_path {data.eval_data_path} has samples that cannot be measured:\n{told}")
        elif training.eval_strategy != "no":
            raise ValueError(f"--eval_strategy {training.eval_strategy} needs --eval_data_path, a LLaVA JSON file")
    if errors:
        raise ConfigurationError("this run cannot start:\n" + "\n".join(f"- {error}" for error in errors))
    mode = "projector" if model.tune_mm_mlp_adapter else "lora" if training.lora_enable else "full"
    return RunPlan(
        mode,
        family,
        config,
        selection,
        tokenizer,
        template,
        records,
        indices,
        model.unfreeze_vision_tower,
        eval_records,
    )


def _check_flags(model: ModelArguments, data: DataArguments, training: TrainingArguments, errors: list[str]) -> None:
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
    for check in (
        lambda: choose_attention(model.attn_implementation, training.compute_dtype),
        lambda: quantization_for(training.bits, training.compute_dtype, quant_type=training.quant_type),
    ):
        try:
            check()
        except ValueError as error:
            errors.append(str(error))
    if training.bits != 16 and not training.lora_enable:
        errors.append(f"--bits {training.bits} freezes the language model; it needs --lora_enable True")
    if training.bits != 16 and training.zero_stage == 3:
        errors.append(
            f"--bits {training.bits} with ZeRO-3: quantised weights cannot be sharded; use ./scripts/zero2.json"
        )
    if training.lora_bias != "none":
        errors.append(f"--lora_bias {training.lora_bias} is not supported; allowed: none")
    if data.image_aspect_ratio not in IMAGE_ASPECT_RATIOS:
        errors.append(f"--image_aspect_ratio {data.image_aspect_ratio!r}; allowed: {', '.join(IMAGE_ASPECT_RATIOS)}")
    if data.bad_samples not in ("fail", "skip"):
        errors.append(f"--bad_samples {data.bad_samples!r}; allowed: fail, skip")


def _check_vision(model: ModelArguments, config: Any) -> None:
    """Tower, projector and projector file fit each other and the language model."""
    if not model.vision_tower:
        model.vision_tower = getattr(config, "mm_vision_tower", None)
    if getattr(config, "use_s2", False):
        model.use_s2 = True
        model.s2_scales = getattr(model, "s2_scales", None) or getattr(config, "s2_scales", None)
    tower = build_vision_tower(model, delay_load=True)
    if model.unfreeze_vision_tower and not tower.can_train:
        raise ValueError(
            f"--unfreeze_vision_tower: a tower of model_type {tower.cfg_only.model_type!r} cannot be trained along"
        )
    probe = type(config).from_dict(config.to_dict())
    if not getattr(config, "mm_vision_tower", None):
        probe.mm_projector_type = model.mm_projector_type
        probe.mm_hidden_size = tower.hidden_size
    elif probe.mm_hidden_size != tower.hidden_size:
        raise ValueError(
            f"--vision_tower {model.vision_tower} gives features of {tower.hidden_size} values, the projector in "
            f"{model.model_name_or_path} takes {probe.mm_hidden_size}"
        )
    import torch

    with torch.device("meta"):
        build_vision_projector(probe)
    if model.pretrain_mm_mlp_adapter:
        if getattr(config, "mm_vision_tower", None):
            raise ValueError(
                f"--pretrain_mm_mlp_adapter is given, but {model.model_name_or_path} has a trained projector already; "
                "leave the flag out, or start from the plain language model"
            )
        check_projector_weights(read_projector(model.pretrain_mm_mlp_adapter), probe, model.pretrain_mm_mlp_adapter)


def _usable(records: Records, data: DataArguments) -> np.ndarray:
    """Indices of the samples to train on; the cheap part of the preflight decides."""
    problems = cheap_problems(records, data.image_folder)
    everything = np.arange(len(records))
    if not problems.by_kind:
        return everything
    told = problems.describe(records)
    if data.bad_samples == "fail":
        raise ValueError(
            f"{data.data_path} has samples that cannot be trained; --bad_samples skip leaves them out:\n{told}"
        )
    left = np.setdiff1d(everything, np.fromiter(problems.samples, dtype=np.int64))
    print(f"leaving out {len(everything) - len(left)} of {len(everything)} samples:\n{told}")
    if not len(left):
        raise ValueError(f"{data.data_path} has no sample left to train on")
    return left
