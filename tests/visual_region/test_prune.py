"""`prune` on disk equals deleting the layers in memory; LoRA folders are renumbered, merged or refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, Qwen2Config

from llava.checkpoint import identity, write
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import CheckpointError
from llava.checkpoint.record import LayerRecord
from llava.model.builder import load_pretrained_model
from visual_region.commands import prune as module
from visual_region.pruning import pruned_config
from visual_region.surgery import LayerCut, layer_of, remove_layers

PATH = "model.layers"
MEASURED = ("--data-path", "D", "--image-folder", "I")
"""Stands for the tiny data set."""


@pytest.fixture
def scores(tiny_llava, tmp_path):
    file = tmp_path / "scores.json"
    values = [0.1, 0.5, 0.2, 0.3, 0.05, 0.6]
    metrics = {"angular": {"values": values}, "bi": {"values": values[::-1]}}
    digest = identity.digest(open_checkpoint(tiny_llava))
    file.write_text(json.dumps({"identity": digest, "model": "tiny", "num_layers": 6, "metrics": metrics}))
    return file


def in_memory(folder, gone):
    model = load_pretrained_model(str(folder), device="cpu")[1]
    return remove_layers(model, gone, PATH)


def weights(folder):
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("layout", ["one file", "shards", "bin"])
def test_on_disk_equals_in_memory(command, logits, tiny_llava, tmp_path, layout):
    source = shutil.copytree(tiny_llava, tmp_path / "source")
    if layout == "shards":
        model = load_pretrained_model(str(source), device="cpu", load_tower=False)[1]
        (source / "model.safetensors").unlink()
        model.save_pretrained(source, max_shard_size="30KB")
        assert len(list(source.glob("*.safetensors"))) > 3
    if layout == "bin":
        torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
        (source / "model.safetensors").unlink()
    (source / "trainer_state.json").write_text("{}")
    output = tmp_path / "pruned"
    command("prune", "--model-path", source, "--layers", "1,4", "--output", output)

    reference = in_memory(source, (1, 4))
    expected = {n: t for n, t in reference.state_dict().items() if "vision_tower" not in n}
    found = {n: t for n, t in weights(output).items() if "vision_tower" not in n}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert torch.equal(logits(output), logits(reference))
    config = json.loads((output / "config.json").read_text())
    assert config["visual_region"] == reference.config.visual_region
    assert config["num_hidden_layers"] == 4
    assert (output / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert not (output / "trainer_state.json").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"source", "pruned"}


def test_a_second_prune_keeps_the_record(command, logits, tiny_llava, tmp_path):
    once, twice, at_once = tmp_path / "once", tmp_path / "twice", tmp_path / "at-once"
    command("prune", "--model-path", tiny_llava, "--layers", "1,2", "--output", once)
    command("prune", "--model-path", once, "--layers", "2", "--output", twice)
    command("prune", "--model-path", tiny_llava, "--layers", "1,2,4", "--output", at_once)
    assert torch.equal(logits(twice), logits(at_once))
    first, second = (json.loads((f / "config.json").read_text())["visual_region"] for f in (twice, at_once))
    assert first == second
    assert first["kept_layers"] == [0, 3, 5]
    assert first["layers"] == [0, 3]


def test_numbers_after_a_prune_are_told(command, tiny_llava, tmp_path, capsys):
    """The same number again is another layer: what went before, and what goes now, is said in original numbers."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    command("prune", "--model-path", tiny_llava, "--layers", "1", "--output", once)
    assert "removed layer 1; 5 layers remain" in capsys.readouterr().out
    command("prune", "--model-path", once, "--layers", "1", "--output", twice)
    printed = capsys.readouterr().out
    assert "layer 1 of the unpruned model was removed before; numbers are of the 5 layers" in printed
    assert "removed layer 1 (of the unpruned model 2); 4 layers remain" in printed
    for name, flags in (("prune", ()), ("revert", ("--backbone", tiny_llava))):
        with pytest.raises(SystemExit, match=r"no layer 4(.|\n)*layers 1, 2 of the 6 that it had were removed already"):
            command(name, "--model-path", twice, *flags, "--layers", "4", "--output", tmp_path / "no")


def test_lowest_of_any_metric(command, tiny_llava, scores, tmp_path):
    for metric, gone in (("angular", [2, 4]), ("bi", [1, 5])):
        output = tmp_path / metric
        flags = ("--scores", scores, "--metric", metric, "--remove", 2)
        command("prune", "--model-path", tiny_llava, *flags, "--output", output)
        record = json.loads((output / "config.json").read_text())["visual_region"]
        assert record["removed_layers"] == gone


def test_dtype_and_tower_are_written(command, tiny_llava, tmp_path):
    output = tmp_path / "out"
    flags = ("--layers", "1", "--dtype", "bf16", "--vision-tower", "elsewhere")
    command("prune", "--model-path", tiny_llava, *flags, "--output", output)
    assert {t.dtype for t in weights(output).values()} == {torch.bfloat16}
    config = json.loads((output / "config.json").read_text())
    assert (config["dtype"], config["mm_vision_tower"]) == ("bfloat16", "elsewhere")


def test_code_that_is_not_copied_is_not_named(command, tiny_llava, tmp_path):
    """Bunnies on the hub have classes of their own, in files that are not downloaded."""
    source = shutil.copytree(tiny_llava, tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | {"auto_map": {"AutoConfig": "configuration_x.XConfig"}}
    (source / "config.json").write_text(json.dumps(config))
    command("prune", "--model-path", source, "--layers", "1", "--output", tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out/config.json").read_text())


def test_dtype_of_a_base_is_written(command, tiny_lora, tmp_path):
    flags = ("--layers", "1", "--dtype", "bf16", "--output", tmp_path / "lora", "--base-output", tmp_path / "base")
    command("prune", "--model-path", tiny_lora, *flags)
    assert {t.dtype for t in weights(tmp_path / "base").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "base/config.json").read_text())["dtype"] == "bfloat16"


def test_lora_merged_or_beside_its_pruned_base(command, logits, tiny, tiny_lora, tmp_path, monkeypatch):
    merged, adapter, base = (tmp_path / name for name in ("merged", "adapter", "base"))
    devices, load = [], module.load_checkpoint
    monkeypatch.setattr(
        module, "load_checkpoint", lambda *args, **kw: devices.append(kw.get("device")) or load(*args, **kw)
    )
    command("prune", "--model-path", tiny_lora, "--layers", "1,2", "--output", merged)
    # The weights only go back to the disk: a GPU need not have room for them in float32.
    assert devices == ["cpu"]
    command("prune", "--model-path", tiny_lora, "--layers", "1,2", "--output", adapter, "--base-output", base)

    expected = logits(in_memory(tiny_lora, (1, 2)))
    torch.testing.assert_close(logits(merged), expected)
    torch.testing.assert_close(logits(adapter), expected)
    names = load_file(adapter / "adapter_model.safetensors")
    assert {layer_of(name, PATH) for name in names} == {0, 1}
    assert LlamaForCausalLM.from_pretrained(base).config.num_hidden_layers == 4
    model = load_pretrained_model(str(adapter), device="cpu")[1]
    assert LayerRecord.of(model.config).region == (0, 1)
    assert model.config.visual_region["kept_layers"] == [0, 3, 4, 5]

    # A second prune, of the adapter's folder on its pruned base, and of the merged one.
    again, base_again, merged_again = (tmp_path / name for name in ("adapter2", "base2", "merged2"))
    command("prune", "--model-path", adapter, "--layers", "3", "--output", again, "--base-output", base_again)
    command("prune", "--model-path", merged, "--layers", "3", "--output", merged_again)
    torch.testing.assert_close(logits(again), logits(merged_again))
    first, second = (json.loads((f / "config.json").read_text())["visual_region"] for f in (again, merged_again))
    assert first == second

    # The adapter of the pruned base is refused on the whole one, and a base that stands is not written again.
    with pytest.raises(CheckpointError, match="trained on a model of 4 layers"):
        load_pretrained_model(str(adapter), str(tiny.llm), device="cpu")
    before = (base / "config.json").stat().st_mtime_ns
    flags = ("--layers", "1,2", "--output", tmp_path / "adapter3", "--base-output", base)
    command("prune", "--model-path", tiny_lora, *flags)
    assert (base / "config.json").stat().st_mtime_ns == before


def test_deltas_that_go_with_their_layer_are_told(command, logits, tiny_lora, tmp_path, capsys):
    output, base = tmp_path / "out", tmp_path / "base"
    flags = ("--layers", "3", "--anywhere", "--output", output, "--base-output", base)
    command("prune", "--model-path", tiny_lora, *flags)
    assert "the adapter's weights of layer 3 are removed too" in capsys.readouterr().out
    torch.testing.assert_close(logits(output), logits(in_memory(tiny_lora, (3,))))
    flags = ("--layers", "0,3", "--anywhere", "--output", tmp_path / "no", "--base-output", tmp_path / "no-base")
    with pytest.raises(SystemExit, match="no adapted layer would remain"):
        command("prune", "--model-path", tiny_lora, *flags)
    assert {p.name for p in tmp_path.iterdir()} == {"out", "base"}


def test_settings_by_layer_are_refused(command, tiny_lora, tmp_path):
    source = shutil.copytree(tiny_lora, tmp_path / "lora")
    config = json.loads((source / "adapter_config.json").read_text())
    config["rank_pattern"] = {"model.layers.3.self_attn.q_proj": 8}
    (source / "adapter_config.json").write_text(json.dumps(config))
    flags = ("--layers", "1", "--output", tmp_path / "out", "--base-output", tmp_path / "base")
    with pytest.raises(SystemExit, match="rank_pattern name layers and cannot be renumbered"):
        command("prune", "--model-path", source, *flags)
    assert {p.name for p in tmp_path.iterdir()} == {"lora"}


def test_a_towers_layers_keep_their_names():
    cut = LayerCut((0, 2), 3)
    names = {
        "model.layers.2.mlp.up_proj.weight": "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj.weight": None,
        "model.layers.10.x": None,
        "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight": "same",
        "base_model.model.model.layers.2.mlp.lora_A.weight": "base_model.model.model.layers.1.mlp.lora_A.weight",
        "base_model.model.model.mm_projector.2.weight": "same",
        "model.norm.weight": "same",
    }
    for old, new in names.items():
        assert cut.rename(old, PATH) == (old if new == "same" else new)


def test_layer_types_that_the_class_derives_are_cut():
    """An older Qwen2 folder does not name each layer's attention; after a removal it must."""
    raw = {
        "model_type": "qwen2",
        "num_hidden_layers": 4,
        "max_window_layers": 2,
        "use_sliding_window": True,
        "sliding_window": 8,
    }
    config = Qwen2Config(**{k: v for k, v in raw.items() if k != "model_type"})
    values = pruned_config(raw, config, LayerCut.without((0,), LayerRecord.of(config)))
    assert values["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention"]
    assert values["max_window_layers"] == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--scores", "S", "--metric", "angluar"), "has no metric 'angluar'; it has angular, bi"),
        (("--scores", "S", "--remove", 5), "cannot remove 5 layers: 4 of 6 lie outside .*--anywhere allows"),
        (("--scores", "S", "--remove", 0), "--remove 0 removes nothing; give at least 1"),
        (("--layers", "6"), "there is no layer 6"),
        (("--layers", "all", "--anywhere"), "cannot remove all 6 layers"),
        (("--layers", "3"), "layer 3 belongs to the tuned region"),
        ((), "give either --layers, or --scores with --remove, or --block"),
        (("--block", 3), "no block of 3 layers lies outside .* the longest stretch has 2 layers"),
        (("--block", 6, "--anywhere"), "has 1 to 5"),
        (("--block", 2), "--block needs --data-path"),
        (("--block", 2, *MEASURED, "--samples", 0), "--samples is a whole number from 1 on, or 'all', not '0'"),
        (("--block", 2, *MEASURED, "--samples", "-1"), "--samples is a whole number from 1 on"),
        (("--block", 2, *MEASURED, "--batch-size", 0), "--batch-size is a whole number from 1 on, not 0"),
        (("--block", 2, *MEASURED, "--conv-mode", "foo"), "unknown conversation template 'foo'"),
        (("--layers", "1", "--base-output", "b"), "--base-output is for LoRA folders"),
    ],
)
def test_bad_input_writes_nothing(command, tiny, tiny_llava, scores, tmp_path, monkeypatch, flags, words):
    from visual_region.importance import inputs

    # All is found out before weights are loaded.
    monkeypatch.setattr(inputs, "make_reader", None)
    given = {"S": scores, "D": tiny.data, "I": tiny.images}
    flags = [given.get(flag, flag) for flag in flags]
    with pytest.raises(SystemExit, match=words):
        command("prune", "--model-path", tiny_llava, *flags, "--output", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"scores.json"}


def test_scores_that_are_no_numbers(command, tiny_llava, scores, tmp_path):
    """NaN has no rank: any layer could come first."""
    content = json.loads(scores.read_text())
    content["metrics"]["angular"]["values"][2] = float("nan")
    scores.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"'angular' in '\S+' is not a finite number \(NaN, null, ...\) at layer 2"):
        command("prune", "--model-path", tiny_llava, "--scores", scores, "--output", tmp_path / "no")


def test_scores_of_another_depth_and_layers_removed_before(command, tiny_llava, scores, tmp_path):
    once = tmp_path / "once"
    command("prune", "--model-path", tiny_llava, "--layers", "1", "--output", once)
    with pytest.raises(SystemExit, match=r"is of 6 layers, the model has 5 \(layer 1 was removed from it before\)"):
        command("prune", "--model-path", once, "--scores", scores, "--output", tmp_path / "no")
    other = tmp_path / "other"
    command("prune", "--model-path", tiny_llava, "--layers", "1", "--dtype", "bf16", "--output", other)
    of_once = json.loads(scores.read_text()) | {"identity": identity.digest(open_checkpoint(once)), "num_layers": 5}
    of_once["metrics"] = {"angular": {"values": [0.1] * 5}}
    scores.write_text(json.dumps(of_once))
    with pytest.raises(SystemExit, match="holds the scores of another model"):
        command("prune", "--model-path", other, "--scores", scores, "--output", tmp_path / "no")
    with pytest.raises(ValueError, match=r"0\.\.4, counted as it is now; layer 1 of the 6 .* removed already"):
        LayerCut.without((5,), open_checkpoint(once).record)


def test_where_the_output_must_not_lie(command, tiny_llava, tmp_path):
    source = shutil.copytree(tiny_llava, tmp_path / "source")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    flags = ("prune", "--model-path", source, "--layers", "1", "--output")
    with pytest.raises(SystemExit, match="overlap"):
        command(*flags, source)
    with pytest.raises(SystemExit, match="overlap"):
        command(*flags, tmp_path)
    with pytest.raises(SystemExit, match="is not empty and not a checkpoint"):
        command(*flags, other)
    command(*flags, tmp_path / "out")
    with pytest.raises(SystemExit, match="--overwrite replaces it"):
        command(*flags, tmp_path / "out")
    command(*flags, tmp_path / "out", "--overwrite")


def test_an_interrupted_write_leaves_nothing(command, tiny_llava, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(write.os, "fsync", fail)
    with pytest.raises(SystemExit, match="error: disk full"):
        command("prune", "--model-path", tiny_llava, "--layers", "1", "--output", tmp_path / "out")
    assert not list(tmp_path.iterdir())

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(write.os, "fsync", interrupt)
    with pytest.raises(SystemExit, match="130"):
        command("prune", "--model-path", tiny_llava, "--layers", "1", "--output", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_two_outputs_must_not_lie_in_each_other(command, tiny, tiny_lora, tmp_path):
    whole = tmp_path / "whole"
    for output, base in ((whole, whole / "base"), (whole / "adapter", whole), (whole, whole)):
        flags = ("--layers", "1", "--output", output, "--base-output", base)
        with pytest.raises(SystemExit, match="overlap"):
            command("prune", "--model-path", tiny_lora, *flags)
    for source in (tiny_lora, tiny.llm):
        with pytest.raises(SystemExit, match=r"--base-output .* overlap"):
            command(
                "prune", "--model-path", tiny_lora, "--layers", "1", "--output", whole, "--base-output", source / "x"
            )
    assert not list(tmp_path.iterdir())


def test_a_base_of_another_model_does_not_stand_in(command, logits, tiny_lora, tmp_path):
    base, other = tmp_path / "base", tmp_path / "other"
    flags = ("prune", "--model-path", tiny_lora, "--layers", "1,2")
    command(*flags, "--output", tmp_path / "first", "--base-output", base)
    expected = logits(tmp_path / "first")
    shutil.copytree(base, other)
    tensors = {name: tensor.clone() for name, tensor in load_file(other / "model.safetensors").items()}
    tensors["model.layers.2.mlp.up_proj.weight"][3, 1] += 0.01
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match=r"first tensor that differs: model\.layers\.2\.mlp\.up_proj\.weight"):
        command(*flags, "--output", tmp_path / "no", "--base-output", other)
    config = json.loads((base / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    with pytest.raises(SystemExit, match=r"its config\.json has rope_theta 5\.0"):
        command(*flags, "--output", tmp_path / "no", "--base-output", other)
    with pytest.raises(SystemExit, match=r"holds another model .*removed there: 1, 2"):
        command(*flags[:-1], "1,4", "--output", tmp_path / "no", "--base-output", base)
    assert not (tmp_path / "no").exists()
    command(*flags, "--output", tmp_path / "again", "--base-output", other, "--overwrite")
    torch.testing.assert_close(logits(tmp_path / "again"), expected)


def test_a_pruned_base_that_named_code_is_known_again(command, tiny, tiny_lora, tmp_path, capsys):
    """The base of a Bunny names Python files that are not copied, so its pruned copy does not name them."""
    base = shutil.copytree(tiny.llm, tmp_path / "llm")
    config = json.loads((base / "config.json").read_text()) | {"auto_map": {"AutoConfig": "configuration_x.XConfig"}}
    (base / "config.json").write_text(json.dumps(config))
    flags = ("prune", "--model-path", tiny_lora, "--model-base", base, "--layers", "1,2")
    command(*flags, "--output", tmp_path / "first", "--base-output", tmp_path / "pruned")
    assert "auto_map" not in json.loads((tmp_path / "pruned/config.json").read_text())
    command(*flags, "--output", tmp_path / "second", "--base-output", tmp_path / "pruned")
    assert "the pruned base is already in" in capsys.readouterr().out


def test_a_block_is_measured_and_removed(command, logits, tiny, tiny_llava, tmp_path, capsys):
    file, flags = tmp_path / "blocks.json", ("--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 8)
    command(
        "prune", "--model-path", tiny_llava, "--block", 2, *flags, "--conv-mode", "v1", "--block-scores", file,
        "--output", tmp_path / "out",
    )  # fmt: skip
    found = json.loads(file.read_text())
    assert len(found["values"]) == 5
    start = min((1, 4), key=found["values"].__getitem__)
    record = json.loads((tmp_path / "out" / "config.json").read_text())["visual_region"]
    assert record["removed_layers"] == [start, start + 1]
    assert torch.equal(logits(tmp_path / "out"), logits(in_memory(tiny_llava, (start, start + 1))))
    # Read back without the data; another size is refused.
    capsys.readouterr()
    command("prune", "--model-path", tiny_llava, "--block", 2, "--block-scores", file, "--output", tmp_path / "again")
    assert f"block distances read from {file}\n" in capsys.readouterr().out
    assert torch.equal(logits(tmp_path / "out"), logits(tmp_path / "again"))
    with pytest.raises(SystemExit, match="blocks of 2 layers"):
        command("prune", "--model-path", tiny_llava, "--block", 1, "--block-scores", file, "--output", tmp_path / "no")
    # With the data too, it must be the data that was measured on.
    again = ("prune", "--model-path", tiny_llava, "--block", 2, "--block-scores", file, "--conv-mode")
    command(*again, "v1", *flags, "--output", tmp_path / "third")
    other = tmp_path / "other.json"
    other.write_text(tiny.data.read_text() + "\n")
    for mode, words, why in (
        ("v1", (*flags[:-1], 9), r"samples was 8, now 9"),
        ("v1", ("--data-path", other, *flags[2:]), r"sha256 was "),
        ("v1", (*flags, "--seed", 5), r"seed was \d, now 5"),
        ("plain", flags, r"template was 'v1', now 'plain'; angular_at was 'last token of the prompt', now "),
    ):
        with pytest.raises(SystemExit, match=rf"measured on other samples than --data-path gives \({why}"):
            command(*again, mode, *words, "--output", tmp_path / "no")
    assert json.loads(file.read_text()) == found
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '"text"', "not JSON", '{"model": 1, "block": 2, "values": 3}'])
def test_a_file_that_holds_no_block_distances_is_named(command, tiny_llava, tmp_path, content):
    file = tmp_path / "blocks.json"
    file.write_text(content)
    with pytest.raises(SystemExit, match=r"--block-scores .*blocks\.json (exists and )?is not a file of block"):
        command("prune", "--model-path", tiny_llava, "--block", 2, "--block-scores", file, "--output", tmp_path / "o")
    assert file.read_text() == content


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_room_is_asked_for_all_that_a_merged_lora_takes(command, tiny_lora, tmp_path, monkeypatch, dtype):
    from visual_region.commands import prune

    asked = []
    real = prune.check_output
    monkeypatch.setattr(prune, "check_output", lambda *a, **k: (asked.append(a[2]), real(*a, **k))[1])
    output = tmp_path / "out"
    flags = ("--dtype", dtype) if dtype else ()
    command("prune", "--model-path", tiny_lora, "--layers", "1", *flags, "--output", output)
    written = sum(tensor.nbytes for tensor in weights(output).values())
    assert asked[-1] == written


def test_a_folder_of_another_kind_is_named_with_its_flag(command, tiny, tiny_llava, tmp_path):
    other = shutil.copytree(tiny.tower, tmp_path / "efficient")
    values = json.loads((other / "config.json").read_text()) | {"model_type": "efficientnet"}
    (other / "config.json").write_text(json.dumps(values))
    out = ("--output", tmp_path / "out")
    cases = [
        ("prune", "--model-path", other, "--layers", "1", *out),
        ("revert", "--model-path", other, "--layers", "1", *out),
        ("plan", "--model-path", other),
        ("score", "--model-path", other, "--data-path", tiny.data, "--image-folder", tiny.images, *out),
        ("perplexity", "--model-path", other, "--data-path", tiny.data, *out),
        ("revert", "--model-path", tiny_llava, "--backbone", other, "--layers", "1", *out),
        ("score", "--model-path", tiny_llava, "--backbone", other, *out),
        (
            *("perplexity", "--model-path", tiny_llava, "--data-path", tiny.data, "--image-folder", tiny.images),
            *("--backbone", other, *out),
        ),
    ]
    for flags in cases:
        flag = "--backbone" if "--backbone" in flags else "--model-path"
        with pytest.raises(SystemExit, match=rf"{flag} {other}: model_type 'efficientnet' is not supported"):
            command(*flags)
    assert not (tmp_path / "out").exists()
