import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llava.conversation import get_template
from llava.eval.runner import (
    Answerer,
    AnswersFile,
    EvaluationError,
    Generation,
    check_images,
    chunk,
    read_questions,
    run,
)
from llava.model.builder import load_pretrained_model


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    rows = [
        {"question_id": i // 2, "text": "Where is the line?" + " please" * (i * 7 % 11)}
        | ({"image": f"{i % 8}.png"} if i % 5 else {})
        for i in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def answerer(tiny, tiny_llava):
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    return Answerer(model, tokenizer, processor, get_template("v1"), tiny.images, Generation(12))


def test_batched_equals_one_by_one_on_200_questions(answerer, questions):
    """fp32: left padding, mask and positions leave the answers as they are, image and text-only rows mixed."""
    rows = read_questions(questions)
    single = [answerer.answer([question])[0] for question in rows]
    batched = [text for start in range(0, 200, 16) for text in answerer.answer(rows[start : start + 16])]
    assert batched == single
    assert len(set(single)) > 20, "the answers must differ for the comparison to mean something"


def test_answers_come_in_the_order_of_the_questions(answerer, questions, tmp_path):
    rows = read_questions(questions)
    run(answerer, rows, AnswersFile(tmp_path / "a.jsonl", {"x": 1}), "model", 32)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == [q.question_id for q in rows]
    assert set(lines[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert lines[0]["prompt"] == rows[0].text
    assert not list(tmp_path.glob("*.journal"))


def test_a_torn_journal_is_taken_up(answerer, questions, tmp_path):
    rows = read_questions(questions)[:20]
    whole = AnswersFile(tmp_path / "whole.jsonl", {})
    run(answerer, rows, whole, "m", 8)
    answers = AnswersFile(tmp_path / "a.jsonl", {})
    answers.add({q.index: whole.lines[q.index] for q in rows[:5]})
    with open(answers.journal, "a") as file:
        file.write('{"index": 7, "li')
    again = AnswersFile(tmp_path / "a.jsonl", {})
    assert set(again.lines) == set(range(5))
    run(answerer, rows, again, "m", 8)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_other_settings_are_refused(tmp_path):
    AnswersFile(tmp_path / "a.jsonl", {"model": 1}).add({0: "x"})
    with pytest.raises(EvaluationError, match="another model, question file or settings"):
        AnswersFile(tmp_path / "a.jsonl", {"model": 2})


def test_killed_and_started_again(tiny, tiny_llava, questions, tmp_path):
    def command(name):
        arguments = ["--model-path", tiny_llava, "--image-folder", tiny.images, "--question-file", questions]
        arguments += ["--answers-file", tmp_path / name, "--conv-mode", "v1", "--temperature", "0", "--batch-size", "4"]
        return [sys.executable, "-m", "llava.eval.model_vqa_loader", *map(str, arguments)]

    journal = tmp_path / "killed.jsonl.journal"
    process = subprocess.Popen(command("killed.jsonl"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not journal.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.jsonl").exists()
    again = subprocess.run(command("killed.jsonl"), capture_output=True, text=True, check=True)
    assert "were answered before" in again.stdout
    subprocess.run(command("whole.jsonl"), capture_output=True, check=True)
    assert (tmp_path / "killed.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_bad_questions(tmp_path, tiny):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question_id": 1, "text": "a", "image": "no.png"}\n{"question_id": 2}\n')
    with pytest.raises(EvaluationError, match="line 2 is not a question"):
        read_questions(path)
    path.write_text('{"question_id": 1, "text": "a", "image": "no.png"}\n')
    with pytest.raises(EvaluationError, match=r"1 images are missing under .*: no\.png"):
        check_images(read_questions(path), tiny.images)


@pytest.mark.parametrize("chunks", [1, 3, 8, 12])
def test_chunks_are_complete_and_exist(questions, chunks):
    rows = read_questions(questions)[:10]
    dealt = [chunk(rows, chunks, i) for i in range(chunks)]
    assert sorted(q.index for part in dealt for q in part) == list(range(10))
    with pytest.raises(EvaluationError, match="does not exist"):
        chunk(rows, chunks, chunks)


def test_cached_features_give_the_same_answers(answerer, questions, tiny, tmp_path):
    import dataclasses

    from llava.data.feature_cache import FeatureCache

    rows = read_questions(questions)[:24]
    tower = answerer.model.get_vision_tower()
    cache = FeatureCache(tmp_path, tower, "pad", answerer.model.dtype)
    cache.ensure(sorted(tiny.images.iterdir()), tower)
    assert dataclasses.replace(answerer, feature_cache=cache).answer(rows) == answerer.answer(rows)
    assert os.listdir(tmp_path)
