import json
import sys

import pytest

from llava.eval.benchmarks.preparing import Options
from llava.eval.benchmarks.scienceqa import SCIENCEQA, parse_answer, prepare, score, split_problems
from llava.eval.scoring.pairing import ScoringError, asked_ids
from tests.made_benchmarks import MAKERS, rows_of


def problem(answer, choices=3, image=None, subject="natural science"):
    return {"choices": list("xyzuv")[:choices], "answer": answer, "image": image, "subject": subject}


PROBLEMS = {
    "1": problem(0, image="image.png"),
    "2": problem(1, image="image.png", subject="language science"),
    "3": problem(2),
    "4": problem(1, choices=2),
}


def said(number, text, image=False):
    return {"question_id": number, "prompt": ("<image>\n" if image else "") + "Which?\nA. x", "text": text}


ANSWERS = [said("1", "A", True), said("2", "C. z", True), said("3", "The answer is C."), said("4", "C")]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("E", "E"),
        ("B. y", "B"),
        ("B.", "FAILED"),
        ("B.y", "FAILED"),
        ("F. y", "FAILED"),
        ("The answer is B.", "B"),
        ("I think so. The answer is B, as it is", "B"),
        ("The answer is B", "FAILED"),
        ("The answer is A. The answer is B.", "FAILED"),
        # Letters beyond the options are read and then are no choice.
        ("The answer is Z.", "Z"),
        ("a", "FAILED"),
        (" A", "FAILED"),
        ("", "FAILED"),
    ],
)
def test_upstreams_letters(text, letter):
    assert parse_answer(text) == letter


def test_by_hand():
    report = score(ANSWERS, PROBLEMS)
    assert report.metrics["accuracy"].value == 0.5
    assert report.metrics["image_accuracy"].value == 0.5
    assert (report.metrics["accuracy"].samples, report.metrics["image_accuracy"].samples) == (4, 2)
    assert report.metric == "image_accuracy"
    assert report.per_question == {"1": 1.0, "2": 0.0}
    assert report.groups["subject"]["language science"].value == 0
    assert not report.warnings


def test_a_letter_that_the_problem_does_not_have_is_wrong_but_read():
    report = score([said("4", "C")], {"4": problem(1, choices=2)})
    assert (report.headline.value, report.parse_failures, report.metric) == (0, 0, "accuracy")


def test_missing_answers():
    with pytest.raises(ScoringError, match="2 question ids are not answered: 2, 4"):
        score([ANSWERS[0], ANSWERS[2]], PROBLEMS)
    wrong = score([ANSWERS[0], ANSWERS[2]], PROBLEMS, missing="wrong")
    # Upstream lets unanswered questions leave the image subset; the problem says that it has an image.
    assert (wrong.metrics["accuracy"].value, wrong.metrics["image_accuracy"].value) == (0.5, 0.5)
    skipped = score([ANSWERS[0], ANSWERS[2]], PROBLEMS, missing="skip")
    assert (skipped.metrics["accuracy"].value, skipped.metrics["accuracy"].samples) == (1, 2)
    assert "left out" in skipped.warnings[0]


def test_images_that_were_not_shown_are_told():
    report = score([said("1", "A"), *ANSWERS[1:]], PROBLEMS)
    assert report.warnings == ["1 question with an image was asked without <image>: 1"]


def test_splits():
    assert list(split_problems(PROBLEMS, {"test": ["2", "1"]}, "test")) == ["2", "1"]
    with pytest.raises(ScoringError, match="no split 'minitest'; it has test"):
        split_problems(PROBLEMS, {"test": ["1"]}, "minitest")
    with pytest.raises(ScoringError, match="lacks 1 problem of test: 9"):
        split_problems(PROBLEMS, {"test": ["9"]}, "test")


@pytest.mark.parametrize(
    ("problems", "splits", "words"),
    [
        (PROBLEMS, {"test": []}, "split 'test' of pid_splits.json is empty"),
        (
            {"1": {"answer": 0}},
            {"test": ["1"]},
            "1 problem of test without choices, or without an answer among them: 1",
        ),
        ({"1": problem(3)}, {"test": ["1"]}, "without an answer among them: 1"),
        ([1], {"test": ["1"]}, "not ScienceQA's"),
        (PROBLEMS, ["1"], "not ScienceQA's"),
    ],
)
def test_broken_files(problems, splits, words):
    with pytest.raises(ScoringError, match=words):
        split_problems(problems, splits, "test")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "1 question has no id: question 1"),
        ({}, "holds no questions; expected a list"),
        ([], "holds no questions"),
    ],
)
def test_a_question_file_of_another_kind(tmp_path, content, words):
    (tmp_path / "q.json").write_text(json.dumps(content))
    with pytest.raises(ScoringError, match=rf"q\.json.*{words}"):
        asked_ids(str(tmp_path / "q.json"), "id")


def test_command_line_writes_what_upstream_writes(tmp_path, monkeypatch, capsys):
    (tmp_path / "problems.json").write_text(json.dumps(PROBLEMS))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": list(PROBLEMS)}))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ANSWERS))
    flags = f"--base-dir {tmp_path} --result-file {tmp_path}/a.jsonl --output-file {tmp_path}/o.json "
    flags += f"--output-result {tmp_path}/r.json --split test"
    monkeypatch.setattr(sys, "argv", ["eval_science_qa", *flags.split()])
    SCIENCEQA.score_main()
    assert "Total: 4, Correct: 2, Accuracy: 50.00%, IMG-Accuracy: 50.00%" in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["results"] == {"1": 0, "2": 2, "3": 2, "4": -1}
    assert result["outputs"]["2"] == "C. z"
    assert {k: result[k] for k in ("acc", "correct", "count", "image_acc", "image_correct", "image_count")} == {
        "acc": 50.0,
        "correct": 2,
        "count": 4,
        "image_acc": 50.0,
        "image_correct": 1,
        "image_count": 2,
    }
    sorted_out = json.loads((tmp_path / "o.json").read_text())
    assert [item["question_id"] for item in sorted_out["correct"]] == ["1", "3"]
    assert sorted_out["incorrect"][1] == {
        "question_id": "4",
        "parsed_ans": "C",
        "ground_truth": "B",
        "question": "Which?\nA. x",
        "pred": "C",
        "is_multimodal": False,
    }
    assert json.loads((tmp_path / "a.score.json").read_text())["benchmark"] == "scienceqa"


def test_every_file_that_the_score_reads_is_looked_for(tmp_path):
    MAKERS["scienceqa"](tmp_path / "raw")
    out = tmp_path / "scienceqa"
    prepare(tmp_path / "raw", out, Options(check_counts=False))
    assert not SCIENCEQA.missing_data(tmp_path)
    for name in ("problems.json", "pid_splits.json"):
        (out / name).rename(out / "away")
        assert SCIENCEQA.missing_data(tmp_path) == [out / name]
        (out / "away").rename(out / name)


def test_scienceqa_asks_as_llava_does(tmp_path):
    MAKERS["scienceqa"](tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False))
    rows = rows_of(tmp_path / "out/llava_test_CQM-A.json")
    assert rows[0] == {
        "id": "0",
        "image": "0/image.png",
        "conversations": [
            {"from": "human", "value": "<image>\nContext: Look closely.\nWhich is 0?\nA. zero\nB. one"},
            {"from": "gpt", "value": "A"},
        ],
    }
    assert rows[1] == {
        "id": "1",
        "conversations": [
            {"from": "human", "value": "Which is 1?\nA. zero\nB. one\nC. two"},
            {"from": "gpt", "value": "B"},
        ],
    }
