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
