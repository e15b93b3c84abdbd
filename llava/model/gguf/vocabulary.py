"""The tokenizer in llama.cpp's terms (its src/llama-vocab.cpp reads the keys `tokenizer.ggml.*`).

It has two kinds of BPE. "llama" merges characters as SentencePiece does, by a score of each piece. "gpt2" merges bytes
by a list of merges, after it has split the text with the rules that `tokenizer.ggml.pre` names.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from llava.model.export import ExportError

_GPT2 = ("ByteLevel", True)
_BYTES = ("ByteLevel", False)
_LETTERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE = {
    (_GPT2,): "gpt-2",
    (("Digits", True), _GPT2): "smollm",
    (("Split", _LETTERS.replace("{DIGITS}", "")), _BYTES): "qwen2",
    (("Split", _LETTERS.replace("{DIGITS}", "{1,3}")), _BYTES): "llama-bpe",
}
"""The pre-tokenizers of tokenizer.json, as `_rules` describes them -> `tokenizer.ggml.pre`."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_BLANK = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's keys.

    Attributes:
        kind: "llama" or "gpt2".
        pre: the rules that split a text.
        tokens, types: one for each row of the embeddings.
        scores: the same for "llama"; the highest is merged first.
        merges: for "gpt2", pairs of tokens with a blank between them, the first pair first.
        special: bos, eos, unk, pad and eot (end of a turn), if they exist.
        begins, ends: whether bos and eos are added to every text.
        blank: whether a blank is put in front of every text.
    """

    kind: str
    pre: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float]
    merges: list[str]
    special: dict[str, int]
    begins: bool
    ends: bool
    blank: bool
    chat_template: str | None

    def add_to(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model(self.kind)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.kind == "llama":
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.blank)
        else:
            writer.add_token_merges(self.merges)
        for name, number in self.special.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(self.ends)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def vocabulary_of(
    tokenizer: PreTrainedTokenizerBase, rows: int, stop: str | None = None, chat_template: str | None = None
) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Args:
        rows: of the embeddings. Tokens without a row are left out, rows without a token get one that is never used.
        stop: the end of an assistant's turn.

    Raises:
        ExportError: llama.cpp has no such tokenizer.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise ExportError(f"the tokenizer is a {model['type']}; those that can be exported: BPE")
    spm = bool(model.get("byte_fallback"))
    names = {number: text for text, number in tokenizer.get_vocab().items() if number < rows}
    tokens = [names.get(i, f"[PAD{i}]") for i in range(rows)]
    added, unknown = tokenizer.added_tokens_decoder, tokenizer.unk_token_id if spm else None
    types = [_type(names.get(i), added.get(i), i == unknown, spm) for i in range(rows)]
    mine = [kind == TokenType.USER_DEFINED for kind in types]
    tokens = [token.replace(_BLANK, " ") if own else token for token, own in zip(tokens, mine, strict=True)]
    merges = [" ".join(merge) for merge in model["merges"]]
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    special |= {"unk": unknown, "eot": _one_token(tokenizer, stop)}
    empty = tokenizer("").input_ids
    return Vocabulary(
        kind="llama" if spm else "gpt2",
        pre="default" if spm else _pre(content),
        tokens=tokens,
        types=types,
        scores=_scores(tokens, model["merges"]) if spm else [],
        merges=merges,
        special={name: number for name, number in special.items() if number is not None and number < rows},
        begins=tokenizer.bos_token_id in empty[:1],
        ends=tokenizer.eos_token_id in empty[1:],
        blank=tokenizer.tokenize("a")[0].startswith(_BLANK),
        chat_template=chat_template,
    )


def _type(token: str | None, added: AddedToken | None, unknown: bool, spm: bool) -> TokenType:
    if token is None:
        return TokenType.UNUSED
    if unknown:
        return TokenType.UNKNOWN
    if added is not None:
        return TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    return TokenType.BYTE if spm and _BYTE.fullmatch(token) else TokenType.NORMAL


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """A score for each piece: the earlier it is merged, the higher."""
    scores: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        scores.setdefault("".join(merge), -float(rank))
    return [scores.get(token, 0.0) for token in tokens]


def _one_token(tokenizer: PreTrainedTokenizerBase, text: str | None) -> int | None:
    """The id of a text that is one token."""
    return tokenizer.get_vocab().get(text) if text else None


def _pre(content: dict[str, Any]) -> str:
    """`tokenizer.ggml.pre` of a tokenizer.json with a byte-level BPE."""
    rule = content["pre_tokenizer"] or {"type": "none"}
    rules = rule["pretokenizers"] if rule["type"] == "Sequence" else [rule]
    pre = PRE.get(tuple(map(_described, rules)))
    normalizer = (content["normalizer"] or {"type": "NFC"})["type"]
    if pre is None or normalizer != "NFC" or any(one.get("add_prefix_space") for one in rules):
        kinds = ", ".join(one["type"] for one in rules)
        raise ExportError(
            f"the tokenizer splits text as llama.cpp does not ({kinds} after the normalizer {normalizer}); "
            f"those that can be exported: SentencePiece's BPE, and the byte-level {', '.join(PRE.values())}"
        )
    return pre


def _described(rule: dict[str, Any]) -> tuple[Any, ...]:
    """A pre-tokenizer's type and the setting that decides what it does."""
    pattern = rule.get("pattern") or {}
    return rule["type"], rule.get("use_regex", rule.get("individual_digits", pattern.get("Regex")))
