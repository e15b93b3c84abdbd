"""Answers a file of questions: batched, resumable, the same text as one by one."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation
from llava.data.dataset import open_image
from llava.data.feature_cache import FeatureCache
from llava.files import written_whole
from llava.mm_utils import process_image, tokenizer_image_token


class EvaluationError(ValueError):
    """Questions that cannot be answered, or answers of another run in the way."""


@dataclass(frozen=True)
class Question:
    """One line of a question file; `index` is its place there, as ids are not unique in every benchmark."""

    index: int
    question_id: Any
    text: str
    image: str | None


@dataclass
class Generation:
    """How answers are made; part of what a resumed run must share with its first part."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1

    def arguments(self) -> dict[str, Any]:
        sampling = (
            {"do_sample": True, "temperature": self.temperature} if self.temperature > 0 else {"do_sample": False}
        )
        if self.top_p is not None and self.temperature > 0:
            sampling["top_p"] = self.top_p
        return {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams, **sampling}


@dataclass
class Answerer:
    """A model with all that turns a question into its answer.

    Args:
        processor: image processor; unused where `feature_cache` is given.
        image_folder: where the questions' images are.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    processor: Any
    template: Conversation
    image_folder: Path
    generation: Generation = field(default_factory=Generation)
    feature_cache: FeatureCache | None = None

    def prompt_ids(self, question: Question) -> torch.Tensor:
        """Ids `(length,)` of the prompt, open for the answer; -200 where the image goes."""
        conversation = self.template.copy()
        text = f"{DEFAULT_IMAGE_TOKEN}\n{question.text}" if question.image else question.text
        conversation.append_message(conversation.roles[0], text)
        conversation.append_message(conversation.roles[1], None)
        return tokenizer_image_token(conversation.get_prompt(), self.tokenizer, return_tensors="pt")

    def inputs(self, questions: Sequence[Question]) -> dict[str, Any]:
        """Arguments of `generate`: ids padded on the left with their mask, and pixels or features."""
        rows = [self.prompt_ids(question) for question in questions]
        longest = max(map(len, rows))
        device = self.model.device
        pad = self.tokenizer.pad_token_id or 0
        batch: dict[str, Any] = {
            "inputs": torch.stack([torch.nn.functional.pad(r, (longest - len(r), 0), value=pad) for r in rows]).to(
                device
            ),
            "attention_mask": torch.stack(
                [torch.nn.functional.pad(torch.ones_like(r), (longest - len(r), 0)) for r in rows]
            ).to(device),
        }
        paths = [(self.image_folder / q.image, str(q.question_id)) for q in questions if q.image]
        if paths and self.feature_cache is not None:
            batch["image_features"] = torch.stack([self.feature_cache.features(path) for path, _ in paths]).to(device)
        elif paths:
            ratio = getattr(self.model.config, "image_aspect_ratio", None)
            pixels = [process_image(open_image(path, name), self.processor, ratio) for path, name in paths]
            batch["images"] = torch.stack(pixels).to(device)
        return batch

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question]) -> list[str]:
        """The answers' texts, without special tokens, stripped."""
        output = self.model.generate(
            **self.inputs(questions),
            **self.generation.arguments(),
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._stop_ids(),
        )
        return [text.strip() for text in self.tokenizer.batch_decode(output, skip_special_tokens=True)]

    def _stop_ids(self) -> list[int]:
        stops = {self.tokenizer.eos_token_id}
        if self.template.stop is not None:
            stops.add(self.tokenizer.convert_tokens_to_ids(self.template.stop))
        return sorted(token for token in stops if isinstance(token, int) and token >= 0)


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a JSON-lines file; an unreadable line is named by its number."""
    questions = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            questions.append(Question(len(questions), row["question_id"], row["text"], row.get("image")))
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{path}, line {number} is not a question with question_id and text ({error})"
            ) from error
    if not questions:
        raise EvaluationError(f"{path} holds no questions")
    return questions


def check_images(questions: Sequence[Question], folder: Path) -> None:
    """Raises `EvaluationError` that counts and names missing images, before anything is generated."""
    missing = sorted({q.image for q in questions if q.image and not (folder / q.image).is_file()})
    if missing:
        raise EvaluationError(f"{len(missing)} images are missing under {folder}: {', '.join(missing[:5])}")


def chunk(questions: Sequence[Question], num_chunks: int, chunk_idx: int) -> list[Question]:
    """Every num_chunks-th question: each chunk exists and all are of like size."""
    if not 0 <= chunk_idx < num_chunks:
        raise EvaluationError(f"--chunk-idx {chunk_idx} does not exist; allowed: 0..{num_chunks - 1}")
    return list(questions[chunk_idx::num_chunks])


def batches_by_length(
    questions: Sequence[Question], length: Callable[[Question], int], batch_size: int
) -> Iterator[list[Question]]:
    """Batches of like length, longest first, so that running out of memory shows at once."""
    ordered = sorted(questions, key=lambda q: (-length(q), q.index))
    for start in range(0, len(ordered), batch_size):
        yield ordered[start : start + batch_size]


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
