"""Bunny's conversation templates (upstream: bunny/conversation.py), in llava's machinery.

All are Vicuna's words with the end token of the language model. Text and labels follow from llava's segments; whether
a tokenizer puts bos in front is seen at run time, so that no template depends on it.
"""

import dataclasses

from llava.conversation import Conversation, SeparatorStyle, TemplateError, get_template
from llava.conversation import conv_templates as _all_templates

_bunny = dataclasses.replace(_all_templates["vicuna_v1"], sep2="<|endoftext|>", version="bunny")

conv_templates: dict[str, Conversation] = {
    "bunny": _bunny,
    "phi3": dataclasses.replace(_bunny, version="phi3"),
    "minicpm": dataclasses.replace(_bunny, sep2="</s>", version="minicpm"),
    "llama": dataclasses.replace(_bunny, sep2="<|end_of_text|>", version="llama"),
}
_all_templates.update(conv_templates)

# Names that upstream's bunny.conversation offers besides; llava's "default" is another template.
conv_templates = conv_templates | {"default": _bunny, "plain": _all_templates["plain"]}
default_conversation = _bunny

__all__ = [
    "Conversation",
    "SeparatorStyle",
    "TemplateError",
    "conv_templates",
    "default_conversation",
    "get_template",
]
