"""The one table of backbones. All that depends on the backbone is looked up here; no name or path is ever parsed.

llava's own families are rows below. Another package registers its families (`register_family`) when it is imported, and
is found through llava/plugins.py: nothing in llava names it, and llava works without it. A row holds no class:
transformers' registry (AutoConfig, AutoModelForCausalLM) has them by model_type, once the row's module is imported.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from llava.conversation import answering_template
from llava.plugins import load_plugins


class UnknownFamilyError(ValueError):
    """A config whose model_type no family knows."""


@dataclass(frozen=True)
class ModelFamily:
    """What the stack must know about a backbone.

    Attributes:
        model_type: `model_type` in the config.json of a vision-language checkpoint.
        backbone_type: `model_type` of the plain language model that it is built on.
        package: the package whose entry points train it: "llava", unless it brings a train.py of its own. It decides
            between two families on one backbone, such as llava_llama and bunny-llama.
        module: the package's module that registers the config class and the model class with transformers.
        template: conversation template of checkpoints that do not record theirs.
        vision_tower: the tower that published recipes use.
        box_frame: what boxes in its training data are fractions of: the image "padded" to a square, or the "original"
            one.
        aliases: older values of model_type that mean this family.
        layer_path: attribute path of the decoder layers in the model.
    """

    model_type: str
    backbone_type: str
    package: str
    module: str
    template: str
    vision_tower: str
    box_frame: str = "padded"
    aliases: tuple[str, ...] = ()
    layer_path: str = "model.layers"

    def load_config_class(self) -> Any:
        """The config class. Imports torch and transformers, which looking up a row does not need."""
        importlib.import_module(self.module)
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        return CONFIG_MAPPING[self.model_type]

    def load_model_class(self) -> Any:
        """The model class; as slow to import as `load_config_class`."""
        config_class = self.load_config_class()
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        return MODEL_FOR_CAUSAL_LM_MAPPING[config_class]


FAMILIES: dict[str, ModelFamily] = {}
"""The families that are registered so far, by model_type. `known_families` has those of all packages."""
UNSUPPORTED: dict[str, str] = {}
"""Values of model_type that a package leaves out knowingly, and why."""


def register_family(family: ModelFamily) -> None:
    """Adds a row to the table.

    Raises:
        ValueError: its model_type is another family's.
    """
    if FAMILIES.setdefault(family.model_type, family) != family:
        raise ValueError(f"two families have the model_type {family.model_type!r}")


_CLIP = "openai/clip-vit-large-patch14-336"
_MODELS = "llava.model.language_model"
for _family in (
    # Released LLaVA-1.5 folders carry the name that transformers later took for its own class.
    ModelFamily("llava_llama", "llama", "llava", f"{_MODELS}.llava_llama", "vicuna_v1", _CLIP, aliases=("llava",)),
    ModelFamily("llava_mistral", "mistral", "llava", f"{_MODELS}.llava_mistral", "mistral_instruct", _CLIP),
):
    register_family(_family)


def known_families() -> dict[str, ModelFamily]:
    """All families by model_type, those of the other packages too."""
    load_plugins()
    return FAMILIES


def family_of(config: Any, package: str | None = None) -> ModelFamily:
    """The family of a config (an object or a dict), by its model_type: a checkpoint's, or a backbone's.

    Args:
        package: for a plain backbone, the package whose model it is to become; a checkpoint's own model_type decides
            by itself. Default: the first family of the table on that backbone.

    Raises:
        UnknownFamilyError: names what is known, the package that has this backbone, or packages that are not here.
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
    absent = "".join(f"; the package {name} is not here ({why})" for name, why in load_plugins().items())
    raise UnknownFamilyError(f"model_type {model_type!r} is not supported; supported: {known}{absent}")


def template_of_config(config: Any) -> str:
    """The name of the template that a checkpoint is answered in: the recorded one, else its family's.

    Args:
        config: an object or a dict, as `family_of` takes it.
    """
    recorded = (config if isinstance(config, dict) else vars(config)).get("conversation_template")
    return answering_template(recorded, family_of(config).template)
