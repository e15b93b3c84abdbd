"""Text without images, on any checkpoint of this stack: a tower is neither loaded nor run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.conversation import Conversation
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.model.builder import load_pretrained_model


def load_text_model(
    model_path: str, model_base: str | None = None, dtype: torch.dtype | None = None, device: str = "cuda"
) -> tuple[PreTrainedTokenizerBase, Any, int]:
    """A checkpoint, or a plain backbone, without its tower and projector: `(tokenizer, model, context_len)`.

    Args:
        dtype, device: as `load_pretrained_model` takes them.
    """
    tokenizer, model, _, context = load_pretrained_model(
        model_path, model_base, dtype=dtype, device=device, text_only=True
    )
    return tokenizer, model, context


def generate_texts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    generation: Generation,
    template: Conversation | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[str]:
    """What the model says to each prompt, in their order; stripped, cut before a stop string.

    Args:
        generation: new tokens, temperature, stop strings.
        template: the conversation to put each prompt into; None gives the prompt as it is (bos added where the
            tokenizer does so).
        batch_size: prompts at once; None chooses.
    """
    texts: list[str | None] = [None] * len(prompts)
    for place, text in iterate_texts(model, tokenizer, prompts, generation, template, batch_size, progress):
        texts[place] = text
    return texts


def iterate_texts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    generation: Generation,
    template: Conversation | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Iterator[tuple[int, str]]:
    """As `generate_texts`, as they come: `(place of the prompt, text)`, so that a caller can keep them at once."""
    answerer = Answerer(model, tokenizer, None, template, Path(), generation)
    questions = [Question(i, i, prompt, None) for i, prompt in enumerate(prompts)]
    bar = tqdm(total=len(prompts), desc="texts", unit="prompt", disable=not progress)
    for batch in answerer.batches(questions, batch_size):
        yield from zip(batch.rows, answerer.answer([questions[i] for i in batch.rows], batch.prompts), strict=True)
        bar.update(len(batch.rows))
    bar.close()
