"""Bunny's conversation templates: Vicuna's with the language model's end token (upstream: bunny/conversation.py)."""

import dataclasses

from llava.conversation import Conversation, SeparatorStyle, TemplateError, get_template  # noqa: F401
from llava.conversation import conv_templates as _all_templates

_bunny = dataclasses.replace(_all_templates["vicuna_v1"], sep2="<|endoftext|>", version="bunny")

conv_templates: dict[str, Conversation] = {
    "bunny": _bunny,
    "phi3": dataclasses.replace(_bunny, version="phi3"),
    "minicpm": dataclasses.replace(_bunny, sep2="</s>", version="minicpm"),
    "llama": dataclasses.replace(_bunny, sep2="<|end_of_text|>", version="llama"),
}
_all_templates.update(conv_templates)

# Further names of upstream's bunny.conversation; "default" is another template in llava.
conv_templates = conv_templates | {"default": _bunny, "plain": _all_templates["plain"]}
default_conversation = _bunny
