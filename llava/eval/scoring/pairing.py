"""Reads answers and pairs them with annotations: every mismatch is an error, and whatever is left out is reported."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from llava import reading
from llava.eval.answering.errors import EvaluationError
from llava.names import agree, count, some

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Answers = Sequence[Mapping[str, Any]]
"""Lines of an answers file, each with `question_id` and `text`."""
MISSING = ("error", "wrong", "skip")
CHECK = "check"
"""A value of `missing`: no answers yet; `pair` checks the rest and stops."""
SCORE_WITHOUT = (
    "MISSING=wrong or MISSING=skip before a script of scripts/eval, or the scorer's --missing wrong or --missing skip, "
    "scores without them"
)
"""What to do if questions are not answered."""


class ScoringError(EvaluationError):
    """Answers and annotations that do not belong together, or cannot be read."""


class InputsFit(Exception):
    """Flags, annotations and questions were read and belong together: the end of a run with --check."""


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """Turns an error about the shape of a file's content into one line, which begins with `what`."""
    try:
        yield
    except EvaluationError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ScoringError(f"{what} ({error!r})") from error


def read_json(path: str | Path) -> Any:
    return reading.read_json(path, error=ScoringError)


def read_jsonl(path: str | Path, hint: str = "") -> list[dict[str, Any]]:
    """Lines of a JSON-lines file; the error about a line names its number and ends with the hint."""
    return [row for _, row in reading.read_json_lines(path, error=ScoringError, hint=hint)]


def read_answers(path: str | Path) -> list[dict[str, Any]]:
    """An answers file: JSON lines, each with `question_id` and `text`."""
    rows = read_jsonl(path, "; if it was cut off, run the model again, which answers the missing questions")
    if not rows:
        raise ScoringError(f"{path} holds no answers; did the model run finish?")
    for row in rows:
        if "question_id" not in row or not isinstance(row.get("text"), str):
            raise ScoringError(f"{path}: an answer needs question_id and text; this one has neither or not both: {row}")
    return rows


def model_of(answers: Iterable[Mapping[str, Any]]) -> str | None:
    """The one `model_id` of all answers, or None."""
    names = {str(line["model_id"]) for line in answers if line.get("model_id")}
    if len(names) > 1:
        raise ScoringError(f"the answers are of several models: {some(sorted(names))}")
    return next(iter(names), None)


@dataclass(frozen=True)
class Reply(Generic[T]):
    """One annotated question with the model's answer; `text` and `line` are None without an answer."""

    key: str
    text: str | None
    truth: T
    line: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Paired(Generic[T]):
    """Questions to score, in the order of the annotations, with warnings for the report and all answers."""

    replies: list[Reply[T]]
    warnings: list[str] = field(default_factory=list)
    answers: Answers = ()


def pair(
    answers: Answers,
    annotations: Mapping[K, T],
    key: Callable[[Mapping[str, Any]], K] = lambda line: str(line["question_id"]),
    asked: Iterable[K] | None = None,
    missing: str = "error",
    name: Callable[[K], str] = str,
) -> Paired[T]:
    """Pairs answers with annotations.

    Args:
        annotations: key -> truth, of every question of the benchmark.
        key: the key of an answer line.
        asked: keys of the questions that were asked (a subset run); default: all annotated ones.
        missing: what to do about a question without an answer: `error`, count it `wrong`, or `skip` it; the last two
            leave a warning. With `CHECK` there are no answers yet, and `InputsFit` is raised if all else is right.
        name: a key's name in the report.

    Raises:
        ScoringError: names all questions that were answered twice, not asked, unknown to the annotations, or not
            answered.
    """
    if missing not in (*MISSING, CHECK):
        raise ScoringError(f"missing={missing!r}; allowed: {', '.join(MISSING)}")
    if not annotations:
        raise ScoringError("there are no annotations to score against")
    asked = None if asked is None else list(asked)
    keys = [key(line) for line in answers]
    lines = dict(zip(keys, answers, strict=True))
    wanted = list(dict.fromkeys(asked)) if asked is not None else list(annotations)
    known = set(wanted)
    unanswered = [k for k in wanted if k not in lines]
    problems = {
        "asked more than once": [k for k, n in Counter(asked or ()).items() if n > 1],
        "answered more than once": [k for k, n in Counter(keys).items() if n > 1],
        "not among the annotations": [k for k in dict.fromkeys([*keys, *wanted]) if k not in annotations],
        "answered but not asked": [k for k in lines if k in annotations and k not in known],
        "not answered": unanswered if missing == "error" else [],
    }
    ids = {what: count(len(bad), "question id is", "question ids are") for what, bad in problems.items()}
    found = [f"{ids[what]} {what}: {some(map(name, bad))}" for what, bad in problems.items() if bad]
    if found:
        hint = f" ({SCORE_WITHOUT})" if problems["not answered"] else ""
        raise ScoringError("; ".join(found) + hint)
    if missing == CHECK:
        raise InputsFit
    warnings = []
    if len(wanted) < len(annotations):
        asked_of = f"{len(wanted)} of the {count(len(annotations), 'annotated question')}"
        warnings.append(f"a subset: {asked_of} {agree(len(wanted), 'was', 'were')} asked")
    if unanswered:
        many = len(unanswered)
        wrong, left = f"{agree(many, 'counts', 'count')} as wrong", f"{agree(many, 'is', 'are')} left out"
        of = f"{many} of {count(len(wanted), 'question')}"
        warnings.append(f"{of} {agree(many, 'has', 'have')} no answer and {wrong if missing == 'wrong' else left}")
    kept = wanted if missing == "wrong" else [k for k in wanted if k in lines]
    if not kept:
        raise ScoringError("there are no answers to score")
    replies = [Reply(name(k), lines[k]["text"] if k in lines else None, annotations[k], lines.get(k)) for k in kept]
    return Paired(replies, warnings, answers)


def read_questions(path: str | Path, *needs: str) -> list[dict[str, Any]]:
    """The entries of a question file (JSON if it ends in .json, else JSON lines); all have the keys `needs`."""
    rows = read_json(path) if Path(path).suffix == ".json" else read_jsonl(path)
    if not isinstance(rows, list) or not rows:
        raise ScoringError(f"question file {path} holds no questions; expected a list of them, or JSON lines")
    whole = [isinstance(row, dict) and set(needs) <= row.keys() for row in rows]
    without = [f"question {number}" for number, fits in enumerate(whole, start=1) if not fits]
    if without:
        lacking = count(len(without), "question has", "questions have")
        raise ScoringError(f"question file {path}: {lacking} no {' and '.join(needs)}: {some(without)}")
    return rows


def asked_ids(path: str | None, key: str = "question_id") -> list[str] | None:
    """Ids of a question file, for `asked`; None without a file."""
    return None if path is None else [str(row[key]) for row in read_questions(path, key)]
