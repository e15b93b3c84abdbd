"""CLIP's vision tower (upstream: multimodal_encoder/clip_encoder.py)."""

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig

from llava.model.multimodal_encoder.base import VisionTower
from llava.model.multimodal_encoder.s2 import MultiScale

SELECT_FEATURES = ("patch", "cls_patch")


class CLIPVisionTower(VisionTower):
    """Hidden states of one CLIP layer: `mm_vision_select_layer` (-2 in LLaVA-1.5), without the class token."""

    file_prefix = "vision_model."

    def __init__(self, vision_tower: str, tower_config: PreTrainedConfig, args: Any) -> None:
        # A whole CLIP folder (text and vision) has the tower's sizes one level down.
        if not isinstance(tower_config, CLIPVisionConfig):
            tower_config = tower_config.vision_config
        super().__init__(vision_tower, tower_config, args)
        self.select_layer = getattr(args, "mm_vision_select_layer", -2)
        self.select_feature = getattr(args, "mm_vision_select_feature", "patch")
        if self.select_feature not in SELECT_FEATURES:
            raise ValueError(
                f"mm_vision_select_feature {self.select_feature!r} is unknown; allowed: {', '.join(SELECT_FEATURES)}"
            )

    def load_network(self, dtype: torch.dtype | None) -> nn.Module:
        return self.network_from_files(CLIPVisionModel, dtype)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        states = self.vision_tower(images, output_hidden_states=True).hidden_states[self.select_layer]
        return states[:, 1:] if self.select_feature == "patch" else states

    def unused_modules(self) -> list[nn.Module]:
        network = self.vision_tower
        depth = self.select_layer % (self.cfg_only.num_hidden_layers + 1)
        return [*network.encoder.layers[depth:], network.post_layernorm]

    @property
    def hidden_size(self) -> int:
        return self.cfg_only.hidden_size

    @property
    def num_patches(self) -> int:
        patches = (self.cfg_only.image_size // self.cfg_only.patch_size) ** 2
        return patches + (self.select_feature == "cls_patch")

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"select_layer": self.select_layer, "select_feature": self.select_feature}


class CLIPVisionTowerS2(MultiScale, CLIPVisionTower):
    """CLIP with S2 (`s2` in LLaVA's config)."""
