"""Answers a file of questions: batched, resumable, the same text as one by one."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils.logging import tqdm

from llava.eval.answerer import Answerer, Generation
from llava.eval.batching import batches_by_length
from llava.eval.errors import EvaluationError
from llava.eval.questions import Question, check_images, chunk, read_questions
from llava.files import written_whole

__all__ = [
    "Answerer",
    "AnswersFile",
    "EvaluationError",
    "Generation",
    "Question",
    "batches_by_length",
    "check_images",
    "chunk",
    "read_questions",
    "run",
]


class AnswersFile:
    """An answers file that appears whole; until then a journal beside it keeps what is done.

    Args:
        settings: all that the answers depend on; a journal of other settings is refused.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self.journal = self.path.with_name(f"{self.path.name}.journal")
        text = json.dumps(settings, sort_keys=True, default=str)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.lines: dict[int, str] = {}
        self._read()

    def _read(self) -> None:
        if not self.journal.exists():
            return
        head, *rows = self.journal.read_bytes().split(b"\n")
        try:
            same = json.loads(head)["settings"] == self.digest
        except (ValueError, KeyError):
            same = False
        if not same:
            raise EvaluationError(
                f"{self.journal} was begun with another model, question file or settings; "
                "delete it to start anew, or use another --answers-file"
            )
        good = len(head) + 1
        for row in rows:
            try:
                entry = json.loads(row)
            except ValueError:
                # The last line of a killed run; whatever follows it was never written.
                break
            self.lines[entry["index"]] = entry["line"]
            good += len(row) + 1
        with open(self.journal, "r+b") as file:
            file.truncate(min(good, self.journal.stat().st_size))

    def add(self, answered: dict[int, str]) -> None:
        """Keeps answers for good: when this returns, they survive a crash."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.journal.exists()
        with open(self.journal, "a", encoding="utf-8") as file:
            if fresh:
                file.write(json.dumps({"settings": self.digest}) + "\n")
            for index, line in answered.items():
                file.write(json.dumps({"index": index, "line": line}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines |= answered

    def finish(self, questions: Sequence[Question]) -> None:
        """Writes the answers in the order of the questions and removes the journal."""
        missing = [q.index for q in questions if q.index not in self.lines]
        if missing:
            raise EvaluationError(f"{len(missing)} questions have no answer yet; first: line {missing[0] + 1}")
        with written_whole(self.path) as aside:
            aside.write_text("".join(self.lines[q.index] + "\n" for q in questions), encoding="utf-8")
        self.journal.unlink(missing_ok=True)


def run(
    answerer: Answerer, questions: Sequence[Question], answers: AnswersFile, model_id: str, batch_size: int
) -> None:
    """Answers what is not answered yet and writes the file."""
    left = [q for q in questions if q.index not in answers.lines]
    if len(left) < len(questions):
        print(f"{len(questions) - len(left)} of {len(questions)} questions were answered before")
    bar = tqdm(total=len(left), desc="answers", unit="question")
    for batch in batches_by_length(left, lambda q: len(answerer.prompt_ids(q)), batch_size):
        texts = answerer.answer(batch)
        answers.add({q.index: answer_line(q, text, model_id) for q, text in zip(batch, texts, strict=True)})
        bar.update(len(batch))
    bar.close()
    answers.finish(questions)


def answer_line(question: Question, text: str, model_id: str) -> str:
    """Upstream's answer line; its random `answer_id` is made from the content, so that equal runs write equal files."""
    content = f"{model_id}\n{question.index}\n{question.question_id}\n{text}"
    return json.dumps(
        {
            "question_id": question.question_id,
            "prompt": question.text,
            "text": text,
            "answer_id": hashlib.sha256(content.encode()).hexdigest()[:22],
            "model_id": model_id,
            "metadata": {},
        },
        ensure_ascii=False,
    )
