"""--batch-size auto on a CPU whose allocator gives up: a real limit of the process's memory, no error of the test's."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.eval.answering.arguments import open_model
from llava.eval.answering.flags import question_parser
from llava.eval.answering.questions import read_questions
from llava.eval.answering.runner import evaluate

WIDTH = 1024
"""Of the model's MLPs. A full batch of 8000 tokens then takes 100 MB, one question 6 MB: ROOM is far from both."""

ROOM = 32 << 20
LIMITED = """
import resource, sys
from llava.eval.answering import program, runner
from llava.eval.answering.flags import loader_parser

answer_all, room = runner.answer_all, int(sys.argv.pop())

def within_a_limit(answerer, questions, *more):
    # Libraries and buffers that the first batch loads are no part of what is limited.
    answerer.answer(questions[:1])
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
    return answer_all(answerer, questions, *more)

runner.answer_all = within_a_limit
program.main(loader_parser(), "model_vqa_loader")
"""


def _with_wide_mlps(folder: Path, copy: Path) -> Path:
    """A copy of a model whose MLPs have WIDTH random channels."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": WIDTH}))
    weights, hidden = load_file(copy / "model.safetensors"), config["hidden_size"]
    for name in [name for name in weights if name.startswith("model.layers.") and ".mlp." in name]:
        shape = (hidden, WIDTH) if "down_proj" in name else (WIDTH, hidden)
        weights[name] = torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) / 8
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is read from /proc")
def test_auto_halves_until_a_batch_fits(tiny_llava, tmp_path):
    rows = [{"question_id": i, "text": f"Where is line {i}?" + " please look" * 150} for i in range(64)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    flags = [
        "--model-path",
        _with_wide_mlps(tiny_llava, tmp_path / "wide"),
        "--question-file",
        tmp_path / "q.jsonl",
        "--conv-mode",
        "v1",
        "--device",
        "cpu",
    ]
    flags += ["--device", "cpu", "--temperature", 0, "--max_new_tokens", 4, "--share-prefix", "off", "--answers-file"]
    # The allocator keeps nothing large that was freed: such memory would count as used and still be free to take.
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}

    def run(answers, size):
        command = [sys.executable, "-c", LIMITED, *flags, tmp_path / answers, "--batch-size", size, ROOM]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=alone)

    result = run("limited.jsonl", "auto")
    assert result.returncode == 0, result.stderr
    sizes = [int(size) for size in re.findall(r"memory ran out; going on with (\d+) questions at once", result.stdout)]
    assert sizes
    assert sizes == [32 >> i for i in range(len(sizes))]
    args = question_parser("test", 128).parse_args(list(map(str, [*flags, tmp_path / "one.jsonl", "--batch-size", 1])))
    evaluate(args, open_model(args), read_questions(args.question_file))
    assert (tmp_path / "limited.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()
    refused = run("given.jsonl", 64)
    assert "error: memory ran out with 64 questions at once; use a smaller --batch-size, or auto" in refused.stderr
