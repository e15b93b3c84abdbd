"""Merging, extracting and averaging: what the scripts write loads, and is what plain arithmetic gives."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.checkpoint.average import average_checkpoints
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import CheckpointError
from llava.flags import run_program
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

ROOT = Path(__file__).parents[2]


def run_script(name, *words):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, words)])
        run_program(module.main)


def test_merge_of_upstreams_lora(parity, tmp_path, capsys):
    """The merged folder needs no base, and gives upstream's logits."""
    merged, tower = tmp_path / "merged", parity / "tiny-clip-56"
    flags = ["--model-path", parity / "c_lora", "--model-base", parity / "tiny-vicuna", "--vision-tower", tower]
    run_script("merge_lora_weights", *flags, "--save-model-path", merged)
    assert str(merged) in capsys.readouterr().out
    names = set(load_file(merged / "model.safetensors"))
    assert {"model.mm_projector.2.bias", "model.layers.3.mlp.down_proj.weight", "lm_head.weight"} <= names
    assert "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding" in names
    tokenizer, model, processor, _ = load_pretrained_model(str(merged), device="cpu", vision_tower=str(tower))
    samples = json.loads((parity / "b_logits_after_lora.json").read_text())["samples"]
    assert {bool(sample["image"]) for sample in samples} == {True, False}
    for sample in samples:
        images = None
        if sample["image"]:
            images = process_images([Image.open(parity / "images" / sample["image"])], processor, model.config)
        ids = tokenizer_image_token(sample["prompt"], tokenizer, return_tensors="pt").unsqueeze(0)
        with torch.no_grad():
            logits = model(input_ids=ids, images=images).logits[0, -1]
        torch.testing.assert_close(logits, torch.tensor(sample["logits_last"]), atol=1e-4, rtol=0)
    run_script("merge_lora_weights", *flags, "--save-model-path", tmp_path / "half", "--dtype", "bf16")
    half, exact = (load_file(folder / "model.safetensors") for folder in (tmp_path / "half", merged))
    assert all(torch.equal(half[name], exact[name].bfloat16()) for name in exact)


def test_merge_keeps_the_region(tiny, train_flags, tmp_path):
    from llava.train.train import train

    train(argv=train_flags(tmp_path / "lora", lora_enable=True, tune_layers="0,3", max_steps=1))
    run_script("merge_lora_weights", "--model-path", tmp_path / "lora", "--save-model-path", tmp_path / "merged")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["visual_region"] == {"tune_layers": "0,3", "layers": [0, 3], "num_layers": 6}


def test_what_the_output_holds_is_not_replaced(parity, tiny_llava, tmp_path):
    base = shutil.copytree(parity / "tiny-vicuna", tmp_path / "base")
    lora = shutil.copytree(parity / "c_lora", tmp_path / "lora")
    model = shutil.copytree(tiny_llava, tmp_path / "model")
    thesis = tmp_path / "other" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    merge = ("merge_lora_weights", "--model-path", lora, "--model-base", base, "--save-model-path")
    average = ("average_weights", "--model-paths", model, tiny_llava, "--output")
    for words, own in ((merge, lora), (merge, base), (average, model)):
        for output, message in (
            (own, "overlap"),
            (thesis.parent, "is not empty and not a checkpoint"),
            (thesis, "is a file; give a folder"),
        ):
            with pytest.raises(SystemExit, match=f"error: {words[-1]} .*{message}"):
                run_script(*words, output)
    assert sorted(tmp_path.rglob("*")) == before
    run_script(*average, tmp_path / "final")
    with pytest.raises(SystemExit, match="--overwrite replaces it"):
        run_script(*average, tmp_path / "final")
    run_script(*average, tmp_path / "final", "--overwrite")


def test_merge_without_a_base(parity, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*give --model-base"):
        run_script("merge_lora_weights", "--model-path", parity / "c_lora", "--save-model-path", tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("source", ["llava-tiny", "c_lora", "c_pretrain"])
def test_extract_projector(parity, tmp_path, source):
    file = tmp_path / "made" / "mm_projector.bin"
    run_script("extract_mm_projector", "--model-path", parity / source, "--output", file)
    projector = torch.load(file, weights_only=True)
    assert set(projector) == {f"model.mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    if source == "llava-tiny":
        weights = load_file(parity / source / "model.safetensors")
    else:
        name = "non_lora_trainables.bin" if source == "c_lora" else "mm_projector.bin"
        weights = torch.load(parity / source / name, weights_only=True)
    for name, value in projector.items():
        assert torch.equal(value, next(v for n, v in weights.items() if n.endswith(name)))
    assert file.stat().st_size < 40_000


def test_extract_from_what_has_none(tiny, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .* holds no projector"):
        run_script("extract_mm_projector", "--model-path", tiny.llm, "--output", tmp_path / "p.bin")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def two_models(tiny_llava, tmp_path):
    """The tiny LLaVA and another of the same shapes in bfloat16, in two shards."""
    second = shutil.copytree(tiny_llava, tmp_path / "second")
    torch.manual_seed(5)
    weights = {n: torch.randn_like(v).bfloat16() for n, v in load_file(second / "model.safetensors").items()}
    (second / "model.safetensors").unlink()
    index = {}
    for i in range(2):
        name = f"pytorch_model-{i + 1:05d}-of-00002.bin"
        part = {n: weights[n] for n in sorted(weights)[i::2]}
        torch.save(part, second / name)
        index |= dict.fromkeys(part, name)
    (second / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = json.loads((second / "config.json").read_text())
    config["visual_region"] |= {"layers": [1], "tune_layers": "1"}
    (second / "config.json").write_text(json.dumps(config))
    return tiny_llava, second, weights


def test_average(two_models, tmp_path):
    first, second, weights = two_models
    output = tmp_path / "final"
    run_script("average_weights", "--model-paths", first, second, "--weights", 0.42, 0.58, "--output", output)
    assert len(list(output.glob("model-*.safetensors"))) == 2
    found = {name: value for shard in output.glob("*.safetensors") for name, value in load_file(shard).items()}
    for name, value in load_file(first / "model.safetensors").items():
        expected = (0.42 * value.double() + 0.58 * weights[name].double()).to(torch.bfloat16)
        torch.testing.assert_close(found[name], expected, atol=0, rtol=8e-3)
    config = json.loads((output / "config.json").read_text())
    assert config["averaged_from"] == [[str(first), 0.42], [str(second), 0.58]]
    assert config["visual_region"]["layers"] == [0, 1, 3]
    model = load_pretrained_model(str(output), device="cpu")[1]
    assert torch.equal(model.state_dict()["model.norm.weight"], found["model.norm.weight"].float())


def test_the_average_with_a_trained_tower_says_so_to_both_upstreams(tiny_llava, tmp_path):
    """LLaVA and Bunny read different keys, and replace the tower by the published one without theirs."""
    trained = shutil.copytree(tiny_llava, tmp_path / "trained")
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps(config | {"unfreeze_mm_vision_tower": True}))
    average_checkpoints([open_checkpoint(trained), open_checkpoint(tiny_llava)], None, tmp_path / "average")
    config = json.loads((tmp_path / "average/config.json").read_text())
    assert config["unfreeze_vision_tower"] is config["unfreeze_mm_vision_tower"] is True


def test_average_with_itself_is_itself(tiny_llava, tmp_path):
    average_checkpoints([open_checkpoint(tiny_llava)] * 2, None, tmp_path / "same")
    first, second = (load_file(folder / "model.safetensors") for folder in (tiny_llava, tmp_path / "same"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_cannot_be_averaged(two_models, parity, tmp_path):
    def average(folders, weights, output):
        bases = {parity / "c_lora": parity / "tiny-vicuna"}
        average_checkpoints([open_checkpoint(f, bases.get(f)) for f in folders], weights, output)

    first, second, _ = two_models
    output = tmp_path / "no"
    with pytest.raises(ValueError, match="numbers that sum to 1"):
        average([first, second], [0.5, 0.6], output)
    with pytest.raises(ValueError, match="two models or more"):
        average([first], None, output)
    with pytest.raises(CheckpointError, match="LoRA checkpoint; only full"):
        average([first, parity / "c_lora"], None, output)
    other = shutil.copytree(first, tmp_path / "other")
    weights = {name: value.clone() for name, value in load_file(first / "model.safetensors").items()}
    weights["model.norm.weight"] = torch.zeros(31)
    save_file(weights, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"not of one architecture: 2 tensors differ.*model\.norm\.weight"):
        average([first, other], None, output)
    assert not output.exists()
