"""What a run writes into the config of the model that it trains. Nothing else on the way to training writes there."""

from typing import Any

from llava.checkpoint.record import LayerRecord
from llava.model.multimodal_encoder.tower_weights import record_trained_tower
from llava.model.vision_modules import write_vision_settings
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.plan import RunPlan


def configure(
    config: Any, plan: RunPlan, model: ModelArguments, data: DataArguments, training: TrainingArguments
) -> None:
    """Writes the settings of a run, under upstream's names.

    Args:
        config: of the base, as it was loaded.
    """
    write_vision_settings(config, plan.vision)
    record_trained_tower(config, plan.trains_tower)
    config.use_cache = False
    config.image_aspect_ratio = data.image_aspect_ratio
    config.tune_mm_mlp_adapter = model.tune_mm_mlp_adapter
    config.freeze_mm_mlp_adapter = training.freeze_mm_mlp_adapter
    config.mm_use_im_start_end = model.mm_use_im_start_end
    config.mm_use_im_patch_token = model.mm_use_im_patch_token
    config.mm_projector_lr = training.mm_projector_lr
    config.tokenizer_padding_side = "right"
    config.tokenizer_model_max_length = training.model_max_length
    config.conversation_template = plan.template_name
    config._name_or_path = plan.base.name
    if plan.selection is not None:
        LayerRecord.of(config).tuned(plan.selection.spec, plan.selection.layers).put(config)


def finish(config: Any) -> None:
    """What the config of the result says differently: answers are generated with a key-value cache."""
    config.use_cache = True
