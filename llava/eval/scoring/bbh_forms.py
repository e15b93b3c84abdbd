"""BIG-bench-hard: its 27 tasks, and what counts as an answer to each.

Strict: the whole reply is the reference. Flexible: the first thing in the reply that has the form of an answer to this
task is the reference. Both sides are compared case-blind, without a final full stop, commas, line breaks, double quotes
and backslashes. The rules are those of lm-eval's `bbh_zeroshot` version 3; docs/evaluation.md lists the differences.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from llava.eval.scoring.number_words import numbers_in_words

# The form of the answers -> the tasks that have it.
_TASKS = {
    "boolean": "boolean_expressions",
    "brackets": "dyck_languages",
    "lettered": "date_understanding disambiguation_qa geometric_shapes hyperbaton logical_deduction_five_objects "
    "logical_deduction_seven_objects logical_deduction_three_objects movie_recommendation penguins_in_a_table "
    "reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks temporal_sequences "
    "tracking_shuffled_objects_five_objects tracking_shuffled_objects_seven_objects "
    "tracking_shuffled_objects_three_objects",
    "number": "multistep_arithmetic_two object_counting",
    "plausible": "sports_understanding",
    "truth": "web_of_lies",
    "validity": "formal_fallacies",
    "words": "word_sorting",
    "yes_no": "causal_judgement navigate",
}
# Published questions of a task's file, if they are not 250.
_QUESTIONS = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}


class Task(NamedTuple):
    questions: int
    """In its file as published."""
    form: str


_FORM_OF = {name: form for form, names in _TASKS.items() for name in names.split()}
TASKS = {name: Task(_QUESTIONS.get(name, 250), form) for name, form in sorted(_FORM_OF.items())}


class Option(NamedTuple):
    letter: str
    text: str


def normalise(text: str) -> str:
    """The form in which both sides are compared."""
    text = re.sub(r"\.$", "", text.strip())
    return re.sub(r'[,\n"\\]', "", text).lower().strip()


def strict_match(reply: str, reference: str) -> bool:
    return normalise(reply) == normalise(reference)


def flexible_match(task: str, question: str, reply: str, reference: str, last: bool = False) -> tuple[bool, bool]:
    """Whether the answer found in a reply is right, and whether one was found at all.

    `last` takes the last answer ("not True ... so False"); the published rule takes the first.
    """
    if strict_match(reply, reference):
        return True, True
    answer = extract(task, question, reply, last)
    return answer is not None and normalise(answer) == normalise(reference), answer is not None


def extract(task: str, question: str, reply: str, last: bool = False) -> str | None:
    """The answer in a reply, in the form of the task's references, or None."""
    found = _FORMS[TASKS[task].form](question, reply)
    return found[-1 if last else 0] if found else None


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
    known = "".join(option.letter for option in offered)
    if not known:
        return []
    by_text = _options_named(offered, reply)
    if by_text:
        return by_text
    after_colon = re.findall(rf":\s*([{known}])", reply)
    # A reply that is nothing but the letter is an answer to any reader; lm-eval does not parse it.
    alone = re.fullmatch(rf"\W*([{known}])\W*", reply)
    return [f"({letter})" for letter in after_colon or (alone.groups() if alone else ())]


def _options_named(offered: list[Option], reply: str) -> list[str]:
    """Options whose text is in the reply as whole words, in order; a text that two options share names neither."""
    texts = [_bare(option.text) for option in offered]
    letters = {text: o.letter for text, o in zip(texts, offered, strict=True) if texts.count(text) == 1 and text}
    if not letters:
        return []
    # If two options begin alike, the longer one is meant.
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
    "yes_no": _pattern(r"\b(?:Yes|No|yes|no)\b"),
    "validity": _pattern(r"\b(?:valid|invalid)\b"),
    "plausible": _mapped("no|not plausible", "yes|plausible"),
    "truth": _mapped("no|does not tell the truth|is not telling the truth", "yes|tells the truth|is telling the truth"),
    "brackets": _pattern(r"(?<!\S)[\[\](){}<>\"][\[\](){}<>\" ]*"),
    "number": _numbers,
    "words": _words,
    "lettered": _lettered,
}
