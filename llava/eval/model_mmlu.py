"""Answers MMLU's questions: letters generated after the paper's prompt, or the most probable letter as in lm-eval.

`python -m llava.eval.model_mmlu --model-path C --question-file Q --shots-file S --answers-file A [--method M]`
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llava.checkpoint.old_folder import read_checkpoint
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.answers_file import AnswersFile
from llava.eval.answering.arguments import DTYPES, add_model_flags, check_flags, generation_of, settings, template_of
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.loglikelihood import iterate_loglikelihoods
from llava.eval.answering.questions import Question, chunk
from llava.eval.answering.text import iterate_texts, load_text_model
from llava.eval.benchmarks.mmlu import LETTERS, METHODS, Item, generation_prompt, likelihood_prompt
from llava.eval.scoring.pairing import read_json, read_jsonl
from llava.files import sha256_of
from llava.mm_utils import get_model_name_from_path
from llava.tokenization import encoder_for

CONTINUATIONS = tuple(f" {letter}" for letter in LETTERS)
_KEEP_EVERY = 16


def read_items(question_file: str | Path, shots_file: str | Path) -> tuple[list[dict[str, Any]], dict[str, list[Item]]]:
    """The question file's lines, and each subject's examples.

    Raises:
        EvaluationError: a line that `llava.eval.prepare` did not write; a subject without examples.
    """
    rows = read_jsonl(question_file)
    shots = {
        subject: [Item(e["question"], tuple(e["choices"]), e["answer"]) for e in examples]
        for subject, examples in read_json(shots_file).items()
    }
    for number, row in enumerate(rows, start=1):
        if not {"question_id", "category", "question", "choices"} <= row.keys() or len(row["choices"]) != len(LETTERS):
            raise EvaluationError(
                f"{question_file}, line {number} is no MMLU question with question_id, category, question and four "
                "choices, as llava.eval.prepare writes it"
            )
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
    """The prompt with as many examples as fit, and how many these are; the last ones are left out first.

    Args:
        make: from subject, examples and question to the prompt's text.
        length: tokens of a prompt.
        room: tokens that the prompt may take.

    Raises:
        EvaluationError: a question that does not fit without any example.
    """
    item = Item(row["question"], tuple(row["choices"]), LETTERS[0])
    for count in range(len(shots), -1, -1):
        text = make(row["category"], shots[:count], item)
        tokens = length(text)
        if tokens <= room:
            return text, count
    raise EvaluationError(
        f"question {row['question_id']} takes {tokens} tokens without any example; the model reads {room} at once"
    )


def answer(args: argparse.Namespace) -> None:
    """One answers file for one checkpoint."""
    check_flags(args)
    rows, shots = read_items(args.question_file, args.shots_file)
    places = [Question(i, row["question_id"], "", None) for i, row in enumerate(rows)]
    places = chunk(places, args.num_chunks, args.chunk_idx)
    how = {"method": args.method, "shots": sha256_of(args.shots_file)}
    answers = AnswersFile(args.answers_file, settings(args) | how, (args.num_chunks, args.chunk_idx))
    if answers.finished_before(places):
        print(f"{args.answers_file} answers these questions already, with the same settings")
        return
    left = [place.index for place in places if place.index not in answers.lines]
    if len(left) < len(places):
        print(f"{len(places) - len(left)} of {len(places)} questions were answered before")
    if left:
        _answer_rest(args, rows, shots, left, answers)
    record = {"model_id": get_model_name_from_path(args.model_path), "questions": len(rows), "skipped": []}
    answers.finish(places, record)
    print(f"{len(places)} answers by {args.method} are in {args.answers_file}")


def _answer_rest(
    args: argparse.Namespace,
    rows: Sequence[dict[str, Any]],
    shots: dict[str, list[Item]],
    left: Sequence[int],
    answers: AnswersFile,
) -> None:
    """Answers the questions whose places are `left`, and keeps each answer for good."""
    generating = args.method == "generate"
    template, generation = template_of(args), generation_of(args)
    dtype = DTYPES[args.dtype] if args.dtype else None
    tokenizer, model, _ = load_text_model(args.model_path, args.model_base, dtype=dtype, device=args.device)
    answerer = Answerer(model, tokenizer, None, template, Path(), generation)
    encoder = encoder_for(tokenizer)

    def length(text: str) -> int:
        if generating:
            return len(answerer.prompt_ids(Question(0, 0, text, None)))
        return len(encoder.bos) + len(encoder.encode(text + CONTINUATIONS[0])[0])

    window = getattr(model.config, "max_position_embeddings", None) or 2048
    make, room = (generation_prompt, window - args.max_new_tokens) if generating else (likelihood_prompt, window)
    prompts = [fitted(rows[i], shots[rows[i]["category"]], make, length, room) for i in left]
    fewer = sum(count < len(shots[rows[i]["category"]]) for i, (_, count) in zip(left, prompts, strict=True))
    if fewer:
        print(f"{fewer} of {len(left)} prompts do not fit into {window} tokens with all examples and have fewer")
    texts = [text for text, _ in prompts]
    found = (
        _generated(model, tokenizer, texts, generation, template, args.batch_size)
        if generating
        else _most_probable(model, tokenizer, texts, args.batch_size)
    )
    model_id = get_model_name_from_path(args.model_path)
    kept: dict[int, str] = {}
    try:
        for place, said, more in found:
            extra = {"method": args.method, "shots": prompts[place][1], **more}
            kept[left[place]] = _line(rows[left[place]]["question_id"], texts[place], said, model_id, extra)
            if len(kept) == _KEEP_EVERY:
                answers.add(kept)
                kept = {}
    finally:
        # What is answered when the run is interrupted is kept too.
        answers.add(kept)


def _generated(
    model: Any, tokenizer: Any, texts: list[str], generation: Generation, template: Any, batch_size: int | None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for place, said in iterate_texts(model, tokenizer, texts, generation, template, batch_size, progress=True):
        yield place, said, {}


def _most_probable(
    model: Any, tokenizer: Any, texts: list[str], batch_size: int | None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The letter of the most probable continuation; of equal ones the first, as in lm-eval."""
    requests = [(text, CONTINUATIONS) for text in texts]
    open_: dict[int, dict[str, float]] = {}
    for place, number, found in iterate_loglikelihoods(model, tokenizer, requests, batch_size, progress=True):
        values = open_.setdefault(place, {})
        values[LETTERS[number]] = found.total
        if len(values) == len(LETTERS):
            values = {letter: values[letter] for letter in LETTERS}
            del open_[place]
            yield place, max(values, key=values.__getitem__), {"loglikelihoods": values}


def _line(question_id: str, prompt: str, text: str, model_id: str, extra: dict[str, Any]) -> str:
    content = f"{model_id}\n{question_id}\n{prompt}\n{text}"
    return json.dumps(
        {
            "question_id": question_id,
            "prompt": prompt,
            "text": text,
            "answer_id": hashlib.sha256(content.encode()).hexdigest()[:22],
            "model_id": model_id,
            "metadata": {},
            **extra,
        }
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Answer MMLU's questions")
    add_model_flags(parser)
    parser.set_defaults(temperature=0.0, max_new_tokens=16)
    parser.add_argument("--question-file", required=True)
    parser.add_argument("--shots-file", required=True, help="shots.json, as llava.eval.prepare writes it")
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--method", choices=METHODS, default="generate")
    parser.add_argument("--num-chunks", type=int, default=1)
    parser.add_argument("--chunk-idx", type=int, default=0)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    try:
        read_checkpoint(args.model_path)
        answer(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
