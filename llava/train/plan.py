"""What a run will do, decided before weights are loaded; all errors are reported at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

from llava.checkpoint import identity
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint, Kind
from llava.conversation import Conversation, SeparatorStyle, get_template
from llava.data.check import Problems, cheap_problems, label_problem
from llava.data.records import Records, open_records
from llava.data.share import draw_share, parse_share
from llava.model.builder import load_tokenizer
from llava.model.kernels import Kernels, choose_kernels
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_projector.builder import (
    build_vision_projector,
    check_projector_weights,
    read_projector,
)
from llava.model.quantization import quantization_for
from llava.model.vision_modules import VisionSettings, tiling_of, write_vision_settings
from llava.names import count
from llava.outputs import check_cache, check_run_folder
from llava.tiling import ANYRES, FLAT, Tiling
from llava.tokenization import check_template, end_turns_with
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.attention import choose_attention, describe_attention
from llava.train.flag_checks import wrong_flags
from llava.train.flag_names import ConfigurationError, warn
from visual_region.layers import LayerSelection

_LOOKED_AT = 2000
"""Samples that are looked at for a label, evenly spaced, if none before has one."""


@dataclass(frozen=True)
class RunPlan:
    """Everything that is decided before weights are loaded.

    Attributes:
        kind: what is trained: the projector alone (stage 1), LoRAs, or whole layers.
        base: the model to start from; for a hub id without its weights, which are loaded with the model.
        tiling: how images become views and tokens.
        attention: the `attn_implementation` to load with; None leaves it to transformers.
        quantization: of the language model; None for 16 bits.
        selection: the decoder layers that train; None in stage 1.
        indices: the samples of `records` that are used.
        eval_records: the samples whose loss is measured; None without --eval_data_path.
    """

    kind: Kind
    base: Checkpoint
    vision: VisionSettings
    tiling: Tiling
    trains_tower: bool
    attention: str | None
    attention_line: str
    kernels: Kernels
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
        except (ValueError, OSError) as error:
            self.append(str(error))
            return None


def make_plan(
    model: ModelArguments, data: DataArguments, training: TrainingArguments, attn_implementation: str | None = None
) -> RunPlan:
    """Reads configs, tokenizer and data, but no weights; raises `ConfigurationError` with all errors, one per line.

    Args:
        attn_implementation: used if `--attn_implementation` is not given.
    """
    errors = _Errors(wrong_flags(model, data, training))
    wanted, dtype = model.attn_implementation or attn_implementation, training.compute_dtype
    attention = errors.of(choose_attention, wanted, dtype)
    options = {"double_quant": training.double_quant, "quant_type": training.quant_type}
    quantization = errors.of(quantization_for, training.bits, dtype, **options)
    base = errors.of(_open_base, model, training.cache_dir)
    kernels = vision = selection = prompts = None
    if base is not None:
        errors.of(model.check_family, base.family)
        kernels = errors.of(choose_kernels, training.kernels, base.family, training.device, training.zero_stage)
        selection = errors.of(_selection, model, base)
        vision = errors.of(_vision, model, data, base)
        prompts = errors.of(_prompts, model.template_name(base.family), base)
    errors.of(_check_outputs, model, data, training, base)
    captions = bool(prompts) and prompts[0].sep_style is SeparatorStyle.PLAIN
    used = errors.of(_records, data, training.seed if training.data_seed is None else training.data_seed, captions)
    eval_records = errors.of(_eval_records, data, training, captions)
    if vision and prompts and used and training.model_max_length > 0:
        errors.of(_check_labels, *prompts, *used, training.model_max_length, vision[1], data)
    if errors:
        raise ConfigurationError("this run cannot start:\n" + "\n".join(f"- {error}" for error in errors))
    if (most := vision[1].most_tokens) >= training.model_max_length:
        cut = f"what lies behind --model_max_length {training.model_max_length} is cut off"
        warn(f"an image takes up to {most} tokens, and {cut}")
    return RunPlan(
        kind=Kind.PROJECTOR if model.tune_mm_mlp_adapter else Kind.LORA if training.lora_enable else Kind.FULL,
        base=base,
        vision=vision[0],
        tiling=vision[1],
        trains_tower=model.unfreeze_vision_tower,
        attention=attention,
        attention_line=describe_attention(
            wanted, attention, dtype, training.padding_free, training.share_prefix and training.device.type == "cpu"
        ),
        kernels=kernels,
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
        raise ValueError("--model_name_or_path is missing: give a language model or a LLaVA, a folder or hub id")
    here = Path(name).is_dir()
    base = open_checkpoint(name, package=model.package, weights=here, with_base=False, cache_dir=cache_dir)
    if base.kind is not Kind.FULL:
        raise ValueError(
            f"--model_name_or_path {base.name} is a {base.kind.value} checkpoint; merge it into its base first"
        )
    if base.config.get("mm_use_im_start_end"):
        raise ValueError(
            f"--model_name_or_path {base.name} has marks around images (mm_use_im_start_end); it cannot be trained here"
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


def _selection(model: ModelArguments, base: Checkpoint) -> LayerSelection | None:
    if model.tune_mm_mlp_adapter:
        return None
    selection = LayerSelection.parse("all" if model.tune_layers is None else model.tune_layers, base.depth)
    # No error: scores may be of a model that was trained from this one. Of a hub id no weights are read yet.
    if base.tensors.files:
        for warning in selection.scored_elsewhere(base.name, lambda: identity.digest(base)):
            warn(f"--tune_layers: {warning}")
    return selection


def _prompts(template_name: str, base: Checkpoint) -> tuple[Conversation, PreTrainedTokenizerBase]:
    """The template, and a tokenizer that ends turns as the template does."""
    template, tokenizer = get_template(template_name), load_tokenizer(base.path)
    check_template(template_name, tokenizer)
    end_turns_with(template, tokenizer)
    return template, tokenizer


def _vision(model: ModelArguments, data: DataArguments, base: Checkpoint) -> tuple[VisionSettings, Tiling]:
    """Tower and projector, from the flags and the base's config, checked to fit; and how images become their tokens."""
    use_s2, scales = getattr(model, "use_s2", False), getattr(model, "s2_scales", None)
    if base.config.get("use_s2") or base.config.get("s2"):
        use_s2, scales = True, scales or base.config.get("s2_scales")
    if base.hf and model.vision_tower:
        warn(f"--vision_tower {model.vision_tower} is not used: {base.name} holds its own tower")
    vision = VisionSettings(
        base.tower if base.hf else model.vision_tower or base.tower,
        model.mm_vision_select_layer,
        model.mm_vision_select_feature,
        model.mm_projector_type,
        model.mm_patch_merge_type,
        use_s2,
        scales,
        model.pretrain_mm_mlp_adapter,
    )
    tower = build_vision_tower(vision, delay_load=True)
    tower.check_files()
    if model.unfreeze_vision_tower and not tower.can_train:
        raise ValueError(
            f"--unfreeze_vision_tower: a tower of model_type {tower.cfg_only.model_type!r} cannot be trained"
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
    config.image_aspect_ratio = data.image_aspect_ratio
    config.image_grid_pinpoints = data.image_grid_pinpoints or getattr(config, "image_grid_pinpoints", None)
    tiling = tiling_of(config, tower)
    _warn_of_other_views(base, config)
    if file := vision.pretrain_mm_mlp_adapter:
        if base.tower:
            raise ValueError(
                f"--pretrain_mm_mlp_adapter is given, but {base.name} has a trained projector already; leave the flag "
                "out, or start from the plain language model"
            )
        check_projector_weights(read_projector(file), config, file)
    return vision, tiling


def _warn_of_other_views(base: Checkpoint, config: Any) -> None:
    """A LLaVA-1.6 that is trained with the flags of LLaVA-1.5 would become one, without a message."""
    before = base.config.get("image_aspect_ratio"), base.config.get("mm_patch_merge_type") or FLAT
    if base.tower and before[0] == ANYRES and before != (config.image_aspect_ratio, config.mm_patch_merge_type):
        flags = "--image_aspect_ratio {} --mm_patch_merge_type {}".format(*before)
        warn(f"{base.name} reads images with {flags}; this run uses other flags")


def _records(data: DataArguments, seed: int, captions: bool) -> tuple[Records, np.ndarray]:
    """The samples of --data_path, and the indices of those to train on; --data_share is drawn with the seed."""
    share = parse_share(data.data_share)
    if not data.data_path:
        raise ValueError("--data_path is missing: give a LLaVA JSON file")
    records = open_records(data.data_path)
    if data.image_folder and not Path(data.image_folder).is_dir():
        raise FileNotFoundError(f"--image_folder {data.image_folder} does not exist")
    problems = cheap_problems(records, data.image_folder, captions)
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
    return records, draw_share(left, share, seed)


def _eval_records(data: DataArguments, training: TrainingArguments, captions: bool) -> Records | None:
    if not data.eval_data_path:
        if training.eval_strategy != "no":
            raise ValueError(
                f"--eval_strategy {training.eval_strategy.value} needs --eval_data_path, a LLaVA JSON file"
            )
        return None
    records = open_records(data.eval_data_path)
    found = cheap_problems(records, data.image_folder, captions).describe(records)
    if found:
        raise ValueError(f"--eval_data_path {data.eval_data_path} has samples that cannot be measured:\n{found}")
    return records


def _check_labels(
    template: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    records: Records,
    indices: np.ndarray,
    max_length: int,
    tiling: Tiling,
    data: DataArguments,
) -> None:
    """Raises `ValueError` if no sample has a label; ends at the first one that has, usually the first of all."""
    looked_at = indices[:: max(1, math.ceil(len(indices) / _LOOKED_AT))]
    problems = Problems()
    for i in looked_at.tolist():
        problem, learns = label_problem(records[i], tokenizer, template, max_length, tiling, data.image_folder)
        if learns:
            return
        problems.add(problem, [i])
    found = problems.describe(records)
    looked = count(len(looked_at), "sample")
    raise ValueError(f"{data.data_path}: no sample has a label to learn from ({looked} checked):\n{found}")
