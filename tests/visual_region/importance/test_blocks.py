"""Block distances against a naive computation from whole hidden states."""

import math
from pathlib import Path

import pytest
import torch

from llava.conversation import get_template
from llava.model.builder import load_pretrained_model
from visual_region.importance.blocks import block_distances, check_finite, longest_stretch, lowest_block
from visual_region.importance.samples import Reader, groups_of, open_samples
from visual_region.importance.tokens import last_positions
from visual_region.surgery import SurgeryError


@pytest.mark.parametrize("size", [1, 3, 5])
def test_equals_the_formula_on_whole_states(tiny, tiny_llava, size):
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    reader = Reader(model.double(), tokenizer, processor, get_template("v1"), Path(tiny.images))
    samples = open_samples(str(tiny.data), 10, 0)
    found = block_distances(reader, samples, size, "model.layers", batch_size=4)
    rows = []
    for batch in reader.batches(samples, groups_of(samples, 4)):
        with torch.no_grad():
            layers: list[torch.Tensor] = []
            handles = [
                layer.register_forward_hook(lambda *a, o=layers: o.append(a[-1])) for layer in model.model.layers
            ]
            first = []
            handle = model.model.layers[0].register_forward_pre_hook(lambda m, a, o=first: o.append(a[0]))
            model.model(**batch.inputs, use_cache=False)
            for h in [*handles, handle]:
                h.remove()
        states = torch.stack([first[0], *layers])
        for row, place in enumerate(last_positions(batch.kinds)[:, 0].tolist()):
            x = states[:, row, place].double()
            cosine = torch.nn.functional.cosine_similarity(x[:-size], x[size:], dim=-1)
            rows.append(torch.arccos(cosine.clamp(-1, 1)) / math.pi)
    assert found.shape == (10, 6 - size + 1)
    torch.testing.assert_close(found, torch.stack(rows), rtol=0, atol=1e-6)


def test_a_distance_that_overflowed():
    check_finite([0.1, 0.2])
    with pytest.raises(SurgeryError, match="the distance of the block from layers 1, 2 on is not a finite number"):
        check_finite([0.1, math.nan, math.inf])


def test_lowest_block():
    distances = [0.5, 0.1, 0.3, 0.2, 0.1]
    assert lowest_block(distances, 2, ()) == (1, 2)
    assert lowest_block(distances, 2, (2,)) == (4, 5)
    assert longest_stretch(6, (0, 3)) == 2
    with pytest.raises(SurgeryError, match="longest stretch has 1 layer;"):
        lowest_block(distances, 2, (1, 3, 5))
