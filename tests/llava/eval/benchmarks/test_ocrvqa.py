import json
import sys

import pytest

from llava.eval.benchmarks.ocrvqa import OCRVQA, pairs_of, score
from llava.eval.scoring.pairing import ScoringError


def book(split, *pairs):
    return {"split": split, "questions": [q for q, _ in pairs], "answers": [a for _, a in pairs], "title": "x"}


BOOKS = {
    "b1": book(3, ("What year?", "1986"), ("Who wrote this?", "Jane Doe")),
    "b2": book(1, ("What year?", "1990")),
    "b3": book(3, ("Is it a novel?", "No"), ("How many pages?", "100")),
}


def said(**texts):
    return [{"question_id": i, "text": text} for i, text in texts.items()]


ANSWERS = said(b1_0="1990", b1_1=" jane doe", b3_0="No.", b3_1="105.2")


def test_by_hand():
    report = score(ANSWERS, BOOKS)
    # 1990 is within 5% of 1986; 105.2 is within 5% of itself but not of 100; "No." is not "No".
    assert report.per_question == {"b1_0": 1, "b1_1": 1, "b3_0": 0, "b3_1": 0}
    assert report.metrics["relaxed"].value == 0.5
    assert report.metrics["exact"].value == 0.25
    assert (report.metric, report.headline.samples) == ("relaxed", 4)
    assert "not published" in report.details["paper"]
    assert score(ANSWERS[::-1], BOOKS) == report


def test_references_score_one():
    perfect = [{"question_id": key, "text": answer} for key, (_, _, answer) in pairs_of(BOOKS, "test").items()]
    assert {m.value for m in score(perfect, BOOKS).metrics.values()} == {1}


@pytest.mark.parametrize(
    ("answers", "books", "split", "words"),
    [
        (ANSWERS[:3], BOOKS, "test", "not answered: b3_1"),
        (said(b2_0="x"), BOOKS, "test", "not among the annotations: b2_0"),
        (ANSWERS, BOOKS, "val", r"no question of split val \(2\); they have 1, 3"),
        (ANSWERS, {"b": {"title": 1}}, "test", "not OCR-VQA's dataset.json"),
        (ANSWERS, [1], "test", "not OCR-VQA's dataset.json"),
    ],
)
def test_bad_input(answers, books, split, words):
    with pytest.raises(ScoringError, match=words):
        score(answers, books, split)


def test_command_line_on_a_subset(tmp_path, monkeypatch, capsys):
    (tmp_path / "dataset.json").write_text(json.dumps(BOOKS))
    (tmp_path / "q.jsonl").write_text('{"question_id": "b1_1", "text": "Who?"}\n')
    (tmp_path / "a.jsonl").write_text(json.dumps(ANSWERS[1]) + "\n")
    flags = f"--annotation-file {tmp_path}/dataset.json --question-file {tmp_path}/q.jsonl"
    monkeypatch.setattr(sys, "argv", ["x", *flags.split(), "--result-file", f"{tmp_path}/a.jsonl"])
    OCRVQA.score_main()
    assert "warning: a subset: 1 of the 4 annotated questions was asked" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.score.json").read_text())["value"] == 1
