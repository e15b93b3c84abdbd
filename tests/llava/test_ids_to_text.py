"""Ids become the text that SentencePiece makes of them, whole or streamed, also where bytes are no characters."""

import random

import pytest
import torch
from sentencepiece import SentencePieceProcessor

from llava.model.builder import load_tokenizer
from llava.serve.chat import _Streamer
from llava.tokenization import ids_to_text

FIRST_BYTE, FIRST_PIECE, END = 3, 259, 600
"""Llama's order of ids: special tokens, the 256 bytes, pieces."""


def random_ids(rng):
    """Bytes of characters, any bytes, and pieces, in any mixture."""
    ids = []
    for _ in range(rng.randint(1, 8)):
        kind = rng.randrange(3)
        if kind == 0:
            ids += [FIRST_BYTE + byte for byte in rng.choice("aé漢🙂\u2581\ufffd\n\x00").encode()]
        elif kind == 1:
            ids += [rng.randrange(FIRST_BYTE, FIRST_PIECE) for _ in range(rng.randint(1, 4))]
        else:
            ids.append(rng.randrange(FIRST_PIECE, END))
    return ids


@pytest.fixture(scope="module", params=["llava-tiny", "tok_legacy"])
def tokenizer(request, parity):
    return load_tokenizer(parity / request.param)


def test_is_sentencepieces(tokenizer, parity):
    pieces, rng = SentencePieceProcessor(model_file=str(parity / "llava-tiny" / "tokenizer.model")), random.Random(0)
    rows = [random_ids(rng) for _ in range(2000)]
    texts = [pieces.decode(ids).strip() for ids in rows]
    assert [ids_to_text(tokenizer, ids).strip() for ids in rows] == texts
    assert sum("\ufffd" in text for text in texts) > 500
    # Special tokens are left out, and ids above the vocabulary, which a model with more embeddings can produce.
    assert [ids_to_text(tokenizer, torch.tensor([1, *ids, 0, 2, END])).strip() for ids in rows[:100]] == texts[:100]


def test_streamed_pieces_are_the_whole_text(tokenizer):
    rng = random.Random(1)
    for _ in range(200):
        ids, streamer = random_ids(rng), _Streamer(tokenizer)
        streamer.put(torch.tensor([[1, 5]]))
        for token in ids:
            streamer.put(torch.tensor([token]))
        streamer.end()
        assert "".join(streamer) == ids_to_text(tokenizer, ids)
