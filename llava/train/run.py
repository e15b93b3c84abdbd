"""One training run, from the arguments to the written folder."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import set_seed

from llava.checkpoint.card import CARD, RUN_FILE, has_card_of_user
from llava.checkpoint.identity import base_values
from llava.checkpoint.opened import Kind
from llava.data.share import WHOLE
from llava.devices import bfloat16_line, has_fast_bfloat16, threads_line
from llava.files import locked
from llava.model.builder import load_base
from llava.model.kernels import apply_kernels
from llava.model.multimodal_encoder.tower_weights import trained_tower_files
from llava.names import count
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, parse_arguments
from llava.train.attention import computes_padding
from llava.train.checkpoint import describe_output, move_files
from llava.train.data import load_data
from llava.train.flag_names import HUGE_PAGES, ConfigurationError
from llava.train.hub import create_repository, push_result
from llava.train.llava_trainer import LLaVATrainer
from llava.train.memory import choose_recomputation, choose_sharding, memory_explained, sharding_as_before
from llava.train.model_config import configure
from llava.train.plan import RunPlan, make_plan
from llava.train.report import training_table
from llava.train.resume import Earlier, Start, earlier_run, starting_point
from llava.train.run_meter import RunMeter, facts_of
from llava.train.run_record import RunRecord
from llava.train.tower_check import describe_tower
from llava.train.zero import config_of_stage, weights_whole
from visual_region.tuning import apply_lora, assert_trains_exactly, recompute_layers, train_layers

_WORKERS_END = 15
"""Seconds in which the data workers of a killed run, which hold its lock too, have ended."""


def run(
    attn_implementation: str | None,
    argv: Sequence[str],
    arguments: Sequence[type],
    make_trainer: Callable[..., LLaVATrainer] | None,
    settings: Mapping[str, Any],
) -> None:
    """See `llava.train.train.train`."""
    transformers.logging.set_verbosity_warning()
    model_args, data_args, training_args = parse_arguments(argv, arguments)
    with training_args.main_process_first(desc="reading the data"):
        plan = make_plan(model_args, data_args, training_args, attn_implementation)
    earlier = earlier_run(training_args)
    if training_args.chooses_sharding:
        training_args = shard(plan, data_args, training_args, earlier)
    with training_args.main_process_first(desc="comparing with an earlier run"):
        try:
            record = RunRecord.of(plan, model_args, data_args, training_args, settings)
            start = starting_point(record, plan, training_args, earlier)
        except (ValueError, OSError) as error:
            # Such as a tower file that is cut off; every process finds it.
            raise ConfigurationError(str(error)) from error
    if start.done:
        if training_args.should_log:
            print(f"done before, with the same settings: {describe_output(plan.kind, training_args.output_dir)}")
        if training_args.push_to_hub and training_args.should_save:
            print(push_result(training_args, create_repository(training_args)))
        return
    if training_args.push_to_hub and training_args.should_save:
        create_repository(training_args)
    with output_locked(training_args):
        trainer = learn(plan, model_args, data_args, training_args, record, start, make_trainer or LLaVATrainer)
    if training_args.push_to_hub:
        # Last: if it fails, the run is finished nevertheless, and the same command pushes without training again.
        trainer.push_to_hub()


@contextlib.contextmanager
def output_locked(training_args: TrainingArguments) -> Iterator[None]:
    """Holds the output folder, in the process that writes; raises `ConfigurationError` if another run holds it."""
    if not training_args.should_save:
        yield
        return
    folder, last_look = training_args.output_dir, time.monotonic() + _WORKERS_END
    while True:
        with locked(folder) as lock:
            if lock:
                yield
                return
        if time.monotonic() > last_look:
            raise ConfigurationError(f"another process trains into {folder}; wait for it, or give another --output_dir")
        time.sleep(1)


def learn(
    plan: RunPlan,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    record: RunRecord,
    start: Start,
    make_trainer: Callable[..., LLaVATrainer],
) -> LLaVATrainer:
    """Loads, trains and writes the result; returns the trainer."""
    if training_args.should_save:
        if not start.again and start.checkpoint is None:
            # Of another run, which was killed before its first checkpoint.
            Path(training_args.output_dir, RUN_FILE).unlink(missing_ok=True)
        record.write(training_args.output_dir)
    recomputation = None
    if training_args.chooses_recomputation:
        recomputation = choose_recomputation(plan, data_args, training_args)
    if training_args.should_log:
        if data_args.data_share != WHOLE:
            print(f"training on {data_args.data_share} of {data_args.data_path}: {count(len(plan.indices), 'sample')}")
        if training_args.bf16 and not has_fast_bfloat16(training_args.device):
            print(f"note: {bfloat16_line(training_args.device)}")
        print(plan.attention_line)
        print(plan.kernels.line)
        if training_args.device.type == "cpu" and os.environ.get(HUGE_PAGES) == "1":
            print(f"memory: large tensors in huge pages where the system has them ({HUGE_PAGES}=0: off)")
        if training_args.device.type == "cpu":
            print(threads_line())
        if recomputation:
            print(recomputation.line)

    with memory_explained(plan, training_args, recomputation):
        base = load_model(plan, training_args)
        configure(base.config, plan, model_args, data_args, training_args)
        add_vision(base, plan, training_args)
        model = choose_what_trains(base, plan, training_args)
        apply_kernels(base, plan.kernels.name)
        if recomputation and recomputation.layers:
            recompute_layers(base, recomputation.layers, plan.base.family.layer_path)
        data = load_data(model, plan, data_args, training_args)
        parts = {"model": model, "kind": plan.kind, "processing_class": plan.tokenizer, "args": training_args, **data}
        trainer = make_trainer(**parts, tiling=plan.tiling)
        trainer.add_callback(RunMeter(trainer, facts_of(plan, data_args, training_args, model)))
        if training_args.should_log:
            print(training_table(model, trainer.parameter_groups(model), plan.selection), flush=True)
            if start.checkpoint:
                print(f"resuming from {start.checkpoint}")
        trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
    trainer.check_result()
    save_result(trainer, plan, training_args)
    if training_args.should_save:
        record.write(training_args.output_dir, finished=True)
    return trainer


def shard(
    plan: RunPlan, data_args: DataArguments, training_args: TrainingArguments, earlier: Earlier
) -> TrainingArguments:
    """The arguments with what `--deepspeed auto` means for this run, or meant for the run that is resumed."""
    if earlier.folders:
        sharding = sharding_as_before(earlier.deepspeed, earlier.folders[0])
    else:
        sharding = choose_sharding(plan, data_args, training_args)
    if training_args.should_log:
        print(sharding.line, flush=True)
    return training_args if sharding.stage is None else training_args.with_deepspeed(config_of_stage(sharding.stage))


def load_model(plan: RunPlan, training_args: TrainingArguments) -> Any:
    """The base as it is stored, with a tower stub and a projector if it is a LLaVA."""
    kwargs: dict[str, Any] = {"attn_implementation": plan.attention} if plan.attention else {}
    if plan.quantization is not None:
        kwargs |= {"quantization_config": plan.quantization, "device_map": {"": training_args.device}}
    # A LLaVA may record a tower folder of another machine.
    config = plan.base.model_config(plan.vision.vision_tower if plan.base.tower else None)
    model = load_base(plan.base, config, training_args.compute_dtype, cache_dir=training_args.cache_dir, **kwargs)
    if plan.kind is not Kind.FULL:
        model.base_fingerprint = base_values(plan.base.tensors)
    model.label_only_logits = training_args.label_only_logits
    if not computes_padding(plan.attention, training_args.padding_free):
        model.compute_without_padding()
        model.share_prefix = training_args.share_prefix
    if training_args.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def add_vision(model: Any, plan: RunPlan, training_args: TrainingArguments) -> None:
    """Adds the tower stub and the projector that the config names."""
    # Loading draws random numbers, and the count depends on the dtype; new weights must not depend on it.
    set_seed(training_args.seed)
    model.get_model().build_vision_modules(plan.vision.pretrain_mm_mlp_adapter)
    model.get_vision_tower().trained_files = trained_tower_files(plan.base)


def choose_what_trains(model: Any, plan: RunPlan, training_args: TrainingArguments) -> Any:
    """Freezes and unfreezes parameters; the result trains exactly the selected layers.

    Trained weights are kept in float32 and computed in the run's dtype: at a learning rate of 1e-5 a bfloat16 weight
    often cannot change. DeepSpeed makes such copies itself and takes weights in the run's dtype.
    """
    model.requires_grad_(False)
    layer_path = plan.base.family.layer_path
    wrapped = model
    if plan.kind is Kind.FULL:
        train_layers(model, plan.selection, layer_path)
    elif plan.kind is Kind.LORA:
        wrapped = apply_lora(
            model,
            plan.selection,
            layer_path,
            r=training_args.lora_r,
            lora_alpha=training_args.lora_alpha,
            lora_dropout=training_args.lora_dropout,
        )
    for parameter in model.get_model().projector_parameters():
        parameter.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    if plan.trains_tower:
        tower = model.get_vision_tower()
        with weights_whole(training_args):
            tower.load_model(device_map=training_args.device, dtype=training_args.compute_dtype)
        tower.unfreeze()
    assert_trains_exactly(wrapped, plan.selection or (), layer_path)
    kept_in = training_args.compute_dtype if training_args.deepspeed else torch.float32
    for parameter in wrapped.parameters():
        # Parameters that ZeRO-3 sharded while loading are in the run's dtype already.
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(kept_in)
    if plan.trains_tower and not training_args.deepspeed:
        # Its unused layers too: without autocast a tower computes in one dtype.
        tower.to(kept_in)
    return wrapped


def save_result(trainer: LLaVATrainer, plan: RunPlan, training_args: TrainingArguments) -> None:
    """Writes the final folder: upstream's files and the tokenizer. `config.json` comes last."""
    trainer.save_state()
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = model.get_base_model().config if plan.kind is Kind.LORA else model.config
    # Training needs no key-value cache; generation does.
    config.use_cache = True
    if plan.kind is Kind.FULL and not training_args.deepspeed:
        model.to(training_args.compute_dtype)
    output_dir = Path(training_args.output_dir)
    aside = output_dir / ".final.partial"
    if training_args.should_save:
        shutil.rmtree(aside, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(aside))
    trainer.accelerator.wait_for_everyone()
    if training_args.should_save:
        if has_card_of_user(output_dir):
            (aside / CARD).unlink(missing_ok=True)
        move_files(aside, output_dir)
        aside.rmdir()
        # A run that was killed after its last checkpoint may not have come to this.
        trainer.remove_old_checkpoints(output_dir)
    if training_args.should_log:
        print(f"done: {describe_output(plan.kind, training_args.output_dir)}")
        if plan.trains_tower and not trainer.is_deepspeed_enabled:
            print(describe_tower(model.get_vision_tower()))
