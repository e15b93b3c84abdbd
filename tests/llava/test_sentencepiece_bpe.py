"""Ids of a folder that has only a tokenizer.model are SentencePiece's own."""

import json
import lzma
import random
from itertools import groupby
from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from llava.model.builder import load_tokenizer
from llava.sentencepiece_bpe import TokenizerFileError
from llava.tokenization import encoder_for
from tests.conftest import REPOSITORY

PIECES = (
    *(" ", "  ", "    ", "\t", "\n", "\r\n", "▁", "▁▁", "\u00a0", "\u3000", "\u200b", "\ufeff"),
    *("a", "b", "Hello", "end.", "  Next", "def f(x):", "x" * 7, "0123", "$$", "<0x0A>", "<s", "s>"),
    *("é", "e\u0301", "漢字", "🙂", "ﷺ", "ａ", "\x00", "\x07", chr(0xD7FF), chr(0x10FFFF)),
)


def folder_with(model: bytes, folder: Path) -> Path:
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"legacy": False}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Mistral's first vocabulary: 32,000 pieces with scores as in Llama's."""
    model = lzma.decompress((REPOSITORY / "tests/data/sentencepiece/tokenizer.model.v1.xz").read_bytes())
    return folder_with(model, tmp_path_factory.mktemp("real") / "folder")


@pytest.fixture(scope="module")
def small(parity, tmp_path_factory):
    """The tiny vocabulary with Llama's pieces of blanks, whose score is -1e9."""
    proto = sentencepiece_model_pb2.ModelProto.FromString((parity / "llava-tiny/tokenizer.model").read_bytes())
    known = {piece.piece for piece in proto.pieces}
    for count in (2, 4, 8):
        if "▁" * count not in known:
            # Behind the bytes, in front of all that is merged, as in Llama's.
            proto.pieces.insert(259, sentencepiece_model_pb2.ModelProto.SentencePiece(piece="▁" * count, score=-1e9))
    return folder_with(proto.SerializeToString(), tmp_path_factory.mktemp("small") / "folder")


def differing(folder: Path, rounds: int) -> list[str]:
    expected = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    encoder, rng = encoder_for(load_tokenizer(folder)), random.Random(0)
    texts = ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12))) for _ in range(rounds)]
    return [text for text in texts if encoder.encode(text)[0] != expected.encode(text)]


def test_random_texts(real, small):
    assert not differing(real, 3000)
    assert not differing(small, 3000)


def test_two_blanks(real):
    """The example by which the difference was found."""
    ids, offsets = encoder_for(load_tokenizer(real)).encode("Hi  Hello")
    assert load_tokenizer(real).convert_ids_to_tokens(ids) == ["▁Hi", "▁", "▁Hello"]
    assert offsets == [(0, 2), (2, 3), (3, 9)]


def test_what_is_saved_is_right_too(small, tmp_path):
    load_tokenizer(small).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").unlink(missing_ok=True)
    text = "def f(x):\n    return  x"
    assert encoder_for(load_tokenizer(tmp_path)).encode(text) == encoder_for(load_tokenizer(small)).encode(text)


def test_a_tokenizer_json_with_another_order_is_not_used(small, tmp_path, capsys):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(small).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((small / "tokenizer.model").read_bytes())
    capsys.readouterr()
    assert not differing(tmp_path, 300)
    assert "merges pieces in another order than tokenizer.model" in capsys.readouterr().out


def test_splits_of_a_piece_in_another_order_are_not_noted(small, tmp_path, capsys):
    """As transformers writes them: the pieces come in the same order."""
    load_tokenizer(small).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((small / "tokenizer.model").read_bytes())
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    merges = values["model"]["merges"]
    groups = [list(group) for _, group in groupby(merges, key="".join)]
    values["model"]["merges"] = [merge for group in groups for merge in reversed(group)]
    assert values["model"]["merges"] != merges
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    capsys.readouterr()
    assert not differing(tmp_path, 300)
    assert capsys.readouterr().out == ""


def test_files_of_two_tokenizers(small, parity, tmp_path):
    load_tokenizer(small).save_pretrained(tmp_path)
    proto = sentencepiece_model_pb2.ModelProto.FromString((small / "tokenizer.model").read_bytes())
    proto.pieces[300].piece = "another"
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(TokenizerFileError, match=r"of different tokenizers \(1 pieces differ, first 'another'\)"):
        load_tokenizer(tmp_path)
