"""Trains a LLaVA: stage 1, full, or LoRA, in the decoder layers of `--tune_layers`.

Reads top to bottom: settings, model, what trains, data, trainer, result.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import set_seed

from llava.data.collate import DataCollatorForSupervisedDataset
from llava.data.dataset import LazySupervisedDataset
from llava.data.feature_cache import FeatureCache
from llava.model.base_identity import fingerprint
from llava.model.builder import load_base
from llava.model.checkpoint import local_folder, read_checkpoint
from llava.model.multimodal_encoder.tower_weights import record_trained_tower, trained_tower_files
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, parse_arguments
from llava.train.checkpoint import describe_output, last_checkpoint, move_files
from llava.train.llava_trainer import LLaVATrainer
from llava.train.plan import ConfigurationError, RunPlan, make_plan
from llava.train.report import training_table
from llava.train.tower_check import describe_tower
from visual_region.surgery import record_selection
from visual_region.tuning import apply_lora, assert_trains_exactly, train_layers

ARGUMENTS = (ModelArguments, DataArguments, TrainingArguments)


def train(
    attn_implementation: str | None = None,
    argv: Sequence[str] | None = None,
    arguments: tuple[type[ModelArguments], type[DataArguments], type[TrainingArguments]] = ARGUMENTS,
    make_trainer: Callable[..., LLaVATrainer] = LLaVATrainer,
) -> None:
    """Runs one training from the command line's flags; resumes where the output folder holds a checkpoint.

    Args:
        arguments: the classes that hold the flags; bunny brings its own.
        make_trainer: takes what LLaVATrainer takes; healing brings one that distils.
    """
    model_args, data_args, training_args = parse_arguments(argv, arguments)
    try:
        plan = make_plan(model_args, data_args, training_args)
    except ConfigurationError as error:
        sys.exit(str(error))
    set_seed(training_args.seed)

    model = load_model(plan, model_args, training_args, attn_implementation)
    model = choose_what_trains(model, plan, training_args)
    dataset, collator = load_data(model, plan, data_args, training_args)

    trainer = make_trainer(
        model=model,
        mode=plan.mode,
        processing_class=plan.tokenizer,
        args=training_args,
        train_dataset=dataset,
        data_collator=collator,
    )
    if training_args.should_log:
        print(training_table(model, trainer.parameter_groups(model), plan.selection), flush=True)

    trainer.train(resume_from_checkpoint=_resume_point(training_args))
    save_result(trainer, plan, training_args)


def load_model(
    plan: RunPlan, model_args: ModelArguments, training_args: TrainingArguments, attn_implementation: str | None
) -> Any:
    """The language model with tower stub and projector, settings recorded in its config."""
    dtype = compute_dtype(training_args)
    kwargs = {"attn_implementation": attn_implementation} if attn_implementation else {}
    model = load_base(model_args.model_name_or_path, plan.config, dtype, cache_dir=training_args.cache_dir, **kwargs)
    if plan.mode != "full":
        model.base_fingerprint = fingerprint(model_args.model_name_or_path, training_args.cache_dir)
    model.config.use_cache = False
    model.get_model().initialize_vision_modules(model_args)
    base = read_checkpoint(local_folder(model_args.model_name_or_path, training_args.cache_dir))
    model.get_vision_tower().trained_files = trained_tower_files(base)
    model.label_only_logits = training_args.label_only_logits
    if training_args.gradient_checkpointing:
        training_args.gradient_checkpointing_kwargs = {"use_reentrant": False}
        model.enable_input_require_grads()

    config = model.config
    record_trained_tower(config, plan.trains_tower)
    config.tune_mm_mlp_adapter = model_args.tune_mm_mlp_adapter
    config.freeze_mm_mlp_adapter = training_args.freeze_mm_mlp_adapter
    config.mm_use_im_start_end = model_args.mm_use_im_start_end
    config.mm_use_im_patch_token = model_args.mm_use_im_patch_token
    config.mm_projector_lr = training_args.mm_projector_lr
    config.tokenizer_padding_side = "right"
    config.tokenizer_model_max_length = training_args.model_max_length
    config.conversation_template = model_args.version
    config._name_or_path = model_args.model_name_or_path
    if plan.selection is not None:
        record_selection(config, plan.selection)
    return model


def compute_dtype(training_args: TrainingArguments) -> torch.dtype:
    return torch.bfloat16 if training_args.bf16 else torch.float16 if training_args.fp16 else torch.float32


def choose_what_trains(model: Any, plan: RunPlan, training_args: TrainingArguments) -> Any:
    """Freezes and thaws; the result trains exactly the layers that were asked for.

    What trains is kept in float32 and computed in the run's dtype, as DeepSpeed does with its own copies: at a
    learning rate of 1e-5 a bfloat16 weight often cannot move.
    """
    model.requires_grad_(False)
    layer_path = plan.family.layer_path
    wrapped = model
    if plan.mode == "full":
        train_layers(model, plan.selection, layer_path)
    elif plan.mode == "lora":
        wrapped = apply_lora(
            model,
            plan.selection,
            layer_path,
            r=training_args.lora_r,
            lora_alpha=training_args.lora_alpha,
            lora_dropout=training_args.lora_dropout,
        )
    model.get_model().mm_projector.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    if plan.trains_tower:
        tower = model.get_vision_tower()
        tower.load_model(device_map=training_args.device, dtype=compute_dtype(training_args))
        tower.unfreeze()
    assert_trains_exactly(wrapped, plan.selection or (), layer_path)
    if not training_args.deepspeed:
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return wrapped


def load_data(
    model: Any, plan: RunPlan, data_args: DataArguments, training_args: TrainingArguments
) -> tuple[LazySupervisedDataset, DataCollatorForSupervisedDataset]:
    base = model.get_base_model() if plan.mode == "lora" else model
    base.config.image_aspect_ratio = data_args.image_aspect_ratio
    tower = base.get_vision_tower()
    processor = tower.load_processor()
    dtype = compute_dtype(training_args)
    cache = None
    if data_args.vision_feature_cache:
        cache = FeatureCache(data_args.vision_feature_cache, tower, data_args.image_aspect_ratio, dtype)
        folder = Path(data_args.image_folder or "")
        with training_args.main_process_first(desc="vision features"):
            cache.ensure((folder / name for name in plan.records.unique_images()), tower, training_args.device)
    else:
        tower.load_model(device_map=training_args.device, dtype=dtype)
    dataset = LazySupervisedDataset(
        plan.records,
        plan.tokenizer,
        plan.template,
        data_args.image_folder,
        processor,
        data_args.image_aspect_ratio,
        training_args.model_max_length,
        cache,
        plan.indices,
    )
    dummy = None
    if training_args.world_size > 1 or training_args.deepspeed:
        empty = ("image_features", torch.zeros(tower.num_patches, tower.hidden_size, dtype=dtype))
        crop = processor.crop_size or processor.size
        dummy = empty if cache is not None else ("images", torch.zeros(3, crop["height"], crop["width"]))
    return dataset, DataCollatorForSupervisedDataset(plan.tokenizer, training_args.model_max_length, dummy)


def save_result(trainer: LLaVATrainer, plan: RunPlan, training_args: TrainingArguments) -> None:
    """Writes the final folder: upstream's files and the tokenizer. `config.json` comes last."""
    trainer.save_state()
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = model.get_base_model().config if plan.mode == "lora" else model.config
    config.use_cache = True
    if plan.mode == "full" and not training_args.deepspeed:
        model.to(compute_dtype(training_args))
    output_dir = Path(training_args.output_dir)
    if trainer.is_deepspeed_enabled:
        trainer.save_model()
    elif training_args.should_save:
        with tempfile.TemporaryDirectory(prefix=".final.", suffix=".partial", dir=output_dir) as aside:
            trainer._save(aside)
            move_files(Path(aside), output_dir)
    if training_args.should_log:
        print(describe_output(plan.mode, training_args.output_dir))
        if plan.trains_tower and not trainer.is_deepspeed_enabled:
            print(describe_tower(model.get_vision_tower()))


def _resume_point(training_args: TrainingArguments) -> str | None:
    checkpoint = training_args.resume_from_checkpoint or last_checkpoint(training_args.output_dir)
    if checkpoint:
        print(f"resuming from {checkpoint}")
    return str(checkpoint) if checkpoint else None


if __name__ == "__main__":
    transformers.logging.set_verbosity_warning()
    train()
