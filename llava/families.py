"""The table of backbones.

Another package registers its families (`register_family`) when it is imported, and is found through llava/plugins.py.
A row holds no class: once its module is imported, transformers' registry has its classes by model_type.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from llava.conversation import answering_template
from llava.plugins import load_plugins


class UnknownFamilyError(ValueError):
    """A config with an unsupported model_type."""


@dataclass(frozen=True)
class ModelFamily:
    """A backbone.

    Attributes:
        model_type: of a vision-language checkpoint.
        backbone_type: `model_type` of the plain language model.
        package: the package that trains it.
        module: registers its config class and model class with transformers.
        template: conversation template of checkpoints that do not record theirs.
        vision_tower: the tower of published recipes.
        fast_tokenizer: upstream uses tokenizer.json as it is, instead of the slow tokenizer.
        aliases: older values of model_type.
        layer_path: attribute path of the decoder layers.
    """

    model_type: str
    backbone_type: str
    package: str
    module: str
    template: str
    vision_tower: str
    fast_tokenizer: bool = False
    aliases: tuple[str, ...] = ()
    layer_path: str = "model.layers"

    def load_config_class(self) -> Any:
        """The config class; imports torch and transformers."""
        importlib.import_module(self.module)
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        return CONFIG_MAPPING[self.model_type]

    def load_model_class(self) -> Any:
        config_class = self.load_config_class()
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        return MODEL_FOR_CAUSAL_LM_MAPPING[config_class]


FAMILIES: dict[str, ModelFamily] = {}
"""The registered families by model_type; `known_families` returns those of all packages."""
STOCK_CLASSES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}
"""transformers' own classes for a whole LLaVA, by model_type; their text and vision configs are nested."""
UNSUPPORTED: dict[str, str] = {
    "llava_onevision": "LLaVA-OneVision shrinks the tokens of its views, which is not supported; LLaVA-1.5 and 1.6 are"
}
"""Values of model_type that are known and not supported, and why."""


def register_family(family: ModelFamily) -> None:
    """Adds a row to the table; raises `ValueError` if another family has its model_type."""
    if FAMILIES.setdefault(family.model_type, family) != family:
        raise ValueError(f"two families have the model_type {family.model_type!r}")


_CLIP = "openai/clip-vit-large-patch14-336"
_MODELS = "llava.model.language_model"
for _family in (
    # Released LLaVA-1.5 folders have a model_type that transformers later used for its own class.
    ModelFamily("llava_llama", "llama", "llava", f"{_MODELS}.llava_llama", "vicuna_v1", _CLIP, aliases=("llava",)),
    ModelFamily("llava_mistral", "mistral", "llava", f"{_MODELS}.llava_mistral", "mistral_instruct", _CLIP),
):
    register_family(_family)


def known_families() -> dict[str, ModelFamily]:
    """All families by model_type, including those of other packages."""
    load_plugins()
    return FAMILIES


def family_of(config: Any, package: str | None = None) -> ModelFamily:
    """The family of a config (an object or a dict), of a checkpoint or of a plain backbone.

    Args:
        package: for a plain backbone, the package of the wanted family; default: the first one in the table.

    Raises:
        UnknownFamilyError: names the supported values, and the packages that are missing.
    """
    model_type = config.get("model_type") if isinstance(config, dict) else config.model_type
    families = known_families().values()
    for family in families:
        if model_type in (family.model_type, *family.aliases):
            return family
    on_backbone = [family for family in families if family.backbone_type == model_type]
    for family in on_backbone:
        if package in (None, family.package):
            return family
    if on_backbone:
        other = on_backbone[0].package
        raise UnknownFamilyError(
            f"{package} has no model on the backbone {model_type!r}; {other} has: use {other}/train/train.py"
        )
    if model_type in UNSUPPORTED:
        raise UnknownFamilyError(f"model_type {model_type!r}: {UNSUPPORTED[model_type]}")
    known = ", ".join(f"{f.model_type} (on {f.backbone_type})" for f in families)
    absent = "".join(f"; the package {name} is missing ({why})" for name, why in load_plugins().items())
    raise UnknownFamilyError(f"model_type {model_type!r} is not supported; supported: {known}{absent}")


def template_of_config(config: Any) -> str:
    """The name of a checkpoint's template: the recorded one, else its family's. `config`: as in `family_of`."""
    recorded = (config if isinstance(config, dict) else vars(config)).get("conversation_template")
    return answering_template(recorded, family_of(config).template)
