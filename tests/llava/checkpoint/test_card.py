"""The model card: metadata that the Hub reads, the picture of the layers, and every writer writes one."""

import json

import pytest
from huggingface_hub import ModelCard

from llava.checkpoint.card import add_scores, model_card, write_card
from llava.checkpoint.record import LayerRecord
from llava.train.train import train

RUN = {
    "kind": "lora",
    "base": "lmsys/vicuna-7b-v1.5",
    "data": {"path": "/data/mix.json", "samples": 12},
    "data_share": "25%",
    "steps": 3,
    "batch_size": 16,
    "seed": 5,
    "dtype": "bfloat16",
    "devices": {"number": 8, "name": "H100"},
    "starts": [],
}


@pytest.fixture
def config():
    config = {"model_type": "llava_llama", "num_hidden_layers": 4, "mm_vision_tower": "tower"}
    LayerRecord({}, 4).tuned("0,2", [0, 2]).cut([0, 2, 3]).put(config)
    return config


def test_the_hub_reads_the_metadata(tmp_path, config):
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "lmsys/vicuna-7b-v1.5"}))
    card = ModelCard(model_card(tmp_path, config, "mine", tmp_path))
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "image-text-to-text"
    assert (data["library_name"], data["base_model"]) == ("peft", "lmsys/vicuna-7b-v1.5")
    assert {"llava-visual-region", "llava", "lora", "layer-pruning"} == set(data["tags"])
    for line in (
        "■·■□",
        "Tuned: 2 layers of 4 (`--tune_layers 0,2`): 0, 2.",
        "Removed: 1.",
        "mix.json, 12 samples (25%)",
        "8 x H100",
        'load_pretrained_model("mine")',
    ):
        assert line in card.text


def test_a_local_base_is_no_model_of_the_hub(tmp_path, config):
    """The Hub refuses a card whose base_model is not one of its ids."""
    local = tmp_path / "base"
    local.mkdir()
    for base in (str(local), "../base", "vicuna"):
        (tmp_path / "run.json").write_text(json.dumps(RUN | {"base": base}))
        card = ModelCard(model_card(tmp_path, config, "mine", tmp_path))
        assert "base_model" not in card.data.to_dict()
        assert f"| base | {base} |" in card.text


def test_a_card_of_the_user_stays(tmp_path, config):
    (tmp_path / "README.md").write_text("# My own words\n")
    write_card(tmp_path, config)
    assert (tmp_path / "README.md").read_text() == "# My own words\n"
    (tmp_path / "README.md").write_text("---\nlibrary_name: peft\n---\n# Model Card for Model ID\n")
    write_card(tmp_path, config)
    assert "llava-visual-region" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "somebody else"}'])
def test_a_run_json_of_another_program_is_left_out(tmp_path, config, text):
    """It lies in a folder that is pruned, and must not end the program after its work."""
    (tmp_path / "run.json").write_text(text)
    assert "## Training" not in model_card(tmp_path, config, "mine", tmp_path)


@pytest.mark.parametrize("mode", ["lora", "full", "projector"])
def test_a_training_writes_its_card(tiny, train_flags, tmp_path, mode):
    changes = {
        "lora": {"lora_enable": True, "lora_r": 4, "tune_layers": "0,3"},
        "full": {"tune_layers": "0,3"},
        "projector": {"tune_mm_mlp_adapter": True},
    }[mode]
    output = tmp_path / "my-model"
    train(argv=train_flags(output, max_steps=2, save_strategy="steps", save_steps=1, **changes))
    text = (output / "README.md").read_text()
    assert text.count("# my-model") == 1
    assert "| steps | 2 of 3 samples |" in text
    assert ("■□□■□□" in text) == (mode != "projector")
    assert "# checkpoint-2" in (output / "checkpoint-2/README.md").read_text()


def test_other_writers_write_theirs(command, tiny_llava, tmp_path):
    for name, flags in {
        "pruned": ["prune", "--layers", "1"],
        "exported": ["export"],
    }.items():
        output = tmp_path / name
        command(*flags, "--model-path", tiny_llava, "--output", output)
        text = (output / "README.md").read_text()
        assert f"# {name}" in text
        assert f'"{name}"' in text
    assert "Removed: 1." in (tmp_path / "pruned/README.md").read_text()
    assert "LlavaForConditionalGeneration" in (tmp_path / "exported/README.md").read_text()


def test_scores_are_added_and_replaced(tmp_path, config):
    assert not add_scores(tmp_path, "| GQA |")
    (tmp_path / "README.md").write_text("# My own words\n\n## How to load it\n")
    assert not add_scores(tmp_path, "| GQA |")
    assert (tmp_path / "README.md").read_text() == "# My own words\n\n## How to load it\n"
    (tmp_path / "README.md").unlink()
    write_card(tmp_path, config)
    before = (tmp_path / "README.md").read_text()
    for score in ("61.25", "62.50"):
        assert add_scores(tmp_path, f"| GQA |\n|---|\n| {score} |\n")
    text = (tmp_path / "README.md").read_text()
    assert "61.25" not in text
    assert text.replace("\n## Scores\n\n| GQA |\n|---|\n| 62.50 |\n", "") == before
    assert ModelCard(text).data.to_dict() == ModelCard(before).data.to_dict()
