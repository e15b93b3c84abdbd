"""One pass over the data for all metrics of hidden states or attention.

Recorders keep a few numbers per layer and sample, and no hidden states. The head is not run.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from visual_region.importance.tokens import TokenBatch


class Recorder(ABC):
    """Measures every layer of a batch; `name` is that of its numbers in the journal."""

    name: ClassVar[str]

    @contextlib.contextmanager
    def watching(self, decoder: nn.Module) -> Iterator[None]:
        """A context around all batches, for changes to the decoder."""
        yield

    def begin(self, kinds: torch.Tensor) -> None:
        """A batch starts; `kinds` int64 `(batch, length)`."""
        self.kinds = kinds
        self.rows: list[torch.Tensor] = []

    @abstractmethod
    def layer(self, index: int, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        """Called after each layer with states `(batch, length, hidden)`; appends to `rows`, keeps no states."""

    def end(self) -> torch.Tensor:
        """The numbers of the batch, float64 `(batch, layers, numbers)`."""
        return torch.stack(self.rows, dim=1)


@torch.no_grad()
def sweep(
    model: nn.Module, batches: Iterable[TokenBatch], recorders: Sequence[Recorder], layer_path: str
) -> Iterator[tuple[TokenBatch, dict[str, torch.Tensor]]]:
    """Runs the decoder, the parent of `layer_path`; yields each batch with its numbers by recorder, on the CPU."""
    layers = model.get_submodule(layer_path)
    decoder = model.get_submodule(layer_path.rpartition(".")[0])

    def watch(index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        entering = args[0] if args else kwargs["hidden_states"]
        leaving = output[0] if isinstance(output, tuple) else output
        # On several devices, a layer's own hook moves its input after this one has got it.
        entering = entering.to(leaving.device)
        for recorder in recorders:
            recorder.layer(index, entering, leaving)

    with contextlib.ExitStack() as stack:
        for recorder in recorders:
            stack.enter_context(recorder.watching(decoder))
        for index, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(partial(watch, index), with_kwargs=True).remove)
        for batch in batches:
            for recorder in recorders:
                recorder.begin(batch.kinds)
            decoder(**batch.inputs, use_cache=False)
            yield batch, {recorder.name: recorder.end().cpu() for recorder in recorders}
