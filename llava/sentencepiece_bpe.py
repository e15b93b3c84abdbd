"""SentencePiece's merge order, for a tokenizer that transformers built from a tokenizer.model.

SentencePiece first merges the pair whose joined piece has the highest score; transformers 5 uses the lowest id. In
Llama's vocabulary they differ for pieces of blanks, which have the score -1e9: transformers merges "▁▁" first, and
texts with two blanks in a row get other ids than in training.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.model"
_NORMAL, _BPE = 1, 2
"""A piece's type, and the trainer's model type, in SentencePiece's file format."""


class TokenizerFileError(ValueError):
    """A tokenizer.json that does not belong to the tokenizer.model next to it."""


def use_sentencepiece_merges(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Sets the merge order of `folder`'s tokenizer.model, if it is a BPE; a tokenizer.json with another order is noted.

    Raises:
        TokenizerFileError: the pieces of the two files differ.
    """
    file, model = folder / FILE, getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if not file.is_file() or not isinstance(model, BPE):
        return
    proto = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    if proto.trainer_spec.model_type != _BPE:
        return
    vocab = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    pieces = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    differing = [piece for piece, i in pieces.items() if vocab.get(piece) != i]
    if differing:
        raise TokenizerFileError(
            f"{folder}: tokenizer.json and {FILE} are of different tokenizers ({len(differing)} pieces differ, first "
            f"{differing[0]!r}); remove the one that is not the model's"
        )
    merges = merges_of({piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}, pieces)
    if (folder / "tokenizer.json").is_file():
        found = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        # The splits of one piece follow each other, in any order.
        if ["".join(merge) for merge in merges] != ["".join(merge) for merge in found]:
            print(f"note: {folder}/tokenizer.json merges pieces in another order than {FILE}; {FILE} is used")
    tokenizer.backend_tokenizer.model = BPE(
        vocab, merges, unk_token=model.unk_token, fuse_unk=model.fuse_unk, byte_fallback=model.byte_fallback
    )


def merges_of(scores: Mapping[str, float], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that joins to a third, by the joined piece's score (highest first), then by its id."""
    found = [
        (-score, ids[piece], piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    found.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in found]
