"""Bunny's backbones in llava's table (llava/families.py). To add one: a row here and its module."""

from llava.families import UNSUPPORTED, ModelFamily, register_family

_SIGLIP = "google/siglip-so400m-patch14-384"
_TEMPLATES = {"llama": "llama", "phi3": "phi3", "phi": "bunny", "qwen2": "bunny", "stablelm": "bunny"}
"""Backbone -> the conversation template of its checkpoints."""

for _backbone, _template in _TEMPLATES.items():
    _module = f"bunny.model.language_model.bunny_{_backbone}"
    parts = f"bunny-{_backbone}", _backbone, "bunny", _module, _template, _SIGLIP
    register_family(ModelFamily(*parts, fast_tokenizer=True))

for _name in ("minicpm", "bunny-minicpm"):
    UNSUPPORTED[_name] = "MiniCPM runs code that its repository brings along; it is not supported"
