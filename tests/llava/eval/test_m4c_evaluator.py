import random

import pytest

from llava.eval.m4c_evaluator import EvalAIAnswerProcessor, TextVQAAccuracyEvaluator

normalise = EvalAIAnswerProcessor()


@pytest.mark.parametrize(
    ("raw", "normalised"),
    # Made by running upstream's evaluator.
    [
        ("The U.S.A.", "usa"),
        ("two-thirds", "2 thirds"),
        ("well - known", "well known"),
        ("1,000 dollars", "1000 dollars"),
        ("dont", "don't"),
        ("a cat's", "cat 's"),
        ("3.5", "3.5"),
        ("none", "0"),
        ("A", ""),
        ("$3.00.", "$3.00"),
        ("5:30 pm", "5:30 pm"),
        ("coca-cola", "coca cola"),
        ("e.g. x.", "eg x"),
        ("(a) b/c", "b c"),
    ],
)
def test_upstreams_vectors(raw, normalised):
    assert normalise(raw) == normalised


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("somebody'd", "somebodyd"),
        ("somebodyd", "somebodyd"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("ows'at", "ows'at"),
        ("'ows'at", "'ow's'at"),
        ("'ow'sat", "'ow 'sat"),
        ("Im", "im"),
        ("let's", "let 's"),
        ("Ten\tgreen\nbottles", "10 green bottles"),
        ("what?", "what"),
        # 40 full stops: upstream removes 32 of them.
        ("." * 40, "." * 8),
    ],
)
def test_corners(raw, normalised):
    assert normalise(raw) == normalised


def test_the_table_is_vqas():
    """120 entries, of which four with a capital I and two that change nothing never act."""
    assert len(EvalAIAnswerProcessor.CONTRACTIONS) == 120 - 4 - 2


@pytest.mark.parametrize(("matches", "value"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (7, 1), (10, 1)])
def test_soft_accuracy(matches, value):
    references = ["stop"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert TextVQAAccuracyEvaluator().score("Stop.", references) == pytest.approx(value)


def test_soft_accuracy_is_the_mean_over_annotators():
    references = ["a b", "a b", "c", "c", "c", "d", "e", "f", "g", "h"]
    evaluator = TextVQAAccuracyEvaluator()
    for said in ("b", "c", "d", "zzz"):
        plain = [normalise(r) for r in references]
        slow = 0.0
        for i in range(10):
            others = plain[:i] + plain[i + 1 :]
            slow += min(1, others.count(normalise(said)) / 3) / 10
        assert evaluator.score(said, references) == pytest.approx(slow)


def test_list_of_predictions():
    entries = [
        {"pred_answer": "yes", "gt_answers": ["yes"] * 10},
        {"pred_answer": "no", "gt_answers": ["yes"] * 9 + ["no"]},
    ]
    assert TextVQAAccuracyEvaluator().eval_pred_list(entries) == pytest.approx(0.65)


def test_ten_annotators_and_no_other_number():
    with pytest.raises(ValueError, match=r"exactly 10 .* has 9"):
        TextVQAAccuracyEvaluator().score("a", ["a"] * 9)


def test_any_text():
    draw = random.Random(0)
    letters = "aAthenone'.,?-/[]{}\"=+\\_<>@`! \n\t019é漢\u2028\x00"
    evaluator = TextVQAAccuracyEvaluator()
    for _ in range(2000):
        said, other = ("".join(draw.choice(letters) for _ in range(draw.randrange(14))) for _ in range(2))
        assert normalise(said) == " ".join(normalise(said).split())
        assert evaluator.score(said, [said] * 10) == 1
        assert 0 <= evaluator.score(said, [other] * 5 + [said] + ["x"] * 4) <= 1
