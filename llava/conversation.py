"""Conversation templates as data, and the one renderer that turns them into text.

A conversation renders to segments: pieces of text, each either supervised (what the model learns to say, with its
end token) or not. The prompt is the segments joined; the labels follow from the same segments, so that text and
mask cannot disagree. Another package adds its templates to `conv_templates` when it is imported (llava/plugins.py).
"""

import dataclasses
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from llava.plugins import load_plugins


class SeparatorStyle(Enum):
    """How turns are joined."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()


class Segment(NamedTuple):
    """A piece of a rendered conversation; `supervised` says whether the model is trained to produce it."""

    text: str
    supervised: bool


@dataclass
class Conversation:
    """A template with its messages (upstream: llava/conversation.py, same field names).

    Attributes:
        system: system prompt.
        roles: names of the human and of the assistant, as printed.
        messages: `[role, text]` pairs; a text of None or "" leaves the turn open for generation.
        offset: how many leading messages belong to the template itself.
        sep, sep2: separators; sep2 ends an assistant's turn in the styles TWO and LLAMA_2.
        version: upstream's name of the masking rule.
        stop: the string that ends an assistant's turn; None if the template has none (captions).
    """

    system: str
    roles: tuple[str, str]
    sep_style: SeparatorStyle
    sep: str
    sep2: str | None = None
    version: str = "Unknown"
    messages: list[list[str | None]] = field(default_factory=list)
    offset: int = 0

    @property
    def stop(self) -> str | None:
        if self.sep_style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2):
            return self.sep2
        if self.sep_style is SeparatorStyle.PLAIN:
            return None
        return self.sep.rstrip("\n")

    def append_message(self, role: str, message: str | None) -> None:
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        return dataclasses.replace(self, messages=[list(message) for message in self.messages])

    def get_prompt(self) -> str:
        """The whole text; it ends open, ready for generation, if the last message is None."""
        return "".join(segment.text for segment in self.segments())

    def segments(self) -> list[Segment]:
        """The text in pieces, in order. Assistant turns, with the token that ends them, are supervised."""
        return _RENDERERS[self.sep_style](self)


def _render_two(conv: Conversation) -> list[Segment]:
    segments = [Segment(conv.system + conv.sep, False)]
    for role, text in conv.messages:
        if not text:
            segments.append(Segment(f"{role}:", False))
        elif role == conv.roles[1]:
            # The blank belongs to the answer: tokenizers glue it to the first word that the model has to say.
            segments += [Segment(f"{role}:", False), Segment(f" {text}{conv.sep2}", True)]
        else:
            segments.append(Segment(f"{role}: {text}{conv.sep}", False))
    return segments


def _render_single(conv: Conversation) -> list[Segment]:
    segments = [Segment(conv.system + conv.sep, False)]
    for role, text in conv.messages:
        if not text:
            segments.append(Segment(f"{role}:", False))
        elif role == conv.roles[1]:
            segments += [Segment(f"{role}:", False), Segment(f" {text}{conv.sep}", True)]
        else:
            segments.append(Segment(f"{role}: {text}{conv.sep}", False))
    return segments


def _render_mpt(conv: Conversation) -> list[Segment]:
    segments = [Segment(conv.system + conv.sep, False)] if conv.system else []
    after_stop = conv.sep[len(conv.sep.rstrip("\n")) :]
    for role, text in conv.messages:
        if not text:
            segments.append(Segment(role, False))
        elif role == conv.roles[1]:
            segments += [Segment(role, False), Segment(f"{text}{conv.stop}", True)]
            if after_stop:
                segments.append(Segment(after_stop, False))
        else:
            segments.append(Segment(f"{role}{text}{conv.sep}", False))
    return segments


def _render_llama_2(conv: Conversation) -> list[Segment]:
    segments: list[Segment] = []
    for i, (role, text) in enumerate(conv.messages):
        if i == 0 and role != conv.roles[0]:
            raise ValueError("a Llama-2 conversation starts with the human's turn")
        if role == conv.roles[0]:
            if i == 0 and conv.system:
                text = f"<<SYS>>\n{conv.system}\n<</SYS>>\n\n{text}"
            # The tokenizer supplies the first bos; the later ones are part of the text.
            bos = conv.sep if i else ""
            segments.append(Segment(f"{bos}[INST] {text} [/INST]", False))
        elif text:
            segments.append(Segment(f" {text} {conv.sep2}", True))
    return segments


def _render_plain(conv: Conversation) -> list[Segment]:
    segments: list[Segment] = []
    for i, (_, text) in enumerate(conv.messages):
        if text:
            segments.append(Segment(text if i % 2 == 0 else text + conv.sep, i % 2 == 1))
    return segments


_RENDERERS = {
    SeparatorStyle.TWO: _render_two,
    SeparatorStyle.SINGLE: _render_single,
    SeparatorStyle.MPT: _render_mpt,
    SeparatorStyle.LLAMA_2: _render_llama_2,
    SeparatorStyle.PLAIN: _render_plain,
}

# System prompts and separators are the wire format of published checkpoints and are kept to the character.
_USER_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_HUMAN_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_MMTAG_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant is able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)
_LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_MPT_SYSTEM = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers."
)
_CHATML_ROLES = ("<|im_start|>user\n", "<|im_start|>assistant\n")

_vicuna = Conversation(_USER_SYSTEM, ("USER", "ASSISTANT"), SeparatorStyle.TWO, " ", "</s>", "v1")
_llava_v0 = Conversation(_HUMAN_SYSTEM, ("Human", "Assistant"), SeparatorStyle.SINGLE, "###")
_plain = Conversation("", ("", ""), SeparatorStyle.PLAIN, "\n")
_chatml_direct = Conversation(
    "<|im_start|>system\nAnswer the questions.", _CHATML_ROLES, SeparatorStyle.MPT, "<|im_end|>", version="mpt"
)

conv_templates: dict[str, Conversation] = {
    "v1": _vicuna,
    "vicuna_v1": _vicuna,
    "llava_v1": dataclasses.replace(_vicuna, system=_HUMAN_SYSTEM),
    "v1_mmtag": dataclasses.replace(_vicuna, system=_MMTAG_SYSTEM, version="v1_mmtag"),
    "llava_v0": _llava_v0,
    "v0_mmtag": dataclasses.replace(_llava_v0, system=_MMTAG_SYSTEM, version="v0_mmtag"),
    "llava_llama_2": Conversation(
        _LLAMA_2_SYSTEM, ("USER", "ASSISTANT"), SeparatorStyle.LLAMA_2, "<s>", "</s>", "llama_v2"
    ),
    "mistral_instruct": Conversation("", ("USER", "ASSISTANT"), SeparatorStyle.LLAMA_2, "", "</s>", "llama_v2"),
    "mpt": Conversation(_MPT_SYSTEM, _CHATML_ROLES, SeparatorStyle.MPT, "<|im_end|>", version="mpt"),
    "chatml_direct": _chatml_direct,
    "mistral_direct": _chatml_direct,
    # ChatML as today's instruction models are trained on it: a line break after the end token, no system turn.
    "chatml": Conversation("", _CHATML_ROLES, SeparatorStyle.MPT, "<|im_end|>\n", version="chatml"),
    "plain": _plain,
    "v0_plain": _plain,
}

default_conversation = conv_templates["vicuna_v1"]


class TemplateError(ValueError):
    """A template that does not exist or does not fit the tokenizer."""


def known_templates() -> dict[str, Conversation]:
    """All templates by name, those of the other packages too."""
    load_plugins()
    return conv_templates


def get_template(name: str) -> Conversation:
    """A fresh copy of the template; raises `TemplateError` that lists the names for an unknown one."""
    templates = known_templates()
    if name not in templates:
        raise TemplateError(f"unknown conversation template {name!r}; known: {', '.join(templates)}")
    return templates[name].copy()


def answering_template(recorded: str | None, default: str) -> str:
    """The name of the template to answer in.

    Args:
        recorded: what training wrote into the config (`conversation_template`); one for captions holds no answers.
        default: the family's, if nothing usable is recorded.
    """
    known = known_templates()
    return recorded if recorded in known and known[recorded].sep_style is not SeparatorStyle.PLAIN else default
