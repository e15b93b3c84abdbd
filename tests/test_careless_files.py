"""Every program, with a file or folder that is missing, empty, of another kind or not UTF-8: one line that names it."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from tests.made_mmbench import rotations, write_tsv

MODEL = "--model-path LLAVA"
ANSWER = f"{MODEL} --image-folder IMAGES --answers-file OUT/a.jsonl"
SCORE = "--result-file answers.jsonl --annotation-file list.json --question-file questions.jsonl"
# Inputs are the names in capitals (folders) and those with a suffix (files), except what is below OUT.
PROGRAMS = {
    "llava.eval.model_vqa": f"{ANSWER} --question-file questions.jsonl",
    "llava.eval.model_vqa_loader": f"{ANSWER} --question-file questions.jsonl",
    "llava.eval.model_vqa_mmbench": f"{MODEL} --question-file mmbench.tsv --answers-file OUT/a.jsonl",
    "llava.eval.model_vqa_science": f"{ANSWER} --question-file science.json",
    "llava.eval.model_mmlu": f"{MODEL} --question-file mmlu.jsonl --shots-file shots.json --answers-file OUT/a.jsonl",
    "llava.eval.perplexity": f"{MODEL} --text-file text.jsonl --report-file OUT/r.json",
    "llava.eval.perplexity data": f"{MODEL} --data-path data.json --image-folder IMAGES --report-file OUT/r.json",
    "llava.eval.run_llava": f"{MODEL} --image-file image.png --query What?",
    "llava.serve.cli": f"{MODEL} --image-file image.png",
    "bunny.eval.model_vqa_loader": "--model-path BUNNY --image-folder IMAGES --answers-file OUT/a.jsonl "
    "--question-file questions.jsonl",
    "llava.data.check": "--data_path data.json --model_name_or_path LLAVA",
    "llava.eval.answering.merge_answers": "part.jsonl --output OUT/m.jsonl",
    "llava.eval.answering.subset": "--question-file questions.jsonl --output OUT/q.jsonl",
    "llava.eval.suite.compare": "RESULTS other=OUT/results --output OUT/c",
    "llava.eval.convert_gqa": "--src answers.jsonl --dst OUT/p.json",
    "llava.eval.convert_mmbench": "--annotation-file mmbench.tsv --result-dir . --upload-dir OUT --experiment answers",
    **{f"llava.eval.eval_{name}": SCORE for name in ("gqa", "bbh", "tdiuc", "mmlu", "easy_vqa", "docvqa", "ocrvqa")},
    "llava.eval.eval_textvqa": SCORE.replace("list.json", "textvqa.json"),
    "llava.eval.eval_refcocog": f"{SCORE} --frame original".replace("list.json", "refcocog.json"),
    "llava.eval.eval_mmbench": "--annotation-file mmbench.tsv --result-file answers.jsonl",
    "llava.eval.eval_science_qa": "--base-dir BASE --result-file OUT/answers.jsonl",
    "llava.eval.prepare gqa": "--raw RAW --out OUT/p",
    "scripts.average_weights": "--model-paths LLAVA --output OUT/w",
    "scripts.extract_mm_projector": f"{MODEL} --output OUT/p.bin",
    "scripts.merge_lora_weights": f"{MODEL} --save-model-path OUT/m",
    "visual_region select": "scores.json#bi:2",
    "visual_region picture": "bars scores.json --output OUT/p.png",
    "visual_region picture curves": "curve.json --output OUT/p.png",
    "visual_region plan": f"{MODEL} --data-path data.json",
    "visual_region score": f"{MODEL} --data-path data.json --image-folder IMAGES --output OUT/s.json",
    "visual_region score captions": f"{MODEL} --data-path captions.json --image-folder IMAGES --output OUT/s.json",
    "visual_region score backbone": f"{MODEL} --backbone LLM --output OUT/s.json",
    "visual_region prune": f"{MODEL} --scores scores.json --output OUT/p",
    "visual_region revert": f"{MODEL} --backbone LLM --layers 0 --output OUT/r",
    "visual_region export": f"{MODEL} --output OUT/e",
    "visual_region curve": f"{MODEL} --question-file questions.jsonl --annotation-file list.json --scores scores.json "
    "--image-folder IMAGES --output OUT/c.json",
    "visual_region perplexity": f"{MODEL} --text-file text.jsonl --backbone LLM --output OUT/p.json",
    "visual_region heal": f"{MODEL} --teacher TEACHER --data-path data.json --image-folder IMAGES --output OUT/h",
}


@pytest.fixture(scope="module")
def whole(tiny, tiny_llava, make_bunny, tmp_path_factory):
    """A folder with an input of each kind that is right."""
    root = tmp_path_factory.mktemp("whole")
    folders = {"LLAVA": tiny_llava, "LLM": tiny.llm, "IMAGES": tiny.images}
    for name, folder in (folders | {"BUNNY": make_bunny("bunny-llama")}).items():
        (root / name).symlink_to(folder)
    for name in ("OUT", "RESULTS", "BASE", "RAW"):
        (root / name).mkdir()
    shutil.copytree(tiny_llava, root / "TEACHER")
    config = json.loads((tiny_llava / "config.json").read_text())
    (root / "TEACHER/config.json").write_text(json.dumps(config | {"of": "the teacher"}))
    scores = {"num_layers": 6, "region": [], "metrics": {"bi": {"values": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}}
    mmlu = {"question_id": "0", "category": "x", "question": "?", "choices": list("abcd"), "answer": "A"}
    conversations = [{"from": "human", "value": "Which?\nA. x"}]
    values = {
        "science.json": [{"id": "0", "conversations": conversations, "image": "0.png"}],
        "textvqa.json": {"data": [{"question_id": 0, "image_id": "0", "question": "What?", "answers": ["red"] * 10}]},
        "refcocog.json": {"0": {"bbox": [0, 0, 1, 1], "width": 2, "height": 2}},
        "shots.json": {"x": [mmlu]},
        "list.json": {"0": "red"},
        "scores.json": scores,
        "curve.json": [{"removed": 0, "protected": True, "accuracy": 1}],
    }
    for name, value in values.items():
        (root / name).write_text(json.dumps(value))
    lines = {
        "questions.jsonl": {"question_id": "0", "text": "What?", "image": "0.png", "category": "x"},
        "answers.jsonl": {"question_id": "0", "text": "red"},
        "mmlu.jsonl": mmlu,
        "text.jsonl": {"text": "Where is it?"},
        "part.jsonl": {"question_id": "0", "text": "red"},
    }
    for name, line in lines.items():
        (root / name).write_text(json.dumps(line) + "\n")
    write_tsv(root / "mmbench.tsv", rotations(1, "A"))
    shutil.copy(tiny.data, root / "data.json")
    shutil.copy(tiny.captions, root / "captions.json")
    shutil.copy(tiny.images / "0.png", root / "image.png")
    return root


def spoil(path, how):
    """Puts something wrong in the place of an input, or nothing."""
    is_folder = path.is_dir()
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)
    if how == "another kind":
        path.write_text("hello") if is_folder else path.mkdir()
    elif how == "empty":
        path.mkdir() if is_folder else path.touch()
    elif how == "Latin-1":
        path.write_bytes(b'[{"text": "caf\xe9"}]\n')


def test_annotations_of_another_split(whole, tmp_path, capsys, monkeypatch):
    """Before a model is loaded; a script has the scorer check them first (--check)."""
    monkeypatch.setattr("llava.model.builder.load_base", lambda *more, **kw: pytest.fail("weights were loaded"))
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "here", symlinks=True))
    Path("list.json").write_text('{"7": "red"}')
    said = refusal("visual_region curve", PROGRAMS["visual_region curve"].split(), capsys, monkeypatch)
    assert "easy_vqa: 1 question id is not among the annotations: 0" in said
    said = refusal("llava.eval.eval_easy_vqa", [*SCORE.split(), "--check"], capsys, monkeypatch)
    assert said == "error: 1 question id is not among the annotations: 0"


def inputs(words):
    """The inputs among the words of a command."""
    names = (word.partition("#")[0] for word in words)
    return [n for n in dict.fromkeys(names) if (n.isupper() or "." in n[1:]) and not n.startswith(("OUT", "-"))]


def refusal(program, words, capsys, monkeypatch):
    """What a program says that must fail."""
    module, *first = program.split()
    first = first[:1] if module in ("visual_region", "llava.eval.prepare") else []
    monkeypatch.setattr(sys, "argv", [module, *first, *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert stop.value.code not in (0, None)
    said = capsys.readouterr().err
    return stop.value.code if isinstance(stop.value.code, str) else said


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_spoilt_input_is_named_in_one_line(program, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("llava.model.builder.load_base", lambda *more, **kw: pytest.fail("weights were loaded"))
    words = PROGRAMS[program].split()
    spoilt = inputs(words)
    assert spoilt
    wrong = []
    for name in spoilt:
        for how in ("missing", "another kind", "empty", *(["Latin-1"] if "." in name else [])):
            shutil.rmtree(tmp_path / "here", ignore_errors=True)
            shutil.copytree(whole, tmp_path / "here", symlinks=True)
            monkeypatch.chdir(tmp_path / "here")
            if name == "IMAGES" and how == "empty":
                continue
            spoil(tmp_path / "here" / name, how)
            try:
                said = refusal(program, words, capsys, monkeypatch)
            except BaseException as error:
                wrong.append(f"{name} {how}: {error!r}")
                continue
            lines = said.strip().splitlines()
            if not lines or name.rstrip("/") not in said or "Traceback" in said or len(lines) > 3:
                wrong.append(f"{name} {how}: {said}")
    assert not wrong, "\n".join(wrong)
