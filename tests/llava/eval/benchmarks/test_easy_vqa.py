import json
import runpy
import sys
import warnings
from dataclasses import replace

import pytest

from llava.eval.benchmarks.easy_vqa import ScoringError, as_report, blind_baseline

ANNOTATIONS = {"1": "circle", "2": "yes", "3": "no", "4": "teal"}


def answers(**texts):
    return [{"question_id": int(i[1:]), "text": text} for i, text in texts.items()]


def test_by_hand():
    result = as_report(answers(q1=" Circle. ", q2="no", q3="no", q4="blue"), ANNOTATIONS).extra
    assert (result["all"], result["shape"], result["colour"], result["yes_no"]) == (0.5, 1.0, 0.0, 0.5)
    assert result["questions"] == 4
    low, high = result["intervals"]["all"]
    assert 0 <= low < 0.5 < high <= 1


def test_a_kind_without_questions_has_no_score():
    assert as_report(answers(q1="circle"), ANNOTATIONS, ["1"]).extra["colour"] is None


@pytest.mark.parametrize(
    ("given", "asked", "words"),
    [
        (answers(q1="a") * 2, ["1"], "answered more than once: 1"),
        (answers(q9="a"), None, "not among the annotations: 9"),
        (answers(q1="a"), ["1", "2"], "not answered: 2 .*MISSING=skip"),
        ([], [], "no answers"),
    ],
)
def test_what_does_not_belong_together(given, asked, words):
    with pytest.raises(ScoringError, match=words):
        as_report(given, ANNOTATIONS, asked)


def test_fewer_questions_are_said():
    report = as_report(answers(q1="circle", q2="no"), ANNOTATIONS, ["1", "2"])
    assert report.warnings == ["a subset: 2 of the 4 annotated questions were asked"]
    report = as_report(answers(q1="circle"), ANNOTATIONS, ["1", "2"], "wrong")
    assert report.headline.value == 0.5
    assert "1 of 2 questions has no answer and counts as wrong" in report.warnings[1]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The scorer's command line on made files; `answers.jsonl` holds what is given as text."""
    (tmp_path / "annotations.json").write_text(json.dumps(ANNOTATIONS))
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"question_id": i}) + "\n" for i in ("1", "2")))

    def call(text, *flags):
        (tmp_path / "answers.jsonl").write_text(text)
        files = {"annotation": "annotations.json", "question": "questions.jsonl", "result": "answers.jsonl"}
        given = [word for kind, name in files.items() for word in (f"--{kind}-file", str(tmp_path / name))]
        monkeypatch.setattr(sys, "argv", ["eval_easy_vqa", *given, *flags])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            runpy.run_module("llava.eval.eval_easy_vqa", run_name="__main__")
        return json.loads((tmp_path / "answers.score.json").read_text())

    return call


def test_command_line(command, capsys):
    lines = "".join(json.dumps(line) + "\n" for line in answers(q1="circle", q2="no"))
    data = command(lines)
    assert (data["value"], data["all"], data["yes_no"], data["questions"]) == (0.5, 0.5, 0, 2)
    assert "warning: a subset: 2 of the 4" in capsys.readouterr().out
    first = lines.split("\n")[0] + "\n"
    assert command(first, "--missing", "skip")["counts"]["all"] == 1
    for text, words in (
        (lines[:-9], "line 2 is not valid JSON"),
        (first, "1 question id is not answered: 2"),
        (lines + '{"question_id": 77, "text": "a"}\n', "not among the annotations: 77"),
        ("", "holds no answers"),
    ):
        with pytest.raises(SystemExit, match=words):
            command(text)


def test_blind_baseline():
    train = [("what?", "circle"), ("what?", "circle"), ("what?", "teal")]
    result = blind_baseline(train, [("what?", "circle"), ("what?", "teal"), ("never asked?", "yes")])
    assert (result["shape"], result["colour"], result["yes_no"]) == (1.0, 0.0, 0.0)


def test_the_shape_of_all_benchmarks_tells_the_same():
    given = answers(q1=" Circle. ", q2="It is no", q3="no", q4="blue")
    report = as_report(given, ANNOTATIONS)
    result = report.extra
    assert report.headline.value == result["all"] == 0.5
    assert (report.headline.low, report.headline.high) == result["intervals"]["all"]
    assert {name: measure.value for name, measure in report.groups["kind"].items()} == {
        kind: result[kind] for kind in ("colour", "shape", "yes_no")
    }
    assert report.per_question == {"1": 1, "2": 0, "3": 1, "4": 0}
    assert report.parse_failures == 1
    assert not set(replace(report, extra={}).as_dict()) & set(result)
