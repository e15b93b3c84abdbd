"""The order of samples: shuffled, or grouped by modality and length (upstream: llava/train/llava_trainer.py)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler


def length_grouped_indices(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """Shuffled, with samples of similar length in the same global batch.

    Random megabatches of `world_size * batch_size` are sorted by length and dealt to the ranks so that each gets
    about as many words.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    size = world_size * batch_size
    megabatches = [
        sorted(order[i : i + size], key=lambda j: lengths[j], reverse=True) for i in range(0, len(order), size)
    ]
    return [i for megabatch in megabatches for chunk in _deal(megabatch, lengths, world_size) for i in chunk]


def modality_length_grouped_indices(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """As `length_grouped_indices`, with image samples (positive lengths) and text (negative) in separate batches.

    Only the last megabatches of both are joined; they come last. If all samples are text, their lengths stay negative,
    as upstream's do: each megabatch then begins with its shortest sample.
    """
    if any(length == 0 for length in lengths):
        raise ValueError("a sample has length 0; give text-only samples a negative length, others a positive one")
    images = [i for i, length in enumerate(lengths) if length > 0]
    texts = [i for i, length in enumerate(lengths) if length < 0]
    if not images or not texts:
        return length_grouped_indices(lengths, batch_size, world_size, generator)
    size = world_size * batch_size
    whole: list[list[int]] = []
    rest: list[int] = []
    for members in (images, texts):
        within = length_grouped_indices([abs(lengths[i]) for i in members], batch_size, world_size, generator)
        order = [members[i] for i in within]
        cuts = [order[i : i + size] for i in range(0, len(order), size)]
        whole += cuts[:-1]
        rest += cuts[-1]
    shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    return [i for megabatch in [*shuffled, sorted(rest)] for i in megabatch]


def _deal(indices: list[int], lengths: Sequence[int], chunks: int) -> list[list[int]]:
    if len(indices) % chunks:
        return [indices[start::chunks] for start in range(chunks)]
    size = len(indices) // chunks
    dealt: list[list[int]] = [[] for _ in range(chunks)]
    totals = [0.0] * chunks
    for index in indices:
        lightest = totals.index(min(totals))
        dealt[lightest].append(index)
        totals[lightest] += lengths[index]
        if len(dealt[lightest]) == size:
            totals[lightest] = float("inf")
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
    lengths: Sequence[int] | None = None
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
