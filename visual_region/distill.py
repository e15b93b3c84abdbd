"""Distillation: a pruned model learns the unpruned model's distributions of the answers' tokens.

The paper has no such step; other work on depth pruning does the same on text.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from llava.checkpoint.record import LayerRecord
from llava.train.llava_trainer import LLaVATrainer


@dataclass(frozen=True)
class Distillation:
    """The loss: T^2 KL(teacher || student) at temperature T, plus `ce_weight` times cross-entropy on the labels."""

    temperature: float = 1.0
    ce_weight: float = 0.0
    teacher: str = ""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"--temperature {self.temperature:g} must be above 0")
        if self.ce_weight < 0:
            raise ValueError(f"--ce-weight {self.ce_weight:g} must be at least 0")


def kl_from_teacher(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student), the mean over tokens, in float32; logits `(tokens, vocabulary)`.

    T^2 keeps the size of the gradient the same at any temperature (Hinton et al. 2015).
    """
    wanted = functional.log_softmax(teacher.float() / temperature, dim=-1)
    found = functional.log_softmax(student.float() / temperature, dim=-1)
    return temperature**2 * functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


class DistillationTrainer(LLaVATrainer):
    """LLaVATrainer with a loaded teacher of the same tokenizer and vision tower.

    `record` is that of the student before this run; its tuned region stays.
    """

    def __init__(
        self, *args: Any, teacher: Any, distillation: Distillation, record: LayerRecord, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.distillation = distillation
        student = self._student()
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self.teacher.config.tokenizer_model_max_length = student.config.tokenizer_model_max_length
        self.teacher.config.tokenizer_padding_side = student.config.tokenizer_padding_side
        for model in (student, self.teacher):
            model.label_only_logits = model.keep_label_logits = True
        LayerRecord.of(student.config).after_healing(record, **asdict(distillation)).put(student.config)

    def _student(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = self._seen_once(inputs)
        outputs = model(**inputs)
        with torch.no_grad():
            taught = self.teacher(**inputs).logits
        # A batch without labels has a loss of zero, with a graph for backward.
        loss = outputs.loss * self.distillation.ce_weight
        if len(taught):
            loss = loss + kl_from_teacher(outputs.logits, taught, self.distillation.temperature)
        return (loss, outputs) if return_outputs else loss

    def _seen_once(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Replaces pixels by features, so that the frozen tower, which both models share, runs once."""
        images = inputs.get("images")
        tower = self._student().get_vision_tower()
        if not isinstance(images, torch.Tensor) or images.ndim != 4:
            # Each model itself merges the views of one image.
            if images is not None:
                self.teacher.get_model().vision_tower = tower
            return inputs
        with torch.no_grad():
            features = tower(images)
        return {name: value for name, value in inputs.items() if name != "images"} | {"image_features": features}
