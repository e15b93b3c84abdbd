"""Layers can be removed from every backbone, and what remains is a whole model."""

import pytest
import torch

from llava.families import known_families
from llava.model.builder import load_pretrained_model, load_tokenizer
from visual_region.surgery import remove_layers

IDS = torch.tensor([[1, 5, 6, 7, 8]])


@pytest.mark.parametrize("name", [name for name in known_families() if name.startswith("bunny")])
def test_removed_saved_and_loaded(name, make_bunny, tmp_path):
    model = load_pretrained_model(str(make_bunny(name)), device="cpu")[1]
    # The same as skipping the layer: its input is its output.
    layer = model.model.layers[1]
    hook = layer.register_forward_hook(lambda module, args, kwargs, output: args[0], with_kwargs=True)
    with torch.no_grad():
        skipped = model(input_ids=IDS, use_cache=False).logits
    hook.remove()
    remove_layers(model, [1], known_families()[name].layer_path)
    with torch.no_grad():
        pruned = model(input_ids=IDS).logits
    torch.testing.assert_close(pruned, skipped)
    model.save_pretrained(tmp_path)
    load_tokenizer(make_bunny(name)).save_pretrained(tmp_path)
    loaded = load_pretrained_model(str(tmp_path), device="cpu")[1]
    assert loaded.config.num_hidden_layers == 3
    assert torch.equal(loaded(input_ids=IDS).logits, pruned)
    answers = [loaded.generate(IDS, do_sample=False, max_new_tokens=8, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*answers)
