import random

import pytest

from llava.eval.scoring.letters import read_letter

OPTIONS = ["a car", "a bus", "a bicycle", "a boat"]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        # The replies on which public harnesses disagree with each other, or with themselves.
        ("The answer is A", "A"),
        ("The answer is A.", "A"),
        ("Answer: B because the car is blue and small", "B"),
        ("B or C", None),
        ("It is a banana", None),
        # Bare letters and options as they are written.
        ("B", "B"),
        ("b", "B"),
        (" (C). ", "C"),
        ("D. a boat", "D"),
        ("(B) a bus", "B"),
        ("B: a bus", "B"),
        ("C)", "C"),
        ("E", None),
        ("7", None),
        ("E. a train", None),
        # Letters in a sentence.
        ("I would choose option C", "C"),
        ("The correct answer is (D).", "D"),
        ("the answer is: **B**", "B"),
        ("The answer is A or B", None),
        ("Option A, not option B", "A"),
        ("It must be C", "C"),
        ("It is A", "A"),
        ("A man on a horse", None),
        ("C is not what I would take because of its wheels", None),
        ("I'm sorry, I cannot choose C", None),
        # Two letters, however they are marked.
        ("(B) or (C)", None),
        ("B) or C)", None),
        ("B. or C.", None),
        ("B, C", None),
        ("B. and D.", None),
        ("(A), (B) or (C)", None),
        ("(A) (B)", None),
        ("A/B", None),
        ("A. a car\nB. a bus\nC. a bicycle\nD. a boat", None),
        # What follows the letter of an option is the option's text.
        ("B. Vitamins A and C", "B"),
        ("(B) A or C", "B"),
        # Denials.
        ("not B", None),
        ("Not (B).", None),
        ("Neither B", None),
        ("neither B nor C", None),
        ("not B or C", None),
        ("The answer isn't B", None),
        ("The answer isn\u2019t B", None),
        ("The answer is not A", None),
        ("The answer is not option B.", None),
        ("It cannot be B", None),
        ("I don't think the answer is B", None),
        ("I do not believe that option C is right", None),
        ("B is not correct.", None),
        ("(A) is not the answer", None),
        ("Option C is wrong", None),
        ("The answer is not C but B", "B"),
        ("The answer is B, not C", "B"),
        ("It is not a car, it is B", "B"),
        ("I'm not sure, B", "B"),
        ("I do not know, but I would say C", "C"),
        ("It is not a bus.", None),
        ("It is not a bus but a boat.", "D"),
        ("B. It is not a car.", "B"),
        # Texts of options.
        ("a bus", "B"),
        ("A car", "A"),
        ("Answer: A bus", "B"),
        ("The answer is A because of the wheels", "A"),
        ("The picture shows a bicycle.", "C"),
        ("a car and a bus", None),
        ("A carriage", None),
        ("", None),
        ("   ", None),
        ("I don't know", None),
    ],
)
def test_frozen(reply, letter):
    assert read_letter(reply, OPTIONS) == letter


def test_an_option_that_denies_is_itself():
    options = ["a car", "not a car", "no car"]
    assert [read_letter(f"It is {text}.", options) for text in options] == ["A", "B", "C"]
    assert read_letter("It is not true", ["true", "false"]) is None


def test_a_denied_letter_is_never_read():
    for denial in ("not {}", "It is not {}.", "Not ({})", "neither {}", "The answer is not {}", "Answer: not {}"):
        for letter in "ABCD":
            assert read_letter(denial.format(letter), OPTIONS) is None


def test_an_empty_option_matches_nothing():
    """Stored as "nan" it would be inside "banana"; options end at the first empty one, and words are whole."""
    assert read_letter("It is a banana", ["yes", "no", "nan"]) is None
    assert read_letter("It is a banana", ["yes", "no", ""]) is None


def test_a_number_is_not_inside_another():
    assert read_letter("I see 12 apples", ["2 apples", "12 apples", "1 apple"]) == "B"


def test_options_that_are_letters():
    assert read_letter("B", ["C", "B", "A", "D"]) == "B"


def test_a_long_reply_is_not_searched_for_texts():
    assert read_letter("a bus " + "and so on " * 20, OPTIONS) is None


def test_any_text_gives_a_letter_of_the_options_or_none():
    draw = random.Random(0)
    letters = "ABCDEabcd .,:()*'\"answer is or option\n\t\\[]{}+?^$|é漢\U0001f600\u2028\x00"
    for _ in range(3000):
        reply = "".join(draw.choice(letters) for _ in range(draw.randrange(40)))
        options = ["".join(draw.choice(letters) for _ in range(draw.randrange(6))) for _ in range(draw.randrange(2, 5))]
        assert read_letter(reply, options) in (None, *"ABCD"[: len(options)])


def test_an_option_of_one_character_is_read_by_its_text():
    """Such as MMLU's "Find all c in Z_3", with the choices 0, 1, 2, 3."""
    for reply in ("2", "2.", "**2**"):
        assert read_letter(reply, ["0", "1", "2", "3"]) == "C"
    assert read_letter("7", ["0", "1", "2", "3"]) is None
    assert read_letter("b", ["c", "d"]) == "B", "a letter comes first"
    assert read_letter("是", ["是", "否"]) == "A"
