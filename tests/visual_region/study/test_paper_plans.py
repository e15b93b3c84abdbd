"""The plans of the paper run end to end with tiny random models and a few samples of every data set.

Every step and every benchmark in cells of LLaVA-1.5-7B; a training and one benchmark of each other model.
"""

import json
import os
import shutil
import subprocess

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.preparing import Options
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS, TEXT_MAKERS
from visual_region.study.results import read_results

LINKED = ("scripts", "plans", "llava", "bunny", "visual_region", "llava_plugins")
SMALL = {
    **{"BF16": "False", "DEEPSPEED": "", "STEPS": "1", "BATCH": "2", "ACCUMULATION": "1", "WORKERS": "0"},
    **{"CHECKPOINTING": "False", "LORA_R": "2", "LORA_ALPHA": "4", "MAX_LENGTH": "256"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """A folder as the repository's root looks to the scripts, with a small set of every benchmark."""
    root = tmp_path_factory.mktemp("papers")
    for name in LINKED:
        (root / name).symlink_to(REPOSITORY / name)
    for name, make in (MAKERS | TEXT_MAKERS).items():
        make(root / "raw" / name)
        data = root / "playground/data/eval" / name
        BY_NAME[name].prepare(root / "raw" / name, data, Options(check_counts=False))
        shutil.copy(tiny.data, data / "training.json")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory, backbones):
    """(model_type of a family, layers) -> a tiny model of that depth."""
    root = tmp_path_factory.mktemp("models")

    def make(model_type, layers):
        folder = root / f"{model_type}-{layers}"
        if not folder.exists():
            torch.manual_seed(layers)
            # With the small weights of real models, so that many layers do not overflow.
            sizes = {"num_hidden_layers": layers, "initializer_range": 0.02}
            config = AutoConfig.from_pretrained(backbones[model_type], **sizes)
            shutil.copytree(backbones[model_type], folder, ignore=shutil.ignore_patterns("*.safetensors"))
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def study(place, models, tiny, siglip, python):
    """Runs cells of a plan of the repository with a tiny model; returns their results by name."""

    def run(name, model_type, layers, tower, *cells, **changes):
        environment = SMALL | {"IMAGES": str(tiny.images)}
        values = {
            "model": str(models(model_type, layers)),
            "tower": str(tower),
            "environment": json.dumps(environment),
            "stages.pretrain.environment.DATA": str(tiny.captions),
            "train.environment.DATA": str(tiny.data),
            "evaluate.flags": "--max_new_tokens 2",
            "evaluate.environment.LIMIT_PER_TASK": "1",
            **changes,
        }
        words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        out = place / "out" / name
        command = [python, "-m", "visual_region", "study", f"plans/{name}.yaml", "--out", str(out), *words]
        for cell in cells:
            done = subprocess.run(
                [*command, "--cell", *cell.split()],
                cwd=place,
                env=os.environ | {"PYTHON": python, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return {result.cell.name: result for result in read_results(out)}

    return run


VISUAL = ("ocrvqa", "docvqa", "refcocog", "tdiuc", "mmbench", "gqa", "scienceqa", "textvqa")


def test_llava_7b(study, tiny):
    data = f"--data-path {tiny.data} --image-folder {tiny.images} --samples 4"
    measures = {
        "score": f"{data} --metrics angular",
        "reversion": data,
        "attention": json.dumps({"docvqa": data}),
        "curve": "--benchmarks docvqa --most 1 --limit 2 --max_new_tokens 2",
    }
    cells = ["8-layers-seed0", "backbone", *(f"32-layers-seed0 --only {name}" for name in ("reversion", "attention"))]
    results = study("paper-llava-7b", "llava_llama", 32, tiny.tower, *cells, **measures)
    region, backbone = results["8-layers-seed0"], results["backbone"]
    assert (region.cell.layers, region.cell.depth) == ((0, 4, 8, 12, 18, 22, 26, 30), 32)
    assert set(region.reports) == {*VISUAL, "mmlu", "bbh"}
    assert {"scores.json", "curve.json", "run.json"} <= {path.name for path in region.folder.iterdir()}
    assert set(backbone.reports) == {"mmlu", "bbh"}
    assert region.finished
    assert backbone.finished
    whole = results["32-layers-seed0"]
    assert (whole.folder / "reversion.json").is_file()
    assert (whole.folder / "attention/docvqa.json").is_file()
    assert not whole.finished


def test_llava_13b(study, tiny):
    results = study(
        "paper-llava-13b", "llava_llama", 40, tiny.tower, "10-layers-seed0", **{"evaluate.columns": "[docvqa]"}
    )
    assert results["10-layers-seed0"].cell.layers == tuple(range(0, 40, 4))
    assert results["10-layers-seed0"].reports["docvqa"].headline.samples == 5


@pytest.mark.parametrize(
    ("name", "model_type", "cell", "layers"),
    [
        ("paper-bunny-llama3-8b", "bunny-llama", "angular-distance-seed0", (0, 1, 2, 3, 5, 6, 7, 8)),
        ("paper-bunny-phi3", "bunny-phi3", "6-layers-seed0", (0, 6, 12, 18, 24, 30)),
    ],
)
def test_bunny(study, siglip, name, model_type, cell, layers):
    results = study(name, model_type, 32, siglip, cell, **{"evaluate.columns": "[docvqa]"})
    assert results[cell].cell.layers == layers
    assert results[cell].finished
