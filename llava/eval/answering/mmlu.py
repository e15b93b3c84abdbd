"""Answers MMLU's questions: letters generated after the paper's prompt, or the most probable letter as in lm-eval."""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.checkpoint.opened import Checkpoint
from llava.eval.answering.answerer import Answerer
from llava.eval.answering.answers_file import AnswersFile, HeldAnswers
from llava.eval.answering.arguments import make_answerer, settings, template_name
from llava.eval.answering.batching import BatchSize
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import DEFAULT_CONTEXT, SHARE
from llava.eval.answering.loglikelihood import loglikelihoods
from llava.eval.answering.questions import Question, chunk
from llava.eval.answering.runner import answer_all, answer_line, describe_template, unfinished
from llava.eval.benchmarks.mmlu import LETTERS, Item, generation_prompt, likelihood_prompt
from llava.eval.scoring.pairing import read_json, read_jsonl
from llava.files import sha256_of
from llava.names import agree, count, model_name
from llava.tokenization import encoder_for

CONTINUATIONS = tuple(f" {letter}" for letter in LETTERS)
_KEEP_EVERY = 16


def read_items(question_file: str | Path, shots_file: str | Path) -> tuple[list[dict[str, Any]], dict[str, list[Item]]]:
    """The question file's lines, and each subject's examples; raises `EvaluationError` for wrong ones."""
    rows = read_jsonl(question_file)
    shots = {
        subject: [Item(e["question"], tuple(e["choices"]), e["answer"]) for e in examples]
        for subject, examples in read_json(shots_file).items()
    }
    for number, row in enumerate(rows, start=1):
        if not {"question_id", "category", "question", "choices"} <= row.keys() or len(row["choices"]) != len(LETTERS):
            expected = "with question_id, category, question and four choices, as llava.eval.prepare writes it"
            raise EvaluationError(f"{question_file}, line {number} is not an MMLU question {expected}")
        if row["category"] not in shots:
            raise EvaluationError(f"{shots_file} has no examples of {row['category']}")
    if not rows:
        raise EvaluationError(f"{question_file} holds no questions")
    return rows, shots


def fitted(
    row: dict[str, Any],
    shots: Sequence[Item],
    make: Callable[[str, Sequence[Item], Item], str],
    length: Callable[[str], int],
    room: int,
) -> tuple[str, int]:
    """The prompt of `make` with as many examples as fit into `room` tokens, and how many; the last go first."""
    item = Item(row["question"], tuple(row["choices"]), LETTERS[0])
    for number in range(len(shots), -1, -1):
        text = make(row["category"], shots[:number], item)
        tokens = length(text)
        if tokens <= room:
            return text, number
    raise EvaluationError(
        f"question {row['question_id']} takes {tokens} tokens without any example; the model reads {room} at once"
    )


def answer(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Writes one answers file for one checkpoint."""
    rows, shots = read_items(args.question_file, args.shots_file)
    places = [Question(i, row["question_id"], "", None) for i, row in enumerate(rows)]
    places = chunk(places, args.num_chunks, args.chunk_idx)
    how = {"method": args.method, "shots": sha256_of(args.shots_file)}
    if args.method == "loglikelihood":
        # It uses no template. Earlier versions recorded this one, and their answers stay finished.
        how["conv_mode"] = template_name(args, checkpoint)
    known = settings(args, checkpoint) | how
    answers = unfinished(args, known, places)
    if answers is None:
        return
    model_id = model_name(args.model_path)
    left = [place.index for place in places if place.index not in answers.lines]
    if left:
        answerer = make_answerer(args, checkpoint, sees=False)
        if args.method == "generate":
            print(f"conversation template: {describe_template(known['conv_mode'])}")
        answer_rows(args, answerer, rows, shots, left, answers, model_id)
    record = {"model_id": model_id, "questions": len(rows), "skipped": []}
    asked_in = {"asked_in": describe_template(known["conv_mode"])} if args.method == "generate" else {}
    answers.finish(places, record | asked_in)
    by = count(len(places), f"answer by {args.method} is", f"answers by {args.method} are")
    print(f"{by} in {args.answers_file}")


def answer_rows(
    args: argparse.Namespace,
    answerer: Answerer,
    rows: Sequence[dict[str, Any]],
    shots: dict[str, list[Item]],
    places: Sequence[int],
    answers: AnswersFile | HeldAnswers,
    model_id: str,
) -> None:
    """Answers the rows at these places by --method; `rows` and `shots` are those of `read_items`."""
    questions = _questions(args, answerer, rows, shots, places)
    if args.method == "generate":
        answer_all(answerer, questions, answers, model_id, args.batch_size, SHARE[args.share_prefix])
    else:
        _choose_all(answerer, questions, answers, model_id, args.batch_size)


def _questions(
    args: argparse.Namespace,
    answerer: Answerer,
    rows: Sequence[dict[str, Any]],
    shots: dict[str, list[Item]],
    places: Sequence[int],
) -> list[Question]:
    """The questions at these places, each with as many examples as fit into the model's window."""
    encoder = encoder_for(answerer.tokenizer)
    window = getattr(answerer.model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    generate = args.method == "generate"
    make, room = (generation_prompt, window - args.max_new_tokens) if generate else (likelihood_prompt, window)

    def length(text: str) -> int:
        if generate:
            return len(answerer.prompt_ids(Question(0, 0, text, None)))
        return len(encoder.bos) + len(encoder.encode(text + CONTINUATIONS[0])[0])

    questions = []
    for i in places:
        text, number = fitted(rows[i], shots[rows[i]["category"]], make, length, room)
        extra = {"method": args.method, "shots": number}
        questions.append(Question(i, rows[i]["question_id"], text, None, extra=extra))
    fewer = sum(q.extra["shots"] < len(shots[rows[q.index]["category"]]) for q in questions)
    if fewer:
        of = f"{fewer} of {count(len(questions), 'prompt')} {agree(fewer, 'does', 'do')}"
        print(f"{of} not fit into {window} tokens with all examples and {agree(fewer, 'has', 'have')} fewer")
    return questions


def _choose_all(
    answerer: Answerer,
    questions: Sequence[Question],
    answers: AnswersFile | HeldAnswers,
    model_id: str,
    batch_size: int | None,
) -> None:
    """Answers every question with the letter of the most probable continuation."""
    size = BatchSize.of(batch_size, answerer.model)
    left = list(questions)
    while left:
        kept: dict[int, str] = {}
        try:
            for place, values in _most_probable(answerer.model, answerer.tokenizer, [q.text for q in left], size):
                question = replace(left[place], extra=left[place].extra | {"loglikelihoods": values})
                # The first of equal ones, as in lm-eval.
                kept[question.index] = answer_line(question, max(values, key=values.__getitem__), model_id)
                if len(kept) == _KEEP_EVERY:
                    answers.add(kept)
                    kept = {}
        except (RuntimeError, MemoryError) as error:
            size.halve_after(error)
        finally:
            # Answers before an interruption are kept too.
            answers.add(kept)
        left = [q for q in left if q.index not in answers.lines]


def _most_probable(
    model: Any, tokenizer: Any, texts: Sequence[str], size: BatchSize
) -> Iterator[tuple[int, dict[str, float]]]:
    """The place of a text, and the log-likelihood of each letter after it, in the order in which they are found."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for place, number, result in loglikelihoods(model, tokenizer, [(text, CONTINUATIONS) for text in texts], size):
        found[place][LETTERS[number]] = result.total
        if len(found[place]) == len(LETTERS):
            yield place, {letter: found[place][letter] for letter in LETTERS}
