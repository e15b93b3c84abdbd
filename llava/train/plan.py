"""What a run will do, decided before weights are loaded; all errors are reported at once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint, Kind
from llava.conversation import Conversation, get_template
from llava.data.check import cheap_problems
from llava.data.records import Records, open_records
from llava.mm_utils import IMAGE_ASPECT_RATIOS
from llava.model.builder import load_tokenizer
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_projector.builder import (
    build_vision_projector,
    check_projector_weights,
    image_tokens,
    read_projector,
)
from llava.model.quantization import quantization_for
from llava.model.vision_modules import VisionSettings, write_vision_settings
from llava.names import count
from llava.outputs import check_cache, check_run_folder
from llava.tokenization import check_template, end_turns_with
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.attention import choose_attention, describe_attention
from visual_region.layers import LayerSelection


class ConfigurationError(ValueError):
    """Everything that is wrong with a run's settings, one line per error."""


@dataclass(frozen=True)
class RunPlan:
    """Everything that is decided before weights are loaded.

    Attributes:
        kind: what is trained: the projector alone (stage 1), LoRAs, or whole layers.
        base: the model to start from; for a hub id without its weights, which are loaded with the model.
        attention: the `attn_implementation` to load with; None leaves it to transformers.
        quantization: of the language model; None for 16 bits.
        selection: the decoder layers that train; None in stage 1.
        indices: the samples of `records` that are used.
        eval_records: the samples whose loss is measured; None without --eval_data_path.
    """

    kind: Kind
    base: Checkpoint
    vision: VisionSettings
    trains_tower: bool
    attention: str | None
    attention_line: str
    quantization: BitsAndBytesConfig | None
    selection: LayerSelection | None
    tokenizer: PreTrainedTokenizerBase
    template_name: str
    template: Conversation
    records: Records
    indices: np.ndarray
    eval_records: Records | None


class _Errors(list[str]):
    def of(self, check: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The result of a check; if it fails, None, and its message is added."""
        try:
            return check(*arguments, **options)
        except (ValueError, FileNotFoundError) as error:
            self.append(str(error))
            return None


def make_plan(
    model: ModelArguments, data: DataArguments, training: TrainingArguments, attn_implementation: str | None = None
) -> RunPlan:
    """Reads configs, tokenizer and data, but no weights; raises `ConfigurationError` with all errors.

    Args:
        attn_implementation: used if `--attn_implementation` is not given.
    """
    errors = _Errors(_wrong_flags(model, data, training))
    wanted, dtype = model.attn_implementation or attn_implementation, training.compute_dtype
    attention = errors.of(choose_attention, wanted, dtype)
    options = {"double_quant": training.double_quant, "quant_type": training.quant_type}
    quantization = errors.of(quantization_for, training.bits, dtype, **options)
    base = errors.of(_open_base, model, training.cache_dir)
    vision = selection = prompts = None
    if base is not None:
        errors.of(model.check_family, base.family)
        selection = errors.of(_selection, model, base)
        vision = errors.of(_vision, model, base)
        prompts = errors.of(_prompts, model.template_name(base.family), base)
    errors.of(_check_outputs, model, data, training, base)
    used = errors.of(_records, data)
    eval_records = errors.of(_eval_records, data, training)
    if errors:
        raise ConfigurationError("this run cannot start:\n" + "\n".join(f"- {error}" for error in errors))
    return RunPlan(
        kind=Kind.PROJECTOR if model.tune_mm_mlp_adapter else Kind.LORA if training.lora_enable else Kind.FULL,
        base=base,
        vision=vision,
        trains_tower=model.unfreeze_vision_tower,
        attention=attention,
        attention_line=describe_attention(wanted, attention, dtype),
        quantization=quantization,
        selection=selection,
        tokenizer=prompts[1],
        template_name=model.template_name(base.family),
        template=prompts[0],
        records=used[0],
        indices=used[1],
        eval_records=eval_records,
    )


def _open_base(model: ModelArguments, cache_dir: str | None) -> Checkpoint:
    """The model to start from. Of a hub id only the config is read."""
    name = model.model_name_or_path
    if not name:
        raise ValueError("--model_name_or_path is missing: give the folder of a language model or a LLaVA")
    here = Path(name).is_dir()
    base = open_checkpoint(name, package=model.package, weights=here, with_base=False, cache_dir=cache_dir)
    if base.kind is not Kind.FULL:
        raise ValueError(
            f"--model_name_or_path {base.name} is a {base.kind.value} checkpoint; merge it into its base first"
        )
    return base


def _check_outputs(
    model: ModelArguments, data: DataArguments, training: TrainingArguments, base: Checkpoint | None
) -> None:
    tower = model.vision_tower or (base and base.tower)
    models = {"--model_name_or_path": model.model_name_or_path, "--vision_tower": tower}
    check_cache(data.vision_feature_cache, models.values(), "--vision_feature_cache")
    models["--pretrain_mm_mlp_adapter"] = model.pretrain_mm_mlp_adapter
    read = {"--data_path": data.data_path, "--eval_data_path": data.eval_data_path, "--image_folder": data.image_folder}
    check_run_folder(training.output_dir, models, read)


def _wrong_flags(model: ModelArguments, data: DataArguments, training: TrainingArguments) -> list[str]:
    """What is wrong with the flags alone."""
    errors = []
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
    if training.lora_bias != "none":
        errors.append(f"--lora_bias {training.lora_bias} is not supported; allowed: none")
    if data.image_aspect_ratio not in IMAGE_ASPECT_RATIOS:
        errors.append(f"--image_aspect_ratio {data.image_aspect_ratio!r}; allowed: {', '.join(IMAGE_ASPECT_RATIOS)}")
    if model.mm_patch_merge_type not in (None, "flat"):
        errors.append(f"--mm_patch_merge_type {model.mm_patch_merge_type!r}; allowed: flat (one view per image)")
    if data.bad_samples not in ("fail", "skip"):
        errors.append(f"--bad_samples {data.bad_samples!r}; allowed: fail, skip")
    return errors


def _selection(model: ModelArguments, base: Checkpoint) -> LayerSelection | None:
    if model.tune_mm_mlp_adapter:
        return None
    return LayerSelection.parse("all" if model.tune_layers is None else model.tune_layers, base.depth)


def _prompts(template_name: str, base: Checkpoint) -> tuple[Conversation, PreTrainedTokenizerBase]:
    """The template, and a tokenizer that ends turns as the template does."""
    template, tokenizer = get_template(template_name), load_tokenizer(base.name)
    check_template(template_name, tokenizer)
    end_turns_with(template, tokenizer)
    return template, tokenizer


def _vision(model: ModelArguments, base: Checkpoint) -> VisionSettings:
    """Tower and projector, from the flags and the base's config, checked to fit each other and the base."""
    use_s2, scales = getattr(model, "use_s2", False), getattr(model, "s2_scales", None)
    if base.config.get("use_s2"):
        use_s2, scales = True, scales or base.config.get("s2_scales")
    vision = VisionSettings(
        model.vision_tower or base.tower,
        model.mm_vision_select_layer,
        model.mm_vision_select_feature,
        model.mm_projector_type,
        model.mm_patch_merge_type,
        use_s2,
        scales,
        model.pretrain_mm_mlp_adapter,
    )
    tower = build_vision_tower(vision, delay_load=True)
    if model.unfreeze_vision_tower and not tower.can_train:
        raise ValueError(
            f"--unfreeze_vision_tower: a tower of model_type {tower.cfg_only.model_type!r} cannot be trained along"
        )
    config = base.model_config()
    write_vision_settings(config, vision)
    if config.mm_hidden_size != tower.hidden_size:
        raise ValueError(
            f"--vision_tower {vision.vision_tower} gives features of {tower.hidden_size} values, the projector in "
            f"{base.name} takes {config.mm_hidden_size}"
        )
    with torch.device("meta"):
        build_vision_projector(config)
    image_tokens(config, tower.num_patches)
    if file := vision.pretrain_mm_mlp_adapter:
        if base.tower:
            raise ValueError(
                f"--pretrain_mm_mlp_adapter is given, but {base.name} has a trained projector already; leave the flag "
                "out, or start from the plain language model"
            )
        check_projector_weights(read_projector(file), config, file)
    return vision


def _records(data: DataArguments) -> tuple[Records, np.ndarray]:
    """The samples of --data_path, and the indices of those to train on."""
    if not data.data_path:
        raise ValueError("--data_path is missing: give a LLaVA JSON file")
    records = open_records(data.data_path)
    if data.image_folder and not Path(data.image_folder).is_dir():
        raise FileNotFoundError(f"--image_folder {data.image_folder} does not exist")
    problems = cheap_problems(records, data.image_folder)
    found = problems.describe(records)
    if found and data.bad_samples == "fail":
        raise ValueError(
            f"{data.data_path} has samples that cannot be trained; --bad_samples skip leaves them out:\n{found}"
        )
    left = np.setdiff1d(np.arange(len(records)), np.fromiter(problems.samples, dtype=np.int64))
    if found:
        print(f"leaving out {len(records) - len(left)} of {count(len(records), 'sample')}:\n{found}")
    if not len(left):
        raise ValueError(f"{data.data_path} has no sample left to train on")
    return records, left


def _eval_records(data: DataArguments, training: TrainingArguments) -> Records | None:
    if not data.eval_data_path:
        if training.eval_strategy != "no":
            raise ValueError(f"--eval_strategy {training.eval_strategy} needs --eval_data_path, a LLaVA JSON file")
        return None
    records = open_records(data.eval_data_path)
    found = cheap_problems(records, data.image_folder).describe(records)
    if found:
        raise ValueError(f"--eval_data_path {data.eval_data_path} has samples that cannot be measured:\n{found}")
    return records
