"""What a training reads: its datasets and their collator."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint.opened import Kind
from llava.data.collate import DataCollatorForSupervisedDataset
from llava.data.dataset import LazySupervisedDataset
from llava.data.feature_cache import FeatureCache
from llava.model.multimodal_encoder.tower_weights import tower_was_trained
from llava.train.arguments import DataArguments, TrainingArguments
from llava.train.plan import RunPlan
from llava.train.zero import weights_whole


def load_data(model: Any, plan: RunPlan, data_args: DataArguments, training_args: TrainingArguments) -> dict[str, Any]:
    """Datasets to train on and to evaluate, and their collator, as the trainer's arguments."""
    base = model.get_base_model() if plan.kind is Kind.LORA else model
    tower = base.get_vision_tower()
    processor = tower.load_processor()
    dtype = training_args.compute_dtype
    cache = None
    with weights_whole(training_args):
        if data_args.vision_feature_cache:
            ratio = data_args.image_aspect_ratio
            cache = FeatureCache(data_args.vision_feature_cache, tower, ratio, dtype, plan.tiling)
            folder = Path(data_args.image_folder or "")
            names = plan.records.unique_images(plan.indices)
            names += plan.eval_records.unique_images() if plan.eval_records else []
            images = [folder / name for name in names]
            # One process makes them; the others wait at the lock, as a collective would end after --ddp_timeout.
            cache.ensure(images, tower, training_args.device)
            if keeps_tower(plan):
                tower.load_model(device_map=training_args.device, dtype=dtype)
            else:
                tower.unload()
        else:
            tower.load_model(device_map=training_args.device, dtype=dtype)

    dataset = partial(
        LazySupervisedDataset,
        tokenizer=plan.tokenizer,
        template=plan.template,
        image_folder=data_args.image_folder,
        image_processor=processor,
        image_aspect_ratio=data_args.image_aspect_ratio,
        model_max_length=training_args.model_max_length,
        feature_cache=cache,
        tiling=plan.tiling,
    )
    empty = empty_image(base, training_args.zero_stage == 3, cached=cache is not None)
    return {
        "train_dataset": dataset(plan.records, indices=plan.indices),
        "eval_dataset": dataset(plan.eval_records) if plan.eval_records else None,
        "data_collator": DataCollatorForSupervisedDataset(plan.tokenizer, training_args.model_max_length, empty),
    }


def keeps_tower(plan: RunPlan) -> bool:
    """Whether the tower stays in memory, also with cached features: a whole model holds a tower that was trained."""
    return plan.kind is Kind.FULL and tower_was_trained(plan.base.own)


def empty_image(model: Any, sharded: bool, cached: bool = False) -> tuple[str, torch.Tensor] | None:
    """What a batch without images sends through the modules in front of the language model, as the collator's `empty`.

    Upstream sends an image of zeros for each text sample. Its features are not used, but what made them has a gradient
    of zero instead of none: AdamW decays it and moves it by its momentum, and DDP waits for it. A frozen tower need not
    run for that: the projector has the same gradient with features of zeros. Where neither trains, nothing is sent.

    Args:
        cached: images are read from a feature cache, and no rank runs the tower.
        sharded: ZeRO-3; a rank that leaves out a module that other ranks run, also a frozen one, would block them.
    """
    tower, decoder = model.get_vision_tower(), model.get_model()
    # An image of several views passes through `image_newline` too, also one with a single view.
    views = (1,) if model.tiling.several else ()
    if tower.trains or (sharded and tower.is_loaded and not cached):
        processor = tower.load_processor()
        crop = processor.crop_size or processor.size
        return "images", torch.zeros(*views, 3, crop["height"], crop["width"])
    if sharded or any(parameter.requires_grad for parameter in decoder.projector_parameters()):
        return "image_features", torch.zeros(*views, tower.num_patches, tower.hidden_size)
    return None
