"""Transformers' own LLaVA (`LlavaForConditionalGeneration` and LLaVA-1.6's `LlavaNext...`, llava-hf) in our terms.

Its text and vision configs are nested, it holds its own tower, and its weights have other names (one layout up to
transformers 4.51, another since).
"""

import re
from typing import Any

from transformers import LlavaConfig as HFLlavaConfig
from transformers import LlavaNextConfig

from llava.checkpoint.record import KEY
from llava.families import STOCK_CLASSES
from llava.tiling import ANYRES, FLAT, SPATIAL_UNPAD, turned

PROJECTOR_TYPE = "mlp2x_gelu"
"""The only projector of transformers' LLaVA (with `projector_hidden_act` "gelu")."""
STRATEGIES = {"patch": "default", "cls_patch": "full"}
"""Our `mm_vision_select_feature` for towers with a class token -> theirs."""
KEY_MAPPING = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
    r"^multi_modal_projector\.linear_1\.": "model.mm_projector.0.",
    r"^multi_modal_projector\.linear_2\.": "model.mm_projector.2.",
    r"^model\.multi_modal_projector\.linear_1\.": "model.mm_projector.0.",
    r"^model\.multi_modal_projector\.linear_2\.": "model.mm_projector.2.",
    r"^vision_tower\.": "model.vision_tower.vision_tower.",
    r"^image_newline$": "model.image_newline",
}
"""Names in either layout -> ours. The newer layout's tower is `model.vision_tower.`; ours has one level more."""
TOWER_PREFIXES = ("vision_tower.", "model.vision_tower.")
CARRIED = (KEY, "conversation_template", "image_aspect_ratio", "max_sequence_length")
"""Our settings that an exported folder keeps in its config.json."""


class HFLlavaError(ValueError):
    """A LLaVA of transformers that our classes cannot express."""


def is_hf_llava(values: dict[str, Any]) -> bool:
    """Whether a config.json is transformers' own: released LLaVA-1.5 folders have the model_type "llava" too."""
    nested = "text_config" in values or "vision_config" in values
    return values.get("model_type") in STOCK_CLASSES and nested


def config_from_hf(values: dict[str, Any], folder: str) -> dict[str, Any]:
    """Our config, as a dict; `model_type` is the text model's and `mm_vision_tower` the folder itself.

    Raises:
        HFLlavaError: several feature layers, or another projector than the two-layer GELU one with bias.
    """
    several = values["model_type"] == "llava_next"
    theirs = (LlavaNextConfig if several else HFLlavaConfig).from_dict(values)
    problems = []
    if not isinstance(theirs.vision_feature_layer, int):
        problems.append(f"vision_feature_layer {theirs.vision_feature_layer} (one layer is supported)")
    if theirs.projector_hidden_act != "gelu":
        problems.append(f"projector_hidden_act {theirs.projector_hidden_act!r} (supported: 'gelu')")
    if not theirs.multimodal_projector_bias:
        problems.append("multimodal_projector_bias false (supported: true)")
    if problems:
        raise HFLlavaError(f"the LLaVA in {folder} cannot be loaded: {'; '.join(problems)}")
    ours = theirs.text_config.to_dict()
    ours.pop("architectures", None)
    ours |= {
        "tie_word_embeddings": theirs.tie_word_embeddings,
        "mm_vision_tower": folder,
        "mm_vision_select_layer": theirs.vision_feature_layer,
        "mm_vision_select_feature": {v: k for k, v in STRATEGIES.items()}[theirs.vision_feature_select_strategy],
        "mm_projector_type": PROJECTOR_TYPE,
        "mm_hidden_size": theirs.vision_config.hidden_size,
        "mm_patch_merge_type": SPATIAL_UNPAD if several else FLAT,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
    }
    if dtype := values.get("torch_dtype") or values.get("dtype"):
        ours["dtype"] = dtype
    if several:
        ours |= {"image_aspect_ratio": ANYRES, "image_grid_pinpoints": turned(theirs.image_grid_pinpoints)}
    return ours | {name: values[name] for name in CARRIED if name in values}


def our_name(name: str) -> str:
    """The name of a weight in our layout, given its name in ours or in either layout of transformers."""
    for pattern, replacement in KEY_MAPPING.items():
        name = re.sub(pattern, replacement, name)
    return name
