"""The scripts of the text benchmarks, of all benchmarks and of comparisons, from raw downloads to the final number."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.mmlu import LETTERS
from llava.eval.benchmarks.preparing import Options
from llava.model.builder import load_pretrained_model
from llava.tokenization import encoder_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder as the repository's root looks to the scripts, with small sets in the official formats."""
    root = tmp_path_factory.mktemp("root")
    (root / "scripts").symlink_to(ROOT / "scripts")
    data = root / "playground/data/eval"
    BY_NAME["bbh"].prepare(ROOT / "tests/data/bbh", data / "bbh", Options(check_counts=False))
    for split in ("dev", "test"):
        (root / "raw" / split).mkdir(parents=True)
        rows = [f"is it {i}?,{i},no,red,left,{LETTERS[i % 4]}\n" for i in range(5)]
        (root / "raw" / split / f"anatomy_{split}.csv").write_text("".join(rows))
    BY_NAME["mmlu"].prepare(root / "raw", data / "mmlu", Options(check_counts=False))
    return root


@pytest.fixture
def bash(workplace, python) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a script in the workplace; its programs are started by `python`, or by PYTHON where it is given."""

    def run(*command: object, **environment: str) -> subprocess.CompletedProcess:
        variables = os.environ | {"PYTHON": python, "PYTHONPATH": str(ROOT), "CONV": "v1"} | environment
        return subprocess.run(
            ["bash", *map(str, command)], cwd=workplace, env=variables, capture_output=True, text=True
        )

    return run


def test_from_questions_to_the_comparison(workplace, tiny_llava, bash):
    flags = ["--only", "bbh", "mmlu", "--max_new_tokens", "4", "--batch-size", "8"]
    results = workplace / "playground/data/eval/results"
    settings = {"LIMIT_PER_TASK": "1", "METHOD": "loglikelihood"}
    first = bash("scripts/eval/all.sh", tiny_llava, *flags, **settings)
    assert first.returncode == 0, first.stderr[-2000:]
    scores = {name: json.loads((results / f"tiny-llava/{name}.json").read_text()) for name in ("bbh", "mmlu")}
    assert (scores["bbh"]["samples"], scores["mmlu"]["samples"]) == (27, 1)
    assert scores["mmlu"]["details"]["method"] == "loglikelihood"
    assert len(scores["bbh"]["per_question"]) == 27
    assert "a subset: 27 of the 54 annotated questions were asked" in first.stdout
    row = json.loads((results / "tiny-llava/summary.json").read_text())["row"]
    assert row["BIG-bench-hard"] == pytest.approx(100 * scores["bbh"]["value"])

    again = bash("scripts/eval/all.sh", tiny_llava, *flags, **settings, PYTHON=sys.executable)
    assert again.stdout.count("done before") == 2

    sides = [f"a={results / 'tiny-llava'}", f"b={results / 'tiny-llava'}"]
    compared = bash("scripts/eval/compare.sh", *sides, "--output", workplace / "out")
    assert compared.returncode == 0, compared.stderr
    assert "| b | +0.00 (no interval) | +0.00 (no interval) |" in compared.stdout
    assert (workplace / "out/comparison.png").stat().st_size > 10_000

    # The whole of BIG-bench-hard is another set of questions: it does not compare with the subset.
    (workplace / "whole").mkdir()
    whole = scores["bbh"] | {"per_question": {f"other/{i}": 0.0 for i in range(54)}}
    (workplace / "whole/bbh.json").write_text(json.dumps(whole))
    refused = bash("scripts/eval/compare.sh", sides[0], workplace / "whole", "--output", workplace / "no")
    assert refused.returncode == 1
    assert "a was scored on 27 questions and whole on 54, 0 of them the same" in refused.stderr
    assert not (workplace / "no").exists()


def test_perplexity_from_the_download(workplace, tiny_llava, bash):
    text = "".join(f" the cat {i} sat on the mat . \n" for i in range(40))
    (workplace / "wikitext").mkdir()
    (workplace / "wikitext/wiki.valid.tokens").write_text(text)
    data = workplace / "playground/data/eval/perplexity"
    BY_NAME["perplexity"].prepare(workplace / "wikitext", data, Options(check_counts=False))
    settings = {"CONTEXT": "64", "STRIDE": "32"}
    done = bash("scripts/eval/perplexity.sh", tiny_llava, "--bos", "none", RESULT="ppl.json", **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((workplace / "ppl.json").read_text())

    tokenizer, model, _, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    # As SentencePiece reads a text that begins with a blank, which the Rust tokenizer by itself does not.
    ids = torch.tensor([encoder_for(tokenizer).encode(text)[0]])
    total, counted = 0.0, 0
    for start in range(0, ids.shape[1], 32):
        end = min(start + 64, ids.shape[1])
        new = end - max(counted, 1)
        with torch.no_grad():
            logits = model(input_ids=ids[:, start:end]).logits.double()
        nll = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, start + 1 : end], reduction="none")
        total += nll[-new:].sum().item()
        counted = end
        if end == ids.shape[1]:
            break
    assert report["value"] == pytest.approx(math.exp(total / (counted - 1)), rel=1e-5)

    few = bash("scripts/eval/perplexity.sh", tiny_llava, RESULT="few.json", MAX_TOKENS="32", PYTHON=sys.executable)
    assert few.returncode == 0, few.stderr[-2000:]
    assert json.loads((workplace / "few.json").read_text())["samples"] == 1


def test_generated_letters_and_bad_files(workplace, tiny_llava, bash, python):
    done = bash("scripts/eval/mmlu.sh", tiny_llava, "--max_new_tokens", "2", RESULT="mmlu.json")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MMLU by generate: letter generated after the paper's prompt" in done.stdout
    report = json.loads((workplace / "mmlu.json").read_text())
    assert (report["samples"], report["details"]["method"]) == (5, "generate")
    answers = workplace / "playground/data/eval/mmlu/answers/questions/generate/tiny-llava.jsonl"
    scorer = ["-m", "llava.eval.eval_mmlu", "--annotation-file"]
    scorer += [workplace / "playground/data/eval/mmlu/annotations.json", "--result-file"]
    lines = answers.read_text().splitlines(True)
    for text, words in (
        ("", "holds no answers"),
        (lines[0], "4 question ids are not answered"),
        (lines[0] * 2 + "".join(lines[1:]), "1 question id is answered more than once: anatomy/0"),
        ("".join(lines) + lines[0].replace("anatomy/0", "virology/7"), "not among the annotations: virology/7"),
        ("".join(lines)[:-20], "line 5 is not valid JSON"),
    ):
        (workplace / "bad.jsonl").write_text(text)
        command = [python if text else sys.executable, *scorer, workplace / "bad.jsonl"]
        bad = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert bad.returncode == 1
        assert words in bad.stderr
        assert bad.stderr.count("\n") == 1
