"""The benches of answering run at small scale and print their rows; what they count is what torch counts."""

import json
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from llava.flags import run_program
from llava.model.builder import load_pretrained_model
from scripts.bench import eval_speed, pruned
from visual_region.layers import LayerSelection


@pytest.fixture
def lines(monkeypatch, capsys):
    """Runs a bench in this process; the lines that it prints."""

    def run(bench, *words):
        monkeypatch.setattr(sys, "argv", [bench.__name__, *map(str, words)])
        run_program(bench.main)
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("wide", [(), ("--image-tokens", 40)])
def test_eval_speed(tiny, tiny_llava, tmp_path, lines, wide):
    path = tmp_path / "questions.jsonl"
    rows = [{"question_id": i, "image": f"{i % 4}.png", "text": "Where?" + " please" * i} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--model-path", tiny_llava, "--image-folder", tiny.images, "--question-file", path, "--device", "cpu"]
    flags += ["--conv-mode", "v1", "--questions", 8, "--per-image", 4, "--rounds", 1, "--max_new_tokens", 3, *wide]
    first, machine, *table = lines(eval_speed, *flags)
    assert first.startswith("8 questions on 2 images")
    assert len(table) == 5
    assert table[0].split("  ")[-1].strip() == "of the machine"
    # Answers/s, ratio, other texts, prompt tokens, new tokens, GFLOP, GFLOP/s, share of the machine.
    ways = [row.split()[-8:] for row in table[1:]]
    assert [way[2] for way in ways] == ["0"] * 4, "in fp32 no text differs"
    assert ways[0][3:5] == ways[1][3:5], "one by one and batch size 1 compute the same tokens"
    assert int(ways[3][3]) < int(ways[0][3]), "shared prefixes are computed once"
    assert machine.startswith("the machine's own speed: ")


def test_work_is_what_torch_counts(tiny_llava):
    """torch counts eager attention as whole squares; causal attention needs the pairs up to the diagonal."""
    model = load_pretrained_model(str(tiny_llava), device="cpu", attn_implementation="eager")[1]
    work, length = eval_speed.Work(model), 11
    cache = DynamicCache(config=model.config)
    pairs = 3 * (length * length - length * (length + 1) // 2)
    with torch.no_grad():
        for ids, more in ((torch.ones(3, length, dtype=torch.long), pairs), (torch.ones(3, 1, dtype=torch.long), 0)):
            with FlopCounterMode(display=False) as counter:
                work.of(lambda ids=ids: model(input_ids=ids, past_key_values=cache, logits_to_keep=1))
            assert counter.get_total_flops() == work.flops + more * work.per_pair
    assert (work.prompts, work.new) == (0, 3), "the counts are those of the last run"


def test_pruned(lines, monkeypatch):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 100}
    monkeypatch.setitem(pruned.PRESETS, "small", shape | {"num_hidden_layers": 4})
    flags = ["--preset", "small", "--removed", 0, 1, 2, "--image-tokens", 9, "--prompt", 4, "--new", 3, "--rounds", 2]
    _, head, *rows = lines(pruned, *flags)
    assert head.split()[:2] == ["removed", "batch"]
    # Removed, batch, first token s, share, tokens/s, share, expected, weights, cache.
    cells = [row.split() for row in rows]
    assert [(row[0], row[1], row[6]) for row in cells] == [
        (str(removed), str(batch), f"{(4 - removed) / 4:.2f}") for batch in (1, 8) for removed in (0, 1, 2)
    ]
    assert all(row[3] == row[5] == "1.00" for row in cells if row[0] == "0")
    assert [float(row[7]) for row in cells[:3]] == sorted((float(row[7]) for row in cells[:3]), reverse=True)


def test_pruned_measures_the_projects_own_surgery(monkeypatch):
    """Weights and cache are those of the layers that are left, and the model is whole again afterwards."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 100}
    monkeypatch.setitem(pruned.PRESETS, "small", shape | {"num_hidden_layers": 4})
    model = pruned.random_model("small", torch.device("cpu"), torch.float32)
    prompts, blocks = [pruned.Prompt((5, -200, 7), (0,))], {0: torch.zeros(6, 32)}
    whole, cut = (pruned.Variant(model, n, prompts, blocks, 3) for n in (0, 2))
    layer = sum(parameter.nbytes for parameter in model.model.layers[0].parameters())
    assert whole.weights - cut.weights == 2 * layer
    assert whole.cache == 2 * cut.cache > 0
    cut.answer()
    assert len(cut.first) == len(cut.later) == 1
    assert len(model.model.layers) == model.config.num_hidden_layers == len(LayerSelection.parse("all", 4))


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--removed", 1, 2], "give 0 first"), (["--removed", 0, 30], "from 1 to 29"), (["--new", 1], "2")],
)
def test_pruned_names_what_is_allowed(lines, capsys, flags, said):
    with pytest.raises(SystemExit):
        lines(pruned, *flags)
    assert said in capsys.readouterr().err
