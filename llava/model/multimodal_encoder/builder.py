"""From a tower's folder or hub id to the tower's class, decided by the tower's own config."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from llava.model.multimodal_encoder.base import VisionTower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.efficientnet_encoder import EfficientNetLiteTower

TOWERS: dict[str, type[VisionTower]] = {
    "clip_vision_model": CLIPVisionTower,
    "clip": CLIPVisionTower,
    "efficientnet_lite": EfficientNetLiteTower,
}
"""`model_type` of a tower's config.json -> class."""


class VisionTowerError(ValueError):
    """A vision tower that cannot be found or is of an unknown kind."""


def build_vision_tower(vision_tower_cfg: Any, delay_load: bool = False, **kwargs: Any) -> VisionTower:
    """The tower that `mm_vision_tower` (or `vision_tower`) of a config or of arguments names.

    Args:
        vision_tower_cfg: config of a checkpoint, or the model arguments.
        delay_load: build a stub that knows its sizes; the weights follow with `load_model()`.
    """
    name = getattr(vision_tower_cfg, "mm_vision_tower", None) or getattr(vision_tower_cfg, "vision_tower", None)
    if not name:
        raise VisionTowerError("no vision tower is named: give --vision_tower a folder or a hub id")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        where = "has no readable config.json" if Path(name).is_dir() else "is neither a folder here nor a known hub id"
        raise VisionTowerError(f"vision tower {name!r} {where} ({str(error).splitlines()[0]})") from error
    inside_llava = config.model_type == "llava"
    config = config.vision_config if inside_llava else config
    if config.model_type not in TOWERS:
        raise VisionTowerError(
            f"vision tower {name!r} is of model_type {config.model_type!r}; supported: {', '.join(TOWERS)}"
        )
    tower = TOWERS[config.model_type](name, config, vision_tower_cfg)
    tower.inside_llava = inside_llava
    if not delay_load:
        tower.load_model(**kwargs)
    return tower
