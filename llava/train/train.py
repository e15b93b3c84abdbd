"""Trains a LLaVA: stage 1, full, or LoRA, in the decoder layers of `--tune_layers`.

Reads top to bottom: settings, model, what trains, data, trainer, result.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import set_seed

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import base_values
from llava.checkpoint.record import LayerRecord
from llava.data.collate import DataCollatorForSupervisedDataset
from llava.data.dataset import LazySupervisedDataset
from llava.data.feature_cache import FeatureCache
from llava.data.records import Records
from llava.model.builder import load_base
from llava.model.multimodal_encoder.tower_weights import record_trained_tower, trained_tower_files
from llava.model.quantization import quantization_for
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, parse_arguments
from llava.train.attention import choose_attention, describe_attention
from llava.train.checkpoint import check_resumable, describe_output, last_checkpoint, move_files
from llava.train.llava_trainer import LLaVATrainer
from llava.train.plan import ConfigurationError, RunPlan, make_plan
from llava.train.report import training_table
from llava.train.tower_check import describe_tower
from llava.train.zero import ZeroConfigError, weights_whole
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
        attn_implementation: where `--attn_implementation` is not given.
        arguments: the classes that hold the flags; bunny brings its own.
        make_trainer: takes what LLaVATrainer takes; healing brings one that distils.
    """
    try:
        model_args, data_args, training_args = parse_arguments(argv, arguments)
        model_args.attn_implementation = model_args.attn_implementation or attn_implementation
        with training_args.main_process_first(desc="reading the data"):
            plan = make_plan(model_args, data_args, training_args)
    except (ConfigurationError, ZeroConfigError) as error:
        sys.exit(str(error))

    model = load_model(plan, model_args, training_args)
    model = choose_what_trains(model, plan, training_args)
    dataset, eval_dataset, collator = load_data(model, plan, data_args, training_args)

    if training_args.ddp_find_unused_parameters is None:
        # Every rank reaches all that trains in every step, so DDP need not search.
        training_args.ddp_find_unused_parameters = False
    trainer = make_trainer(
        model=model,
        mode=plan.mode,
        processing_class=plan.tokenizer,
        args=training_args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=collator,
    )
    if training_args.should_log:
        print(training_table(model, trainer.parameter_groups(model), plan.selection), flush=True)

    trainer.train(resume_from_checkpoint=resume_point(model, plan, training_args))
    save_result(trainer, plan, training_args)


def load_model(plan: RunPlan, model_args: ModelArguments, training_args: TrainingArguments) -> Any:
    """The language model with tower stub and projector, settings recorded in its config."""
    dtype = training_args.compute_dtype
    attention = choose_attention(model_args.attn_implementation, dtype)
    if training_args.should_log:
        print(describe_attention(model_args.attn_implementation, attention, dtype))
    kwargs: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    quantization = quantization_for(
        training_args.bits, dtype, double_quant=training_args.double_quant, quant_type=training_args.quant_type
    )
    if quantization is not None:
        kwargs |= {"quantization_config": quantization, "device_map": {"": training_args.device}}
    cache_dir = training_args.cache_dir
    base = open_checkpoint(
        model_args.model_name_or_path, package=model_args.package, weights=False, cache_dir=cache_dir
    )
    model = load_base(base, plan.config, dtype, cache_dir=cache_dir, **kwargs)
    if plan.mode != "full":
        model.base_fingerprint = base_values(base.tensors)
    # Loading draws random numbers, and how many depends on how weights are held; what is new must start the same.
    set_seed(training_args.seed)
    model.config.use_cache = False
    model.get_model().initialize_vision_modules(model_args)
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
        LayerRecord.of(config).tuned(plan.selection.spec, plan.selection.layers).put(config)
    return model


def choose_what_trains(model: Any, plan: RunPlan, training_args: TrainingArguments) -> Any:
    """Freezes and thaws; the result trains exactly the layers that were asked for.

    What trains is kept in float32 and computed in the run's dtype: at a learning rate of 1e-5 a bfloat16 weight often
    cannot move. DeepSpeed does so by itself, with copies, and takes weights in the run's dtype.
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
        with weights_whole():
            tower.load_model(device_map=training_args.device, dtype=training_args.compute_dtype)
        tower.unfreeze()
    assert_trains_exactly(wrapped, plan.selection or (), layer_path)
    kept_in = training_args.compute_dtype if training_args.deepspeed else torch.float32
    for parameter in wrapped.parameters():
        # What ZeRO-3 has sharded while loading is in the run's dtype already.
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(kept_in)
    return wrapped


def load_data(
    model: Any, plan: RunPlan, data_args: DataArguments, training_args: TrainingArguments
) -> tuple[LazySupervisedDataset, LazySupervisedDataset | None, DataCollatorForSupervisedDataset]:
    """Samples to train on and to measure, and how they become batches."""
    base = model.get_base_model() if plan.mode == "lora" else model
    base.config.image_aspect_ratio = data_args.image_aspect_ratio
    tower = base.get_vision_tower()
    processor = tower.load_processor()
    dtype = training_args.compute_dtype
    cache = None
    with weights_whole():
        if data_args.vision_feature_cache:
            cache = FeatureCache(data_args.vision_feature_cache, tower, data_args.image_aspect_ratio, dtype)
            folder = Path(data_args.image_folder or "")
            images = dict.fromkeys(plan.records.unique_images())
            images |= dict.fromkeys(plan.eval_records.unique_images() if plan.eval_records else ())
            with training_args.main_process_first(desc="vision features"):
                cache.ensure((folder / name for name in images), tower, training_args.device)
            tower.unload()
        else:
            tower.load_model(device_map=training_args.device, dtype=dtype)

    def dataset(records: Records, indices: np.ndarray | None) -> LazySupervisedDataset:
        return LazySupervisedDataset(
            records,
            plan.tokenizer,
            plan.template,
            data_args.image_folder,
            processor,
            data_args.image_aspect_ratio,
            training_args.model_max_length,
            cache,
            indices,
        )

    dummy = None
    # One rank that torchrun started counts: DDP waits for the projector's gradient there too.
    if torch.distributed.is_initialized():
        empty = ("image_features", torch.zeros(tower.num_patches, tower.hidden_size, dtype=dtype))
        crop = processor.crop_size or processor.size
        dummy = empty if cache is not None else ("images", torch.zeros(3, crop["height"], crop["width"]))
    return (
        dataset(plan.records, plan.indices),
        dataset(plan.eval_records, None) if plan.eval_records else None,
        DataCollatorForSupervisedDataset(plan.tokenizer, training_args.model_max_length, dummy),
    )


def save_result(trainer: LLaVATrainer, plan: RunPlan, training_args: TrainingArguments) -> None:
    """Writes the final folder: upstream's files and the tokenizer. `config.json` comes last."""
    trainer.save_state()
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = model.get_base_model().config if plan.mode == "lora" else model.config
    config.use_cache = True
    if plan.mode == "full" and not training_args.deepspeed:
        model.to(training_args.compute_dtype)
    output_dir = Path(training_args.output_dir)
    aside = output_dir / ".final.partial"
    if training_args.should_save:
        shutil.rmtree(aside, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(aside))
    trainer.accelerator.wait_for_everyone()
    if training_args.should_save:
        move_files(aside, output_dir)
        aside.rmdir()
    if training_args.should_log:
        print(describe_output(plan.mode, training_args.output_dir))
        if plan.trains_tower and not trainer.is_deepspeed_enabled:
            print(describe_tower(model.get_vision_tower()))


def resume_point(model: Any, plan: RunPlan, training_args: TrainingArguments) -> str | None:
    """The checkpoint to go on from, checked to be of this run; None to begin."""
    checkpoint = training_args.resume_from_checkpoint or last_checkpoint(training_args.output_dir)
    if not checkpoint:
        return None
    config = model.get_base_model().config if plan.mode == "lora" else model.config
    zero_ranks = training_args.world_size if training_args.deepspeed else None
    check_resumable(Path(checkpoint), plan.mode, config, zero_ranks)
    if training_args.should_log:
        print(f"resuming from {checkpoint}")
    return str(checkpoint)


if __name__ == "__main__":
    transformers.logging.set_verbosity_warning()
    train()
