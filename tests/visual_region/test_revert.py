"""`revert` sets layers back to the backbone's weights: once, twice, all of them, in every kind of folder."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llava.checkpoint.identity import BASE_FILE
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.tensors import Stored
from llava.model.builder import load_pretrained_model
from visual_region.surgery import weights_replaced

TEXT = torch.tensor([[1, 5, 6, 7, 9]])


@pytest.fixture(scope="module")
def tuned(tiny_llava, tmp_path_factory):
    """A full checkpoint of which every weight of the language model differs from the backbone's."""
    folder = shutil.copytree(tiny_llava, tmp_path_factory.mktemp("tuned") / "tuned")
    torch.manual_seed(7)
    weights = load_file(folder / "model.safetensors")
    changed = {
        name: t if "vision_tower" in name or "mm_projector" in name else t + 0.05 * torch.randn_like(t)
        for name, t in weights.items()
    }
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    return folder


def backbone_text_logits(folder):
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(TEXT).logits


def record(folder):
    return json.loads((folder / "config.json").read_text())["visual_region"]


def test_full_equals_copying_the_layers_in_memory(command, logits, tiny, tuned, tmp_path):
    output = tmp_path / "out"
    command("revert", "--model-path", tuned, "--backbone", tiny.llm, "--layers", "1-2,3", "--output", output)
    model = load_pretrained_model(str(tuned), device="cpu")[1]
    before = logits(model)
    backbone = AutoModelForCausalLM.from_pretrained(tiny.llm).state_dict()
    names = [n for n in backbone if n.startswith(("model.layers.1.", "model.layers.2.", "model.layers.3."))]
    layers = {n: Stored.of(n, backbone[n]) for n in names}
    with weights_replaced(model, layers):
        expected = logits(model)
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(output), expected)
    assert not torch.equal(expected, before)
    assert record(output)["reverted_layers"] == [1, 2, 3]
    # Layer 3 was tuned and is the backbone's again: pruning need not protect it.
    assert LayerRecord.of(load_pretrained_model(str(output), device="cpu")[1].config).region == (0,)


def test_twice_is_once(command, tiny, tuned, tmp_path, capsys):
    flags = ("revert", "--backbone", tiny.llm)
    command(*flags, "--model-path", tuned, "--layers", "0,4", "--output", tmp_path / "once")
    assert "layers 0, 4 are the backbone's, in" in capsys.readouterr().out
    command(*flags, "--model-path", tmp_path / "once", "--layers", "4", "--output", tmp_path / "twice")
    assert "layer 4 is the backbone's, in" in capsys.readouterr().out
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_all_layers_are_the_backbone(command, text_logits, tiny, tuned, tmp_path):
    output = tmp_path / "out"
    command("revert", "--model-path", tuned, "--backbone", tiny.llm, "--layers", "all", "--output", output)
    assert torch.equal(text_logits(output), backbone_text_logits(tiny.llm))
    projector = load_file(tuned / "model.safetensors")["model.mm_projector.0.weight"]
    assert torch.equal(load_file(output / "model.safetensors")["model.mm_projector.0.weight"], projector)


def test_a_pruned_model_takes_the_layers_that_it_kept(command, logits, tiny, tuned, tmp_path):
    pruned, reverted, first, second = (tmp_path / n for n in ("pruned", "reverted", "first", "second"))
    command("prune", "--model-path", tuned, "--layers", "1,2", "--output", pruned)
    command("revert", "--model-path", pruned, "--backbone", tiny.llm, "--layers", "2", "--output", reverted)
    command("revert", "--model-path", tuned, "--backbone", tiny.llm, "--layers", "4", "--output", first)
    command("prune", "--model-path", first, "--layers", "1,2", "--output", second)
    assert torch.equal(logits(reverted), logits(second))
    assert record(reverted) == record(second)
    assert record(reverted)["reverted_layers"] == [4]


def test_dtype_of_the_checkpoint_stays(command, tiny, tuned, tmp_path):
    half, output = tmp_path / "half", tmp_path / "out"
    command("prune", "--model-path", tuned, "--layers", "5", "--dtype", "bf16", "--output", half)
    command("revert", "--model-path", half, "--backbone", tiny.llm, "--layers", "0", "--output", output)
    name = "model.layers.0.mlp.up_proj.weight"
    found = load_file(output / "model.safetensors")[name]
    assert torch.equal(found, load_file(tiny.llm / "model.safetensors")[name].to(torch.bfloat16))


def test_lora_loses_its_deltas(command, logits, tiny, tiny_lora, tmp_path):
    output, again = tmp_path / "out", tmp_path / "again"
    command("revert", "--model-path", tiny_lora, "--layers", "2,3", "--output", output)
    merged, backbone = load_pretrained_model(str(tiny_lora), device="cpu")[1], load_file(tiny.llm / "model.safetensors")
    with weights_replaced(merged, {n: Stored.of(n, t) for n, t in backbone.items() if ".layers.3." in n}):
        expected = logits(merged)
    torch.testing.assert_close(logits(output), expected)
    assert not torch.allclose(logits(tiny_lora), expected)
    assert {n.split(".layers.")[1][0] for n in load_file(output / "adapter_model.safetensors")} == {"0"}
    command("revert", "--model-path", output, "--layers", "2,3", "--output", again)
    assert torch.equal(logits(again), logits(output))
    assert record(again) == record(output)


def test_lora_without_any_delta_is_base_and_projector(command, logits, text_logits, tiny, tiny_lora, tmp_path, capsys):
    output = tmp_path / "out"
    command("revert", "--model-path", tiny_lora, "--layers", "all", "--output", output)
    assert "no adapted layer is left" in capsys.readouterr().out
    assert torch.equal(text_logits(output), backbone_text_logits(tiny.llm))
    merged, backbone = load_pretrained_model(str(tiny_lora), device="cpu")[1], load_file(tiny.llm / "model.safetensors")
    with weights_replaced(merged, {n: Stored.of(n, t) for n, t in backbone.items() if ".layers." in n}):
        torch.testing.assert_close(logits(output), logits(merged))
    assert not (output / "adapter_config.json").exists()


def test_how_a_training_quantised_its_base_is_not_how_the_base_is_stored(command, logits, tiny_lora, tmp_path):
    """The config.json of upstream's QLoRA names 4 bits; its base is written as it is."""
    lora, output = shutil.copytree(tiny_lora, tmp_path / "lora"), tmp_path / "out"
    config = json.loads((lora / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (lora / "config.json").write_text(json.dumps(config))
    command("revert", "--model-path", lora, "--layers", "all", "--output", output)
    assert "quantization_config" not in json.loads((output / "config.json").read_text())
    logits(output)


def test_layers_that_are_tuned_in_the_base_too(command, logits, tiny, tiny_lora, tuned, tmp_path, capsys):
    """Of a healed model, for example: without the LoRA they are not the language model's."""
    lora, output = shutil.copytree(tiny_lora, tmp_path / "lora"), tmp_path / "out"
    (lora / BASE_FILE).unlink(missing_ok=True)
    flags = ("revert", "--model-path", lora, "--model-base", tuned)
    command(*flags, "--layers", "1,3", "--output", output)
    said = capsys.readouterr().out
    assert "layer 1 is the backbone's, in" in said
    assert f"layer 3 is as in {tuned}, where it is tuned too" in said
    assert record(output)["reverted_layers"] == [1]
    loaded = load_pretrained_model(str(output), str(tuned), device="cpu")[1]
    assert LayerRecord.of(loaded.config).region == (0, 3)
    text = tmp_path / "text.txt"
    text.write_text("Where is the red line? It is at the top. " * 3)
    perplexity = ("perplexity", "--model-path", lora, "--model-base", tuned, "--text-file", text)
    with pytest.raises(SystemExit, match="in which layers 0, 3 are tuned too; give --backbone"):
        command(*perplexity, "--output", tmp_path / "t.json")
    command(*perplexity, "--output", tmp_path / "t.json", "--backbone", tiny.llm, "--context", 40)


def test_a_recorded_backbone_that_is_tuned_itself(command, tiny, tuned, tmp_path):
    model = shutil.copytree(tuned, tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {"_name_or_path": str(tuned)}
    (model / "config.json").write_text(json.dumps(config))
    flags = ("revert", "--model-path", model, "--layers", "1,3", "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match="in which layer 3 is tuned too; give --backbone"):
        command(*flags)
    command(*flags, "--backbone", tuned)
    assert record(tmp_path / "out")["reverted_layers"] == [1]


def test_a_lora_folder_without_a_tokenizer(command, logits, tiny, tiny_lora, tmp_path):
    """As upstream writes them; the base's files are needed then."""
    lora, base, output = (tmp_path / name for name in ("lora", "base", "out"))
    shutil.copytree(tiny_lora, lora)
    shutil.copytree(tiny.llm, base)
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    for file in (*lora.glob("token*"), *lora.glob("special*"), *lora.glob("chat_template*")):
        file.unlink()
    for folder in (lora, tiny_lora):
        shutil.rmtree(output, ignore_errors=True)
        command("revert", "--model-path", folder, "--model-base", base, "--layers", "all", "--output", output)
        logits(output)
        assert json.loads((output / "generation_config.json").read_text())["eos_token_id"] == [2, 7]


@pytest.mark.parametrize("pickled", [False, True])
def test_a_backbone_with_more_rows(command, text_logits, tiny, tuned, tmp_path, pickled):
    """Upstream's merge of a Bunny leaves out the rows of the embeddings that have no token."""
    wide, output = tmp_path / "wide", tmp_path / "out"
    model = AutoModelForCausalLM.from_pretrained(tiny.llm)
    model.resize_token_embeddings(model.config.vocab_size + 64, mean_resizing=False)
    model.save_pretrained(wide)
    if pickled:
        torch.save(load_file(wide / "model.safetensors"), wide / "pytorch_model.bin")
        (wide / "model.safetensors").unlink()
    command("revert", "--model-path", tuned, "--backbone", wide, "--layers", "all", "--output", output)
    assert torch.equal(text_logits(output), backbone_text_logits(tiny.llm))


def test_a_backbone_from_the_hub(command, tiny, tiny_lora, tuned, tmp_path, monkeypatch):
    for name in ("snapshot_download", "list_repo_files"):
        monkeypatch.setattr(f"llava.checkpoint.folder.{name}", lambda name, **options: str(tiny.llm))
    flags = ("revert", "--backbone", "org/llm", "--layers", "3", "--output")
    command(*flags, tmp_path / "full", "--model-path", tuned)
    assert record(tmp_path / "full")["reverted_layers"] == [3]
    command(*flags, tmp_path / "lora", "--model-path", tiny_lora)
    assert record(tmp_path / "lora")["reverted_layers"] == [3]


def test_perplexity_of_a_few_layers(command, tiny, tuned, tmp_path):
    command("prune", "--model-path", tuned, "--layers", "1,2,4,5", "--output", tmp_path / "two")
    text = tmp_path / "text.txt"
    text.write_text("Where is the red line? It is at the top. " * 3)
    flags = ("--text-file", text, "--context", 40, "--backbone", tiny.llm, "--output", tmp_path / "t.json")
    command("perplexity", "--model-path", tmp_path / "two", *flags)
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert list(rows) == ["as it is", "0-0 reverted", "1-1 reverted", "all reverted"]


def test_merged_is_full(command, text_logits, tiny, tiny_lora, tmp_path):
    from llava.model.builder import load_tokenizer

    merged, output = tmp_path / "merged", tmp_path / "out"
    model = load_pretrained_model(str(tiny_lora), device="cpu", load_tower=False)[1]
    model.save_pretrained(merged)
    load_tokenizer(tiny.llm).save_pretrained(merged)
    command("revert", "--model-path", merged, "--backbone", tiny.llm, "--layers", "0,3", "--output", output)
    assert torch.equal(text_logits(output), backbone_text_logits(tiny.llm))
    assert record(output)["layers"] == [0, 3]


def test_bad_input_writes_nothing(command, tiny, tuned, tiny_lora, parity, tmp_path):
    def llm(name, **changes):
        values = LlamaConfig.from_pretrained(tiny.llm).to_dict() | changes
        LlamaForCausalLM(LlamaConfig(**values)).save_pretrained(tmp_path / name)
        return tmp_path / name

    projector = ("revert", "--model-path", parity / "c_pretrain", "--model-base", parity / "tiny-vicuna")
    wide, deep = llm("wide", intermediate_size=48), llm("deep", num_hidden_layers=7)
    full, output = ("revert", "--model-path", tuned, "--layers", "1"), ("--output", tmp_path / "out")
    before = {p.name for p in tmp_path.iterdir()}
    cases = [
        (
            (*full, "--backbone", wide),
            r"another shape: model\.layers\.1\.mlp\.\w+\.weight is 48x32|32x48, in the model",
        ),
        (
            (*full, "--backbone", deep),
            r"the backbone has 7 layers; the model has 6; the first tensor that differs is "
            r"model\.layers\.6\.input_layernorm\.weight, 32 in the backbone and absent in the model",
        ),
        (full, "give --backbone the language model's folder, or its hub id"),
        ((*full, "--backbone", tiny_lora), "is a LoRA checkpoint"),
        (("revert", "--model-path", tuned, "--backbone", tiny.llm, "--layers", "6"), "there is no layer 6"),
        (("revert", "--model-path", tiny_lora, "--layers", "0", "--backbone", wide), "go back to its base"),
        ((*projector, "--layers", "0"), "holds a projector only"),
        ((*full, "--backbone", tiny.llm, "--output", tuned), "overlap"),
    ]
    for flags, words in cases:
        with pytest.raises(SystemExit, match=words):
            command(*flags, *(() if "--output" in flags else output))
    assert {p.name for p in tmp_path.iterdir()} == before
