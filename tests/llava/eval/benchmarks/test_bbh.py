"""Rules of BIG-bench-hard on replies whose right reading is known."""

import json
import random
from pathlib import Path

import pytest

from llava.eval.benchmarks.bbh import prompt
from llava.eval.scoring.bbh_forms import TASKS, extract, flexible_match, normalise, options, strict_match
from llava.eval.scoring.number_words import numbers_in_words

DATA = Path(__file__).parents[3] / "data/bbh/bbh"
COLOURS = "What colour is it?\nOptions:\n(A) red\n(B) red and blue\n(C) teal, mostly"
WORDS = "Sort the following words alphabetically: List: pear apple fig"


@pytest.mark.parametrize(
    ("task", "question", "reply", "answer"),
    [
        ("boolean_expressions", "", "not True ... so False", "True"),  # the first, though the last is meant
        ("boolean_expressions", "", "Untrue, Falsehood", None),
        ("boolean_expressions", "", "it is true", None),
        ("causal_judgement", "", "I say No, not Yes", "No"),
        ("navigate", "", "Not at all, nothing", None),
        ("sports_understanding", "", "It is not plausible.", "no"),
        ("sports_understanding", "", "The sentence is plausible", "yes"),
        ("sports_understanding", "", "YES", "yes"),
        ("sports_understanding", "", "implausible", None),
        ("web_of_lies", "", "Elanor does not tell the truth, yes", "no"),
        ("web_of_lies", "", "Elanor tells the truth", "yes"),
        ("formal_fallacies", "", "The argument is invalid, not valid", "invalid"),
        ("object_counting", "", "I count 12 of 20", "12"),
        ("object_counting", "", "There are twelve, or 13", "13"),  # digits come before words
        ("object_counting", "", "There are twenty-one", "21"),
        ("object_counting", "", "a well-known lot", None),
        ("multistep_arithmetic_two", "", "= -1,234", "-1234"),
        ("multistep_arithmetic_two", "", "minus four", "-4"),
        ("dyck_languages", "", "] ]", "] ]"),
        ("dyck_languages", "", "The rest is > } now", "> } "),
        ("dyck_languages", "", "closing it", None),
        ("date_understanding", COLOURS, "(C) and not (A)", "(C)"),
        ("date_understanding", COLOURS, "It is RED AND BLUE!", "(B)"),  # the longer of two that begin alike
        ("date_understanding", COLOURS, "It is teal mostly", "(C)"),
        ("date_understanding", COLOURS, "coloured reddish", None),
        ("date_understanding", COLOURS, "Answer: B", "(B)"),
        ("date_understanding", COLOURS, "B.", "(B)"),
        ("date_understanding", COLOURS, "Bad question", None),
        ("date_understanding", "no options", "red", None),
        ("word_sorting", WORDS, "The words pear apple fig sorted: apple fig pear", "apple fig pear"),
        ("word_sorting", WORDS, "figs and pineapples", None),
    ],
)
def test_the_first_answer_counts(task, question, reply, answer):
    assert extract(task, question, reply) == answer


def test_the_last_answer_counts_where_asked():
    assert flexible_match("boolean_expressions", "", "not True ... so False", "False") == (False, True)
    assert flexible_match("boolean_expressions", "", "not True ... so False", "False", last=True) == (True, True)


def test_options_that_say_the_same_name_neither():
    question = "Which?\nOptions:\n(A) same\n(B) same\n(C) other"
    assert extract("snarks", question, "same") is None
    assert extract("snarks", question, "the other") == "(C)"


@pytest.mark.parametrize(
    ("reply", "reference", "same"),
    [
        ("false.", "False", True),
        ('"(A)"', "(A)", True),
        ("apple,\nfig", "applefig", True),  # line breaks vanish, as published
        (" Yes\n", "yes", True),
        ("The answer is (A)", "(A)", False),
        ("A", "(A)", False),
    ],
)
def test_strict(reply, reference, same):
    assert strict_match(reply, reference) is same


def test_numbers_in_words():
    said = "thirteen, two hundred and five; one thousand two hundred thirty-four, minus four, one two zero"
    assert numbers_in_words("nineteen hundred") == [1900]
    assert numbers_in_words(said) == [13, 205, 1234, -4, 1, 2, 0]
    assert numbers_in_words("none of the sevens, often") == []


def test_published_counts():
    assert len(TASKS) == 27
    assert sum(task.questions for task in TASKS.values()) == 6511
    assert {name: task.questions for name, task in TASKS.items() if task.questions != 250} == {
        "causal_judgement": 187,
        "penguins_in_a_table": 146,
        "snarks": 178,
    }


@pytest.mark.parametrize("task", TASKS)
def test_real_examples_of_every_task(task):
    examples = json.loads((DATA / f"{task}.json").read_text())["examples"]
    for example in examples:
        target = example["target"]
        assert flexible_match(task, example["input"], target, target) == (True, True)
        assert normalise(extract(task, example["input"], f"The answer is: {target}")) == normalise(target)
        assert flexible_match(task, example["input"], "I do not know that", target)[0] is False
        assert prompt(example["input"]).endswith("\nPlease answer this question in a word or phrase.")
        if TASKS[task].form == "lettered":
            assert f"({options(example['input'])[0].letter})" == "(A)"
    other = examples[1]["target"]
    assert flexible_match(task, examples[0]["input"], other, examples[0]["target"])[0] is False


def test_any_text_is_read_without_an_error():
    rng = random.Random(0)
    pieces = [
        "(A)",
        "(",
        ")",
        "[",
        "\\",
        "True",
        "no",
        "-",
        "1,000",
        "\n",
        "\u2028",
        "é",
        "one",
        '"',
        ":",
        " ",
        "B",
        "*",
        "{",
    ]
    for _ in range(300):
        reply = "".join(rng.choices(pieces, k=rng.randrange(12)))
        for task in TASKS:
            right, parsed = flexible_match(task, COLOURS + WORDS, reply, "(A)")
            assert parsed or not right
            assert not strict_match(reply, "(A)") or right
