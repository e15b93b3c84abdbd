"""The one table of backbones. Whatever must know a backbone asks here; no name or path is ever parsed."""

import importlib
from dataclasses import dataclass
from typing import Any

from llava.conversation import answering_template


class UnknownFamilyError(ValueError):
    """A config whose model_type no family knows."""


@dataclass(frozen=True)
class ModelFamily:
    """What the stack must know about a backbone.

    Attributes:
        model_type: `model_type` in the config.json of a vision-language checkpoint.
        backbone_type: `model_type` of the plain language model that it is built on.
        package: the package whose entry points train it, "llava" or "bunny". It decides between two families on one
            backbone, such as llava_llama and bunny-llama.
        config_class, model_class: where the classes live, as "module:name".
        layer_path: attribute path of the decoder layers in the model.
        template: conversation template of checkpoints that do not say theirs.
        vision_tower: the tower that published recipes use.
        box_frame: what boxes in its training data are shares of: the image "padded" to a square, or the "original" one.
        aliases: older values of model_type that mean this family.
    """

    model_type: str
    backbone_type: str
    package: str
    config_class: str
    model_class: str
    layer_path: str
    template: str
    vision_tower: str
    box_frame: str = "padded"
    aliases: tuple[str, ...] = ()

    def load_config_class(self) -> Any:
        return load_class(self.config_class)

    def load_model_class(self) -> Any:
        return load_class(self.model_class)


def load_class(reference: str) -> Any:
    """The class that "module:name" means; imported only now."""
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


_CLIP = "openai/clip-vit-large-patch14-336"
_SIGLIP = "google/siglip-so400m-patch14-384"


def _llava(name: str, backbone: str, classes: str, template: str, aliases: tuple[str, ...] = ()) -> ModelFamily:
    module = f"llava.model.language_model.llava_{name}"
    config, model = (f"{module}:{name}" for name in classes.split())
    return ModelFamily(
        f"llava_{name}", backbone, "llava", config, model, "model.layers", template, _CLIP, aliases=aliases
    )


def _bunny(name: str, backbone: str, class_name: str, template: str) -> ModelFamily:
    module = f"bunny.model.language_model.bunny_{name}"
    config, model = f"{module}:{class_name}Config", f"{module}:{class_name}ForCausalLM"
    return ModelFamily(
        f"bunny-{name}", backbone, "bunny", config, model, "model.layers", template, _SIGLIP, box_frame="original"
    )


FAMILIES: dict[str, ModelFamily] = {
    family.model_type: family
    for family in (
        # Released LLaVA-1.5 folders carry the name that transformers later took for its own class.
        _llava("llama", "llama", "LlavaConfig LlavaLlamaForCausalLM", "vicuna_v1", aliases=("llava",)),
        _llava("mistral", "mistral", "LlavaMistralConfig LlavaMistralForCausalLM", "mistral_instruct"),
        _bunny("llama", "llama", "BunnyLlama", "llama"),
        _bunny("phi3", "phi3", "BunnyPhi3", "phi3"),
        _bunny("phi", "phi", "BunnyPhi", "bunny"),
        _bunny("qwen2", "qwen2", "BunnyQwen2", "bunny"),
        _bunny("stablelm", "stablelm", "BunnyStableLM", "bunny"),
    )
}

_UNSUPPORTED = {
    name: "MiniCPM runs code that its repository brings along; it is not supported"
    for name in ("minicpm", "bunny-minicpm")
}
"""Families of upstream that are left out, and why."""


def family_of(config: Any, package: str | None = None) -> ModelFamily:
    """The family of a config (an object or a dict), by its model_type: a checkpoint's, or a backbone's.

    Args:
        package: "llava" or "bunny", where a plain backbone is to become a model of that package; a checkpoint's own
            model_type decides by itself. Default: the first family of the table on that backbone.

    Raises:
        UnknownFamilyError: names what is known, or the package that has this backbone.
    """
    model_type = config.get("model_type") if isinstance(config, dict) else config.model_type
    for family in FAMILIES.values():
        if model_type in (family.model_type, *family.aliases):
            return family
    on_backbone = [family for family in FAMILIES.values() if family.backbone_type == model_type]
    for family in on_backbone:
        if package in (None, family.package):
            return family
    if on_backbone:
        other = on_backbone[0].package
        raise UnknownFamilyError(
            f"{package} has no model on the backbone {model_type!r}; {other} has: use {other}/train/train.py"
        )
    if model_type in _UNSUPPORTED:
        raise UnknownFamilyError(f"model_type {model_type!r}: {_UNSUPPORTED[model_type]}")
    known = ", ".join(f"{f.model_type} (on {f.backbone_type})" for f in FAMILIES.values())
    raise UnknownFamilyError(f"model_type {model_type!r} is not supported; supported: {known}")


def template_of_config(config: Any) -> str:
    """The name of the template that a checkpoint is answered in: the recorded one, else its family's.

    Args:
        config: an object or a dict, as `family_of` takes it.
    """
    recorded = (config if isinstance(config, dict) else vars(config)).get("conversation_template")
    return answering_template(recorded, family_of(config).template)
