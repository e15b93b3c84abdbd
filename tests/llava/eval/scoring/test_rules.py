import random

import pytest

from llava.eval.scoring.rules import anls, best, exact, harmonic_mean, iou, levenshtein, relaxed_correctness


def any_text(draw):
    letters = "abAB 0159.%-\n\tßİé漢\U0001f600\u2028_,'"
    return "".join(draw.choice(letters) for _ in range(draw.randrange(12)))


@pytest.mark.parametrize(
    ("target", "said", "right"),
    [
        # 5% of the target, not of the prediction: 0.05 * 100 < 5.2 < 0.05 * 105.2.
        ("100", "105.2", False),
        ("105.2", "100", True),
        ("100", "105", True),
        ("100", "95", True),
        ("100", "94.9", False),
        ("-20", "-20.9", True),
        ("-20", "20", False),
        ("12%", "0.12", True),
        ("12%", "12", False),
        ("0", "0", True),
        ("0", "0.0", False),
        ("0", "0.001", False),
        ("Yes", " yes", True),
        ("yes", "no", False),
        ("nan", "NaN", True),
        ("infinity", "inf", False),
        ("5", "nan", False),
        ("1_000", "1000", False),
        ("%", "%", True),
        ("2,000", "2000", False),
    ],
)
def test_relaxed(target, said, right):
    assert relaxed_correctness(target, said) is right


def test_exact_is_no_more_than_case_and_blanks():
    assert exact("The Cat", " the cat ")
    assert not exact("the cat", "cat")
    assert not exact("100", "101")
    assert not exact("cat", "cat.")


@pytest.mark.parametrize(
    ("reference", "said", "value"),
    [
        ("abc", "abc", 1.0),
        ("abc", "ABC", 1.0),
        ("abc", "abd", 2 / 3),
        # Below one half is nothing; one half itself counts.
        ("ab", "ac", 0.5),
        ("abc", "axy", 0.0),
        # One edit; divided by the longer RAW string, 6 with its blanks, not by the stripped 3.
        ("abc", "abd   ", 1 - 1 / 6),
        ("a b", "a   b", 1.0),
        # Two edits of "abcd", which stripped would be just 0.5 and raw is 1 - 2/8.
        ("abcd", "  abxy  ", 1 - 2 / 8),
        ("", "", 1.0),
        ("a", "", 0.0),
    ],
)
def test_anls(reference, said, value):
    assert anls(reference, said) == pytest.approx(value)


def test_best_of_several_references():
    assert best(anls, "abd", ["xyz", "abc", "abd!"]) == pytest.approx(0.75)
    assert best(exact, "b", ["a", "B"]) == 1


@pytest.mark.parametrize(
    ("a", "b", "n"), [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("a", "a", 0)]
)
def test_levenshtein(a, b, n):
    assert levenshtein(a, b) == levenshtein(b, a) == n


def test_levenshtein_equals_its_definition():
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    draw = random.Random(0)
    for _ in range(60):
        a, b = ("".join(draw.choice("ab") for _ in range(draw.randrange(6))) for _ in range(2))
        assert levenshtein(a, b) == slow(a, b)


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (0, 0, 10, 5), 0.5),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((3, 3, 3, 3), (3, 3, 3, 3), 0.0),
        ((0, 0, 1, 1), (0.25, 0.25, 0.75, 0.75), 0.25),
    ],
)
def test_iou(a, b, value):
    assert iou(a, b) == pytest.approx(value)
    assert iou(b, a) == pytest.approx(value)


def test_rules_stay_in_bounds_for_any_text():
    draw = random.Random(1)
    for _ in range(3000):
        one, other = any_text(draw), any_text(draw)
        for rule in (exact, relaxed_correctness, anls):
            assert 0 <= rule(one, other) <= 1
            assert rule(one, one) == 1, (rule, one)


def test_iou_stays_in_bounds():
    draw = random.Random(2)
    for _ in range(2000):
        a, b = (tuple(draw.uniform(-1, 2) for _ in range(4)) for _ in range(2))
        assert 0 <= iou(a, b) == pytest.approx(iou(b, a))
        assert iou(a, b) <= 1
        if a[0] < a[2] and a[1] < a[3]:
            assert iou(a, a) == pytest.approx(1)


def test_harmonic_mean_follows_the_worst():
    assert harmonic_mean([0.5, 0.5]) == pytest.approx(0.5)
    assert harmonic_mean([1, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([1, 0]) == pytest.approx(2e-10, rel=1e-6)
