"""Text to ids with character offsets, and ids to text, equal to upstream's slow tokenizers.

Labels follow from the offsets; upstream tokenised parts of the text again and dropped samples if the ids disagreed.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, Segment, SeparatorStyle, TemplateError, get_template, known_templates

_BLANKS = " \u2581"
"""The blank, and SentencePiece's mark for it."""


class PromptEncoder:
    """Encodes text with one tokenizer.

    SentencePiece adds its word-start mark also to text that begins with a blank or a mark, and with `legacy` after
    every special token; the Rust tokenizer does not. Doubling that blank returns the ids of Vicuna's and LLaVA's
    training (see tests/data/parity).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        leading = tokenizer("").input_ids
        self.bos = leading[:1] if leading and leading[0] == tokenizer.bos_token_id else []
        pre_tokenizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
        self.marks_word_start = getattr(pre_tokenizer, "prepend_scheme", "never") != "never"
        self.legacy = bool(getattr(tokenizer, "legacy", False))
        self.special_tokens = sorted({t for t in tokenizer.all_special_tokens if t}, key=len, reverse=True)

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of `text` without bos, and each token's `(start, end)` in characters."""
        if not text:
            return [], []
        padded, inserted = self._double_lost_blanks(text)
        # Not verbose: callers truncate to the model's context.
        encoded = self.tokenizer(padded, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = encoded["offset_mapping"]
        if inserted:
            offsets = [(_shift(start, inserted), _shift(end, inserted)) for start, end in offsets]
        return list(encoded["input_ids"]), [tuple(offset) for offset in offsets]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a whole prompt: with bos, but none before a bos that the text already begins with (as lm-eval)."""
        written = bool(self.bos) and text.startswith(self.tokenizer.bos_token)
        return [*([] if written else self.bos), *self.encode(text)[0]]

    def _double_lost_blanks(self, text: str) -> tuple[str, list[int]]:
        """The text with doubled blanks, and the positions of the inserted ones."""
        if not self.marks_word_start:
            return text, []
        starts = {0} if text[0] in _BLANKS else set()
        for token in self.special_tokens if self.legacy else ():
            starts |= {match.end() - 1 for match in re.finditer(f"{re.escape(token)}[{_BLANKS}]", text)}
        pieces, inserted, last = [], [], 0
        for count, start in enumerate(sorted(starts)):
            pieces += [text[last:start], " "]
            inserted.append(start + count)
            last = start
        return "".join(pieces) + text[last:], inserted


def _shift(position: int, inserted: Sequence[int]) -> int:
    return position - sum(1 for extra in inserted if extra < position)


_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
_INVALID = "\ufffd"


def ids_to_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of ids without special tokens; blanks at its ends are not exact.

    Each byte that belongs to no UTF-8 character becomes one U+FFFD, as in SentencePiece. The Rust tokenizer replaces
    all bytes of a run if one of them is invalid, also those of whole characters.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if _INVALID not in text or not getattr(backend.model, "byte_fallback", False):
        return text
    # An id above the vocabulary has no token: embeddings may have more rows.
    tokens = [token for token in tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True) if token is not None]
    return backend.decoder.decode(_without_invalid_bytes(tokens))


def _without_invalid_bytes(tokens: Sequence[str]) -> list[str]:
    """The tokens, with U+FFFD in place of each byte that belongs to no character."""
    result: list[str] = []
    for are_bytes, run in groupby(tokens, lambda token: _BYTE_TOKEN.fullmatch(token) is not None):
        if not are_bytes:
            result += run
            continue
        raw = bytes(int(_BYTE_TOKEN.fullmatch(token)[1], 16) for token in run)
        for character in raw.decode("utf-8", "surrogateescape"):
            escaped = "\udc80" <= character <= "\udcff"
            result += [_INVALID] if escaped else [f"<0x{byte:02X}>" for byte in character.encode()]
    return result


_ENCODERS: "WeakKeyDictionary[PreTrainedTokenizerBase, PromptEncoder]" = WeakKeyDictionary()


def encoder_for(tokenizer: PreTrainedTokenizerBase) -> PromptEncoder:
    """The cached encoder of a tokenizer."""
    encoder = _ENCODERS.get(tokenizer)
    if encoder is None:
        encoder = _ENCODERS[tokenizer] = PromptEncoder(tokenizer)
    return encoder


def encode_segments(
    segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase, split_images: bool
) -> tuple[list[int], list[int]]:
    """Ids and labels (-100: not supervised) of a rendered conversation, with bos if the tokenizer adds it.

    The text is split only at images (upstream: `tokenizer_image_token`). A token is supervised if it covers a
    supervised character. `split_images` False leaves `<image>` as text, instead of -200.
    """
    encoder = encoder_for(tokenizer)
    text = "".join(segment.text for segment in segments)
    supervised = b"".join(bytes([segment.supervised]) * len(segment.text) for segment in segments)
    ids, labels = list(encoder.bos), [IGNORE_INDEX] * len(encoder.bos)
    start = 0
    for i, piece in enumerate(text.split(DEFAULT_IMAGE_TOKEN) if split_images else [text]):
        if i:
            ids.append(IMAGE_TOKEN_INDEX)
            labels.append(IGNORE_INDEX)
            start += len(DEFAULT_IMAGE_TOKEN)
        piece_ids, offsets = encoder.encode(piece)
        ids += piece_ids
        labels += [
            # A word-start mark may cover no character; it belongs to the next one.
            token if any(supervised[start + first : start + max(last, first + 1)]) else IGNORE_INDEX
            for token, (first, last) in zip(piece_ids, offsets, strict=True)
        ]
        start += len(piece)
    return ids, labels


def fitting_templates(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Names of the templates whose end of turn is one special token of the tokenizer."""
    return [name for name, conv in known_templates().items() if _stop_token_problem(conv, tokenizer) is None]


def check_template(name: str, tokenizer: PreTrainedTokenizerBase, flag: str = "--version") -> None:
    """Raises `TemplateError` if the template's end of turn is not one special token (LLaVA#1166)."""
    problem = _stop_token_problem(get_template(name), tokenizer)
    if problem:
        fitting = ", ".join(fitting_templates(tokenizer)) or "none"
        raise TemplateError(
            f"{flag} {name} does not fit the tokenizer {tokenizer.name_or_path}: {problem}. "
            f"Templates that fit it: {fitting}"
        )


def end_turns_with(template: Conversation, tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes the template's end of turn the tokenizer's eos token, and its pad token if that was eos.

    Llama-3-Instruct and Bunny's template end turns differently; without this, models answered "!!!!" (Bunny#75).
    """
    if template.stop is None or template.sep_style is SeparatorStyle.SINGLE:
        return
    if tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.pad_token = template.stop
    tokenizer.eos_token = template.stop


def _stop_token_problem(conv: Conversation, tokenizer: PreTrainedTokenizerBase) -> str | None:
    # "###" of the first LLaVA is ordinary text, and captions have no end of turn.
    if conv.stop is None or conv.sep_style is SeparatorStyle.SINGLE:
        return None
    ids = tokenizer(conv.stop, add_special_tokens=False).input_ids
    special = tokenizer.convert_tokens_to_ids(conv.stop)
    if len(ids) == 1 and ids[0] == special and ids[0] in tokenizer.added_tokens_decoder:
        return None
    return f"its end of turn {conv.stop!r} is {len(ids)} ordinary tokens, not one special token"
