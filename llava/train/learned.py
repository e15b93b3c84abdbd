"""The end of a training that has changed nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch


class NothingLearnedError(ValueError):
    """A run that has changed nothing."""


class LearnedCheck:
    """Whether a step had a loss: without any label it is exactly 0."""

    def __init__(self) -> None:
        self._learned: torch.Tensor | None = None

    def step(self, loss: torch.Tensor) -> None:
        """Takes the loss of a step that this process made."""
        # Read at the end only, as reading waits for the GPU.
        learned = loss.detach() != 0
        self._learned = learned if self._learned is None else self._learned | learned

    def resume(self, history: Iterable[Mapping[str, Any]], device: torch.device) -> None:
        """Takes the log of the steps before a checkpoint-N."""
        losses = [entry["loss"] for entry in history if "loss" in entry]
        if losses:
            self._learned = torch.tensor(any(losses), device=device)

    def end(self, accelerator: Any) -> None:
        """Raises `NothingLearnedError` if the loss was 0 in every step that this process and the others made."""
        if self._learned is not None and not accelerator.gather(self._learned.reshape(1)).any():
            raise NothingLearnedError(
                "nothing was learned: the loss was 0 in every step, as no sample had a label that was not cut off; "
                "`python -m llava.data.check` shows why. No result was written"
            )
