"""Image-text samples for scoring layers: prompts as the model meets them before it answers."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.records import Records
from llava.eval.runner import Answerer, Question


def first_questions(records: Records, count: int, seed: int = 0) -> list[Question]:
    """The first question of `count` random samples that have one image."""
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed)).tolist()
    questions: list[Question] = []
    for i in order:
        if len(questions) == count:
            break
        record = records[i]
        if len(record.images) == 1:
            text = record.turns[0].replace(DEFAULT_IMAGE_TOKEN, "").strip()
            questions.append(Question(len(questions), record.id, text, record.images[0]))
    if not questions:
        raise ValueError("the data has no sample with one image to score layers on")
    return questions


def prompt_batches(answerer: Answerer, questions: Sequence[Question], batch_size: int) -> Iterator[dict[str, Any]]:
    """Arguments of the model's forward, each batch padded on the left: the last position is the prompt's last token."""
    for start in range(0, len(questions), batch_size):
        inputs = answerer.inputs(questions[start : start + batch_size])
        ids, mask = inputs["inputs"], inputs["attention_mask"]
        _, positions, mask, _, embeds, _ = answerer.model.prepare_inputs_labels_for_multimodal(
            ids,
            torch.zeros_like(ids),
            mask,
            None,
            None,
            inputs.get("images"),
            image_features=inputs.get("image_features"),
            padding_side="left",
        )
        yield {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}
