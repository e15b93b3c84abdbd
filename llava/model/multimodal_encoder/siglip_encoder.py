"""SigLIP's vision tower (upstream: bunny/model/multimodal_encoder/siglip/siglip_encoder.py)."""

import torch
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.image_processing_utils import BaseImageProcessor

from llava.model.multimodal_encoder.base import PatchTower
from llava.model.multimodal_encoder.s2 import MultiScale


class SiglipVisionTower(PatchTower):
    """Hidden states of one SigLIP layer, one per patch; it has no class token.

    Layers above the chosen one, and the head, are loaded and not run.
    """

    config_class = SiglipVisionConfig
    network_class = SiglipVisionModel

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


class SiglipVisionTowerS2(MultiScale, SiglipVisionTower):
    """SigLIP with S2 (`use_s2`)."""
