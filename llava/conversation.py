"""Conversation templates as data, and their renderers.

A conversation renders to segments of text that are supervised (an answer with its end token) or not. Prompt and labels
both follow from the segments. Another package adds its templates to `conv_templates` when it is imported
(llava/plugins.py).
"""

import dataclasses
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from llava.names import close, did_you_mean
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
        roles: names of the human and of the assistant in the text.
        sep, sep2: separators; sep2 ends an assistant's turn in the styles TWO and LLAMA_2.
        version: upstream's name of the masking rule.
        messages: `[role, text]` pairs; a text of None or "" leaves the turn open for generation.
        offset: the number of leading messages that belong to the template.
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
        """The end of an assistant's turn; None for captions."""
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
        """The whole text; the last turn stays open if its message is None."""
        return "".join(segment.text for segment in self.segments())

    def segments(self) -> list[Segment]:
        """The text in pieces; assistant turns, with their end token, are supervised."""
        return _RENDERERS[self.sep_style](self)


def _render_named(conv: Conversation) -> list[Segment]:
    segments = [Segment(conv.system + conv.sep, False)]
    end = conv.sep2 if conv.sep_style is SeparatorStyle.TWO else conv.sep
    for role, text in conv.messages:
        if not text:
            segments.append(Segment(f"{role}:", False))
        elif role == conv.roles[1]:
            # The blank belongs to the answer: it is part of the first word's token.
            segments += [Segment(f"{role}:", False), Segment(f" {text}{end}", True)]
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
            if i and not text:
                # As upstream: such a turn leaves no trace. It refuses an empty first turn, which here keeps its frame.
                continue
            if i == 0 and conv.system:
                text = f"<<SYS>>\n{conv.system}\n<</SYS>>\n\n{text}"
            # The tokenizer adds the first bos.
            bos = conv.sep if i else ""
            segments.append(Segment(f"{bos}[INST] {text} [/INST]", False))
        elif text:
            segments.append(Segment(f" {text} {conv.sep2}", True))
    return segments


def _render_plain(conv: Conversation) -> list[Segment]:
    segments: list[Segment] = []
    for i, (_, text) in enumerate(conv.messages):
        # An empty caption is trained too, as upstream's: its line break.
        if text is not None:
            segments.append(Segment(text if i % 2 == 0 else text + conv.sep, i % 2 == 1))
    return segments


_RENDERERS = {
    SeparatorStyle.TWO: _render_named,
    SeparatorStyle.SINGLE: _render_named,
    SeparatorStyle.MPT: _render_mpt,
    SeparatorStyle.LLAMA_2: _render_llama_2,
    SeparatorStyle.PLAIN: _render_plain,
}

# System prompts and separators must be exactly those of published checkpoints.
_USER_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_HUMAN_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_MMTAG_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language."
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)
_LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
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
    # ChatML of current instruction models: a line break after the end token, no system turn.
    "chatml": Conversation("", _CHATML_ROLES, SeparatorStyle.MPT, "<|im_end|>\n", version="chatml"),
    "plain": _plain,
    "v0_plain": _plain,
}

default_conversation = conv_templates["vicuna_v1"]

OWN_TEMPLATE = "tokenizer's own"
"""In records: the chat template that the tokenizer of a plain language model brings along."""


class TemplateError(ValueError):
    """A template that does not exist or does not fit the tokenizer."""


def known_templates() -> dict[str, Conversation]:
    """All templates by name, including those of other packages."""
    load_plugins()
    return conv_templates


def get_template(name: str) -> Conversation:
    """A copy of the template; raises `TemplateError` for an unknown name."""
    templates = known_templates()
    if name not in templates:
        hint = did_you_mean(*close(name, templates))
        raise TemplateError(f"unknown conversation template {name!r}; known: {', '.join(templates)}{hint}")
    return templates[name].copy()


def answering_template(recorded: str | None, default: str) -> str:
    """The recorded template's name, or `default` if it is unknown or for captions."""
    known = known_templates()
    return recorded if recorded in known and known[recorded].sep_style is not SeparatorStyle.PLAIN else default
