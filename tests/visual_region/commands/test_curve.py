"""The pruning curve: what is measured, how it goes on, and that it equals checkpoints that are pruned on disk."""

import gc
import json
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava.checkpoint.folder import open_checkpoint
from llava.eval.scoring.report import read_report
from llava.eval.scoring.rules import normalise
from llava.eval.suite.in_memory import LoadedBenchmark
from playground.embedded.report import collect, markdown, models, picture
from visual_region.curve_file import ANYWHERE, OUTSIDE, CheckpointCurve, Curve, Order, read_curve
from visual_region.pruning_curve import planned, resumed
from visual_region.surgery import SurgeryError

DEPTH = 6
ANGULAR = [0.6, 0.1, 0.5, 0.2, 0.4, 0.3]
"""Lowest first: 1, 3, 5, 4, 2, 0. The region is 0 and 3."""


@pytest.fixture
def easy(tmp_path, tiny):
    """Flags of easy-VQA with made questions, in the old form; 0 of the tiny model's answers are right."""
    rows = [{"question_id": str(i), "text": "Where is the red line?", "image": f"{i % 8}.png"} for i in range(5)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ann.json").write_text(json.dumps({str(i): "yes" for i in range(5)}))
    flags = ["--question-file", tmp_path / "q.jsonl", "--annotation-file", tmp_path / "ann.json"]
    return [*flags, "--image-folder", tiny.images, "--conv-mode", "v1", "--dtype", "fp32", "--batch-size", 2]


@pytest.fixture
def scores_of(tmp_path):
    """Writes a score file of a checkpoint."""
    from llava.checkpoint.identity import digest

    def write(checkpoint, name="scores.json", values=ANGULAR):
        found = open_checkpoint(str(checkpoint))
        metrics = {"angular": {"values": values}, "bi": {"values": values[::-1]}}
        content = {"identity": digest(found), "run": "x", "num_layers": len(values), "metrics": metrics}
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


@pytest.fixture
def all_layers(tiny_llava, tmp_path):
    """The tiny LLaVA, recorded as tuned in all layers."""
    folder = shutil.copytree(tiny_llava, tmp_path / "all-layers")
    config = json.loads((folder / "config.json").read_text())
    config["visual_region"] = {"layers": list(range(DEPTH)), "num_layers": DEPTH, "tune_layers": "all"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def measured(monkeypatch):
    """Measurements in place of the real ones, as (checkpoint, benchmark, number of layers); `stop` interrupts some."""
    from llava.eval.scoring.report import Measure, Report

    made = SimpleNamespace(calls=[], stop=set())

    def report(benchmark, checkpoint, loaded):
        if len(made.calls) in made.stop:
            made.stop.remove(len(made.calls))
            raise KeyboardInterrupt
        depth = loaded[1].config.num_hidden_layers
        made.calls.append((Path(checkpoint.name).name, benchmark.name, depth))
        measure = Measure(depth / 10, None, None, 5)
        return Report(benchmark.name, "accuracy", {"accuracy": measure}, 5, 0, {"a": depth / 10})

    monkeypatch.setattr(LoadedBenchmark, "report", report)
    return made


def points_of(path, checkpoint=0):
    return [(p.layers, p.ways) for p in read_curve(path).checkpoints[checkpoint].points]


def test_a_point_is_the_score_of_the_pruned_checkpoint(
    command, program, easy, scores_of, tiny, tiny_llava, tmp_path, monkeypatch
):
    """A model without layers on disk, asked by the programs of scripts/eval."""
    (tmp_path / "data/perplexity").mkdir(parents=True)
    (tmp_path / "data/perplexity/wikitext-2-valid.txt").write_text("the red line is at the top of the circle " * 30)
    monkeypatch.setenv("CONTEXT", "32")
    removed, truths = {OUTSIDE: "1,5", ANYWHERE: "1,3"}, {str(i): "yes" for i in range(5)}
    for number, (way, layers) in enumerate(removed.items()):
        pruned, answers = tmp_path / f"pruned-{way}", tmp_path / f"{way}.jsonl"
        command("prune", "--model-path", tiny_llava, "--layers", layers, "--anywhere", "--output", pruned)
        asked = [word for word in easy if word not in ("--annotation-file", tmp_path / "ann.json")]
        asked += ["--model-path", pruned, "--vision-tower", tiny.tower, "--answers-file", answers]
        program("llava.eval.model_vqa_loader", *asked, "--temperature", 0, "--max_new_tokens", 8)
        # Of each model two answers are right, and one is of neither: no score is 0 or 1.
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
        truths |= {line["question_id"]: normalise(line["text"]) for line in lines[2 * number : 2 * number + 2]}
    (tmp_path / "ann.json").write_text(json.dumps(truths))
    scores, output = scores_of(tiny_llava), tmp_path / "curve.json"
    flags = ("--model-path", tiny_llava, "--scores", scores, "--most", 2, "--output", output)
    command("curve", *flags, *easy)
    whole = easy[easy.index("--conv-mode") :]
    command(
        "curve", *flags[:-1], tmp_path / "p.json", *whole, "--benchmarks", "perplexity", "--data", tmp_path / "data"
    )
    curve = read_curve(output).checkpoints[0]
    for way, layers in removed.items():
        pruned, answers = tmp_path / f"pruned-{way}", tmp_path / f"{way}.jsonl"
        point = curve.line(way)[2]
        assert point.layers == tuple(map(int, layers.split(",")))
        report = ["--result-file", answers, "--report-file", tmp_path / f"{way}.json"]
        program("llava.eval.score", "easy_vqa", *report, *easy[:4])
        expected, found = read_report(tmp_path / f"{way}.json"), point.reports["easy_vqa"]
        assert 0 < expected.headline.value < 1
        assert (found.metrics, found.per_question) == (expected.metrics, expected.per_question)
        report = tmp_path / f"{way}.ppl.json"
        text = ["--text-file", tmp_path / "data/perplexity/wikitext-2-valid.txt", "--context", 32, "--dtype", "fp32"]
        program("llava.eval.perplexity", "--model-path", pruned, *text, "--report-file", report)
        found = read_curve(tmp_path / "p.json").checkpoints[0].line(way)[2].reports["perplexity"]
        assert found.headline.value == pytest.approx(read_report(report).headline.value, rel=1e-5)
        assert found.details["pieces"]


def test_each_removal_is_measured_once_and_the_whole_model_is_restored(
    command, easy, scores_of, tiny_llava, tmp_path, measured, capsys
):
    output = tmp_path / "curve.json"
    command(
        "curve", "--model-path", tiny_llava, *easy, "--scores", scores_of(tiny_llava), "--output", output, "--most", 3
    )
    assert points_of(output) == [
        ((), (OUTSIDE, ANYWHERE)),
        ((1,), (OUTSIDE, ANYWHERE)),
        ((1, 5), (OUTSIDE,)),
        ((1, 4, 5), (OUTSIDE,)),
        ((1, 3), (ANYWHERE,)),
        ((1, 3, 5), (ANYWHERE,)),
    ]
    assert [depth for *_, depth in measured.calls] == [6, 5, 4, 3, 4, 3]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("[1/6] tiny-llava, all layers, easy-VQA: 60.00% (no interval); about")
    assert "[3/6] tiny-llava, without layers 1, 5 (outside), easy-VQA: 40.00% (no interval); about 0 s left" in said
    assert said[-1].endswith(f"`python -m visual_region picture curves {output}` draws it")
    content = read_curve(output)
    assert content.checkpoints[0].order == Order("angular", (1, 3, 5, 4, 2, 0))
    assert content.checkpoints[0].region == (0, 3)
    assert content.dtype == "fp32"


@pytest.fixture
def two(easy, scores_of, tiny, tiny_llava, all_layers, tmp_path, monkeypatch):
    """Words for two checkpoints and two benchmarks, without --output; run in a folder with the benchmarks' data."""
    for name, files in {
        "easy_vqa": {"questions.jsonl": tmp_path / "q.jsonl", "annotations.json": tmp_path / "ann.json"},
        "perplexity": {"wikitext-2-valid.txt": tmp_path / "text.txt"},
    }.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "text.txt").write_text("the red line is at the top " * 30)
        for target, source in files.items():
            shutil.copy(source, tmp_path / "data" / name / target)
    (tmp_path / "playground/data/easy_vqa").mkdir(parents=True)
    (tmp_path / "playground/data/easy_vqa/images").symlink_to(tiny.images)
    monkeypatch.chdir(tmp_path)
    files = [scores_of(tiny_llava), scores_of(all_layers, "other.json")]
    words = ["curve", "--model-path", tiny_llava, all_layers, "--scores", *files, "--data", "data"]
    return [*words, "--benchmarks", "easy_vqa", "perplexity", "--conv-mode", "v1", "--dtype", "fp32"]


def test_several_checkpoints_and_benchmarks(command, two, tiny_llava, all_layers, measured, monkeypatch):
    import visual_region.commands.curve as module

    loads, load, models = [], module.load, []

    def load_alone(args, one, sees):
        gc.collect()
        assert not any(model() for model in models), "a GPU has room for one model"
        loads.append(one.name)
        loaded = load(args, one, sees)
        models.append(weakref.ref(loaded[1]))
        return loaded

    monkeypatch.setattr(module, "load", load_alone)
    outside = ("--where", "outside", "--most", 2)
    command(*two, *outside, "--output", "whole.json")
    assert loads == [str(tiny_llava), str(all_layers)]
    one = [(name, depth) for depth in (6, 5, 4) for name in ("easy_vqa", "perplexity")]
    assert measured.calls == [(path.name, *rest) for path in (tiny_llava, all_layers) for rest in one]
    assert points_of("whole.json", 0) == [((), (OUTSIDE,)), ((1,), (OUTSIDE,)), ((1, 5), (OUTSIDE,))]
    # A region of all layers protects none.
    assert points_of("whole.json", 1) == [((), (OUTSIDE,)), ((1,), (OUTSIDE,)), ((1, 3), (OUTSIDE,))]
    # Interrupted four times, each measurement is made once, and the file is the same.
    del measured.calls[:]
    measured.stop |= {1, 4, 6, 11}
    for _ in range(4):
        with pytest.raises(SystemExit):
            command(*two, *outside, "--output", "part.json")
    command(*two, *outside, "--output", "part.json")
    assert len(measured.calls) == 12
    assert Path("part.json").read_text() == Path("whole.json").read_text()
    # Finished: nothing is loaded. One layer more in both ways: only that is measured.
    del loads[:]
    command(*two, *outside, "--output", "part.json")
    assert not loads
    del measured.calls[:]
    command(*two, "--most", 3, "--output", "part.json")
    assert [depth for *_, depth in measured.calls] == [3, 3, 4, 4, 3, 3, 3, 3]
    assert points_of("part.json", 0)[:3] == [
        ((), (OUTSIDE, ANYWHERE)),
        ((1,), (OUTSIDE, ANYWHERE)),
        ((1, 5), (OUTSIDE,)),
    ]


def test_a_file_of_another_checkpoint_or_setting_is_refused(
    command, two, easy, scores_of, tiny_llava, all_layers, tmp_path, measured
):
    base = ["curve", *easy, "--most", 1, "--output", "curve.json"]
    command(*base, "--model-path", tiny_llava, "--scores", "scores.json")
    before = Path("curve.json").read_bytes()
    (tmp_path / "questions.jsonl").write_text((tmp_path / "q.jsonl").read_text().replace("line", "box"))
    mine = ["--model-path", tiny_llava, "--scores", "scores.json"]
    for words, why in (
        (["--model-path", all_layers, "--scores", "other.json"], f"it has another checkpoint, {tiny_llava};"),
        ([*mine, "--max_new_tokens", 2], "easy_vqa: flags: max_new_tokens was 8, now 2;"),
        ([*mine, "--dtype", "bf16"], "dtype was 'fp32', now 'bf16';"),
        ([*mine, "--limit", 3], "easy_vqa: files: q.jsonl was"),
        ([*mine, "--metric", "bi"], "its layers were removed in another order, by angular: 1, 3, 5, 4, 2, ...;"),
        (["--model-path", tiny_llava, "--order", "2"], "its layers were removed in another order, by angular"),
    ):
        with pytest.raises(SystemExit) as stop:
            command(*base, *words)
        assert "--output curve.json cannot be continued: " in str(stop.value)
        assert why in str(stop.value)
        assert Path("curve.json").read_bytes() == before
    # Another checkpoint in addition.
    command(*base, "--model-path", tiny_llava, all_layers, "--scores", "scores.json", "other.json")
    assert [one.name for one in read_curve("curve.json").checkpoints] == [str(tiny_llava), str(all_layers)]
    assert len(measured.calls) == 2 + 2


def test_a_file_of_an_earlier_version_is_measured_again(
    command, easy, scores_of, tiny_llava, tmp_path, measured, capsys
):
    """It does not say which checkpoint it is of."""
    output = tmp_path / "curve.json"
    output.write_text(json.dumps([{"removed": 0, "layers": [], "protected": True, "accuracy": 1.0, "scores": {}}]))
    command("curve", "--model-path", tiny_llava, *easy, "--most", 0, "--output", output)
    assert "is of an earlier version, which did not record its checkpoint" in capsys.readouterr().out
    assert read_curve(output).checkpoints[0].points[0].reports["easy_vqa"].headline.value == 0.6


def test_a_file_that_lacks_one_of_the_annotation_files_goes_on(tmp_path):
    """Earlier versions did not record ScienceQA's splits."""
    one, path = CheckpointCurve("c", "identity", DEPTH), tmp_path / "curve.json"
    older = {"scienceqa": {"files": {"q.json": "x", "problems.json": "y"}, "flags": {}}}
    Curve("fp32", None, older, [one]).write(path)
    now = {"scienceqa": {"files": {"q.json": "x", "pid_splits.json": "z", "problems.json": "y"}, "flags": {}}}
    assert resumed(path, Curve("fp32", None, now, [one])).benchmarks == now
    now["scienceqa"]["files"]["problems.json"] = "w"
    with pytest.raises(SurgeryError, match=r"scienceqa: files: problems\.json was 'y', now 'w'; delete it"):
        resumed(path, Curve("fp32", None, now, [one]))


def test_a_given_order(tiny_llava):
    checkpoint = open_checkpoint(str(tiny_llava))
    curve = planned(checkpoint, Order("list", (5, 0, 2)), 2)
    assert [point.layers for point in curve.line(OUTSIDE)] == [(), (5,), (2, 5)]
    assert [point.layers for point in curve.line(ANYWHERE)] == [(), (5,), (0, 5)]
    with pytest.raises(SurgeryError, match=r"--most 3 with .*: --order names 2 layers outside the tuned region"):
        planned(checkpoint, Order("list", (5, 0, 2)), 3)
    with pytest.raises(SurgeryError, match=r"--most 6 with .*: 4 of 6 layers can be removed outside"):
        planned(checkpoint, Order("bi", tuple(range(6))), 6)


def test_everything_wrong_is_told_at_once_before_weights_are_loaded(
    command, two, easy, scores_of, tiny_llava, all_layers, tmp_path, monkeypatch
):
    monkeypatch.setattr("llava.model.builder.load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    model, output = ["--model-path", tiny_llava], ["--output", "curve.json"]
    for words, whys in (
        ([*model, *easy], ["give --scores or --order, by which layers are removed"]),
        ([*model, *easy, "--scores", "scores.json", "--order", "1", "--most", -1],
         ["--most -1: 0 or more", "give either --scores or --order"]),
        ([*model, *easy, "--order", "1,9"], ["--order 1,9: layers from 0 to 5, each once, joined by commas"]),
        ([*model, *easy, "--order", "1,1"], ["--order 1,1: layers from 0 to 5, each once, joined by commas"]),
        ([*model, *easy, "--scores", "other.json"], ["other.json holds the scores of another model"]),
        ([*model, *easy, "--scores", "scores.json", "--metric", "angle"], ["no metric 'angle'; it has angular, bi"]),
        ([*model, *easy, "--scores", "scores.json", "scores.json"], ["--scores has 2 files for 1 checkpoint"]),
        (["--model-path", tiny_llava, tiny_llava, *easy, "--scores", "scores.json", "scores.json"], ["the same model"]),
        ([*model, *easy, "--benchmarks", "easy_vqa", "gqa", "--order", "1"],
         ["--question-file, --annotation-file, --image-folder: of a single benchmark"]),
        ([*model, "--benchmarks", "gqa", "docvqa", "--data", "data", "--order", "1", "--conv-mode", "nothing"],
         ["gqa: files data/gqa/llava_gqa_testdev_balanced.jsonl", "docvqa: files data/docvqa/questions.jsonl"]),
        ([*model, "--benchmarks", "easy-vqa"], ["did you mean 'easy_vqa'?"]),
        (["--model-path", "missing", *easy, "--order", "1"], ["missing"]),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            command("curve", *words, *output)
        for why in whys:
            assert why in str(stop.value) or stop.value.code == 2, (words, stop.value)
    assert not Path("curve.json").exists()


def test_the_report_holds_what_the_stages_wrote(tmp_path):
    score = {"all": 0.9, "shape": 1.0, "colour": 0.8, "yes_no": 0.7, "questions": 10}
    curve = [
        {"removed": n, "layers": list(range(n)), "protected": protected, "accuracy": 0.5, "scores": score}
        for n in (0, 1)
        for protected in (True, False)
        if n or protected
    ]
    (tmp_path / "lora").mkdir()
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/install").write_text("3\n")
    region = {"layers": [0, 2], "num_layers": 4, "tune_layers": "0,2"}
    (tmp_path / "lora/config.json").write_text(json.dumps({"visual_region": region}))
    (tmp_path / "healed").mkdir()
    (tmp_path / "healed/config.json").write_text(json.dumps({"visual_region": {**region, "removed_layers": [0]}}))
    healed = {"removed": 0, "protected": True, "accuracy": 0.85, "scores": {**score, "all": 0.85}}
    for name, value in {
        "accuracy": score,
        "wrong_image": score,
        "curve": curve,
        "healed": [healed],
        "blind": {"sample": score, "test": score},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    report = collect(tmp_path, tmp_path / "blind.json")
    assert report["tuned_layers"] == [0, 2]
    assert report["seconds"] == {"install": 3}
    assert [(e["removed"], e["protected"]) for e in report["pruned"]] == [(1, True), (1, False)]
    assert set(report["pruned"][0]) == {"removed", "layers", "protected", "accuracy", "questions"}
    text = markdown(report)
    assert "| 1 | 0 | 50.0 | 0 | 50.0 |" in text
    rows = ("unpruned | 10 | 90.0", "without layer 0 | 10 | 90.0", "without layer 0, healed | 10 | 85.0")
    assert [row for row in rows if f"| {row} | 100.0 | 80.0 | 70.0 |" not in text] == []
    said = models(report, tmp_path).splitlines()
    assert [line.split()[1:4] for line in said[1:4]] == [
        ["4", "layers", "90.0%"],
        ["3", "layers", "90.0%"],
        ["3", "layers", "85.0%"],
    ]
    assert f"llava.serve.cli --model-path {tmp_path}/lora" in said[-1]
    picture(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
