"""A conversation to ids and labels (upstream: the preprocess functions of llava/train/train.py)."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import Conversation, Segment, SeparatorStyle
from llava.mm_utils import image_mark
from llava.tokenization import encode_segments

_LAST = "### "
"""The end of a text in the templates with "###"."""


def collect_images(turn: str, template: Conversation, several: bool = False, mm_use_im_start_end: bool = False) -> str:
    """Moves the turn's `<image>` to its beginning, each on its own line.

    Args:
        several: the sample has several images; else all `<image>` of a turn become one (upstream's rule).
    """
    count = turn.count(DEFAULT_IMAGE_TOKEN)
    if not count:
        return turn
    mark = DEFAULT_IMAGE_TOKEN
    if "mmtag" in template.version:
        mark = f"<Image>{mark}</Image>"
    mark = image_mark(mm_use_im_start_end, mark)
    text = turn.replace(DEFAULT_IMAGE_TOKEN, "").strip()
    return (f"{mark}\n" * (count if several else 1) + text).strip()


def build_conversation(turns: Sequence[str], template: Conversation) -> Conversation:
    """The template filled with turns that alternate human, gpt, ...

    A caption template takes the image mark and the caption only, without the human's text, as upstream does.
    """
    conversation = template.copy()
    if template.sep_style is SeparatorStyle.PLAIN:
        if len(turns) != 2 or DEFAULT_IMAGE_TOKEN not in turns[0]:
            raise ValueError(
                "the template 'plain' trains captions: it needs exactly two turns with <image> in the first, "
                f"not {len(turns)} turns beginning {turns[0][:40]!r}"
            )
        turns = (DEFAULT_IMAGE_TOKEN * turns[0].count(DEFAULT_IMAGE_TOKEN), turns[1])
    for i, text in enumerate(turns):
        conversation.append_message(template.roles[i % 2], text)
    return conversation


def preprocess(
    turns: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: Conversation,
    num_images: int,
    max_length: int | None = None,
    mm_use_im_start_end: bool = False,
    answers_only: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of one sample.

    Args:
        num_images: images of the sample; with 0 an `<image>` in the text is plain text.
        max_length: text-only samples are cut to it, as upstream does; samples with images are cut after their
            features are inserted.
        answers_only: only the assistant's words have labels, also in the templates with "###", where upstream trains
            on parts of headers too. The ids are the same.

    Returns:
        `(input_ids, labels)`, int64 `(length,)`: -200 in the ids for an image, -100 in the labels where nothing is
        trained. The assistant's words and the token that ends its turn are supervised.
    """
    if num_images:
        turns = [collect_images(turn, template, num_images > 1, mm_use_im_start_end) for turn in turns]
    if template.sep_style is SeparatorStyle.SINGLE:
        make = _first_llavas_answers if answers_only else _first_llavas_format
        ids, labels = make(turns, tokenizer, template, split_images=num_images > 0)
    else:
        segments = build_conversation(turns, template).segments()
        ids, labels = encode_segments(segments, tokenizer, split_images=num_images > 0)
    if not num_images and max_length is not None:
        ids, labels = ids[:max_length], labels[:max_length]
    return torch.tensor(ids, dtype=torch.long), torch.tensor(labels, dtype=torch.long)


def _first_llavas_format(
    turns: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: Conversation, split_images: bool
) -> tuple[list[int], list[int]]:
    """What the templates with "###" are trained on: each turn on its own line, after "### role: ".

    The labels are exactly upstream's: everything except the human's words is supervised, with the first two tokens of
    a human's header. Each piece is measured with its own bos, so the mask shifts right by one token per turn.
    """
    header, lines = _first_llavas_lines(turns, template)
    text = header + "".join(head + words for head, words in lines) + _LAST
    ids, labels = encode_segments([Segment(text, True)], tokenizer, split_images)
    start = len(encode_segments([Segment(header, False)], tokenizer, split_images)[0])
    labels[:start] = [IGNORE_INDEX] * start
    for i, line in enumerate(lines):
        length = len(encode_segments([Segment("".join(line), False)], tokenizer, split_images)[0])
        if i % 2 == 0:
            for position in range(start + 2, min(start + length, len(labels))):
                labels[position] = IGNORE_INDEX
        start += length
    return ids, labels


def _first_llavas_answers(
    turns: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: Conversation, split_images: bool
) -> tuple[list[int], list[int]]:
    """The same ids, with labels on the assistant's words only."""
    header, lines = _first_llavas_lines(turns, template)
    segments = [Segment(header, False)]
    for i, (head, words) in enumerate(lines):
        segments += [Segment(head, False), Segment(words, i % 2 == 1)]
    return encode_segments([*segments, Segment(_LAST, False)], tokenizer, split_images)


def _first_llavas_lines(turns: Sequence[str], template: Conversation) -> tuple[str, list[tuple[str, str]]]:
    """What begins the text, and of each turn what comes before its words, and its words."""
    lines = [(f"### {template.roles[i % 2]}:", f" {text}\n") for i, text in enumerate(turns)]
    return f"{template.system}\n\n", lines
