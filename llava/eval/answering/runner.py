"""Answers a file of questions: batched, resumable, the same text as one by one."""

import argparse
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers.utils.logging import tqdm

from llava.checkpoint.opened import Checkpoint
from llava.eval.answering.answerer import Answerer
from llava.eval.answering.answers_file import AnswersFile, HeldAnswers, read_record
from llava.eval.answering.arguments import check_tower, make_answerer, open_model, settings
from llava.eval.answering.batching import Batch, BatchSize, length_of
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import SHARE
from llava.eval.answering.questions import (
    Question,
    check_images,
    chunk,
    described,
    open_question_image,
    unusable_images,
)
from llava.eval.answering.shards import merge_when_complete, take_torchrun_part
from llava.images import BrokenImageError
from llava.names import agree, count, model_name

_AHEAD = 2
"""Batches whose images are read while another is answered."""


def run(args: argparse.Namespace, read: Callable[[argparse.Namespace], list[Question]]) -> None:
    """Answers the questions that `read` returns; under torchrun this process's part of them."""
    checkpoint = open_model(args)
    whole = take_torchrun_part(args)
    evaluate(args, checkpoint, read(args))
    if whole is not None:
        merge_when_complete(whole, args.num_chunks)


def evaluate(args: argparse.Namespace, checkpoint: Checkpoint, everything: Sequence[Question]) -> None:
    """Writes one answers file; `args` has the flags of `question_parser`, and `everything` is before chunking."""
    folder = Path(args.image_folder)
    asked = chunk(everything, args.num_chunks, args.chunk_idx)
    unusable = _unusable(args, everything, folder)
    questions = [q for q in asked if q.image not in unusable]
    sees = check_sees(args, checkpoint, questions)
    # Of the whole file, so that all parts of it were made with the same settings.
    known = settings(args, checkpoint, sees=any(q.image and q.image not in unusable for q in everything))
    answers = unfinished(args, known, questions)
    if answers is None:
        return
    model_id = model_name(args.model_path)
    if any(q.index not in answers.lines for q in questions):
        print(f"conversation template: {describe_template(known['conv_mode'])}")
        answerer = make_answerer(args, checkpoint, sees)
        skip, share = args.skip_missing_images, SHARE[args.share_prefix]
        broken = keep_features(answerer, questions, skip) if answerer.feature_cache is not None else {}
        left = [q for q in questions if q.image not in broken]
        broken |= answer_all(answerer, left, answers, model_id, args.batch_size, share, args.num_workers, skip)
        if broken:
            print(f"{described(broken, questions, folder)}; they are left out")
            unusable |= broken
            questions = [q for q in questions if q.image not in broken or q.index in answers.lines]
            if not questions:
                raise EvaluationError(f"none of the questions has an image under {folder} that can be opened")
    kept = {q.index for q in questions}
    skipped = [
        {"index": q.index, "question_id": q.question_id, "image": q.image, "why": unusable[q.image]}
        for q in asked
        if q.index not in kept
    ]
    record = {"model_id": model_id, "questions": len(everything), "skipped": skipped}
    answers.finish(questions, record | {"asked_in": describe_template(known["conv_mode"])})
    without = f"; {count(len(skipped), 'question was', 'questions were')} left out" if skipped else ""
    print(f"{count(len(questions), 'answer is', 'answers are')} in {args.answers_file}{without}")


def check_sees(args: argparse.Namespace, checkpoint: Checkpoint, questions: Sequence[Question]) -> bool:
    """Whether questions have images; raises `EvaluationError` if the checkpoint or the cache cannot read them."""
    sees = any(q.image for q in questions)
    if sees:
        check_tower(checkpoint, "questions", "a question file")
    if args.vision_feature_cache and any(q.image_data for q in questions):
        raise EvaluationError("--vision-feature-cache keeps features of image files; these images are in the TSV")
    return sees


def describe_template(name: str | None) -> str:
    """What questions are asked in, by `settings`' conv_mode."""
    return name or "none (raw prompts)"


def unfinished(args: argparse.Namespace, known: dict[str, Any], questions: Sequence[Question]) -> AnswersFile | None:
    """The answers file of the flags, with the answers of an earlier run; None if it is finished."""
    answers = AnswersFile(args.answers_file, known, (args.num_chunks, args.chunk_idx))
    if answers.finished_before(questions):
        print(f"{args.answers_file} answers these questions already, with the same settings")
        return None
    before = sum(q.index in answers.lines for q in questions)
    if before:
        print(f"{before} of {count(len(questions), 'question')} {agree(before, 'was', 'were')} answered before")
    return answers


def _unusable(args: argparse.Namespace, questions: Sequence[Question], folder: Path) -> dict[str, str]:
    """Prints and returns missing and broken images; an error unless their questions may be left out."""
    if not args.skip_missing_images:
        check_images(questions, folder)
        return {}
    unusable = unusable_images(questions, folder)
    skipped = {(entry["index"], entry["image"]) for entry in read_record(Path(args.answers_file)).get("skipped", ())}
    for question in questions:
        if (question.index, question.image) in skipped and question.image not in unusable:
            # Its header is whole: an earlier run found the damage further down.
            try:
                open_question_image(question, folder)
            except BrokenImageError as error:
                unusable[question.image] = error.why
    if unusable:
        print(f"{described(unusable, questions, folder)}; they are left out")
    if questions and all(q.image in unusable for q in questions):
        raise EvaluationError(f"none of the {count(len(questions), 'question')} has its image under {folder}")
    return unusable


def answer_all(
    answerer: Answerer,
    questions: Sequence[Question],
    answers: AnswersFile | HeldAnswers,
    model_id: str,
    batch_size: int | None = None,
    share: bool | None = None,
    workers: int = 0,
    skip_broken: bool = False,
) -> dict[str, str]:
    """Answers what is not answered yet; each batch is kept for good before the next begins.

    Args:
        batch_size: None takes what fits, and halves it when memory runs out.
        share: as for `plan`.
        workers: threads that read images ahead; 0 reads them when they are needed.
        skip_broken: leave out the questions of broken images.

    Returns:
        The broken images: name -> what is wrong. Their questions have no answer.
    """
    left = [q for q in questions if q.index not in answers.lines]
    size = BatchSize.of(batch_size, answerer.model, answerer.generation.max_new_tokens)
    broken: dict[str, str] = {}
    warned = False
    # Closed before an error is printed, as the bar would overwrite it.
    with tqdm(total=len(left), desc="answers", unit="question") as bar:
        while left:
            now, batches = unanswered(answerer, [q for q in questions if q.image not in broken], answers, size, share)
            if not warned:
                _warn_of_long_prompts(answerer, batches)
                warned = True
            try:
                with contextlib.closing(answer_stream(answerer, now, batches, workers)) as stream:
                    for asked, texts in stream:
                        pairs = zip(asked, texts, strict=True)
                        answers.add({q.index: answer_line(q, text, model_id) for q, text in pairs})
                        bar.update(len(asked))
            except BrokenImageError as error:
                broken |= _broken(error, left, answerer.image_folder, skip_broken)
            except (RuntimeError, MemoryError) as error:
                size.halve_after(error)
            left = [q for q in left if q.index not in answers.lines and q.image not in broken]
    return broken


def unanswered(
    answerer: Answerer,
    questions: Sequence[Question],
    answers: AnswersFile | HeldAnswers,
    size: BatchSize,
    share: bool | None,
) -> tuple[Sequence[Question], list[Batch]]:
    """Questions, and batches of those among them that are not answered yet.

    After an interruption they are the batches of an uninterrupted run, unless one of them is answered in part: in 16
    bits the text of an answer may depend on its batch.
    """
    batches = answerer.batches(questions, size, share)
    done = [sum(questions[i].index in answers.lines for i in batch.rows) for batch in batches]
    if all(number in (0, len(batch.rows)) for number, batch in zip(done, batches, strict=True)):
        return questions, [batch for number, batch in zip(done, batches, strict=True) if not number]
    left = [q for q in questions if q.index not in answers.lines]
    return left, answerer.batches(left, size, share)


def keep_features(answerer: Answerer, questions: Sequence[Question], skip_broken: bool = False) -> dict[str, str]:
    """Puts the features of all images into the answerer's cache; returns the broken images, as `answer_all` does."""
    model, folder, broken = answerer.model, answerer.image_folder, {}
    while True:
        images = dict.fromkeys(folder / q.image for q in questions if q.image and q.image not in broken)
        try:
            answerer.feature_cache.ensure(images, model.get_vision_tower(), device=model.device)
        except BrokenImageError as error:
            broken |= _broken(error, questions, folder, skip_broken)
        else:
            return broken


def _broken(error: BrokenImageError, questions: Sequence[Question], folder: Path, skip: bool) -> dict[str, str]:
    """The image of an error, by its name in the questions; raises `EvaluationError` unless `skip`."""
    if not skip:
        raise EvaluationError(
            f"the image {error.image} cannot be opened ({error.why}); repair it, or give --skip-missing-images to "
            "leave its questions out; either way the same command goes on from here"
        ) from error
    return {next(q.image for q in questions if q.image and error.image in (q.image, str(folder / q.image))): error.why}


def answer_stream(
    answerer: Answerer, questions: Sequence[Question], batches: Sequence[Batch], workers: int
) -> Iterator[tuple[list[Question], list[str]]]:
    """Batch by batch, its questions and their texts; `workers` threads read the images of the next batches."""
    read_ahead = workers > 0 and answerer.decodes_itself
    waiting: list[dict[str, Future]] = []
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="images")
    try:
        for number, batch in enumerate(batches):
            for ahead in batches[number + len(waiting) : number + 1 + _AHEAD] if read_ahead else ():
                # An image of the batch before is not read again.
                before = waiting[-1] if waiting else {}
                wanted = {questions[i].image: questions[i] for i in ahead.rows if questions[i].image}
                waiting.append({name: before.get(name) or pool.submit(answerer.load, q) for name, q in wanted.items()})
            loaded = {name: future.result() for name, future in waiting.pop(0).items()} if read_ahead else {}
            asked = [questions[i] for i in batch.rows]
            yield asked, answerer.answer(asked, batch.prompts, loaded)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _warn_of_long_prompts(answerer: Answerer, batches: Sequence[Batch]) -> None:
    limit = getattr(answerer.model.config, "max_position_embeddings", None)
    tokens = answerer.image_tokens
    lengths = [length_of(prompt, tokens) for batch in batches for prompt in batch.prompts]
    long = sum(length + answerer.generation.max_new_tokens > (limit or 0) for length in lengths)
    if limit and long:
        print(
            f"{long} of {count(len(lengths), 'prompt')} may be longer, with the answer, than the {limit} positions of "
            f"the model (longest prompt: {max(lengths)} tokens); nothing is cut"
        )


def answer_line(question: Question, text: str, model_id: str) -> str:
    """Upstream's answer line. Instead of a random `answer_id` it has a hash, so that equal runs write equal files."""
    content = f"{model_id}\n{question.index}\n{question.question_id}\n{text}"
    # Upstream writes the round before the prompt.
    line = {"question_id": question.question_id}
    line |= {name: value for name, value in question.extra.items() if name == "round_id"}
    line |= {"prompt": question.prompt, "text": text} | question.extra
    line |= {"answer_id": hashlib.sha256(content.encode()).hexdigest()[:22], "model_id": model_id, "metadata": {}}
    return json.dumps(line, ensure_ascii=False)
