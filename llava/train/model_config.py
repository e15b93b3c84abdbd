"""What a training run writes into the config of its model."""

from typing import Any

from llava.checkpoint.record import LayerRecord
from llava.model.multimodal_encoder.tower_weights import record_trained_tower
from llava.model.vision_modules import write_vision_settings
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.plan import RunPlan


def configure(
    config: Any, plan: RunPlan, model: ModelArguments, data: DataArguments, training: TrainingArguments
) -> None:
    """Writes the settings of a run into the base's config, under upstream's names."""
    write_vision_settings(config, plan.vision)
    record_trained_tower(config, plan.trains_tower)
    config.use_cache = False
    config.image_aspect_ratio = data.image_aspect_ratio
    if plan.tiling.several:
        config.image_grid_pinpoints = [list(canvas) for canvas in plan.tiling.canvases]
    for name in ("tune_mm_mlp_adapter", "mm_use_im_start_end", "mm_use_im_patch_token"):
        setattr(config, name, getattr(model, name))
    config.freeze_mm_mlp_adapter = training.freeze_mm_mlp_adapter
    config.mm_projector_lr = training.mm_projector_lr
    config.tokenizer_padding_side = "right"
    config.tokenizer_model_max_length = training.model_max_length
    config.conversation_template = plan.template_name
    config._name_or_path = plan.base.name
    if plan.selection is not None:
        LayerRecord.of(config).tuned(plan.selection.spec, plan.selection.layers).put(config)
