"""SigLIP's vision tower (upstream: bunny/model/multimodal_encoder/siglip/siglip_encoder.py)."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, SiglipVisionConfig, SiglipVisionModel
from transformers.image_processing_utils import BaseImageProcessor

from llava.model.multimodal_encoder.base import VisionTower
from llava.model.multimodal_encoder.s2 import MultiScale


class SiglipVisionTower(VisionTower):
    """Hidden states of one SigLIP layer, one for each patch: `mm_vision_select_layer`, -2 in all of Bunny.

    SigLIP has no class token. Layers above the chosen one, and the head, are loaded and not run.
    """

    file_prefix = "vision_model."

    def __init__(self, vision_tower: str, tower_config: PreTrainedConfig, args: Any) -> None:
        # A whole SigLIP folder (text and vision) has the tower's sizes one level down.
        if not isinstance(tower_config, SiglipVisionConfig):
            tower_config = tower_config.vision_config
        super().__init__(vision_tower, tower_config, args)
        self.select_layer = getattr(args, "mm_vision_select_layer", -2)
        states = tower_config.num_hidden_layers + 1
        if not -states <= self.select_layer < states:
            raise ValueError(
                f"mm_vision_select_layer {self.select_layer} does not exist: the tower {vision_tower} has hidden "
                f"states {-states}..{states - 1}"
            )
        self.depth = self.select_layer % states

    def load_network(self, dtype: torch.dtype | None) -> nn.Module:
        return self.network_from_files(SiglipVisionModel, dtype)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        network = self.vision_tower
        states = network.embeddings(images)
        for layer in network.encoder.layers[: self.depth]:
            states = layer(states, None)
        return states

    def unused_modules(self) -> list[nn.Module]:
        network = self.vision_tower
        head = [network.head] if network.use_head else []
        return [*network.encoder.layers[self.depth :], network.post_layernorm, *head]

    def load_processor(self) -> BaseImageProcessor:
        """The processor, which stretches images to a square. Upstream's code reads its `crop_size`."""
        if self.image_processor is None:
            processor = super().load_processor()
            processor.crop_size = processor.size
        return self.image_processor

    @property
    def hidden_size(self) -> int:
        return self.cfg_only.hidden_size

    @property
    def num_patches(self) -> int:
        return (self.cfg_only.image_size // self.cfg_only.patch_size) ** 2

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"select_layer": self.select_layer}


class SiglipVisionTowerS2(MultiScale, SiglipVisionTower):
    """SigLIP with S2 (`use_s2`)."""
