"""Our checkpoints as a model of lmms-eval (PyPI: lmms-eval), for its tasks that show one image or none.

Requests and metrics are lmms-eval's; prompts, batches and answers are those of our own benchmarks. docs/harnesses.md
lists what is equal and what differs.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL import Image
from transformers.utils.logging import tqdm

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.answering.answerer import Answerer
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.questions import Question
from llava.eval.harness.opened import NAME, HarnessModel
from llava.names import count
from llava.tiling import Size


@dataclass
class ImageAnswerer(Answerer):
    """Answers questions about images of a harness's data set.

    Attributes:
        pictures: name -> size in pixels, and what opens the image, which is kept no longer than its batch.
    """

    pictures: dict[str, tuple[Size, Callable[[], Image.Image]]] = field(default_factory=dict)

    def picture(self, question: Question) -> Image.Image:
        _, opened = self.pictures[question.image]
        return opened().convert("RGB")

    def picture_sizes(self, questions: Sequence[Question]) -> dict[str, Size]:
        return {question.image: self.pictures[question.image][0] for question in questions}


class LlavaVR(HarnessModel, lmms):
    """A vision-language checkpoint of this project: full, LoRA, projector, merged or pruned, of any family."""

    is_simple = True
    sees = True
    answers_as = ImageAnswerer
    new_tokens = 1024

    def __init__(self, *args: Any, max_length: int | None = None, **kwargs: Any) -> None:
        if max_length is not None:
            why = "questions about images are never cut off"
            raise EvaluationError(f"model_args of {NAME}: max_length={max_length} is for lm-eval; {why}: leave it out")
        super().__init__(*args, **kwargs)
        self.answerer.template = self.template
        self.answerer.own_template = self.template is None

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answers, stripped, to `(context, generation_kwargs, doc_to_visual, doc_id, task, split)`."""
        bar = tqdm(requests, desc="reading images", unit="request", delay=3, disable=bool(self._rank))
        questions = [self._question(place, *request.args) for place, request in enumerate(bar)]
        return self.respond(requests, questions, [request.args[1] for request in requests])

    def _question(
        self, place: int, context: str, _: Any, doc_to_visual: Callable, doc_id: int, task: str, split: str
    ) -> Question:
        image = self._visual(doc_to_visual, doc_id, task, split)
        name = None
        if image is not None:
            # By content: questions about one image are then answered together, and the tower runs once. As it is
            # shown: the bytes of an image with a palette are the same in other colours.
            shown = image.convert("RGB")
            name = hashlib.sha256(repr(shown.size).encode() + shown.tobytes()).hexdigest()
            self.answerer.pictures[name] = shown.size, partial(self._visual, doc_to_visual, doc_id, task, split)
        text = context.replace(DEFAULT_IMAGE_TOKEN, "").strip() if DEFAULT_IMAGE_TOKEN in context else context
        return Question(place, f"{task}/{doc_id}", text, name)

    def _visual(self, doc_to_visual: Callable, doc_id: int, task: str, split: str) -> Image.Image | None:
        visuals = [visual for visual in doc_to_visual(self.task_dict[task][split][doc_id]) or () if visual is not None]
        if len(visuals) > 1 or not all(isinstance(visual, Image.Image) for visual in visuals):
            kinds = ", ".join(type(visual).__name__ for visual in visuals)
            raise EvaluationError(
                f"task {task}, document {doc_id} shows {count(len(visuals), 'visual')} ({kinds}); {NAME} answers "
                "questions about one image or none"
            )
        return visuals[0] if visuals else None

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise EvaluationError(f"{NAME} answers tasks of lmms-eval that generate text; these are by log-likelihood")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise EvaluationError(f"{NAME} answers single questions of lmms-eval; these have several rounds")
