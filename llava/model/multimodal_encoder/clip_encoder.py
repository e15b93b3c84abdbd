"""CLIP's vision tower (upstream: multimodal_encoder/clip_encoder.py)."""

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig

from llava.model.multimodal_encoder.base import PatchTower
from llava.model.multimodal_encoder.s2 import MultiScale

SELECT_FEATURES = ("patch", "cls_patch")


class CLIPVisionTower(PatchTower):
    """Hidden states of one CLIP layer, without the class token unless `mm_vision_select_feature` is "cls_patch"."""

    config_class = CLIPVisionConfig
    network_class = CLIPVisionModel

    def __init__(self, vision_tower: str, tower_config: PreTrainedConfig, args: Any) -> None:
        super().__init__(vision_tower, tower_config, args)
        self.select_feature = getattr(args, "mm_vision_select_feature", "patch")
        if self.select_feature not in SELECT_FEATURES:
            raise ValueError(
                f"mm_vision_select_feature {self.select_feature!r} is unknown; allowed: {', '.join(SELECT_FEATURES)}"
            )

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        states = self.vision_tower(images, output_hidden_states=True).hidden_states[self.select_layer]
        return states[:, 1:] if self.select_feature == "patch" else states

    def unused_modules(self) -> list[nn.Module]:
        return [*self.vision_tower.encoder.layers[self.depth :], self.vision_tower.post_layernorm]

    @property
    def num_patches(self) -> int:
        return super().num_patches + (self.select_feature == "cls_patch")

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"select_feature": self.select_feature}


class CLIPVisionTowerS2(MultiScale, CLIPVisionTower):
    """CLIP with S2 (`s2` in LLaVA's config)."""
