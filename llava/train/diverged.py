"""The end of a training whose numbers are not finite any more."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

PATIENCE = 100
"""Steps without a finite loss after which a training ends although its weights are finite: float16 skips such steps."""


class DivergedError(ValueError):
    """The loss, or weights that train, are NaN or infinite."""


class FiniteCheck:
    """Ends a training that has diverged.

    NaN gradients make all weights that train NaN, and every later step is lost. In float16 the steps without finite
    gradients are skipped instead: a single one is usual, but if no step has a finite loss, nothing is learned.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._first: int | None = None

    def loss(self, loss: float, step: int) -> None:
        """Raises `DivergedError` if a logged loss shows that the training is lost."""
        self._take(loss, step)
        if self._first is None:
            return
        self.weights(step)
        if step - self._first >= PATIENCE:
            raise _diverged(f"the loss has been {loss} from step {self._first} on", step)

    def resume(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Takes the log of the steps before a checkpoint-N."""
        for entry in history:
            if "loss" in entry:
                self._take(entry["loss"], entry["step"])

    def _take(self, loss: float, step: int) -> None:
        if math.isfinite(loss):
            self._first = None
        elif self._first is None:
            self._first = step

    def weights(self, step: int) -> None:
        """Raises `DivergedError` if a weight that trains is not finite; under ZeRO-3, in this process's part."""
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        # Read together, as reading waits for the GPU.
        finite = [_own_part(p).isfinite().all() for _, p in trained]
        if finite and not torch.stack(finite).all():
            broken = [name for (name, _), fine in zip(trained, finite, strict=True) if not fine]
            which = f"{len(broken)} of {len(trained)} tensors that train, such as {broken[0]}"
            raise _diverged(f"there are NaN or infinite values in {which}", step)

    def end(self, step: int) -> None:
        """At the end of a training: raises `DivergedError` if its result is worth nothing."""
        self.weights(step)
        if self._first is not None:
            raise _diverged(f"the loss has not been finite from step {self._first} on", step)


def _own_part(parameter: nn.Parameter) -> torch.Tensor:
    """The values of a parameter that this process holds; a parameter sharded by ZeRO-3 is padded by unset memory."""
    part = getattr(parameter, "ds_tensor", None)
    if part is None:
        return parameter
    left = parameter.ds_numel - parameter.ds_zero_partition_rank * part.numel()
    return part[: max(left, 0)]


def _diverged(what: str, step: int) -> DivergedError:
    return DivergedError(
        f"the training diverged: {what}, after step {step}. No result was written; checkpoints that were saved before "
        "are kept. Lower the learning rate (--learning_rate, --mm_projector_lr), train in bfloat16 if this was float16 "
        "(--bf16 True), or look at the data (`python -m llava.data.check`) and at the weights that the training began "
        "with"
    )
