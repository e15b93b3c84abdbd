"""Documents as lm-eval reads them for its tasks `wikitext` and `pile_10k` (`loglikelihood_rolling`, checked at 0.4.13).

Each document is read alone, in windows of `context` tokens. Before its first token is a prefix token (bos, else eos),
so that every token is scored. A further window sees one token before its own, the last one as many as fit.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from llava.eval.answering.nll import Document, Piece, Window, window_key, windows_nll
from llava.journal import Journal


def prefix_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token before a document."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def encode_after_prefix(
    tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, tuple[str, str]], bos: bool
) -> list[Document]:
    """Documents by key, given as (text, original): ids of the text after the prefix token, and the original.

    Args:
        bos: the tokenizer adds its special tokens to a document that does not begin with the prefix token. So does
            lm-eval since 0.4.9.2; before, and with `add_bos_token=False`, it did not.
    """
    prefix = prefix_of(tokenizer)
    written = tokenizer.decode(prefix)
    documents = []
    for key, (text, original) in texts.items():
        # Not `encoder_for`, which reads blanks as SentencePiece does: lm-eval takes the tokenizer as it is.
        ids = tokenizer.encode(text, add_special_tokens=bos and not text.startswith(written), verbose=False)
        documents.append(Document(key, original, [prefix, *ids], []))
    return documents


def rolling_windows(document: int, length: int, context: int) -> Iterator[Window]:
    """The windows of a document of `length` tokens after the prefix token, which has position 0."""
    scored = 0
    while scored < length:
        new = min(context, length - scored)
        scored += new
        yield Window(document, max(0, scored - context), scored - new + 1, scored + 1)


def rolling_pieces(
    model: Any,
    documents: Sequence[Document],
    context: int,
    batch_size: int = 1,
    journal: Journal | None = None,
) -> list[Piece]:
    """One piece per document. Words and bytes are those of the original; a blank at an end makes one more word."""
    windows = [w for d, document in enumerate(documents) for w in rolling_windows(d, len(document.ids) - 1, context)]
    nll = windows_nll(model, documents, windows, [], batch_size, journal)
    sums: dict[int, float] = defaultdict(float)
    for window in windows:
        sums[window.document] += nll[window_key(window)]
    return [
        Piece(d.key, sums[i], len(d.ids) - 1, len(d.text.encode()), len(re.split(r"\s+", d.text)))
        for i, d in enumerate(documents)
    ]
