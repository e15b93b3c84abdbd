"""Layers of a LLaVA-1.6: the commands read its images in several views and carry its newline along."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.conversation import get_template
from llava.images import open_image
from llava.mm_utils import process_image
from llava.model.builder import load_pretrained_model
from tests.fixtures.anyres import PINPOINTS, SHAPES
from visual_region.importance.samples import Reader, open_samples
from visual_region.importance.tokens import count_kinds

NEWLINE = "model.image_newline"


def newline(folder):
    return load_file(folder / "model.safetensors")[NEWLINE]


def logits(folder, anyres):
    _, model, processor, _ = load_pretrained_model(str(folder), device="cpu")
    image = open_image(anyres.images / "3.png")
    pixels = process_image(image, processor, "anyres", model.tiling)
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 5, -200, 7]]), images=[pixels], image_sizes=[image.size]).logits


def test_prune_revert_export_and_heal(command, anyres, tmp_path, capsys):
    pruned, back, stock, healed = (tmp_path / name for name in ("pruned", "back", "stock", "healed"))
    command("prune", "--model-path", anyres.llava, "--layers", "1,4", "--output", pruned)
    assert torch.equal(newline(pruned), newline(anyres.llava))
    command("revert", "--model-path", pruned, "--backbone", anyres.llm, "--layers", "all", "--output", back)
    assert torch.equal(newline(back), newline(anyres.llava))
    assert torch.isfinite(logits(back, anyres)).all()
    command("export", "--model-path", pruned, "--conv-mode", "v1", "--output", stock)
    assert "holds a LlavaNextForConditionalGeneration of 4 layers" in capsys.readouterr().out
    torch.testing.assert_close(logits(stock, anyres)[..., :600], logits(pruned, anyres), atol=1e-4, rtol=0)
    # A LlavaNext folder is pruned and set back as it is.
    command("prune", "--model-path", stock, "--layers", "0", "--output", tmp_path / "less")
    assert json.loads((tmp_path / "less/config.json").read_text())["text_config"]["num_hidden_layers"] == 3
    assert torch.isfinite(logits(tmp_path / "less", anyres)).all()
    data = ("--data-path", anyres.data, "--image-folder", anyres.images, "--dtype", "fp32", "--steps", "2")
    words = ("--use_cpu", "True", "--disable_tqdm", "True", "--model_max_length", "512")
    teach = (
        "heal",
        "--model-path",
        pruned,
        "--teacher",
        anyres.llava,
        "--output",
        healed,
        "--batch-size",
        "2",
        "--lora-r",
        "0",
    )
    command(*teach, *data, "--lora-r", "0", "--", *words)
    assert json.loads((healed / "config.json").read_text())["image_grid_pinpoints"] == PINPOINTS
    assert torch.equal(newline(healed), newline(pruned))


def test_scores_count_each_images_tokens(command, anyres, tmp_path):
    """Image tokens of the scores are those of the tiling, the newline's included, also with cached features."""
    tokenizer, model, processor, _ = load_pretrained_model(str(anyres.llava), device="cpu")
    samples = open_samples(str(anyres.data), None, 0)
    reader = Reader(model, tokenizer, processor, get_template("v1"), anyres.images)
    (batch,) = reader.batches(samples, [samples.indices])
    images = {f"{i}.png": model.tiling.tokens(size) for i, size in enumerate(SHAPES)}
    expected = [sum(images[name] for name in samples.records[i].images) for i in batch.samples]
    assert count_kinds(batch.kinds)[:, 0].tolist() == expected
    words = ("--data-path", anyres.data, "--image-folder", anyres.images, "--samples", "all", "--conv-mode", "v1")
    found = {}
    for name, cache in (("plain", ()), ("cached", ("--vision-feature-cache", tmp_path / "features"))):
        command("score", "--model-path", anyres.llava, *words, *cache, "--output", tmp_path / f"{name}.json")
        metrics = json.loads((tmp_path / f"{name}.json").read_text())["metrics"]
        found[name] = {metric: values["values"] for metric, values in metrics.items()}
    assert "image-attention" in found["plain"]
    for metric, values in found["plain"].items():
        assert found["cached"][metric] == pytest.approx(values, abs=1e-4)


def test_plan_tells_of_the_largest_image(command, anyres, capsys):
    command("plan", "--model-path", anyres.llava, "--samples", "10")
    printed = capsys.readouterr().out
    assert "259 image and" in printed
    assert "up to 5 views and 259 tokens" in printed


def test_the_projectors_file_has_the_newline(anyres, program, tmp_path):
    program("scripts/extract_mm_projector.py", "--model-path", anyres.llava, "--output", tmp_path / "mm_projector.bin")
    held = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert torch.equal(held[NEWLINE], newline(anyres.llava))
    assert len(held) == 5
