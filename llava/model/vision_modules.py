"""A model's tower and projector, and their settings in its config (upstream: llava/model/llava_arch.py)."""

from dataclasses import dataclass
from typing import Any

from llava.model.multimodal_encoder.base import VisionTower
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_projector.builder import (
    build_vision_projector,
    check_projector_weights,
    image_tokens,
    read_projector,
)


@dataclass(frozen=True)
class VisionSettings:
    """Settings of the vision modules, under the names of upstream's ModelArguments."""

    vision_tower: str | None
    mm_vision_select_layer: int | None
    mm_vision_select_feature: str | None
    mm_projector_type: str | None
    mm_patch_merge_type: str | None = "flat"
    use_s2: bool = False
    s2_scales: str | None = None
    pretrain_mm_mlp_adapter: str | None = None


def write_vision_settings(config: Any, settings: Any) -> None:
    """Writes the settings of tower and projector into a config; the projector of a LLaVA stays.

    `settings` is a `VisionSettings`, or upstream's ModelArguments, which may lack the last four.
    """
    has_projector = bool(getattr(config, "mm_vision_tower", None))
    config.mm_vision_tower = settings.vision_tower
    config.mm_vision_select_layer = settings.mm_vision_select_layer
    config.mm_vision_select_feature = settings.mm_vision_select_feature
    config.mm_patch_merge_type = getattr(settings, "mm_patch_merge_type", "flat")
    config.use_mm_proj = True
    for name in ("use_s2", "s2_scales"):
        if getattr(settings, name, None):
            setattr(config, name, getattr(settings, name))
    if not has_projector:
        config.mm_projector_type = settings.mm_projector_type
        config.mm_hidden_size = build_vision_tower(config, delay_load=True).hidden_size


class LlavaMetaModel:
    """A mixin for the decoder stack with `vision_tower` and `mm_projector`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if getattr(config, "mm_vision_tower", None):
            self.vision_tower = build_vision_tower(config, delay_load=True)
            self.mm_projector = build_vision_projector(config)
            # Raises if the projector cannot take the tower's number of tokens.
            image_tokens(config, self.vision_tower.num_patches)

    def get_vision_tower(self) -> VisionTower | None:
        return getattr(self, "vision_tower", None)

    def initialize_vision_modules(self, model_args: Any, fsdp: Any = None) -> None:
        """Upstream's entry point: builds tower and projector from ModelArguments."""
        write_vision_settings(self.config, model_args)
        self.build_vision_modules(model_args.pretrain_mm_mlp_adapter)

    def build_vision_modules(self, projector_file: str | None = None) -> None:
        """Builds the tower (a stub) and, if missing, the projector, with weights such as stage 1's mm_projector.bin."""
        self.vision_tower = build_vision_tower(self.config, delay_load=True)
        if getattr(self, "mm_projector", None) is None:
            reference = self.get_input_embeddings().weight
            self.mm_projector = build_vision_projector(self.config).to(device=reference.device)
        if projector_file:
            weights = read_projector(projector_file)
            check_projector_weights(weights, self.config, projector_file)
            self.mm_projector.load_state_dict(weights)
