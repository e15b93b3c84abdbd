import random

import pytest

from llava.eval.benchmarks.mmlu import (
    PUBLISHED,
    SUBJECTS,
    Item,
    PrepareError,
    generation_prompt,
    likelihood_prompt,
    read_split,
    score,
)
from llava.eval.scoring.pairing import ScoringError

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
