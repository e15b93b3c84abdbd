"""What a run will do, decided before weights are loaded; everything that is wrong is reported at once."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

from llava.checkpoint.folder import Checkpoint, Kind, open_checkpoint
from llava.conversation import Conversation, get_template
from llava.data.check import cheap_problems
from llava.data.records import Records, open_records
from llava.families import ModelFamily
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
from llava.tokenization import check_template, end_turns_with
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.attention import choose_attention, describe_attention
from visual_region.layers import LayerSelection


class ConfigurationError(ValueError):
    """Everything that is wrong with a run's settings, one line per error."""


@dataclass(frozen=True)
class RunPlan:
    """Everything that was decided before weights are loaded.

    Attributes:
        kind: what is trained: the projector alone (stage 1), LoRAs, or whole layers.
        base: the model to start from, opened; of a hub id without its weights, which come with the model.
        vision: tower and projector.
        attention: the `attn_implementation` to load with; None leaves it to transformers.
        notes: lines to print before the run.
        quantization: how the language model is held; None for 16 bits.
        selection: the decoder layers that train; None in stage 1.
        template_name, template: of the conversations.
        indices: the samples of `records` that are used.
        trains_tower: the vision tower trains too.
    """

    kind: Kind
    base: Checkpoint
    vision: VisionSettings
    attention: str | None
    notes: tuple[str, ...]
    quantization: BitsAndBytesConfig | None
    selection: LayerSelection | None
    tokenizer: PreTrainedTokenizerBase
    template_name: str
    template: Conversation
    records: Records
    indices: np.ndarray
    trains_tower: bool
    eval_records: Records | None

    @property
    def family(self) -> ModelFamily:
        return self.base.family


class _Errors(list[str]):
    """Collects what is wrong, so that all of it is reported at once."""

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, FileNotFoundError) as error:
            self.append(str(error))


def make_plan(
    model: ModelArguments, data: DataArguments, training: TrainingArguments, attn_implementation: str | None = None
) -> RunPlan:
    """Reads configs, tokenizer and data; no weights. The arguments stay as they are.

    Args:
        attn_implementation: used if `--attn_implementation` is not given.

    Raises:
        ConfigurationError: lists every error that was found.
    """
    errors = _Errors()
    _check_flags(model, data, training, errors)
    base = vision = selection = tokenizer = template = records = eval_records = attention = quantization = None
    template_name, indices, notes = "", np.arange(0), []
    with errors.collected():
        wanted, dtype = model.attn_implementation or attn_implementation, training.compute_dtype
        attention = choose_attention(wanted, dtype)
        notes.append(describe_attention(wanted, attention, dtype))
    with errors.collected():
        quantization = quantization_for(
            training.bits,
            training.compute_dtype,
            double_quant=training.double_quant,
            quant_type=training.quant_type,
        )
    with errors.collected():
        base = _open_base(model, training.cache_dir)
    if base is not None:
        with errors.collected():
            model.check_family(base.family)
        if not model.tune_mm_mlp_adapter:
            with errors.collected():
                selection = LayerSelection.parse("all" if model.tune_layers is None else model.tune_layers, base.depth)
        with errors.collected():
            vision = _vision(model, base)
            _check_vision(vision, base, model.unfreeze_vision_tower)
        with errors.collected():
            template_name = model.template_name(base.family)
            template = get_template(template_name)
            tokenizer = load_tokenizer(base.name)
            check_template(template_name, tokenizer)
            end_turns_with(template, tokenizer)
    with errors.collected():
        if not data.data_path:
            raise ValueError("--data_path is missing: give a LLaVA JSON file")
        records = open_records(data.data_path)
        if data.image_folder and not Path(data.image_folder).is_dir():
            raise FileNotFoundError(f"--image_folder {data.image_folder} does not exist")
        indices = _usable(records, data)
    with errors.collected():
        eval_records = _eval_records(data, training)
    if errors:
        raise ConfigurationError("this run cannot start:\n" + "\n".join(f"- {error}" for error in errors))
    return RunPlan(
        Kind.PROJECTOR if model.tune_mm_mlp_adapter else Kind.LORA if training.lora_enable else Kind.FULL,
        base,
        vision,
        attention,
        tuple(notes),
        quantization,
        selection,
        tokenizer,
        template_name,
        template,
        records,
        indices,
        model.unfreeze_vision_tower,
        eval_records,
    )


def _open_base(model: ModelArguments, cache_dir: str | None) -> Checkpoint:
    """The model to start from, opened for the whole run. Of a hub id only the config is read before the weights."""
    name = model.model_name_or_path
    if not name:
        raise ValueError("--model_name_or_path is missing: give the folder of a language model or a LLaVA")
    base = open_checkpoint(
        name, package=model.package, weights=Path(name).is_dir(), with_base=False, cache_dir=cache_dir
    )
    if base.kind is not Kind.FULL:
        raise ValueError(
            f"--model_name_or_path {base.name} is a {base.kind.value} checkpoint; merge it into its base first"
        )
    return base


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


def _vision(model: ModelArguments, base: Checkpoint) -> VisionSettings:
    """Tower and projector: the flags' on top of what the base records."""
    use_s2, scales = getattr(model, "use_s2", False), getattr(model, "s2_scales", None)
    if base.config.get("use_s2"):
        use_s2, scales = True, scales or base.config.get("s2_scales")
    return VisionSettings(
        model.vision_tower or base.tower,
        model.mm_vision_select_layer,
        model.mm_vision_select_feature,
        model.mm_projector_type,
        model.mm_patch_merge_type,
        use_s2,
        scales,
        model.pretrain_mm_mlp_adapter,
    )


def _check_vision(vision: VisionSettings, base: Checkpoint, trains_tower: bool) -> None:
    """Tower, projector and projector file fit each other and the language model."""
    tower = build_vision_tower(vision, delay_load=True)
    if trains_tower and not tower.can_train:
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
    if vision.pretrain_mm_mlp_adapter:
        if base.tower:
            raise ValueError(
                f"--pretrain_mm_mlp_adapter is given, but {base.name} has a trained projector already; leave the flag "
                "out, or start from the plain language model"
            )
        file = vision.pretrain_mm_mlp_adapter
        check_projector_weights(read_projector(file), config, file)


def _eval_records(data: DataArguments, training: TrainingArguments) -> Records | None:
    """The samples whose loss is measured; None if none is asked for."""
    if not data.eval_data_path:
        if training.eval_strategy != "no":
            raise ValueError(f"--eval_strategy {training.eval_strategy} needs --eval_data_path, a LLaVA JSON file")
        return None
    records = open_records(data.eval_data_path)
    problems = cheap_problems(records, data.image_folder)
    if problems.by_kind:
        raise ValueError(
            f"--eval_data_path {data.eval_data_path} has samples that cannot be measured:\n{problems.describe(records)}"
        )
    return records


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
