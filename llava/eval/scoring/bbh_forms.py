"""BIG-bench-hard: its 27 tasks, and what counts as an answer to each.

Strict: the whole reply is the reference. Flexible: the first thing in the reply that has the form of an answer to this
task is the reference. Both sides are compared case-blind, without a final full stop, commas, line breaks, double quotes
and backslashes. The rules are those of lm-eval's `bbh_zeroshot` version 3; docs/evaluation.md lists the differences.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from llava.eval.scoring.number_words import numbers_in_words

LETTERED, YES_NO = "lettered", "yes_no"


class Option(NamedTuple):
    letter: str
    text: str


@dataclass(frozen=True)
class Task:
    """A task: how many questions its file holds as published, and the form of its answers."""

    name: str
    questions: int
    form: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("boolean_expressions", 250, "boolean"),
        Task("causal_judgement", 187, YES_NO),
        Task("date_understanding", 250, LETTERED),
        Task("disambiguation_qa", 250, LETTERED),
        Task("dyck_languages", 250, "brackets"),
        Task("formal_fallacies", 250, "validity"),
        Task("geometric_shapes", 250, LETTERED),
        Task("hyperbaton", 250, LETTERED),
        Task("logical_deduction_five_objects", 250, LETTERED),
        Task("logical_deduction_seven_objects", 250, LETTERED),
        Task("logical_deduction_three_objects", 250, LETTERED),
        Task("movie_recommendation", 250, LETTERED),
        Task("multistep_arithmetic_two", 250, "number"),
        Task("navigate", 250, YES_NO),
        Task("object_counting", 250, "number"),
        Task("penguins_in_a_table", 146, LETTERED),
        Task("reasoning_about_colored_objects", 250, LETTERED),
        Task("ruin_names", 250, LETTERED),
        Task("salient_translation_error_detection", 250, LETTERED),
        Task("snarks", 178, LETTERED),
        Task("sports_understanding", 250, "plausible"),
        Task("temporal_sequences", 250, LETTERED),
        Task("tracking_shuffled_objects_five_objects", 250, LETTERED),
        Task("tracking_shuffled_objects_seven_objects", 250, LETTERED),
        Task("tracking_shuffled_objects_three_objects", 250, LETTERED),
        Task("web_of_lies", 250, "truth"),
        Task("word_sorting", 250, "words"),
    )
}


def normalise(text: str) -> str:
    """What both sides of a comparison are reduced to."""
    text = re.sub(r"\.$", "", text.strip())
    return re.sub(r'[,\n"\\]', "", text).lower().strip()


def strict_match(reply: str, reference: str) -> bool:
    return normalise(reply) == normalise(reference)


def flexible_match(task: str, question: str, reply: str, reference: str, last: bool = False) -> tuple[bool, bool]:
    """Whether the answer found in a reply is right, and whether one was found at all.

    Args:
        task: a name of `TASKS`.
        question: the question's text, which names options and words to sort.
        last: take the last answer in place of the first ("not True ... so False"); not the published rule.
    """
    if strict_match(reply, reference):
        return True, True
    answer = extract(task, question, reply, last)
    return answer is not None and normalise(answer) == normalise(reference), answer is not None


def extract(task: str, question: str, reply: str, last: bool = False) -> str | None:
    """The answer that a reply gives, in the form of the task's references; None where it holds none."""
    found = _FORMS[TASKS[task].form](question, reply)
    return None if not found else found[-1 if last else 0]


def options(question: str) -> list[Option]:
    """The lettered options of a question, in order."""
    return [Option(letter, text.strip()) for letter, text in re.findall(r"^\(([A-Z])\)(.*)$", question, re.MULTILINE)]


def _pattern(pattern: str, flags: int = 0) -> Callable[[str, str], list[str]]:
    compiled = re.compile(pattern, flags)
    return lambda question, reply: compiled.findall(reply)


def _mapped(no: str, yes: str) -> Callable[[str, str], list[str]]:
    compiled = re.compile(rf"\b(?:(?P<no>{no})|(?:{yes}))\b", re.IGNORECASE)
    return lambda question, reply: ["no" if match["no"] else "yes" for match in compiled.finditer(reply)]


def _lettered(question: str, reply: str) -> list[str]:
    letters = re.findall(r"\([A-Z]\)", reply)
    if letters:
        return letters
    offered = options(question)
    by_text = _options_named(offered, reply)
    if by_text:
        return by_text
    known = "".join(option.letter for option in offered)
    if not known:
        return []
    after_colon = re.findall(rf":\s*([{known}])", reply)
    # A reply that is nothing but the letter is an answer to anybody who reads it; lm-eval leaves it unparsed.
    alone = re.fullmatch(rf"\W*([{known}])\W*", reply)
    return [f"({letter})" for letter in after_colon or (alone.groups() if alone else ())]


def _options_named(offered: list[Option], reply: str) -> list[str]:
    """Options whose text stands in the reply as whole words, in order; text that two options share names neither."""
    texts = [_bare(option.text) for option in offered]
    letters = {
        text: option.letter for text, option in zip(texts, offered, strict=True) if texts.count(text) == 1 and text
    }
    if not letters:
        return []
    # Of two options that begin alike the longer one is meant.
    either = "|".join(re.escape(text) for text in sorted(letters, key=len, reverse=True))
    return [f"({letters[text]})" for text in re.findall(rf"(?<!\w)(?:{either})(?!\w)", _bare(reply))]


def _bare(text: str) -> str:
    """Lower case, without punctuation, blanks collapsed."""
    return " ".join(re.sub(r"[^\w\s]|_", "", text.lower()).split())


def _numbers(question: str, reply: str) -> list[str]:
    digits = re.findall(r"-?\d+", re.sub(r"(?<=\d),(?=\d{3})", "", reply))
    return digits or [str(number) for number in numbers_in_words(reply)]


def _words(question: str, reply: str) -> list[str]:
    """The listed words in the order of their last occurrence in the reply: models often repeat the list first."""
    listed = question.partition("List:")[2].split()
    if not listed:
        return []
    found = re.findall("|".join(rf"\b{re.escape(word)}\b" for word in listed), reply)
    ordered = list(reversed(dict.fromkeys(reversed(found))))
    return [" ".join(ordered)] if ordered else []


_FORMS: dict[str, Callable[[str, str], list[str]]] = {
    "boolean": _pattern(r"\b(?:True|False)\b"),
    YES_NO: _pattern(r"\b(?:Yes|No|yes|no)\b"),
    "validity": _pattern(r"\b(?:valid|invalid)\b"),
    "plausible": _mapped("no|not plausible", "yes|plausible"),
    "truth": _mapped("no|does not tell the truth|is not telling the truth", "yes|tells the truth|is telling the truth"),
    "brackets": _pattern(r"(?<!\S)[\[\](){}<>\"][\[\](){}<>\" ]*"),
    "number": _numbers,
    "words": _words,
    LETTERED: _lettered,
}
