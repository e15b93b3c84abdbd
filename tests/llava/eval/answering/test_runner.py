import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.answers_file import AnswersFile, record_path
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.questions import read_questions
from llava.eval.answering.runner import answer_all
from llava.model.builder import load_pretrained_model
from llava.tokenization import ids_to_text


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """These models are too small to share between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    return Answerer(model, tokenizer, processor, get_template("v1"), tiny.images, Generation(8))


@pytest.fixture(scope="module")
def single(answerer, questions):
    """Each question by itself through transformers' `generate`, as upstream asks them."""
    texts = []
    for question in read_questions(questions):
        output = answerer.model.generate(
            **answerer.inputs([question]), max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=2
        )
        texts.append(ids_to_text(answerer.tokenizer, output[0]).strip())
    assert len(set(texts)) > 20, "the answers must differ for a comparison to mean something"
    return texts


def run(answerer, rows, answers, model_id, *how, **more):
    answer_all(answerer, rows, answers, model_id, *how, **more)
    answers.finish(rows)


def texts_of(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("size", "share"), [(1, False), (16, False), (16, True), (None, None)])
def test_batched_equals_one_by_one_on_200_questions(answerer, questions, single, tmp_path, size, share):
    """fp32, text for text: padding, masks, positions, shared prefixes and images read ahead change nothing."""
    run(answerer, read_questions(questions), AnswersFile(tmp_path / "a.jsonl", {}), "m", size, share, workers=2)
    assert texts_of(tmp_path / "a.jsonl") == single


def test_answers_come_in_the_order_of_the_questions(answerer, questions, tmp_path):
    rows = read_questions(questions)[:40]
    run(answerer, rows, AnswersFile(tmp_path / "a.jsonl", {"x": 1}), "model", 32)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == [q.question_id for q in rows]
    assert list(lines[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert lines[0]["prompt"] == rows[0].text
    assert not list(tmp_path.glob("*.journal"))


def test_sampling_does_not_depend_on_the_batch(answerer, questions):
    """Each question draws from its own seed, so that a resumed run draws what an unbroken one would have drawn."""
    rows = read_questions(questions)[:24]
    hot = dataclasses.replace(answerer, generation=Generation(6, temperature=0.8, top_p=0.9))
    together = hot.answer(rows)
    assert together == [hot.answer([question])[0] for question in rows]
    assert together != answerer.answer(rows)
    other = dataclasses.replace(answerer, generation=Generation(6, temperature=0.8, top_p=0.9, seed=1))
    assert other.answer(rows) != together


def test_beams_are_left_to_transformers(answerer, questions):
    rows = read_questions(questions)[:6]
    beams = dataclasses.replace(answerer, generation=Generation(6, num_beams=3))
    assert not beams.decodes_itself
    assert beams.answer(rows) == [beams.answer([question])[0] for question in rows]


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_a_checkpoint_that_penalises_repetition_is_decoded_so(answerer, questions, monkeypatch):
    rows = read_questions(questions)[:6]
    plain = answerer.answer(rows)
    monkeypatch.setattr(answerer.model.generation_config, "repetition_penalty", 50.0)
    assert not answerer.decodes_itself
    assert answerer.answer(rows) != plain


def test_memory_that_runs_out_halves_the_batch(answerer, questions, single, tmp_path, monkeypatch, capsys):
    rows, sizes = read_questions(questions)[:40], []
    real = Answerer.answer

    def small_memory(self, asked, *rest):
        sizes.append(len(asked))
        if len(asked) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, asked, *rest)

    monkeypatch.setattr(Answerer, "answer", small_memory)
    run(answerer, rows, AnswersFile(tmp_path / "a.jsonl", {}), "m")
    assert texts_of(tmp_path / "a.jsonl") == single[:40]
    assert max(sizes[-4:]) <= 10 < sizes[0]
    assert "memory ran out; going on with" in capsys.readouterr().out
    with pytest.raises(EvaluationError, match="with 16 questions at once; use a smaller --batch-size, or auto"):
        run(answerer, rows, AnswersFile(tmp_path / "b.jsonl", {}), "m", 16)


def test_ten_kills_leave_the_answers_of_an_unbroken_run(answerer, questions, tmp_path, monkeypatch):
    """Cut off after each number of bytes that a kill can leave in the journal, at ten random points."""
    rows = read_questions(questions)
    run(answerer, rows, AnswersFile(tmp_path / "whole.jsonl", {"s": 1}), "m", 16)
    path, luck = tmp_path / "killed.jsonl", random.Random(5)

    class Killed(BaseException):
        pass

    real = AnswersFile.add
    for kill in range(10):
        answers = AnswersFile(path, {"s": 1})
        batches = luck.randrange(3)
        calls = []

        def add(self, answered, batches=batches, calls=calls):
            if len(calls) == batches:
                before = self.journal.stat().st_size if self.journal.exists() else 0
                real(self, answered)
                size = self.journal.stat().st_size
                os.truncate(self.journal, luck.randrange(before, size))
                raise Killed
            calls.append(1)
            real(self, answered)

        monkeypatch.setattr(AnswersFile, "add", add)
        with pytest.raises(Killed):
            answer_all(answerer, rows, answers, "m", 4)
        answers.close()
        assert not path.exists(), kill
    monkeypatch.setattr(AnswersFile, "add", real)
    again = AnswersFile(path, {"s": 1})
    assert 0 < len(again.lines) < 200
    run(answerer, rows, again, "m", 16)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_resumed_run_asks_the_batches_of_an_unbroken_run(answerer, questions, tmp_path, monkeypatch):
    """Also where prompts share a prefix: in bfloat16 an answer may depend on its batch."""
    rows, asked, stop = read_questions(questions)[:60], [], []

    def answer(self, batch, prompts, *rest):
        if [len(asked)] == stop:
            raise KeyboardInterrupt
        asked.append([(question.index, prompt.shared) for question, prompt in zip(batch, prompts, strict=True)])
        return [""] * len(batch)

    monkeypatch.setattr(Answerer, "answer", answer)
    run(answerer, rows, AnswersFile(tmp_path / "whole.jsonl", {}), "m", 4, True)
    whole, asked[:] = list(asked), []
    for stop[:] in ([1], [4], [5], [9], [12]):
        answers = AnswersFile(tmp_path / "a.jsonl", {})
        with pytest.raises(KeyboardInterrupt):
            run(answerer, rows, answers, "m", 4, True)
        answers.close()
    stop.clear()
    run(answerer, rows, AnswersFile(tmp_path / "a.jsonl", {}), "m", 4, True)
    assert asked == whole


def command(tiny, tiny_llava, questions, answers, *more, module="llava.eval.model_vqa_loader"):
    flags = ["--model-path", tiny_llava, "--image-folder", tiny.images, "--question-file", questions]
    flags += ["--answers-file", answers, "--conv-mode", "v1", "--temperature", "0", "--max_new_tokens", "8", *more]
    return [sys.executable, "-m", module, *map(str, flags)]


def test_killed_and_started_again(tiny, tiny_llava, questions, single, tmp_path, python, start):
    begin = command(tiny, tiny_llava, questions, tmp_path / "a.jsonl", "--batch-size", "4")
    journal = tmp_path / "a.jsonl.journal"
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = start(*begin[1:], environment=alone)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a.jsonl").exists()
    again = subprocess.run([python, *begin[1:]], capture_output=True, text=True, check=True, env=alone)
    assert "were answered before" in again.stdout
    assert texts_of(tmp_path / "a.jsonl") == single
    record = json.loads(record_path(tmp_path / "a.jsonl").read_text())
    assert (record["questions"], record["answered"], record["skipped"]) == (200, 200, [])


def test_cached_features_give_the_same_answers(answerer, questions, tiny, tmp_path):
    from llava.data.feature_cache import FeatureCache

    rows = read_questions(questions)[:24]
    tower = answerer.model.get_vision_tower()
    cache = FeatureCache(tmp_path, tower, "pad", answerer.model.dtype)
    cache.ensure(sorted(tiny.images.iterdir()), tower)
    assert dataclasses.replace(answerer, feature_cache=cache).answer(rows) == answerer.answer(rows)
    assert os.listdir(tmp_path)
