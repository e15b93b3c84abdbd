import json
import random
from pathlib import Path

import pytest

from llava.eval.answering.questions import read_questions
from llava.eval.benchmarks.mmlu import (
    PUBLISHED,
    SUBJECTS,
    Item,
    PrepareError,
    generation_prompt,
    likelihood_prompt,
    prepare,
    read_split,
    score,
)
from llava.eval.benchmarks.preparing import Options
from llava.eval.scoring.pairing import ScoringError
from tests.made_benchmarks import rows_of

SHOT = Item("1 + 1?", ("1", "2", "3", "4"), "B")
ITEM = Item(" 2 + 2? ", ("1", "2", "3", "4"), "D")


def test_subjects():
    assert len(SUBJECTS) == 57
    assert PUBLISHED.count == 14042
    assert SUBJECTS["anatomy"] == "other"
    assert set(SUBJECTS.values()) == {"STEM", "humanities", "social sciences", "other"}


def test_prompts_to_the_character():
    assert likelihood_prompt("college_biology", [SHOT], ITEM) == (
        "The following are multiple choice questions (with answers) about college biology.\n\n"
        "1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n"
        "2 + 2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert generation_prompt("anatomy", [SHOT], ITEM).endswith(
        "Answer: B\n\n2 + 2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer with the option's letter from the given choices directly."
    )


def answers(method="generate", shots=5, **texts):
    how = {"method": method, "shots": shots}
    return [{"question_id": k.replace("__", "/"), "text": v, **how} for k, v in texts.items()]


CHOICES = ["red", "green", "blue", "none of these"]
ANNOTATIONS = {
    name: {"answer": letter, "choices": CHOICES}
    for name, letter in {"anatomy/0": "A", "anatomy/1": "B", "anatomy/2": "C", "astronomy/0": "D"}.items()
}


def test_means_by_hand():
    given = answers(anatomy__0="A", anatomy__1="It is green", anatomy__2="no idea", astronomy__0="A")
    report = score(given, ANNOTATIONS)
    assert report.headline.value == 0.5
    assert report.metrics["subject_mean"].value == pytest.approx((2 / 3 + 0) / 2)
    assert report.metrics["category_mean"].value == pytest.approx((2 / 3 + 0) / 2)
    assert report.groups["category"]["STEM"].value == 0
    assert report.groups["subject"]["anatomy"].samples == 3
    assert report.parse_failures == 1
    assert report.details["method"] == "generate"
    assert not any("fewer than" in text for text in report.warnings)


def test_the_method_is_told_and_never_mixed():
    texts = {"anatomy__0": "A", "anatomy__1": "B", "anatomy__2": "C", "astronomy__0": "D"}
    report = score(answers("loglikelihood", shots=3, **texts), ANNOTATIONS)
    assert report.details["method"] == "loglikelihood"
    assert any("4 prompts hold fewer than 5 examples" in text for text in report.warnings)
    mixed = answers(anatomy__0="A", anatomy__1="B") + answers("loglikelihood", anatomy__2="C", astronomy__0="D")
    with pytest.raises(ScoringError, match="generate, loglikelihood"):
        score(mixed, ANNOTATIONS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"two\nlines?",1,2,3,4,A\nshort,1,2,3,B\n', "line 3: 5 columns; expected 6"),
        ("q,1,2,3,4,E\n", "line 1: the answer is 'E'; expected one of A, B, C, D"),
        ("q,1,2,3,4,\n", "line 1: the answer is ''"),
        (" ,1,2,3,4,A\n", "line 1: the question is empty"),
        ('q,1,2,3,4,A\n"open,1,2,3,4,A\nq,1,2,3,4,A\n', "line 2: 1 columns"),
        ("", "holds no questions"),
    ],
)
def test_broken_rows_are_named_by_their_line(tmp_path, text, words):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/anatomy_test.csv").write_text(text)
    with pytest.raises(PrepareError, match=words):
        read_split(tmp_path, "test", "anatomy")


def test_missing_file(tmp_path):
    with pytest.raises(PrepareError, match=r"test/anatomy_test\.csv is missing"):
        read_split(tmp_path, "test", "anatomy")


def test_any_reply_in_any_order():
    rng = random.Random(0)
    pieces = [
        "A",
        "B",
        "(C)",
        "answer is",
        "D.",
        "red",
        "\u2028",
        "é",
        "\n",
        "*",
        " ",
        "none of these",
        "{",
        "I cannot",
    ]
    for _ in range(100):
        texts = {name.replace("/", "__"): "".join(rng.choices(pieces, k=rng.randrange(8))) for name in ANNOTATIONS}
        given = answers(**texts)
        report = score(given, ANNOTATIONS)
        rng.shuffle(given)
        assert score(given, ANNOTATIONS).as_dict() == report.as_dict()
        for measure in report.metrics.values():
            assert 0 <= measure.low <= measure.value + 1e-12
            assert measure.value - 1e-12 <= measure.high <= 1
    right = answers(**{name.replace("/", "__"): truth["answer"] for name, truth in ANNOTATIONS.items()})
    assert {measure.value for measure in score(right, ANNOTATIONS).metrics.values()} == {1.0}


@pytest.fixture
def mmlu(tmp_path) -> Path:
    """Two subjects in the layout of data.tar; a question over two lines, and one with a line separator."""
    for split, count in (("dev", 6), ("test", 3)):
        folder = tmp_path / "raw/data" / split
        folder.mkdir(parents=True)
        for subject in ("anatomy", "astronomy"):
            lines = [
                f'"{split} {i},\nof {subject}?",one,two,"three, or\u2028",four,{"ABCD"[i % 4]}\n' for i in range(count)
            ]
            (folder / f"{subject}_{split}.csv").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "raw"


def test_mmlu(mmlu, tmp_path):
    out = tmp_path / "out"
    assert prepare(mmlu, out, Options(check_counts=False)) == 6
    assert [q.question_id for q in read_questions(out / "questions.jsonl")][:4] == [
        "anatomy/0",
        "anatomy/1",
        "anatomy/2",
        "astronomy/0",
    ]
    row = rows_of(out / "questions.jsonl")[1]
    assert row["choices"] == ["one", "two", "three, or\u2028", "four"]
    assert row["text"].count("\nAnswer: ") == 5
    assert "dev 4," in row["text"]
    assert "dev 5," not in row["text"], "the first five of the dev file"
    assert json.loads((out / "annotations.json").read_text())["anatomy/1"]["answer"] == "B"
    assert len(json.loads((out / "shots.json").read_text())["astronomy"]) == 5
    assert prepare(mmlu / "data", tmp_path / "again", Options(check_counts=False)) == 6


def test_mmlu_counts_and_files(mmlu, tmp_path):
    with pytest.raises(PrepareError, match=r"abstract_algebra_dev\.csv is missing"):
        prepare(mmlu, tmp_path / "out", Options())
    for split in ("dev", "test"):
        text = (mmlu / f"data/{split}/anatomy_{split}.csv").read_text()
        for subject in SUBJECTS:
            (mmlu / f"data/{split}/{subject}_{split}.csv").write_text(text)
    with pytest.raises(PrepareError, match="171 test questions; published are 14,042"):
        prepare(mmlu, tmp_path / "out", Options())
    (mmlu / "data/dev/virology_dev.csv").write_text("q,1,2,3,4,A\n")
    with pytest.raises(PrepareError, match=r"virology_dev\.csv holds 1 questions; 5 are needed"):
        prepare(mmlu, tmp_path / "out", Options(check_counts=False))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "data.tar").touch()
    with pytest.raises(PrepareError, match=r"has no data/test nor test; unpack data\.tar first"):
        prepare(packed, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()
