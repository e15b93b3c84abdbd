"""A model's tower and projector, and their settings in its config (upstream: llava/model/llava_arch.py)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.checkpoint.parts import NEWLINE
from llava.model.multimodal_encoder.base import VisionTower
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.s2 import MultiScale
from llava.model.multimodal_projector.builder import (
    build_vision_projector,
    check_projector_weights,
    image_tokens,
    read_projector,
)
from llava.tiling import ANYRES, Size, Tiling, TilingError, has_newline

Images = torch.Tensor | list[torch.Tensor]


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


def tiling_of(config: Any, tower: VisionTower) -> Tiling:
    """How the model of a config reads images; raises `TilingError` or `ProjectorError` if its parts cannot."""
    side = getattr(tower.cfg_only, "image_size", None)
    if getattr(config, "image_aspect_ratio", None) == ANYRES and (not side or isinstance(tower, MultiScale)):
        why = "S2 cuts images itself" if side else "its config has no image_size"
        raise TilingError(f"image_aspect_ratio {ANYRES} does not work with the tower {tower.vision_tower_name}: {why}")
    return Tiling.of(config, side or 0, image_tokens(config, tower.num_patches))


class LlavaMetaModel:
    """A mixin for the decoder stack with `vision_tower`, `mm_projector` and, of LLaVA-1.6, `image_newline`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.image_newline = None
        if getattr(config, "mm_vision_tower", None):
            self.vision_tower = build_vision_tower(config, delay_load=True)
            self.mm_projector = build_vision_projector(config)
            if has_newline(config):
                self.image_newline = nn.Parameter(torch.empty(config.hidden_size))
            # Raises if the projector cannot take the tower's number of tokens.
            _ = self.tiling

    def get_vision_tower(self) -> VisionTower | None:
        return getattr(self, "vision_tower", None)

    @property
    def tiling(self) -> Tiling:
        return tiling_of(self.config, self.vision_tower)

    def projector_parameters(self) -> Iterator[nn.Parameter]:
        """What trains with the projector: its own parameters, and `image_newline`."""
        yield from self.mm_projector.parameters()
        if self.image_newline is not None:
            yield self.image_newline

    def initialize_vision_modules(self, model_args: Any, fsdp: Any = None) -> None:
        """Upstream's entry point: builds tower and projector from ModelArguments."""
        write_vision_settings(self.config, model_args)
        self.build_vision_modules(model_args.pretrain_mm_mlp_adapter)

    def build_vision_modules(self, projector_file: str | None = None) -> None:
        """Builds the tower (a stub) and, if missing, the projector, with weights such as stage 1's mm_projector.bin."""
        self.vision_tower = build_vision_tower(self.config, delay_load=True)
        reference = self.get_input_embeddings().weight
        if getattr(self, "mm_projector", None) is None:
            self.mm_projector = build_vision_projector(self.config).to(device=reference.device)
        if not has_newline(self.config):
            self.image_newline = None
        elif self.image_newline is None:
            width = self.config.hidden_size
            self.image_newline = nn.Parameter((torch.randn(width) * width**-0.5).to(device=reference.device))
        if projector_file:
            weights = read_projector(projector_file)
            check_projector_weights(weights, self.config, projector_file)
            self.load_projector(weights)

    def load_projector(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Loads what `read_projector` returns; an `image_newline` that is not in it stays."""
        self.mm_projector.load_state_dict({name: value for name, value in weights.items() if name != NEWLINE})
        if NEWLINE in weights:
            self.image_newline.data.copy_(weights[NEWLINE])

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels `(n, 3, h, w)` to tokens `(n, tokens of a view, hidden_size)`."""
        return self.project_features(self.vision_tower(images))

    def project_features(self, features: torch.Tensor) -> torch.Tensor:
        """Tower features `(n, patches, mm_hidden_size)` to tokens `(n, tokens of a view, hidden_size)`."""
        weight = next(self.mm_projector.parameters(), None)
        if weight is not None:
            features = features.to(device=weight.device, dtype=weight.dtype)
        return self.mm_projector(features)

    def image_blocks(
        self,
        images: Images | None = None,
        image_features: Images | None = None,
        image_sizes: Sequence[Size] | None = None,
    ) -> list[torch.Tensor]:
        """One block of tokens `(tokens, hidden_size)` per image.

        Args:
            images: pixels `(n, 3, h, w)`; of several views per image `(n, views, 3, h, w)`, or a list of such images.
            image_features: features of the tower instead, with `(patches, mm_hidden_size)` in place of `(3, h, w)`.
            image_sizes: width and height of each image in pixels, for several views; not for the merge type flat.
        """
        given, encode, view = image_features, self.project_features, 2
        if given is None:
            given, encode, view = images, self.encode_images, 3
        if isinstance(given, torch.Tensor) and given.ndim == view + 1:
            return list(encode(given))
        views = [image if image.ndim == view + 1 else image.unsqueeze(0) for image in given]
        if not views:
            return []
        encoded = encode(torch.cat(views)).split([len(image) for image in views])
        sizes = image_sizes if image_sizes is not None else [None] * len(views)
        tiling = self.tiling
        return [tiling.join(*pair, self.image_newline) for pair in zip(encoded, sizes, strict=True)]
