"""Models whose rotation depends on the longest row of a call: no prompt changes the answers of its neighbours."""

import json
import shutil

import pytest

from llava.checkpoint.folder import open_checkpoint
from llava.eval.answering.answerer import Generation
from llava.eval.answering.batching import of_one_rotation
from llava.eval.answering.nll import encode_documents, text_pieces
from llava.model.builder import load_checkpoint
from tests.llava.eval.answering.test_loglikelihood import generate_texts, loglikelihoods

LIMIT = 64
TEXTS = ["where is the red line " * n for n in (1, 6, 8, 9, 10, 11, 12, 15)]


@pytest.fixture(scope="module", params=["longrope", "dynamic"])
def scaled(request, tiny_llava, tmp_path_factory):
    folder = shutil.copytree(tiny_llava, tmp_path_factory.mktemp("scaled") / "model")
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": request.param, "rope_theta": 10000.0, "factor": 4.0}
    if request.param == "longrope":
        # Half of a head's 8 values.
        rope |= {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "original_max_position_embeddings": LIMIT}
    else:
        config["max_position_embeddings"] = LIMIT
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    tokenizer, model, _, _ = load_checkpoint(open_checkpoint(folder), device="cpu", text_only=True)
    return tokenizer, model


def short(model, tokenizer):
    """The texts whose rotation does not depend on what was read before: with `dynamic`, those that stay below."""
    below = [text for text in TEXTS if len(tokenizer(text).input_ids) + 8 < LIMIT]
    assert 2 <= len(below) <= len(TEXTS) - 3
    return TEXTS if model.config.rope_parameters["rope_type"] == "longrope" else below


def test_answers_equal_those_one_by_one(scaled):
    tokenizer, model = scaled
    generation = Generation(max_new_tokens=8)
    lengths = [len(tokenizer(text).input_ids) for text in TEXTS]
    assert any(LIMIT - 8 < length <= LIMIT for length in lengths)
    together = dict(zip(TEXTS, generate_texts(model, tokenizer, TEXTS, generation, 8), strict=True))
    for text in short(model, tokenizer):
        assert [together[text]] == generate_texts(model, tokenizer, [text], generation), text


def test_log_likelihoods_equal_those_one_by_one(scaled):
    tokenizer, model = scaled
    requests = [(text, [" left", " at the top"]) for text in TEXTS]
    together = dict(zip(TEXTS, loglikelihoods(model, tokenizer, requests, 16, 512), strict=True))
    for text in short(model, tokenizer):
        (found,) = loglikelihoods(model, tokenizer, [(text, [" left", " at the top"])], 1, 512)
        assert [one.total for one in together[text]] == pytest.approx([one.total for one in found], rel=1e-4)


def test_windows_equal_those_one_by_one(scaled):
    tokenizer, model = scaled
    documents = encode_documents(tokenizer, {text: text for text in TEXTS})
    together = {piece.key: piece.nll for piece in text_pieces(model, documents, [1], 512, 500, batch_size=8)}
    for text in short(model, tokenizer):
        (found,) = text_pieces(model, encode_documents(tokenizer, {text: text}), [1], 512, 500)
        assert together[text] == pytest.approx(found.nll, rel=1e-4)


def test_groups(scaled):
    model = scaled[1]
    lengths = [10, 70, 60, 64, 90, 54]
    kind = model.config.rope_parameters["rope_type"]
    assert of_one_rotation(lengths, model.config, new_tokens=10) == (
        [[1, 4], [3], [2], [0, 5]] if kind == "longrope" else [[4], [1], [3], [2], [5], [0]]
    )
    del model.config.rope_parameters["rope_type"]
    try:
        assert of_one_rotation(lengths, model.config, new_tokens=10) == [[0, 1, 2, 3, 4, 5]]
    finally:
        model.config.rope_parameters["rope_type"] = kind
