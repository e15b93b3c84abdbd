"""The language model as GGUF: read back, it is the checkpoint's; transformers' own reader gives the same logits."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from llava.checkpoint.folder import open_checkpoint
from llava.model.builder import load_checkpoint

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")

from gguf import GGUFReader

from llava.model.gguf.export import prepare_export
from llava.model.gguf.language import language_problems, language_tensors

EXPORTABLE = ("llava_llama", "llava_mistral", "bunny-llama", "bunny-qwen2", "bunny-phi3")
IDS = torch.tensor([[1, 17, 250, 33, 8, 8, 599, 42]])


def write(checkpoint, output, **settings):
    prepare_export(checkpoint, "tiny", **settings).write(output)
    return GGUFReader(output / "model.gguf")


def tensors_of(reader):
    return {tensor.name: tensor for tensor in reader.tensors}


def key(reader, name):
    return reader.fields[name].contents()


def changed(backbone, folder, **values):
    """A copy of a language model with other values in its config.json."""
    shutil.copytree(backbone, folder)
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def logits_of(checkpoint):
    _, model, _, _ = load_checkpoint(checkpoint, device="cpu", text_only=True)
    with torch.no_grad():
        return model(input_ids=IDS).logits


def logits_of_file(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", EXPORTABLE)
def test_transformers_reads_the_same_model(name, backbones, tmp_path):
    checkpoint = open_checkpoint(backbones[name])
    reader = write(checkpoint, tmp_path / "gguf")
    torch.testing.assert_close(logits_of_file(tmp_path / "gguf"), logits_of(checkpoint), atol=1e-4, rtol=0)
    config, arch = checkpoint.model_config(), key(reader, "general.architecture")
    assert arch == {"mistral": "llama"}.get(checkpoint.family.backbone_type, checkpoint.family.backbone_type)
    for wanted, value in {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": 512,
        f"{arch}.attention.head_count": 4,
        f"{arch}.attention.head_count_kv": 2,
        f"{arch}.rope.dimension_count": 8,
        f"{arch}.vocab_size": 640,
        "general.type": "model",
        "general.name": "tiny",
        "general.file_type": 0,
    }.items():
        assert key(reader, wanted) == value, wanted
    assert ("output.weight" in tensors_of(reader)) is not config.tie_word_embeddings
    assert (f"{arch}.attention.sliding_window" in reader.fields) is (arch == "phi3")


@pytest.mark.parametrize(("dtype", "kind", "number"), [(torch.float16, "F16", 1), (torch.bfloat16, "BF16", 32)])
def test_types(dtype, kind, number, backbones, tmp_path):
    """Matrices are in the wanted type, rounded once; vectors stay in float32."""
    checkpoint = open_checkpoint(backbones["bunny-qwen2"])
    reader = write(checkpoint, tmp_path / "gguf", dtype=dtype)
    assert key(reader, "general.file_type") == number
    found, stored = tensors_of(reader), checkpoint.tensors
    weight = found["blk.1.attn_q.weight"]
    assert weight.tensor_type.name == kind
    expected = stored["model.layers.1.self_attn.q_proj.weight"].tensor().to(dtype)
    assert np.array_equal(weight.data.view(np.uint8), expected.view(torch.uint8).numpy())
    bias = found["blk.1.attn_q.bias"]
    assert bias.tensor_type.name == "F32"
    assert np.array_equal(bias.data, stored["model.layers.1.self_attn.q_proj.bias"].tensor().float().numpy())


def test_rows_of_heads_are_paired(backbones, tmp_path):
    """llama.cpp's llama rotates neighbouring rows; Qwen2's are where they were."""
    reader = write(open_checkpoint(backbones["llava_llama"]), tmp_path / "gguf")
    stored = open_checkpoint(backbones["llava_llama"]).tensors["model.layers.0.self_attn.k_proj.weight"].tensor()
    found = tensors_of(reader)["blk.0.attn_k.weight"].data
    head = 8
    for row in range(len(stored)):
        first, inside = row // head * head, row % head
        pair = first + 2 * (inside % 4) + inside // 4
        assert np.array_equal(found[pair], stored[row].numpy())


def test_lora_is_merged(tiny_lora, tmp_path, program):
    """The same bytes as the merged folder's, one matrix at a time."""
    program("scripts/merge_lora_weights.py", "--model-path", tiny_lora, "--save-model-path", tmp_path / "merged")
    one = write(open_checkpoint(tiny_lora), tmp_path / "lora", text_only=True)
    other = write(open_checkpoint(tmp_path / "merged"), tmp_path / "gguf", text_only=True)
    assert tensors_of(one).keys() == tensors_of(other).keys()
    for name, tensor in tensors_of(one).items():
        np.testing.assert_allclose(tensor.data, tensors_of(other)[name].data, atol=1e-6, rtol=0, err_msg=name)
    assert key(one, "tokenizer.chat_template") == key(other, "tokenizer.chat_template")


def test_pruned_and_exported_before(tiny_llava, tmp_path, command):
    """A pruned checkpoint, ours and in the format of transformers, has its remaining layers in order."""
    command("prune", "--model-path", tiny_llava, "--layers", "1,4", "--output", tmp_path / "pruned")
    command("export", "--model-path", tmp_path / "pruned", "--output", tmp_path / "stock", "--conv-mode", "v1")
    reader = write(open_checkpoint(tmp_path / "pruned"), tmp_path / "gguf")
    assert key(reader, "llama.block_count") == 4
    whole = open_checkpoint(tiny_llava).tensors
    for new, old in enumerate((0, 2, 3, 5)):
        expected = whole[f"model.layers.{old}.mlp.up_proj.weight"].tensor().numpy()
        assert np.array_equal(tensors_of(reader)[f"blk.{new}.ffn_up.weight"].data, expected)
    stock = write(open_checkpoint(tmp_path / "stock"), tmp_path / "again")
    for name, tensor in tensors_of(reader).items():
        assert np.array_equal(tensor.data, tensors_of(stock)[name].data[: len(tensor.data)]), name


def test_llama3_positions(backbones, tmp_path):
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 64, "rope_theta": 10000.0}
    folder = changed(backbones["bunny-llama"], tmp_path / "llm", rope_parameters=rope)
    factors = tensors_of(write(open_checkpoint(folder), tmp_path / "gguf"))["rope_freqs.weight"].data
    for i, factor in enumerate(factors):
        length = 2 * math.pi * 10000 ** (2 * i / 8)
        share = min(max((64 / length - 1) / 3, 0), 1)
        assert factor == pytest.approx(1 / ((1 - share) / 8 + share), rel=1e-5)
    assert factors[0] == 1
    assert factors[-1] == 8


def test_phi3_positions(backbones, tmp_path):
    rope = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}
    values = {"rope_parameters": rope | {"rope_theta": 10000.0, "original_max_position_embeddings": 64}}
    values |= {"original_max_position_embeddings": 64, "sliding_window": 100}
    checkpoint = open_checkpoint(changed(backbones["bunny-phi3"], tmp_path / "llm", **values))
    prepared = prepare_export(checkpoint, "tiny")
    prepared.write(tmp_path / "gguf")
    reader = GGUFReader(tmp_path / "gguf" / "model.gguf")
    for side in ("short", "long"):
        expected = np.array(rope[f"{side}_factor"], dtype=np.float32)
        assert np.array_equal(tensors_of(reader)[f"rope_factors_{side}.weight"].data, expected)
    assert key(reader, "phi3.rope.scaling.original_context_length") == 64
    scale = math.sqrt(1 + math.log(512 / 64) / math.log(64))
    assert key(reader, "phi3.rope.scaling.attn_factor") == pytest.approx(scale)
    assert key(reader, "phi3.attention.sliding_window") == 100
    assert any("this model to the last 100" in note for note in prepared.notes)


def test_linear_positions(backbones, tmp_path):
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    checkpoint = open_checkpoint(changed(backbones["bunny-qwen2"], tmp_path / "llm", rope_parameters=rope))
    reader = write(checkpoint, tmp_path / "gguf")
    assert key(reader, "qwen2.rope.scaling.type") == "linear"
    assert key(reader, "qwen2.rope.scaling.factor") == 4


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("bunny-phi", {}, "the backbone is 'phi'; those that can be exported: llava_llama, llava_mistral"),
        ("bunny-stablelm", {}, "the backbone is 'stablelm'; those that can be exported"),
        (
            "bunny-qwen2",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "hidden_act": "gelu"},
            "hidden_act is 'gelu'.*; rope_type is 'dynamic'; llama.cpp's qwen2 has default, linear",
        ),
        ("llava_llama", {"quantization_config": {"load_in_4bit": True}}, "stored in 8 or 4 bits"),
    ],
)
def test_what_llama_cpp_lacks_is_refused(name, values, words, backbones, tmp_path):
    checkpoint = open_checkpoint(changed(backbones[name], tmp_path / "llm", **values))
    with pytest.raises(ValueError, match=f"cannot be exported as GGUF: .*{words}"):
        prepare_export(checkpoint, "tiny")
    assert language_problems(checkpoint)


def test_missing_weights_are_named(backbones):
    checkpoint = open_checkpoint(backbones["llava_llama"])
    tensors = dict(checkpoint.tensors.by_name)
    del tensors["model.layers.3.mlp.up_proj.weight"]
    with pytest.raises(ValueError, match=r"model.layers.3.mlp.up_proj.weight, which its config.json requires, is miss"):
        language_tensors(checkpoint, tensors, torch.float32)
