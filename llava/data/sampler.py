"""The order of samples: shuffled, or grouped by modality and length (upstream: llava/train/llava_trainer.py)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler


def length_grouped_indices(
    lengths: np.ndarray, batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> np.ndarray:
    """Shuffled, with samples of similar length in the same global batch.

    Random megabatches of `world_size * batch_size` are sorted by length and dealt to the ranks so that each gets
    about as many words.
    """
    order = torch.randperm(len(lengths), generator=generator).numpy()
    size = world_size * batch_size
    # The longest first; samples of one length stay in the shuffled order.
    order = order[np.lexsort((-lengths[order], np.arange(len(order)) // size))]
    whole = len(order) // size * size
    dealt = _deal(order[:whole].reshape(-1, size), lengths, world_size).reshape(-1)
    rest = order[whole:]
    if len(rest) % world_size:
        ends = [rest[start::world_size] for start in range(world_size)]
    else:
        ends = [_deal(rest[None], lengths, world_size)[0]]
    return np.concatenate([dealt, *ends])


def modality_length_grouped_indices(
    lengths: Sequence[int] | np.ndarray, batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """As `length_grouped_indices`, with image samples (positive lengths) and text (negative) in separate batches.

    Only the last megabatches of both are joined; they come last. If all samples are text, their lengths stay negative,
    as upstream's do: each megabatch then begins with its shortest sample.
    """
    lengths = np.asarray(lengths)
    if not lengths.all():
        raise ValueError("a sample has length 0; give text-only samples a negative length, others a positive one")
    images, texts = np.flatnonzero(lengths > 0), np.flatnonzero(lengths < 0)
    if not len(images) or not len(texts):
        return length_grouped_indices(lengths, batch_size, world_size, generator).tolist()
    size = world_size * batch_size
    whole, rest = [], []
    for members in (images, texts):
        order = members[length_grouped_indices(abs(lengths[members]), batch_size, world_size, generator)]
        last = (len(order) - 1) // size * size
        whole.append(order[:last].reshape(-1, size))
        rest.append(order[last:])
    megabatches = np.concatenate(whole)
    shuffled = megabatches[torch.randperm(len(megabatches), generator=generator).numpy()]
    return np.concatenate([shuffled.reshape(-1), np.sort(np.concatenate(rest))]).tolist()


def _deal(megabatches: np.ndarray, lengths: np.ndarray, chunks: int) -> np.ndarray:
    """Each row of indices, dealt in its order to chunks of equal size: always to the first of the lightest.

    All rows at once: a loop over each of 665,000 samples takes seconds.
    """
    count, size = megabatches.shape
    rows, room = np.arange(count), size // chunks
    totals, held = np.zeros((count, chunks)), np.zeros((count, chunks), dtype=int)
    dealt = np.empty_like(megabatches)
    for column in megabatches.T:
        lightest = totals.argmin(axis=1)
        dealt[rows, lightest * room + held[rows, lightest]] = column
        totals[rows, lightest] += lengths[column]
        held[rows, lightest] += 1
        totals[held == room] = np.inf
    return dealt


@dataclass(eq=False)
class EpochSampler(Sampler[int]):
    """Draws an order from the seed and the epoch alone, so that a resumed run has the same one.

    Args:
        lengths: for `modality_length_grouped_indices`; None shuffles.
        batch_size: samples per rank and step; world_size: ranks times gradient accumulation steps.
    """

    size: int
    seed: int
    lengths: Sequence[int] | np.ndarray | None = None
    batch_size: int = 1
    world_size: int = 1
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.lengths is None:
            return iter(torch.randperm(self.size, generator=generator).tolist())
        return iter(modality_length_grouped_indices(self.lengths, self.batch_size, self.world_size, generator))
