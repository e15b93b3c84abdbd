"""The recipes of docs/architecture.md, "How to add": each adds one thing from a temporary package, as its row would."""

import importlib
import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest
import torch
from transformers import CLIPVisionConfig

from tests.conftest import REPOSITORY

TINY_LAYERS = 6


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a module into a temporary folder on the path, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str):
        (tmp_path / f"{name}.py").write_text(dedent(text))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return write


def test_a_benchmark(package, tmp_path, monkeypatch, capsys):
    from llava.eval import benchmarks, prepare

    module = package(
        "count_dots",
        """
        from llava.eval.benchmarks.base import Benchmark, Published
        from llava.eval.benchmarks.preparing import check_count, find, question, set_up
        from llava.eval.scoring.pairing import read_json
        from llava.eval.scoring.rules import exact
        from llava.eval.scoring.short_answers import score_short_answers

        PUBLISHED = Published(3, "questions")

        def prepare(raw, out, options):
            source = find(raw, "dots.json")
            entries = read_json(source)
            check_count(PUBLISHED, len(entries), options)
            rows = [question(key, None, f"How many dots are in {key}?") for key in entries]
            return set_up(out, {"dots.json": source}, "questions.jsonl", rows, options)

        def score(answers, truths, asked=None, missing="error"):
            references = {key: [str(number)] for key, number in truths.items()}
            return score_short_answers("count_dots", answers, references, {"exact": exact}, asked, missing)

        BENCHMARK = Benchmark(
            name="count_dots", column="Dots", questions="questions.jsonl", annotations=("dots.json",), prepare=prepare,
            score=score, published=PUBLISHED, paper=False, annotation_help="dots.json",
        )
        """,
    )
    monkeypatch.setitem(benchmarks.BY_NAME, "count_dots", module.BENCHMARK)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/dots.json").write_text(json.dumps({"a": 1, "b": 2, "c": 3}))
    out = tmp_path / "count_dots"
    run = [f"--raw={tmp_path / 'raw'}", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["prepare", "count_dots", *run])
    prepare.main()
    asked = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    assert [row["text"] for row in asked] == [f"How many dots are in {key}?" for key in "abc"]
    lines = [
        {"question_id": row["question_id"], "text": text} for row, text in zip(asked, ("1", "5", "3"), strict=True)
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = ["--result-file", tmp_path / "answers.jsonl", "--annotation-file", out / "dots.json"]
    monkeypatch.setattr(sys, "argv", ["score", *map(str, files), "--question-file", str(out / "questions.jsonl")])
    module.BENCHMARK.score_main()
    report = json.loads((tmp_path / "answers.score.json").read_text())
    assert (report["value"], report["samples"], report["warnings"]) == (pytest.approx(2 / 3), 3, [])


def test_a_backbone(tiny, tmp_path, python):
    """In a process of its own: a registration lasts as long as the process."""
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text(
        dedent(
            """
            from llava.families import ModelFamily, register_family

            register_family(ModelFamily("my-qwen3", "qwen3", "mypackage", "mypackage.qwen3", "vicuna_v1", "no/tower"))
            """
        )
    )
    (package / "qwen3.py").write_text(
        dedent(
            """
            from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

            from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel

            class MyConfig(Qwen3Config):
                model_type = "my-qwen3"

            class MyModel(LlavaMetaModel, Qwen3Model):
                config_class = MyConfig

            class MyForCausalLM(LlavaMetaForCausalLM, Qwen3ForCausalLM):
                config_class = MyConfig
                decoder_class = MyModel

            AutoConfig.register("my-qwen3", MyConfig)
            AutoModelForCausalLM.register(MyConfig, MyForCausalLM)
            """
        )
    )
    (tmp_path / "llava_plugins").mkdir()
    (tmp_path / "llava_plugins/mypackage.py").write_text("import mypackage\n")
    program = f"""
        import sys
        from pathlib import Path

        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM

        from llava.model.builder import load_pretrained_model, load_tokenizer
        from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
        from llava.train.train import train

        class MyArguments(ModelArguments):
            package = "mypackage"

        root = Path({str(tmp_path)!r})
        torch.manual_seed(0)
        sizes = dict(vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=4)
        heads = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512)
        Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)).save_pretrained(root / "llm")
        load_tokenizer({str(tiny.llm)!r}).save_pretrained(root / "llm")
        flags = dict(
            model_name_or_path=root / "llm", version="v1", data_path={str(tiny.data)!r},
            image_folder={str(tiny.images)!r}, vision_tower={str(tiny.tower)!r}, mm_projector_type="mlp2x_gelu",
            output_dir=root / "lora", max_steps=1, per_device_train_batch_size=2, lora_enable=True, lora_r=4,
            tune_layers="0,2", report_to="none", use_cpu=True,
        )
        argv = [text for name, value in flags.items() for text in (f"--{{name}}", str(value))]
        train(argv=argv, arguments=(MyArguments, DataArguments, TrainingArguments))
        _, model, _, _ = load_pretrained_model(str(root / "lora"), device="cpu")
        print("LOADED", model.config.model_type, type(model).__name__, model.config.visual_region["layers"])
    """
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    run = subprocess.run(
        [python, "-c", dedent(program)], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "LOADED my-qwen3 MyForCausalLM [0, 2]" in run.stdout, run.stderr[-2000:]


def test_a_metric(package, tiny_llava, tiny, tmp_path, monkeypatch, command):
    from visual_region import importance

    module = package(
        "state_growth",
        '''
        import torch

        from visual_region.importance.means import SampleMean
        from visual_region.importance.metric import SampleMetric
        from visual_region.importance.sweep import Recorder

        class GrowthRecorder(Recorder):
            """How much longer the first state of a row is after the layer: `(batch, layers, 1)`."""

            name = "growth"

            def layer(self, index, entering, leaving):
                growth = leaving[:, 0].norm(dim=-1) / entering[:, 0].norm(dim=-1)
                self.rows.append(growth.double().unsqueeze(-1).cpu())

        def scores(numbers, counts):
            return SampleMean(numbers[:, :, 0], torch.ones(len(numbers), dtype=torch.float64))

        METRIC = SampleMetric("state-growth", "growth of the first state", GrowthRecorder, scores)
        ''',
    )
    monkeypatch.setitem(importance.METRICS, "state-growth", module.METRIC)
    monkeypatch.setitem(importance.SAMPLE_METRICS, "state-growth", module.METRIC)
    output = tmp_path / "scores.json"
    data = ("--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 6)
    command("score", "--model-path", tiny_llava, "--metrics", "state-growth,angular", *data, "--output", output)
    found = json.loads(output.read_text())["metrics"]
    assert len(found["state-growth"]["values"]) == TINY_LAYERS == len(found["state-growth"]["low"])
    assert output.with_suffix(".png").is_file()
    command("select", f"{output}#state-growth:2")


def test_a_strategy(package, monkeypatch):
    from visual_region.layers import LayerSelection, LayerSelectionError
    from visual_region.strategies import STRATEGIES

    module = package("ends", "def both_ends(n, k):\n    return [*range(k - k // 2), *range(n - k // 2, n)]\n")
    monkeypatch.setitem(STRATEGIES, "both-ends", module.both_ends)
    assert LayerSelection.parse("both-ends:4", 12).layers == (0, 1, 10, 11)
    assert LayerSelection.parse("both-ends:25%,5", 12).layers == (0, 1, 5, 11)
    with pytest.raises(LayerSelectionError, match="did you mean 'both-ends:4'"):
        LayerSelection.parse("both_end:4", 12)


def test_a_projector(package, tiny, train_flags, tmp_path, monkeypatch):
    """One that halves the number of image tokens, trained in stage 1 and loaded."""
    from llava.model.builder import load_pretrained_model
    from llava.model.multimodal_projector import builder
    from llava.train.train import train

    module = package(
        "pairs",
        """
        from torch import nn

        from llava.model.multimodal_projector.types import ProjectorType

        class Pairs(nn.Module):
            def __init__(self, width, hidden_size):
                super().__init__()
                self.join = nn.Linear(2 * width, hidden_size)

            def forward(self, features):
                return self.join(features.unflatten(-2, (-1, 2)).flatten(-2))

        PAIRS = ProjectorType(
            usage="pairs",
            pattern="pairs",
            build=lambda match, width, hidden_size: Pairs(width, hidden_size),
            type_of=lambda shapes, width: "pairs" if set(shapes) == {"join.weight", "join.bias"} else None,
            tokens=lambda match, tower_tokens: tower_tokens // 2,
        )
        """,
    )
    monkeypatch.setattr(builder, "PROJECTORS", (*builder.PROJECTORS, module.PAIRS))
    changes = {
        "tune_mm_mlp_adapter": True,
        "version": "plain",
        "data_path": tiny.captions,
        "mm_projector_type": "pairs",
    }
    train(argv=train_flags(tmp_path / "stage1", max_steps=1, **changes))
    _, model, _, _ = load_pretrained_model(str(tmp_path / "stage1"), str(tiny.llm), device="cpu")
    assert model.image_tokens == 2
    assert model.encode_images(torch.zeros(1, 3, 28, 28)).shape == (1, 2, 32)


def test_a_tower(package, tiny, tmp_path, monkeypatch):
    from llava.model.multimodal_encoder import builder

    module = package(
        "first_patch",
        '''
        from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

        class FirstLayerTower(CLIPVisionTower):
            """CLIP's patches as they enter its first layer."""

            def encode(self, images):
                return self.vision_tower(images, output_hidden_states=True).hidden_states[0][:, 1:]
        ''',
    )
    monkeypatch.setitem(builder.TOWERS, CLIPVisionConfig.model_type, module.FirstLayerTower)

    class Settings:
        mm_vision_tower = str(tiny.tower)

    tower = builder.build_vision_tower(Settings())
    assert isinstance(tower, module.FirstLayerTower)
    assert tower(torch.zeros(1, 3, 28, 28)).shape == (1, tower.num_patches, tower.hidden_size)
