"""The one table of backbones. Whatever must know a backbone asks here; no name or path is ever parsed."""

import importlib
from dataclasses import dataclass
from typing import Any


class UnknownFamilyError(ValueError):
    """A config whose model_type no family knows."""


@dataclass(frozen=True)
class ModelFamily:
    """What the stack must know about a backbone.

    Attributes:
        model_type: `model_type` in the config.json of a vision-language checkpoint.
        backbone_type: `model_type` of the plain language model that it is built on.
        config_class, model_class: where the classes live, as "module:name".
        layer_path: attribute path of the decoder layers in the model.
        template: conversation template of checkpoints that do not say theirs.
        vision_tower: the tower that published recipes use.
        box_frame: what boxes in its training data are shares of: the image "padded" to a square, or the "original" one.
        aliases: older values of model_type that mean this family.
    """

    model_type: str
    backbone_type: str
    config_class: str
    model_class: str
    layer_path: str
    template: str
    vision_tower: str
    box_frame: str = "padded"
    aliases: tuple[str, ...] = ()

    def load_config_class(self) -> Any:
        return _load(self.config_class)

    def load_model_class(self) -> Any:
        return _load(self.model_class)


def _load(reference: str) -> Any:
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


FAMILIES: dict[str, ModelFamily] = {
    family.model_type: family
    for family in (
        ModelFamily(
            model_type="llava_llama",
            backbone_type="llama",
            config_class="llava.model.language_model.llava_llama:LlavaConfig",
            model_class="llava.model.language_model.llava_llama:LlavaLlamaForCausalLM",
            layer_path="model.layers",
            template="vicuna_v1",
            vision_tower="openai/clip-vit-large-patch14-336",
            # Released LLaVA-1.5 folders carry the name that transformers later took for its own class.
            aliases=("llava",),
        ),
    )
}


def family_of(config: Any) -> ModelFamily:
    """The family of a config (an object or a dict), by its model_type: a checkpoint's, or a backbone's.

    Raises:
        UnknownFamilyError: names what is known.
    """
    model_type = config.get("model_type") if isinstance(config, dict) else config.model_type
    for family in FAMILIES.values():
        if model_type in (family.model_type, family.backbone_type, *family.aliases):
            return family
    known = ", ".join(f"{f.model_type} (on {f.backbone_type})" for f in FAMILIES.values())
    raise UnknownFamilyError(f"model_type {model_type!r} is not supported; supported: {known}")
