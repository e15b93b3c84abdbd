import itertools
import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from visual_region.importance.angular import angular_distances


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def naive(model, rows):
    """From the formula, one row at a time, on whole hidden states in float64."""
    values = []
    for row in rows:
        states = [layer_input(model, row, i) for i in range(5)]
        for before, after in itertools.pairwise(states):
            a, b = before.double(), after.double()
            values.append(math.acos((a @ b / (a.norm() * b.norm())).item()) / math.pi)
    return torch.tensor(values, dtype=torch.float64).view(len(rows), 4)


def layer_input(model, row, i):
    kept = {}
    module = model.model.layers[i] if i < 4 else model.model.norm
    handle = module.register_forward_pre_hook(
        lambda m, args, kwargs: kept.update(x=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model(input_ids=row.unsqueeze(0))
    handle.remove()
    return kept["x"][0, -1]


def left_padded(rows):
    longest = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
    mask = torch.stack([torch.nn.functional.pad(torch.ones_like(row), (longest - len(row), 0)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def test_equals_the_formula_with_and_without_padding(model):
    rows = [
        torch.randint(1, 50, (length,), generator=torch.Generator().manual_seed(length)) for length in (3, 7, 5, 7, 4)
    ]
    expected = naive(model, rows)
    together = angular_distances(model, [left_padded(rows)]).per_sample
    alone = angular_distances(model, [left_padded([row]) for row in rows]).per_sample
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, expected, atol=1e-6, rtol=0)


def test_a_layer_made_the_identity_scores_zero(model):
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    values = angular_distances(model, [left_padded([torch.tensor([1, 2, 3])])]).values
    assert values[2] == pytest.approx(0, abs=1e-7)
    assert min(values[:2]) > 0.01


def test_no_samples(model):
    with pytest.raises(ValueError, match="no samples"):
        angular_distances(model, [])
