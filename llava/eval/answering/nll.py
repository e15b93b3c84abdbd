"""Sums of log-probabilities: of text in sliding windows, and of answers to images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.constants import IGNORE_INDEX
from llava.conversation import Conversation
from llava.data.collate import DataCollatorForSupervisedDataset
from llava.data.dataset import LazySupervisedDataset
from llava.data.preprocess import preprocess
from llava.data.records import Records
from llava.eval.answering.batching import of_one_rotation
from llava.eval.answering.errors import EvaluationError
from llava.journal import Journal
from llava.tokenization import encoder_for

_POSITIONS_AT_ONCE = 256
"""Rows of logits at a time: with a vocabulary of 152,000, those of a whole window would be over a gigabyte."""


@dataclass(frozen=True)
class Piece:
    """What the bootstrap draws: a document, a sample, or a window of a stream.

    Attributes:
        nll: sum of the negative natural-log probabilities of its scored tokens.
        tokens, bytes, words: number of scored tokens; UTF-8 bytes and words (between blanks) of their text.
        cut: only a part of the text is scored; bytes and words are still those of the whole text.
    """

    key: str
    nll: float
    tokens: int
    bytes: int
    words: int
    cut: bool = False


@dataclass(frozen=True)
class Document:
    """Token ids without bos, and for each token where it ends in the text."""

    key: str
    text: str
    ids: list[int]
    ends: list[int]


@dataclass(frozen=True)
class Window:
    """Tokens `begin` to `end` of a document; those from `first` on are scored."""

    document: int
    begin: int
    first: int
    end: int


def windows_of(document: int, length: int, context: int, stride: int) -> Iterator[Window]:
    """The windows of one document; every token is scored in exactly one."""
    scored = 0
    for begin in range(0, length, stride):
        end = min(begin + context, length)
        yield Window(document, begin, scored, end)
        scored = end
        if end == length:
            return


@torch.inference_mode()
def token_nll(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-probabilities, float64 `(n,)`, of `targets` `(n,)` after states `(n, hidden_size)`."""
    head = model.get_output_embeddings()
    parts = []
    for states, wanted in zip(hidden.split(_POSITIONS_AT_ONCE), targets.split(_POSITIONS_AT_ONCE), strict=True):
        logits = head(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        parts.append(torch.nn.functional.cross_entropy(logits, wanted.to(logits.device), reduction="none").double())
    return torch.cat(parts).cpu()


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> list[Document]:
    """Tokenised documents; empty ones are left out."""
    encoder = encoder_for(tokenizer)
    encoded = ((key, text, *encoder.encode(text)) for key, text in texts.items())
    return [Document(key, text, ids, [end for _, end in offsets]) for key, text, ids, offsets in encoded if ids]


def first_tokens(documents: Sequence[Document], count: int | None) -> list[Document]:
    """The documents up to `count` tokens in all, the last one cut; None takes all."""
    kept, left = [], count
    for document in documents:
        ends = document.ends[:left]
        kept.append(replace(document, text=document.text[: ends[-1]], ids=document.ids[:left], ends=ends))
        if left is not None:
            left -= len(ends)
            if not left:
                break
    return kept


def score_batches(
    groups: Sequence[Mapping[str, Any]],
    batch_size: int,
    score: Callable[[list[Any]], Iterable[Any]],
    journal: Journal | None,
    unit: str,
) -> dict[str, Any]:
    """Results of `score` by key, batch by batch; a batch is of one group. The journal keeps what is done."""
    done = dict(journal.entries) if journal else {}
    left = [{key: item for key, item in group.items() if key not in done} for group in groups]
    total = sum(map(len, groups))
    with tqdm(total=total, initial=total - sum(map(len, left)), desc=f"{unit}s", unit=unit) as bar:
        for group in left:
            keys = list(group)
            for start in range(0, len(keys), batch_size):
                batch = keys[start : start + batch_size]
                entries = dict(zip(batch, score([group[key] for key in batch]), strict=True))
                done |= entries
                if journal:
                    journal.add(entries)
                bar.update(len(batch))
    return done


@torch.inference_mode()
def text_pieces(
    model: Any,
    documents: Sequence[Document],
    bos: Sequence[int],
    context: int,
    stride: int,
    batch_size: int = 1,
    journal: Journal | None = None,
) -> list[Piece]:
    """One piece per document; for a single document one per window.

    `bos` is part of every window's context; without it, a document's first token is not scored.
    """
    body = context - len(bos)
    if body < 2:
        raise EvaluationError(f"--context {context} is too small: a window needs {len(bos) + 2} tokens, bos included")
    if not 1 <= stride <= body:
        raise EvaluationError(f"--stride must be from 1 to {body}, the context without bos; it is {stride}")
    windows = [w for d, document in enumerate(documents) for w in windows_of(d, len(document.ids), body, stride)]
    nll = windows_nll(model, documents, windows, list(bos), batch_size, journal)
    return _pieces(documents, windows, nll, skip_first=not bos)


def window_key(window: Window) -> str:
    """The name of a window in the journal."""
    return f"window {window.document} {window.begin}"


def windows_nll(
    model: Any,
    documents: Sequence[Document],
    windows: Sequence[Window],
    bos: list[int],
    batch_size: int,
    journal: Journal | None,
) -> dict[str, float]:
    """The sum of each window by its key, in batches of similar length, longest first."""
    ordered = sorted(windows, key=lambda w: (w.begin - w.end, w.document, w.begin))
    # The last token of a window is not read.
    lengths = [len(bos) + w.end - w.begin - 1 for w in ordered]
    groups = [
        {window_key(w): (documents[w.document], w) for w in (ordered[i] for i in places)}
        for places in of_one_rotation(lengths, model.config)
    ]
    return score_batches(groups, batch_size, lambda batch: window_nll(model, batch, bos), journal, "window")


@torch.inference_mode()
def window_nll(model: Any, batch: Sequence[tuple[Document, Window]], bos: list[int]) -> list[float]:
    """For each window the sum over its scored tokens; `bos` is before its first token."""
    rows = [torch.tensor(bos + document.ids[w.begin : w.end]) for document, w in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(model.device)
    # The last token is only scored: a window may hold one token more than the model has positions.
    fed = max(ids.shape[1] - 1, 1)
    hidden = model.get_model()(input_ids=ids[:, :fed], attention_mask=mask[:, :fed], use_cache=False).last_hidden_state
    sums = []
    for i, (_, window) in enumerate(batch):
        first, end = max(len(bos) + window.first - window.begin, 1), int(lengths[i])
        sums.append(token_nll(model, hidden[i, first - 1 : end - 1], ids[i, first:end]).sum().item())
    return sums


def _pieces(
    documents: Sequence[Document], windows: Sequence[Window], nll: Mapping[str, float], skip_first: bool
) -> list[Piece]:
    alone = len(documents) == 1
    pieces: dict[str, Piece] = {}
    for window in windows:
        document = documents[window.document]
        begin = document.ends[window.first - 1] if window.first else 0
        text = document.text[begin : document.ends[window.end - 1]]
        key = f"{document.key}, tokens {window.first} to {window.end}" if alone else document.key
        old = pieces.get(key, Piece(key, 0.0, 0, 0, 0))
        # A word belongs to the window in which it begins.
        before = document.text[begin - 1 : begin]
        words = len(text.split()) - int(bool(before and text) and not before.isspace() and not text[0].isspace())
        pieces[key] = Piece(
            key,
            old.nll + nll[window_key(window)],
            old.tokens + window.end - window.first - int(skip_first and window.first == 0),
            old.bytes + len(text.encode()),
            old.words + words,
        )
    return [piece for piece in pieces.values() if piece.tokens]


@torch.inference_mode()
def answer_pieces(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    processor: Any,
    template: Conversation,
    records: Records,
    indices: Sequence[int],
    image_folder: Path,
    batch_size: int = 8,
    feature_cache: Any = None,
    journal: Journal | None = None,
) -> list[Piece]:
    """One piece per conversation: its answers and the tokens that end them.

    A sample is `cut` if `tokenizer_model_max_length` leaves only a part of its answers, and left out if it leaves none.
    """
    limit = getattr(model.config, "tokenizer_model_max_length", None)
    ratio = getattr(model.config, "image_aspect_ratio", None) or "square"
    marks = bool(getattr(model.config, "mm_use_im_start_end", False))
    options = {"mm_use_im_start_end": marks, "tiling": model.tiling, "answers_only": True}
    dataset = LazySupervisedDataset(
        records, tokenizer, template, image_folder, processor, ratio, limit, feature_cache, **options
    )
    collate = DataCollatorForSupervisedDataset(tokenizer, limit)
    order = sorted(indices, key=lambda i: (-int(records.words[i]), i))
    # Samples with and without an image are kept apart: a batch of text then runs no tower.
    groups = [{f"sample {i}": i for i in order if bool(records.has_image[i]) is seen} for seen in (True, False)]
    done = score_batches(
        groups, batch_size, lambda rows: _answer_nll(model, collate([dataset[i] for i in rows])), journal, "sample"
    )
    pieces = []
    for i in indices:
        record = records[i]
        answers = record.turns[1::2]
        sizes = sum(len(answer.encode()) for answer in answers), sum(len(answer.split()) for answer in answers)
        nll, tokens = done[f"sample {i}"]
        _, labels = preprocess(record.turns, tokenizer, template, len(record.images), None, marks, answers_only=True)
        cut = tokens < int((labels[1:] != IGNORE_INDEX).sum())
        pieces.append(Piece(str(record.id), nll, tokens, *sizes, cut))
    return [piece for piece in pieces if piece.tokens]


def _answer_nll(model: Any, batch: dict[str, Any]) -> list[tuple[float, int]]:
    """For each row the sum over its labelled tokens, and their number."""
    device, dtype = model.device, model.dtype
    images = {
        key: [x.to(device, dtype) for x in batch[key]] if isinstance(batch[key], list) else batch[key].to(device, dtype)
        for key in ("images", "image_features")
        if key in batch
    }
    ids, labels, mask = (batch[key].to(device) for key in ("input_ids", "labels", "attention_mask"))
    ids, _, mask, _, embeds, labels = model.prepare_inputs_labels_for_multimodal(
        ids, None, mask, None, labels, **images, image_sizes=batch.get("image_sizes"), padding_side="right"
    )
    given = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
    hidden = model.get_model()(**given, attention_mask=mask, use_cache=False).last_hidden_state
    results = []
    for row, wanted in zip(hidden, labels, strict=True):
        # The states may be on another device than the labels, if the model is on several.
        chosen = (wanted[1:] != IGNORE_INDEX).to(row.device)
        nll = token_nll(model, row[:-1][chosen], wanted[1:].to(row.device)[chosen])
        results.append((nll.sum().item(), len(nll)))
    return results
