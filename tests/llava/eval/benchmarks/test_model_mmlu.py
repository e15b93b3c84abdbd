"""MMLU's two methods on a tiny model, against plain references."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from llava.eval.answering.arguments import open_model
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.mmlu import CONTINUATIONS, _most_probable, fitted, read_items
from llava.eval.answering.mmlu import answer as answer_with
from llava.eval.benchmarks.mmlu import LETTERS, Item, likelihood_prompt, score
from llava.eval.benchmarks.mmlu import prepare as prepare_mmlu
from llava.eval.benchmarks.preparing import Options
from llava.model.builder import load_pretrained_model
from llava.tokenization import encoder_for


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two subjects of five questions; one of astronomy's examples is too long for the tiny model's window."""
    root = tmp_path_factory.mktemp("mmlu")
    for split in ("dev", "test"):
        (root / split).mkdir()
        for subject in ("anatomy", "astronomy"):
            rows = [f"{'ab cd' * (i + 1)}?,{i},no,red,left,{LETTERS[i % 4]}\n" for i in range(5)]
            if (split, subject) == ("dev", "astronomy"):
                rows[3] = f"{'the red line ' * 120},a,b,c,d,A\n"
            (root / split / f"{subject}_{split}.csv").write_text("".join(rows))
    prepare_mmlu(root, root / "out", Options(check_counts=False))
    return root / "out"


def arguments(model, data, answers, method, **changes):
    flags = {
        "model_path": str(model),
        "model_base": None,
        "question_file": str(data / "questions.jsonl"),
        "shots_file": str(data / "shots.json"),
        "answers_file": str(answers),
        "method": method,
        "conv_mode": "v1",
        "image_folder": "",
        "temperature": 0.0,
        "top_p": None,
        "num_beams": 1,
        "max_new_tokens": 8,
        "batch_size": 4,
        "dtype": "fp32",
        "vision_tower": None,
        "vision_feature_cache": None,
        "num_chunks": 1,
        "chunk_idx": 0,
        "num_workers": 0,
        "stop": [],
        "seed": 0,
        "raw_prompt": False,
        "device": "cpu",
        "share_prefix": "auto",
    }
    return SimpleNamespace(**(flags | changes))


def answer(args):
    answer_with(args, open_model(args))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_loglikelihood_equals_reading_each_continuation_by_itself(tiny_llava, data, tmp_path):
    answer(arguments(tiny_llava, data, tmp_path / "a.jsonl", "loglikelihood"))
    got = lines(tmp_path / "a.jsonl")
    tokenizer, model, _, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    encoder = encoder_for(tokenizer)
    rows, shots = read_items(data / "questions.jsonl", data / "shots.json")
    assert [line["question_id"] for line in got] == [row["question_id"] for row in rows]
    for row, line in zip(rows, got, strict=True):
        item = Item(row["question"], tuple(row["choices"]), "A")
        assert line["prompt"] == likelihood_prompt(row["category"], shots[row["category"]][: line["shots"]], item)
        expected = {}
        for letter, continuation in zip(LETTERS, CONTINUATIONS, strict=True):
            context = encoder.bos + encoder.encode(line["prompt"])[0]
            whole = encoder.bos + encoder.encode(line["prompt"] + continuation)[0]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
            expected[letter] = sum(float(logits[i - 1, whole[i]]) for i in range(len(context), len(whole)))
        assert line["loglikelihoods"] == pytest.approx(expected, abs=1e-4)
        assert line["text"] == max(expected, key=expected.__getitem__)
        assert line["method"] == "loglikelihood"
    assert {line["shots"] for line in got} == {3, 5}, "astronomy's fourth example does not fit"
    report = score(got, json.loads((data / "annotations.json").read_text()))
    assert report.parse_failures == 0
    assert any("5 prompts hold fewer than 5 examples" in text for text in report.warnings)


def test_generation_equals_the_common_loader(tiny_llava, data, tmp_path):
    answer(arguments(tiny_llava, data, tmp_path / "a.jsonl", "generate"))
    got = lines(tmp_path / "a.jsonl")
    anatomy = [line for line in (data / "questions.jsonl").read_text().splitlines(True) if '"anatomy/' in line]
    (tmp_path / "q.jsonl").write_text("".join(anatomy))
    command = [sys.executable, "-m", "llava.eval.model_vqa_loader", "--model-path", tiny_llava, "--conv-mode", "v1"]
    command += ["--question-file", tmp_path / "q.jsonl", "--answers-file", tmp_path / "b.jsonl"]
    command += ["--temperature", "0", "--max_new_tokens", "8", "--batch-size", "2", "--dtype", "fp32"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    loader = lines(tmp_path / "b.jsonl")
    assert [line["text"] for line in got[:5]] == [line["text"] for line in loader]
    assert [line["prompt"] for line in got[:5]] == [line["prompt"] for line in loader]
    assert {line["method"] for line in got} == {"generate"}
    assert [line["shots"] for line in got] == [5] * 5 + [3] * 5


def test_chunks_and_resumption(tiny_llava, data, tmp_path, capsys, monkeypatch):
    whole = tmp_path / "whole.jsonl"
    answer(arguments(tiny_llava, data, whole, "loglikelihood"))
    parts = []
    for i in range(3):
        part = tmp_path / f"{i}.jsonl"
        answer(arguments(tiny_llava, data, part, "loglikelihood", num_chunks=3, chunk_idx=i))
        parts.append(lines(part))
    merged = sorted((line for part in parts for line in part), key=lambda line: line["question_id"])
    assert [line["text"] for line in merged] == [line["text"] for line in lines(whole)]
    with pytest.raises(EvaluationError, match="does not exist"):
        answer(arguments(tiny_llava, data, whole, "generate", num_chunks=2, chunk_idx=2))

    def interrupted(*arguments):
        for count, found in enumerate(_most_probable(*arguments)):
            if count == 3:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr("llava.eval.answering.mmlu._most_probable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer(arguments(tiny_llava, data, tmp_path / "again.jsonl", "loglikelihood"))
    monkeypatch.undo()
    assert not (tmp_path / "again.jsonl").exists()
    answer(arguments(tiny_llava, data, tmp_path / "again.jsonl", "loglikelihood"))
    assert "3 of 10 questions were answered before" in capsys.readouterr().out
    # The log-likelihoods differ in their last digits with the batch; the letters do not.
    assert [line["text"] for line in lines(tmp_path / "again.jsonl")] == [line["text"] for line in lines(whole)]


def test_what_does_not_fit_at_all():
    row = {"question_id": "anatomy/0", "category": "anatomy", "question": "q", "choices": list("wxyz")}
    shots = [Item("s", tuple("wxyz"), "B")] * 5
    text, count = fitted(row, shots, likelihood_prompt, len, 200)
    assert count == 2
    assert text.count("Answer: B") == 2
    with pytest.raises(EvaluationError, match=r"anatomy/0 takes .* tokens without any example; the model reads 20"):
        fitted(row, shots, likelihood_prompt, len, 20)


def test_files_that_do_not_belong_together(data, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "text": "a"}\n')
    with pytest.raises(EvaluationError, match="line 1 is not an MMLU question"):
        read_items(tmp_path / "q.jsonl", data / "shots.json")
    (tmp_path / "s.json").write_text('{"virology": []}')
    with pytest.raises(EvaluationError, match="has no examples of anatomy"):
        read_items(data / "questions.jsonl", tmp_path / "s.json")
    (tmp_path / "q.jsonl").write_text("")
    with pytest.raises(EvaluationError, match="holds no questions"):
        read_items(tmp_path / "q.jsonl", data / "shots.json")
