"""Rules of BIG-bench-hard on replies whose right reading is known."""

import json
import random
import shutil
from pathlib import Path

import pytest

from llava.eval.answering.questions import read_questions
from llava.eval.benchmarks.bbh import prepare, prompt, score
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.scoring.bbh_forms import TASKS, extract, flexible_match, normalise, options, strict_match
from llava.eval.scoring.number_words import numbers_in_words
from llava.eval.scoring.pairing import ScoringError

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


def test_prepare(tmp_path):
    assert prepare(DATA.parent, tmp_path, Options(check_counts=False)) == 54
    questions = read_questions(tmp_path / "questions.jsonl")
    annotations = json.loads((tmp_path / "annotations.json").read_text())
    assert [q.question_id for q in questions] == list(annotations)
    assert {truth["task"] for truth in annotations.values()} == set(TASKS)
    assert questions[0].text.startswith(annotations[questions[0].question_id]["input"])
    assert questions[0].image is None


def test_counts_and_files_of_a_download(tmp_path):
    with pytest.raises(PrepareError, match=r"snarks\.json holds 2 questions; published are 178"):
        prepare(DATA.parent, tmp_path, Options())
    raw = tmp_path / "raw"
    shutil.copytree(DATA, raw)
    (raw / "navigate.json").unlink()
    (raw / "snarks.json").write_text('{"examples": [{"input": "a"}]}')
    with pytest.raises(PrepareError, match=r"navigate\.json is missing; snarks\.json is not a task file"):
        prepare(raw, tmp_path / "out", Options(check_counts=False))
    assert not (tmp_path / "out").exists()


ANNOTATIONS = {
    "snarks/0": {"task": "snarks", "input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(A)"},
    "snarks/1": {"task": "snarks", "input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(B)"},
    "snarks/2": {"task": "snarks", "input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(B)"},
    "navigate/0": {"task": "navigate", "input": "Do you?", "target": "No"},
}


REPLIES = {"snarks/0": "(A)", "snarks/1": "I say that", "snarks/2": "this", "navigate/0": "maybe"}


def answers(replies):
    return [{"question_id": name, "text": text, "model_id": "m"} for name, text in replies.items()]


def test_by_hand():
    report = score(answers(REPLIES), ANNOTATIONS)
    assert report.headline.value == report.metrics["flexible"].value == 0.5
    assert report.metrics["strict"].value == 0.25
    assert report.metrics["flexible_task_mean"].value == pytest.approx((2 / 3 + 0) / 2)
    assert report.metrics["strict_task_mean"].value == pytest.approx((1 / 3 + 0) / 2)
    assert report.parse_failures == 1
    assert report.groups["flexible, task"]["snarks"].value == pytest.approx(2 / 3)
    assert report.groups["flexible, task"]["snarks"].samples == 3
    assert report.per_question == {"snarks/0": 1, "snarks/1": 1, "snarks/2": 0, "navigate/0": 0}
    assert any("2 of the 27 tasks" in text for text in report.warnings)
    low, high = report.headline.low, report.headline.high
    assert 0 <= low < 0.5 < high <= 1


def test_references_score_one_in_any_order():
    given = answers({name: truth["target"] for name, truth in ANNOTATIONS.items()})
    random.Random(0).shuffle(given)
    report = score(given, ANNOTATIONS)
    assert {measure.value for measure in report.metrics.values()} == {1.0}
    assert report.parse_failures == 0


def test_what_does_not_belong_together():
    with pytest.raises(ScoringError, match="not among the annotations: snarks/9"):
        score(answers(REPLIES | {"snarks/9": "x"}), ANNOTATIONS)
    with pytest.raises(ScoringError, match="not answered: navigate/0"):
        score(answers({k: v for k, v in REPLIES.items() if k != "navigate/0"}), ANNOTATIONS)
    with pytest.raises(ScoringError, match="unknown BIG-bench-hard tasks in the annotations: chess"):
        score(answers({"a": "b"}), {"a": {"task": "chess", "input": "", "target": "b"}})


def test_a_subset_says_so():
    kept = ["snarks/0", "navigate/0"]
    report = score(answers({name: REPLIES[name] for name in kept}), ANNOTATIONS, asked=kept)
    assert report.headline.samples == 2
    assert any("2 of the 4 annotated questions" in text for text in report.warnings)


def test_any_reply_in_any_order():
    rng = random.Random(1)
    pieces = ["(A)", "(B)", "this", "that", "No", "yes", "\u2028", "é", "\n", "*", " ", ":", "["]
    for _ in range(100):
        given = answers({name: "".join(rng.choices(pieces, k=rng.randrange(8))) for name in ANNOTATIONS})
        report = score(given, ANNOTATIONS)
        rng.shuffle(given)
        assert score(given, ANNOTATIONS).as_dict() == report.as_dict()
        assert report.metrics["strict"].value <= report.metrics["flexible"].value
        for measure in report.metrics.values():
            assert 0 <= measure.low <= measure.value + 1e-12
            assert measure.value - 1e-12 <= measure.high <= 1
