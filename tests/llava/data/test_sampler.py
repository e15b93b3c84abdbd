import random

import pytest
import torch

from llava.data.sampler import EpochSampler, modality_length_grouped_indices

LENGTHS = [(i * 7 % 50 + 1) * (1 if i % 3 else -1) for i in range(100)]


@pytest.mark.parametrize("lengths", [LENGTHS, [abs(x) for x in LENGTHS], [-abs(x) for x in LENGTHS], [5], [5, -5]])
def test_every_sample_once(lengths):
    order = modality_length_grouped_indices(lengths, 4, 2, torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(len(lengths)))


def test_batches_hold_one_modality_and_like_lengths():
    order = modality_length_grouped_indices(LENGTHS, 4, 2, torch.Generator().manual_seed(0))
    batches = [order[i : i + 8] for i in range(0, 100, 8)]
    mixed = [len({LENGTHS[i] > 0 for i in batch}) > 1 for batch in batches]
    assert not any(mixed[:-3]), "only what is left over of both modalities may mix, at the end"


def test_order_follows_from_seed_and_epoch():
    sampler = EpochSampler(100, 5, LENGTHS, 4, 2)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(EpochSampler(100, 5)) == list(EpochSampler(100, 5))


def test_zero_length_is_refused():
    with pytest.raises(ValueError, match="length 0"):
        modality_length_grouped_indices([1, 0], 1, 1)


def by_length(lengths, batch, ranks, generator):
    """The facts of upstream's grouping by length, in other words: heaviest first, each to the rank with the least."""
    remaining, order = torch.randperm(len(lengths), generator=generator).tolist(), []
    while remaining:
        block, remaining = remaining[: batch * ranks], remaining[batch * ranks :]
        block.sort(key=lambda i: -lengths[i])
        shares = [[] for _ in range(ranks)]
        for place, i in enumerate(block):
            if len(block) % ranks:
                shares[place % ranks].append(i)
                continue
            free = [share for share in shares if len(share) < len(block) // ranks]
            min(free, key=lambda share: sum(lengths[j] for j in share)).append(i)
        order += [i for share in shares for i in share]
    return order


def upstreams_order(lengths, batch, ranks, generator):
    """One modality: grouped by the lengths as they are, negative ones too. Both: separate, the last blocks joined."""
    kinds = [[i for i, n in enumerate(lengths) if n > 0], [i for i, n in enumerate(lengths) if n < 0]]
    if not all(kinds):
        return by_length(lengths, batch, ranks, generator)
    blocks, rest, size = [], [], batch * ranks
    for kind in kinds:
        order = [kind[i] for i in by_length([abs(lengths[i]) for i in kind], batch, ranks, generator)]
        last = (len(order) - 1) // size * size
        blocks += [order[start : start + size] for start in range(0, last, size)]
        rest += order[last:]
    shuffled = [blocks[i] for i in torch.randperm(len(blocks), generator=generator)]
    return [i for block in [*shuffled, sorted(rest)] for i in block]


def test_order_is_upstreams():
    rng = random.Random(0)
    for case in range(600):
        signs = [(1,), (-1,), (1, -1), (1, 1, 1, -1)][case % 4]
        lengths = [rng.randint(1, 30) * rng.choice(signs) for _ in range(rng.randint(1, 60))]
        sizes = rng.randint(1, 5), rng.randint(1, 4)
        found, expected = (
            order(lengths, *sizes, torch.Generator().manual_seed(case))
            for order in (modality_length_grouped_indices, upstreams_order)
        )
        assert found == expected, (lengths, sizes)
