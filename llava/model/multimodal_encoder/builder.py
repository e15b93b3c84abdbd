"""Builds a vision tower; the model_type of its own config decides the class."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from llava.checkpoint.safe import TensorFileError, UntrustedError, check_pickles, without_code
from llava.checkpoint.tensors import weight_files
from llava.families import STOCK_CLASSES
from llava.model.multimodal_encoder.base import VisionTower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower, CLIPVisionTowerS2
from llava.model.multimodal_encoder.efficientnet_encoder import EfficientNetLiteTower
from llava.model.multimodal_encoder.siglip_encoder import SiglipVisionTower, SiglipVisionTowerS2

TOWERS: dict[str, type[VisionTower]] = {
    "clip_vision_model": CLIPVisionTower,
    "clip": CLIPVisionTower,
    "siglip_vision_model": SiglipVisionTower,
    "siglip": SiglipVisionTower,
    "efficientnet_lite": EfficientNetLiteTower,
}
"""`model_type` of a tower's config.json -> class."""
S2_TOWERS: dict[str, type[VisionTower]] = {
    "clip_vision_model": CLIPVisionTowerS2,
    "clip": CLIPVisionTowerS2,
    "siglip_vision_model": SiglipVisionTowerS2,
    "siglip": SiglipVisionTowerS2,
}
"""The same with S2."""


class VisionTowerError(ValueError):
    """A vision tower that cannot be found or is of an unknown kind."""


def build_vision_tower(vision_tower_cfg: Any, delay_load: bool = False, **kwargs: Any) -> VisionTower:
    """The tower of `mm_vision_tower` (or `vision_tower`) in a config or arguments; `delay_load`: a stub."""
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(vision_tower_cfg, "vision_tower", None)
    if not name:
        raise VisionTowerError("no vision tower is named: give --vision_tower a folder or a hub id")
    try:
        config = without_code(AutoConfig.from_pretrained, name)
        check_pickles([file for file in weight_files(Path(name)) if file.suffix == ".bin" and file.is_file()])
    except (UntrustedError, TensorFileError) as error:
        raise VisionTowerError(f"vision tower {error}") from error
    except (OSError, ValueError) as error:
        where = "has no readable config.json" if Path(name).is_dir() else "is neither a folder nor a known hub id"
        if Path(name).is_file():
            where = "is a file; towers are folders of transformers (the EVA-CLIP file of Bunny is not supported)"
        raise VisionTowerError(f"vision tower {name!r} {where} ({str(error).splitlines()[0]})") from error
    inside_llava = config.model_type in STOCK_CLASSES
    config = config.vision_config if inside_llava else config
    towers, what = TOWERS, "vision tower"
    if getattr(vision_tower_cfg, "use_s2", False) or getattr(vision_tower_cfg, "s2", False):
        towers, what = S2_TOWERS, "vision tower with S2"
    if config.model_type not in towers:
        raise VisionTowerError(
            f"{what} {name!r} is of model_type {config.model_type!r}; supported: {', '.join(towers)}"
        )
    tower = towers[config.model_type](name, config, vision_tower_cfg)
    tower.inside_llava = inside_llava
    if not delay_load:
        tower.load_model(**kwargs)
    return tower
