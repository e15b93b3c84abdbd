"""Answers of one or two checkpoints to a question, with their speed and their attention to the picture."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from llava.checkpoint.card import describe_layers
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint
from llava.conversation import Conversation, get_template
from llava.dtypes import dtype_of
from llava.eval.answering.answerer import Generation
from llava.eval.answering.arguments import check_questions_template
from llava.model.builder import load_checkpoint
from llava.names import count, short_paths
from llava.serve.chat import ChatSession, Pace
from llava.serve.images import load_image
from visual_region.page.attention import AttentionMaps, attention_maps

MISTAKES = (ValueError, OSError, torch.OutOfMemoryError)
"""What is shown in the page as a message."""
MOST_TOKENS = 1024


class PageError(ValueError):
    """Input of the page that cannot be used; the message says what to give instead."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, its model, and its name in the page."""

    name: str
    checkpoint: Checkpoint
    tokenizer: Any
    model: Any
    processor: Any
    template: Conversation

    @property
    def about(self) -> str:
        """The record of its layers, as Markdown."""
        record = self.checkpoint.record
        lines = describe_layers(record) or ["Nothing is recorded about its layers."]
        return "  \n".join([f"{count(record.depth, 'layer')}, {self.checkpoint.kind.value}.", *lines])


@dataclass(frozen=True)
class Reply:
    """An answer so far, a line about it, and the maps after its end."""

    text: str = ""
    note: str = ""
    maps: AttentionMaps | None = None


def open_all(args: argparse.Namespace) -> list[Checkpoint]:
    """The checkpoints of --model-path and --compare, with all checks that need no weights.

    Raises:
        PageError: one or both cannot be used.
    """
    flags = [("--model-path", args.model_path, args.model_base), ("--compare", args.compare, args.compare_base)]
    found, wrong = [], []
    for flag, path, base in flags:
        if path:
            try:
                found.append(open_checkpoint(path, base, flag=flag))
                check_questions_template(args.conv_mode or found[-1].template, found[-1])
            except (ValueError, OSError) as error:
                wrong.append(f"{flag}: {error}")
    if wrong:
        raise PageError("; ".join(wrong))
    return found


def load_all(checkpoints: Sequence[Checkpoint], args: argparse.Namespace) -> list[Loaded]:
    """The models. Each is loaded whole: a LoRA is merged into its own copy of the base."""
    names = short_paths([str(checkpoint.path) for checkpoint in checkpoints])
    loaded = []
    for checkpoint in checkpoints:
        print(f"loading {checkpoint.name}", flush=True)
        tokenizer, model, processor, _ = load_checkpoint(
            checkpoint, device=args.device, dtype=dtype_of(args.dtype), vision_tower=args.vision_tower
        )
        template = get_template(args.conv_mode or checkpoint.template)
        name = names[str(checkpoint.path)]
        loaded.append(Loaded(name, checkpoint, tokenizer, model, processor, template))
    return loaded


def ask_all(
    models: Sequence[Loaded], image_file: str | None, question: str, max_new_tokens: float | None, temperature: float
) -> Iterator[list[Reply]]:
    """Yields the replies of all models as they grow, one model after another, so that each has the whole machine.

    A question is a conversation of its own: nothing is remembered. Raises `PageError` for wrong input; what fails in
    one model is the note of its reply.
    """
    if not (question or "").strip():
        raise PageError("type a question first")
    if not max_new_tokens or not 1 <= max_new_tokens <= MOST_TOKENS:
        raise PageError(f"the longest answer is a whole number of tokens from 1 to {MOST_TOKENS}")
    try:
        images = [load_image(image_file)] if image_file else []
    except ValueError as error:
        raise PageError(str(error)) from error
    generation = Generation(int(max_new_tokens), float(temperature))
    replies = [Reply(note="waiting") for _ in models]
    for place, loaded in enumerate(models):
        replies[place] = Reply(note="reading the prompt")
        yield list(replies)
        try:
            for replies[place] in _ask(loaded, images, question.strip(), generation):
                yield list(replies)
        except MISTAKES as error:
            replies[place] = replace(replies[place], note=f"**Error:** {error}")
            yield list(replies)


def _ask(loaded: Loaded, images: Sequence[Image.Image], question: str, generation: Generation) -> Iterator[Reply]:
    session = ChatSession(loaded.model, loaded.tokenizer, loaded.processor, loaded.template, images, generation)
    said = ""
    for piece in session.ask(question):
        said += piece
        yield Reply(said.strip(), "answering")
    note = _pace_line(session.pace)
    yield Reply(said.strip(), note)
    if not images:
        return
    # A new session, as the first one has its question behind it; its speed was measured without this.
    session = ChatSession(loaded.model, loaded.tokenizer, loaded.processor, loaded.template, images, generation)
    path, original = loaded.checkpoint.family.layer_path, loaded.checkpoint.record.original
    try:
        maps = attention_maps(session, loaded.processor, path, question, original)
    except ValueError as error:
        yield Reply(said.strip(), f"{note}. No attention map: {error}")
    else:
        yield Reply(said.strip(), note, maps)


def _pace_line(pace: Pace | None) -> str:
    if pace is None:
        return "no token"
    rate = "" if pace.rate is None else f", then {pace.rate:.1f} tokens/s"
    return f"{count(pace.tokens, 'token')}; first token after {pace.first:.2f} s{rate}"
