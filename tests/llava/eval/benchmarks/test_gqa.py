import json
import shutil
import sys

import pytest

from llava.eval.benchmarks.gqa import GQA, convert_main, normalise, prepare, score, steps
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.pairing import ScoringError
from tests.made_benchmarks import MAKERS, SAMPLES, rows_of


def question(answer, structural="query", semantic="attr", text="What color is it?", operations=(), group=None, **more):
    return {
        "question": text,
        "answer": answer,
        "isBalanced": True,
        "types": {"structural": structural, "semantic": semantic, "detailed": "x"},
        "groups": {"global": group, "local": None},
        "semantic": [{"operation": o, "argument": a, "dependencies": []} for o, a in operations],
    } | more


QUESTIONS = {
    "1": question("no", "verify", "global", "Is it overcast?", [("select", "scene"), ("verify weather", "overcast")]),
    "2": question("red", operations=[("select", "shirt (1)"), ("query", "color")], group="color"),
    "3": question("blue", operations=[("select", "hat (2)"), ("query", "color")], group="color"),
    "4": question("dog", semantic="obj", operations=[("select", "x"), ("relate", "y"), ("query", "name")]),
    "5": question("yes", isBalanced=False),
}


def said(**texts):
    return [{"question_id": i[1:], "text": text} for i, text in texts.items()]


ANSWERS = said(q1="No.", q2="Red", q3="red", q4="a dog")


def test_by_hand():
    report = score(ANSWERS, QUESTIONS)
    # "a dog" is not "dog": equality is strict, articles count.
    assert report.per_question == {"1": 1, "2": 1, "3": 0, "4": 0}
    assert report.headline.value == 0.5
    assert (report.metrics["binary"].value, report.metrics["binary"].samples) == (1, 1)
    assert report.metrics["open"].value == pytest.approx(1 / 3)
    assert {name: m.value for name, m in report.groups["structural type"].items()} == {
        "query": pytest.approx(1 / 3),
        "verify": 1,
    }
    assert {name: m.value for name, m in report.groups["semantic type"].items()} == {"attr": 0.5, "global": 1, "obj": 0}
    assert {name: m.samples for name, m in report.groups["steps"].items()} == {"02": 4}
    assert {name: m.samples for name, m in report.groups["words"].items()} == {"03": 1, "04": 3}
    # Group colour: gold red 1, blue 1; given red 2, blue 0. (1 + 1) / 1 over one group, divided by 100.
    assert report.details["distribution"] == pytest.approx(0.02)


def test_steps_leave_out_the_one_that_asks():
    assert steps(QUESTIONS["4"]) == 2
    assert steps(question("x", operations=[("exist", "?"), ("choose name", "a|b"), ("select", "z")])) == 1


@pytest.mark.parametrize(("text", "form"), [("Yes.", "yes"), ("U.S..", "u.s"), ("a dog ", "a dog "), ("", "")])
def test_conversion_is_upstreams(text, form):
    assert normalise(text) == form


def test_no_group_no_distribution():
    report = score(said(q1="no"), {"1": QUESTIONS["1"]})
    assert report.details["distribution"] is None


@pytest.mark.parametrize(
    ("answers", "questions", "words"),
    [
        (ANSWERS[:3], QUESTIONS, "1 question id is not answered: 4"),
        (ANSWERS + said(q9="x"), QUESTIONS, "not among the annotations: 9"),
        (ANSWERS, {"1": {"question": "?"}}, "not in GQA's official form"),
        (ANSWERS, [], "not in GQA's official form"),
        (ANSWERS, {"5": QUESTIONS["5"]}, "no annotations"),
    ],
)
def test_bad_input(answers, questions, words):
    with pytest.raises(ScoringError, match=words):
        score(answers, questions)


def test_unbalanced_questions_do_not_count():
    assert score(ANSWERS + said(q5="yes"), QUESTIONS).headline.samples == 4


def test_from_answers_over_predictions_to_the_score(tmp_path, monkeypatch, capsys):
    (tmp_path / "testdev_balanced_questions.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "merge.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ANSWERS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--src", "merge.jsonl", "--dst", "testdev_balanced_predictions.json"])
    convert_main()
    predictions = json.loads((tmp_path / "testdev_balanced_predictions.json").read_text())
    assert predictions[0] == {"questionId": "1", "prediction": "no"}
    monkeypatch.setattr(sys, "argv", ["x", "--tier", "testdev_balanced"])
    GQA.score_main()
    official = json.loads((tmp_path / "testdev_balanced_predictions.score.json").read_text())
    monkeypatch.setattr(
        sys, "argv", ["x", "--annotation-file", "testdev_balanced_questions.json", "--result-file", "merge.jsonl"]
    )
    GQA.score_main()
    assert official == json.loads((tmp_path / "merge.score.json").read_text())
    assert official["value"] == 0.5
    assert "Distribution: 0.02" in capsys.readouterr().out


def test_gqas_real_questions_become_llavas_line_for_line(tmp_path):
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    shutil.copy(SAMPLES / "gqa_testdev_balanced_questions.head.json", raw / "testdev_balanced_questions.json")
    for row in rows_of(SAMPLES / "gqa_testdev_balanced.head.jsonl"):
        (raw / "images" / row["image"]).touch()
    assert prepare(raw, tmp_path / "out", Options(check_counts=False)) == 40
    ours = (tmp_path / "out/llava_gqa_testdev_balanced.jsonl").read_text()
    assert ours == (SAMPLES / "gqa_testdev_balanced.head.jsonl").read_text()


def test_upstreams_own_file_is_kept(tmp_path, capsys):
    MAKERS["gqa"](tmp_path / "raw")
    path = tmp_path / "out/llava_gqa_testdev_balanced.jsonl"
    prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False))
    theirs = [row | {"text": row["text"].replace("Answer", "Please answer")} for row in rows_of(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(theirs)))
    prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False))
    assert "asks these 6 questions in its own words; kept" in capsys.readouterr().out
    assert rows_of(path) == theirs[::-1]
    path.write_text("".join(json.dumps(row) + "\n" for row in theirs[1:]))
    with pytest.raises(PrepareError, match="asks 5 questions, which are not the 6 of this download; --overwrite"):
        prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False))
    prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False, overwrite=True))
    assert len(rows_of(path)) == 6


def test_raw_may_be_the_folder_itself(tmp_path):
    MAKERS["gqa"](tmp_path / "data")
    assert prepare(tmp_path, tmp_path, Options(check_counts=False)) == 6
    assert not (tmp_path / "data/images").is_symlink()


def test_other_data_in_the_way(tmp_path):
    MAKERS["gqa"](tmp_path / "raw")
    (tmp_path / "out/data/images").mkdir(parents=True)
    with pytest.raises(PrepareError, match="images exists and is not"):
        prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False))
