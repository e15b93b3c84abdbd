import json
import subprocess
import sys

import pytest
import torch

from llava.checkpoint.opened import CheckpointError
from llava.checkpoint.record import LayerRecord
from llava.model.builder import load_pretrained_model
from visual_region.surgery import SurgeryError, layers_removed, lowest_outside, remove_layers

PATH = "model.layers"
IDS = torch.tensor([[1, 5, -200, 7, 9]])


@pytest.fixture
def model(tiny_llava):
    return load_pretrained_model(str(tiny_llava), device="cpu")[1]


def pixels():
    return torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, images=pixels()).logits


def skipping(model, gone):
    """The plain reference: the whole model, with the removed layers passing their input on."""
    kept = {i: layer.forward for i, layer in enumerate(model.model.layers)}
    for i in gone:
        model.model.layers[i].forward = lambda hidden_states, *args, **kwargs: hidden_states
    try:
        return logits(model)
    finally:
        for i, forward in kept.items():
            model.model.layers[i].forward = forward


@pytest.mark.parametrize("gone", [(0,), (2, 4), (1, 2, 4, 5)])
def test_equals_skipping_reloads_and_generates(model, tmp_path, gone):
    expected = skipping(model, gone)
    remove_layers(model, gone, PATH)
    torch.testing.assert_close(logits(model), expected)
    assert model.config.num_hidden_layers == 6 - len(gone)
    model.save_pretrained(tmp_path / "pruned")
    from llava.model.builder import load_tokenizer

    load_tokenizer(model.config.name_or_path).save_pretrained(tmp_path / "pruned")
    again = load_pretrained_model(str(tmp_path / "pruned"), device="cpu")[1]
    assert torch.equal(logits(again), logits(model))
    kwargs = {"images": pixels(), "do_sample": False, "max_new_tokens": 10}
    cached = again.generate(IDS, use_cache=True, **kwargs)
    assert torch.equal(cached, again.generate(IDS, use_cache=False, **kwargs))


def test_provenance_lasts_through_two_removals(model, tmp_path):
    assert LayerRecord.of(model.config).region == (0, 3)
    remove_layers(model, (1, 2), PATH)
    assert LayerRecord.of(model.config).region == (0, 1)
    remove_layers(model, (2,), PATH)
    assert model.config.visual_region["kept_layers"] == [0, 3, 5]
    assert model.config.visual_region["removed_layers"] == [1, 2, 4]
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["visual_region"]
    assert written["layers"] == [0, 3]
    assert written["num_layers"] == 6
    LayerRecord.of(model.config).tuned("1,2", (1, 2)).put(model.config)
    assert model.config.visual_region["layers"] == [3, 5]
    assert LayerRecord.of(model.config).region == (1, 2)


def test_removed_for_a_while(model):
    before = logits(model)
    with layers_removed(model, (1, 4), PATH):
        assert model.config.num_hidden_layers == 4
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    assert model.config.num_hidden_layers == 6
    assert "kept_layers" not in model.config.visual_region
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(6))


def test_per_layer_lists_of_the_config_are_cut():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["full_attention", "sliding_attention"] * 2,
        sliding_window=4,
        use_sliding_window=True,
    )
    model = remove_layers(Qwen2ForCausalLM(config), (1,), PATH)
    assert model.config.layer_types == ["full_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("gone", "words"), [((6,), r"layers are 0..5"), ((-1,), r"layers are 0..5"), (range(6), "cannot remove all 6")]
)
def test_layers_that_cannot_go(model, gone, words):
    with pytest.raises(SurgeryError, match=words):
        remove_layers(model, tuple(gone), PATH)


def test_lowest_outside():
    scores = [0.1, 0.5, 0.2, 0.3, 0.05]
    assert lowest_outside(scores, 2, ()) == (0, 4)
    assert lowest_outside(scores, 2, (0, 4)) == (2, 3)
    with pytest.raises(SurgeryError, match="3 of 5 lie outside"):
        lowest_outside(scores, 4, (0, 4))


def run(python, *arguments):
    command = [python, "-m", "visual_region", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_commands_from_scores_to_a_pruned_folder(tiny, tiny_llava, train_flags, tmp_path, python):
    scores, pruned = tmp_path / "scores.json", tmp_path / "pruned"
    images = ("--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 8)
    result = run(python, "score", "--model-path", tiny_llava, *images, "--output", scores, "--conv-mode", "v1")
    assert result.returncode == 0, result.stderr
    result = run(python, "prune", "--model-path", tiny_llava, "--scores", scores, "--remove", 2, "--output", pruned)
    assert result.returncode == 0, result.stderr
    config = json.loads((pruned / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert not set(config["visual_region"]["removed_layers"]) & {0, 3}
    result = run(sys.executable, "prune", "--model-path", tiny_llava, "--layers", "3", "--output", tmp_path / "no")
    assert result.returncode == 1
    assert "tuned region" in result.stderr
    result = run(sys.executable, "select", f"{scores}#angular:lowest:2", "--model-path", tiny_llava)
    assert "2 of 6 layers" in result.stdout

    # A LoRA of the whole model on the pruned one is refused before weights are read; PEFT would drop layers silently.
    from llava.train.train import train

    lora = tmp_path / "lora"
    train(argv=train_flags(lora, lora_enable=True, tune_layers="0,3", max_steps=1))
    with pytest.raises(CheckpointError, match=r"trained on a model of 6 layers.*has 4 \(some were removed"):
        load_pretrained_model(str(lora), str(pruned), device="cpu")
