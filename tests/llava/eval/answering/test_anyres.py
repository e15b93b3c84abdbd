"""Answers about images of several views: batches, shared beginnings and cached features say what one by one does."""

import base64
import json

import pytest
import torch

from llava.conversation import get_template
from llava.data.feature_cache import FeatureCache
from llava.data.records import open_records
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.batching import BatchSize, length_of
from llava.eval.answering.nll import answer_pieces
from llava.eval.answering.questions import Question, read_questions
from llava.eval.answering.runner import answer_stream
from llava.model.builder import load_pretrained_model
from llava.tokenization import ids_to_text
from tests.fixtures.anyres import SHAPES


@pytest.fixture(scope="module")
def answerer(anyres):
    tokenizer, model, processor, _ = load_pretrained_model(str(anyres.llava), device="cpu")
    return Answerer(model, tokenizer, processor, get_template("v1"), anyres.images, Generation(6))


QUESTIONS = [
    Question(i, i, "Where is the line?" + " please" * (i % 3), f"{i % 8}.png" if i % 5 else None) for i in range(30)
]


@pytest.fixture(scope="module")
def single(answerer):
    """Each question by itself through transformers' `generate`."""
    texts = []
    for question in QUESTIONS:
        output = answerer.model.generate(
            **answerer.inputs([question]), max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=2
        )
        texts.append(ids_to_text(answerer.tokenizer, output[0]).strip())
    assert len(set(texts)) > 10, "the answers must differ for a comparison to mean something"
    return texts


def answered(answerer, size, share, workers=0):
    found = {}
    for asked, texts in answer_stream(answerer, QUESTIONS, answerer.batches(QUESTIONS, size, share), workers):
        found |= dict(zip((q.index for q in asked), texts, strict=True))
    return [found[q.index] for q in QUESTIONS]


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize("share", [True, False])
def test_batches_say_what_one_by_one_does(answerer, single, size, share):
    answerer.forget_images()
    assert answered(answerer, size, share, workers=2) == single


def test_cached_features_and_beams(anyres, answerer, single, tmp_path):
    model = answerer.model
    cache = FeatureCache(tmp_path, model.get_vision_tower(), "anyres", model.dtype, model.tiling)
    cache.ensure(sorted(anyres.images.iterdir()), model.get_vision_tower())
    own = Answerer(model, answerer.tokenizer, None, answerer.template, anyres.images, Generation(6), cache)
    assert answered(own, 5, True) == single
    own.generation = Generation(6, num_beams=2)
    assert own.answer(QUESTIONS[:4]) == [own.answer([question])[0] for question in QUESTIONS[:4]]


def test_batches_count_the_tokens_of_each_image(answerer):
    """Within a bound of tokens; what the decoder reads is what was planned."""
    tiling = answerer.model.tiling
    batches = answerer.batches(QUESTIONS, BatchSize(8, 700, given=False), share=False)
    tokens = answerer.image_tokens
    assert tokens == {f"{i}.png": tiling.tokens(size) for i, size in enumerate(SHAPES)}
    for batch in batches:
        longest = max(length_of(prompt, tokens) for prompt in batch.prompts)
        assert len(batch.rows) == 1 or len(batch.rows) * (longest + 6) <= 700
    blocks = answerer._image_blocks(QUESTIONS, {})
    assert {name: len(block) for name, block in blocks.items()} == tokens


def test_images_in_the_question_file(anyres, answerer):
    image = base64.b64encode((anyres.images / "3.png").read_bytes()).decode()
    inside = Question(0, 0, "Where is the line?", "row 0", image_data=image)
    outside = Question(0, 0, "Where is the line?", "3.png")
    assert answerer.answer([inside]) == answerer.answer([outside])


def test_likelihoods_do_not_depend_on_the_batch(anyres, answerer):
    records = open_records(anyres.data)
    parts = (answerer.model, answerer.tokenizer, answerer.processor, answerer.template, records, range(15))
    one, many = (answer_pieces(*parts, anyres.images, batch_size=size) for size in (1, 15))
    assert [piece.tokens for piece in one] == [piece.tokens for piece in many]
    torch.testing.assert_close([p.nll for p in one], [p.nll for p in many], atol=1e-3, rtol=0)


def test_the_program_answers(anyres, program, tmp_path):
    rows = [{"question_id": q.question_id, "text": q.text} | ({"image": q.image} if q.image else {}) for q in QUESTIONS]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_questions(tmp_path / "questions.jsonl")) == 30
    words = ["--model-path", anyres.llava, "--image-folder", anyres.images, "--max_new_tokens", "4", "--device", "cpu"]
    words += ["--question-file", tmp_path / "questions.jsonl", "--answers-file", tmp_path / "answers.jsonl"]
    program("llava.eval.model_vqa_loader", *words, "--conv-mode", "vicuna_v1")
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 30
