"""What the memory of a device decides: `--gradient_checkpointing auto` and `--deepspeed auto`."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from llava.checkpoint.opened import Kind
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.preprocess import preprocess
from llava.devices import free_memory, is_out_of_memory
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.vision_modules import write_vision_settings
from llava.names import size_text
from llava.train.arguments import DataArguments, TrainingArguments
from llava.train.attention import computes_padding
from llava.train.data import keeps_tower
from llava.train.flag_names import ConfigurationError
from llava.train.plan import RunPlan
from llava.train.zero import weights_whole
from visual_region.memory import USABLE, Recipe, StepMemory, shape_and_meter, tower_cost

_CANDIDATES = 4
"""Samples that are encoded to find the longest ones, per row of a micro-batch; words only estimate tokens."""


@dataclass(frozen=True)
class Recomputation:
    """The decoder layers that are recomputed, and the line that says why."""

    layers: tuple[int, ...]
    line: str


def choose_recomputation(plan: RunPlan, data: DataArguments, training: TrainingArguments) -> Recomputation:
    """The fewest layers to recompute so that the largest micro-batch fits the memory that is free now."""
    if plan.trains_tower:
        depth = plan.base.depth
        return Recomputation(
            tuple(range(depth)), f"gradient checkpointing: all {depth} layers (the tower trains; no estimate)"
        )
    memory, free = step_memory(plan, data, training), _least_free(training)
    layers, needed = memory.fewest_recomputed(free)
    whole, depth = memory.needed(), plan.base.depth
    chosen = f"{len(layers)} of {depth} layers" if layers else "no layer"
    line = (
        f"gradient checkpointing: {chosen}; a step takes about {size_text(needed)}"
        + (f" ({size_text(whole)} without)" if layers else "")
        + f", {training.device.type} has {size_text(free)} free"
    )
    if needed > free:
        line += "; it may not fit: use a smaller --per_device_train_batch_size and more --gradient_accumulation_steps"
    return Recomputation(layers, line)


@dataclass(frozen=True)
class Sharding:
    """The ZeRO stage, None without DeepSpeed, and the line that says why."""

    stage: int | None
    line: str


def choose_sharding(plan: RunPlan, data: DataArguments, training: TrainingArguments) -> Sharding:
    """Plain DDP if a step fits a device, else ZeRO-2, else ZeRO-3; less sharding exchanges less.

    Recomputing layers is preferred to more sharding: a stage fits if it does with as many layers as the flags allow.
    The process group exists already, so that the process with the least free memory decides for all.
    """
    processes = training.world_size
    if processes == 1:
        return Sharding(None, "deepspeed: none (a single process)")
    # Neither quantised weights nor compiled layers run under ZeRO-3.
    stages = [None, 2] if training.bits < 16 or plan.kernels.name == "compile" else [None, 2, 3]
    if plan.trains_tower:
        return Sharding(stages[-1], f"deepspeed: {_named(stages[-1])} (the tower trains; no estimate)")
    memory, free = step_memory(plan, data, training), _least_free(training)
    needed = [_least_needed(dataclasses.replace(memory, zero_stage=stage or 0), training, free) for stage in stages]
    i = next((i for i, size in enumerate(needed) if size <= USABLE * free), len(stages) - 1)
    line = (
        f"deepspeed: {_named(stages[i])}; a step takes about {size_text(needed[i])} on each of {processes} devices"
        + (f" ({size_text(needed[0])} without)" if i else "")
        + f", {training.device.type} has {size_text(free)} free"
    )
    if needed[i] > free:
        line += "; it may not fit"
        line += ": --deepspeed ./scripts/zero3_offload.json also uses the machine's memory" if stages[i] == 3 else ""
    return Sharding(stages[i], line)


def _named(stage: int | None) -> str:
    return "none" if stage is None else f"ZeRO-{stage}"


def _least_needed(memory: StepMemory, training: TrainingArguments, free: int) -> int:
    """What a step takes with as many recomputed layers as the flags allow, and no more than it needs."""
    if training.chooses_recomputation:
        return memory.fewest_recomputed(free)[1]
    return memory.needed(memory.recomputable() if training.gradient_checkpointing else ())


def sharding_as_before(stage: int | None, folder: Path) -> Sharding:
    """The sharding of the run that wrote `folder`: a checkpoint can only be resumed as it was sharded."""
    return Sharding(stage, f"deepspeed: {_named(stage)}, as in the run that wrote {folder}")


def _least_free(training: TrainingArguments) -> int:
    """The free memory of the process that has least: under ZeRO-3 all processes must recompute the same layers."""
    free = torch.tensor(free_memory(training.device), device=training.device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(free, torch.distributed.ReduceOp.MIN)
    return int(free)


def step_memory(plan: RunPlan, data: DataArguments, training: TrainingArguments) -> StepMemory:
    """What a step of the largest micro-batch takes."""
    tower = build_vision_tower(plan.vision, delay_load=True)
    config = plan.base.model_config()
    write_vision_settings(config, plan.vision)
    flops = parameters = None
    if not data.vision_feature_cache or keeps_tower(plan):
        # Under ZeRO-3, transformers would shard the network, which has no weights here.
        with weights_whole(training):
            flops, parameters = tower_cost(tower)
    if data.vision_feature_cache:
        flops = None
    dtype = training.compute_dtype
    shape, meter = shape_and_meter(
        plan.base, config, dtype, training.lora_dropout, tower_flops=flops, tower_parameters=parameters
    )
    rows = training.per_device_train_batch_size
    text, image, labels = _largest_batch(plan, training, rows)
    recipe = Recipe(
        {Kind.PROJECTOR: "projector", Kind.LORA: "lora", Kind.FULL: "full"}[plan.kind],
        text_tokens=text,
        image_tokens=image,
        labelled_tokens=labels,
        lora_r=training.lora_r,
        label_only_logits=training.label_only_logits,
        train_projector=not training.freeze_mm_mlp_adapter,
        cuda_autocast=training.device.type == "cuda" and dtype is not torch.float32 and not training.deepspeed,
    )
    return StepMemory(
        shape, meter, plan.selection, recipe, rows, training.bits, training.zero_stage, training.world_size
    )


def _largest_batch(plan: RunPlan, training: TrainingArguments, rows: int) -> tuple[int, int, int]:
    """Text tokens, image tokens and labels per row of the micro-batch of the longest samples, each rounded up.

    Every image counts as many tokens as one can have: reading the sizes of all images would take long.
    """
    records, limit, tokens_per_image = plan.records, training.model_max_length, plan.tiling.most_tokens
    guess = records.words[plan.indices] + records.image_counts[plan.indices] * tokens_per_image
    longest = plan.indices[np.argsort(guess, kind="stable")[::-1][: _CANDIDATES * rows]]
    found = []
    for index in longest:
        record = records[int(index)]
        ids, labels = preprocess(record.turns, plan.tokenizer, plan.template, len(record.images), limit)
        images = int((ids == IMAGE_TOKEN_INDEX).sum())
        image = min(images * tokens_per_image, limit)
        text = min(len(ids) - images, limit - image)
        found.append((text + image, image, max(1, int((labels != IGNORE_INDEX).sum()))))
    found = sorted(found, reverse=True)[:rows]
    if computes_padding(plan.attention, training.padding_free):
        found = found[:1]
    length, image, labels = (math.ceil(sum(values) / len(found)) for values in zip(*found, strict=True))
    text = max(1, length - image)
    return text, image, min(labels, text)


@contextlib.contextmanager
def memory_explained(plan: RunPlan, training: TrainingArguments, chosen: Recomputation | None) -> Iterator[None]:
    """Turns an error about memory into a `ConfigurationError` that says which settings to take."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        depth = plan.base.depth
        recomputed = depth if training.gradient_checkpointing else len(chosen.layers) if chosen else 0
        raise ConfigurationError(_advice(training, recomputed, depth)) from error


def _advice(training: TrainingArguments, recomputed: int, depth: int) -> str:
    rows, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    advice = []
    if recomputed < depth:
        advice.append(f"--gradient_checkpointing True (now {recomputed} of {depth} layers are recomputed)")
    if rows > 1:
        smaller = rows // 2
        more = math.ceil(rows / smaller) * steps
        advice.append(f"--per_device_train_batch_size {smaller} --gradient_accumulation_steps {more}")
    if training.bits == 16 and training.lora_enable:
        advice.append("--bits 4 (QLoRA)")
    advice.append(f"a --model_max_length below {training.model_max_length}")
    if training.zero_stage < 3:
        advice.append("several devices with --deepspeed ./scripts/zero3.json")
    return "memory ran out; what helps:\n" + "\n".join(f"- {line}" for line in advice)
