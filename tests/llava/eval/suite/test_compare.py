"""Comparisons of made scores whose differences are known."""

import json
import math
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from llava.eval.benchmarks import BENCHMARKS, VISUAL
from llava.eval.scoring.report import Measure, Report
from llava.eval.scoring.statistics import bootstrap_mean
from llava.eval.suite.compare import compare, current_results, markdown, named_results
from llava.eval.suite.paired import ComparisonError, log_scores, paired_draws, perplexity_draws
from llava.eval.suite.table import average, checkpoints_table, row
from tests.conftest import REPOSITORY


def report(name, scores, **changes):
    values = {f"q{i}": float(score) for i, score in enumerate(scores)}
    settings = {"details": {"rule": "r1", "distribution": 3.5}} | changes
    return Report(name, "accuracy", {"accuracy": Measure.of(list(values.values()))}, len(values), 0, values, **settings)


def results(shift=0, names=VISUAL, size=40):
    """Every benchmark with half of its questions right, and `shift` questions fewer."""
    return {name: report(name, [1] * (size // 2 - shift) + [0] * (size // 2 + shift)) for name in names}


def test_row_and_average():
    values = row(results() | {"mmlu": report("mmlu", [1, 0, 0, 0])})
    assert [values[b.column] for b in BENCHMARKS[:8]] == [50] * 8
    assert values["average"] == 50
    assert values["MMLU"] == 25
    assert values["perplexity"] is None
    assert "easy-VQA" not in values
    partial = results(names=VISUAL[:3])
    assert average(partial) == (0.5, 3)
    table = checkpoints_table({"a": row(results()), "b": row(partial)}).splitlines()
    assert table[0].split(" | ")[1:] == [
        "OCRVQA",
        "DocVQA",
        "RefCOCOg",
        "TDIUC",
        "MMBench",
        "GQA",
        "ScienceQA",
        "TextVQA",
        "average",
        "MMLU",
        "BIG-bench-hard",
        "perplexity |",
    ]
    assert "| 50.00 |" in table[2]
    assert "50.00 (of 3)" in table[3]


def test_difference_kept_and_their_intervals():
    found = compare({"all": results(), "sparse": results(shift=4)}, "all")
    entry = found["differences"]["sparse"]["GQA"]
    assert entry["value"] == pytest.approx(-10)
    assert entry["low"] < -10 < entry["high"] <= 0
    kept = found["kept"]["sparse"]
    assert kept["value"] == pytest.approx(80)
    assert kept["low"] < 80 < kept["high"] <= 100
    assert kept["benchmarks"] == list(VISUAL)
    same = compare({"all": results(), "copy": results()}, "all")
    assert same["differences"]["copy"]["GQA"]["value"] == 0
    assert same["kept"]["copy"]["value"] == 100
    # Every draw of equal answers is equal: that says nothing of other questions.
    assert same["kept"]["copy"]["interval"] is same["differences"]["copy"]["GQA"]["interval"] is False
    assert "- copy: 100.00% (no interval)" in markdown(same)
    assert "(0.00 to 0.00)" not in markdown(same)


def test_one_question_or_one_piece_has_no_interval():
    made = {"a": {"gqa": report("gqa", [1])}, "b": {"gqa": report("gqa", [0])}}
    entry = compare(made, "a")["differences"]["b"]["GQA"]
    assert entry == {"value": -100, "questions": 1, "interval": False}
    pieces = {name: {"perplexity": perplexity([nll])} for name, nll in (("a", 20.0), ("b", 18.0))}
    found = compare(pieces, "a")
    assert found["differences"]["b"]["perplexity"].keys() == {"value", "questions", "interval", "ratio"}
    assert "| b | -1.34 (no interval), x0.819 (no interval) |" in markdown(found)


def test_paired_draws_are_the_bootstrap_of_the_differences():
    rng = np.random.default_rng(0)
    ours, theirs = (dict(enumerate(rng.random(300))) for _ in range(2))
    low, high = paired_draws(ours, theirs, resamples=4000).difference()
    expected = bootstrap_mean([ours[i] - theirs[i] for i in range(300)], resamples=4000)
    assert (low, high) == pytest.approx(expected, abs=0.005)
    # A plain reference: the standard error of the mean of the differences.
    differences = np.array([ours[i] - theirs[i] for i in range(300)])
    half = 1.96 * differences.std(ddof=1) / np.sqrt(300)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_pairing_makes_the_interval_narrower():
    rng = np.random.default_rng(1)
    base = dict(enumerate((rng.random(400) < 0.5).astype(float)))
    near = base | {i: 1 - base[i] for i in range(8)}
    low, high = paired_draws(near, base).difference()
    assert high - low < 0.05, "two unpaired shares of 400 questions have 0.14"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (report("gqa", [1, 0, 1]), "scored on 4 questions and b on 3, 3 of them the same"),
        (report("gqa", [1, 0, 1, 1], details={"rule": "r2"}), "scored differently .*rule: 'r1' and 'r2'"),
        (report("gqa", [1, 0, 1, 1], unit="points"), "unit: 'share' and 'points'"),
    ],
)
def test_what_does_not_compare_is_refused(other, words):
    with pytest.raises(ComparisonError, match=words):
        compare({"a": {"gqa": report("gqa", [1, 1, 0, 0])}, "b": {"gqa": other}}, "a")


def test_boxes_in_different_frames_do_not_compare():
    padded, original = (
        report("refcocog", [1, 0], details={"frame": {"boxes_are_shares_of": frame}})
        for frame in ("padded", "original")
    )
    with pytest.raises(ComparisonError, match="frame: 'padded' and 'original'"):
        compare({"a": {"refcocog": padded}, "b": {"refcocog": original}}, "a")


def test_nothing_in_common():
    with pytest.raises(ComparisonError, match="no benchmark in common"):
        compare({"a": {"gqa": report("gqa", [1, 0])}, "b": {"bbh": report("bbh", [1, 0])}}, "a")


def test_why_nothing_is_kept():
    made = {
        "a": {"gqa": report("gqa", [0, 0]), "bbh": report("bbh", [1, 0])},
        "b": {"gqa": report("gqa", [1, 0]), "bbh": report("bbh", [1, 0])},
        "c": {"bbh": report("bbh", [1, 0])},
    }
    found = compare(made, "a")
    assert found["kept"] == {"b": None, "c": None}
    text = markdown(found)
    assert "- b: the average of a is 0\n- c: no visual benchmark in common with a\n" in text
    # Without any visual benchmark there is no such list.
    del made["b"]
    assert "Percent of a kept" not in markdown(compare(made, "a"))


def test_numbers_that_are_results_may_differ():
    other = report("gqa", [1, 1, 0, 1], details={"rule": "r1", "distribution": 9.0})
    found = compare({"a": {"gqa": report("gqa", [1, 1, 0, 0])}, "b": {"gqa": other}}, "a")
    assert found["differences"]["b"]["GQA"]["value"] == 25


def test_a_headline_that_is_no_mean_of_questions_has_no_interval():
    circular = report("mmbench", [1, 1, 0, 0])
    circular.metrics["accuracy"] = Measure(0.25, 0.1, 0.4, 4)
    found = compare({"a": {"mmbench": circular}, "b": {"mmbench": circular}}, "a")
    assert found["differences"]["b"]["MMBench"]["interval"] is False
    assert found["kept"]["b"]["interval"] is False
    assert "(no interval)" in markdown(found)


def perplexity(nll, tokens=10, **details):
    value = float(np.exp(sum(nll) / (tokens * len(nll))))
    pieces = [[f"w{i}", value, tokens, 40, 8] for i, value in enumerate(nll)]
    measured = {"unit": "token", "sha256": "x", "corpus": "here", "context": 16, "pieces": pieces} | details
    metrics = {"perplexity (token)": Measure(value, value, value, len(nll))}
    return Report("perplexity", "perplexity (token)", metrics, len(nll), 0, details=measured, unit="perplexity")


def test_the_scores_of_pieces_are_a_linear_form_of_the_log_perplexity():
    """Their mean is the log of the headline, and their interval is near that of resampled pieces."""
    rng = np.random.default_rng(6)
    sizes = rng.integers(5, 50, size=400)
    nll = sizes * rng.normal(2, 0.4, size=400)
    report = perplexity([1.0])
    report.details["pieces"] = [
        [f"w{i}", n, int(size), 40, 8] for i, (n, size) in enumerate(zip(nll, sizes, strict=True))
    ]
    scores = np.array(list(log_scores(report).values()))
    assert scores.mean() == pytest.approx(math.log(np.exp(nll.sum() / sizes.sum())))
    low, high = np.percentile(perplexity_draws(report, report).ours, [2.5, 97.5])
    half = 1.96 * scores.std(ddof=1) / 20
    assert (scores.mean() - half, scores.mean() + half) == pytest.approx((math.log(low), math.log(high)), abs=0.005)


def test_perplexity_is_compared_piece_by_piece():
    nll = [20.0 + 3 * (i % 5) for i in range(40)]
    base, worse = perplexity(nll), perplexity([x + 1 for x in nll], corpus="there")
    found = compare({"a": {"perplexity": base}, "b": {"perplexity": worse}}, "a")["differences"]["b"]["perplexity"]
    # A tenth of a nat more on every token is the same factor on every draw.
    assert found["ratio"] == pytest.approx({"value": np.exp(0.1), "low": np.exp(0.1), "high": np.exp(0.1)})
    assert found["value"] == pytest.approx(worse.headline.value - base.headline.value)
    assert found["low"] < found["value"] < found["high"]
    comparison = compare({"a": {"perplexity": base}, "b": {"perplexity": worse}}, "a")
    assert "x1.105 (1.105 to 1.105)" in markdown(comparison)
    for other, words in (
        (perplexity(nll, tokens=11), "0 of them the same"),
        (perplexity(nll, context=32), "context: 16 and 32"),
        (perplexity(nll, sha256="y"), "sha256: 'x' and 'y'"),
    ):
        with pytest.raises(ComparisonError, match=words):
            compare({"a": {"perplexity": base}, "b": {"perplexity": other}}, "a")


def test_warnings_and_gaps_are_told():
    short = {"gqa": report("gqa", [1, 0], warnings=["a subset: 2 of 9"])}
    found = compare({"a": short | {"bbh": report("bbh", [1, 0])}, "b": short}, "a")
    assert "BIG-bench-hard is not measured for b" in found["notes"]
    assert "GQA, a: a subset: 2 of 9" in found["notes"]


def test_names():
    assert [*named_results(["a=x/y", "z/w"])] == ["a", "w"]
    with pytest.raises(ComparisonError, match="two results are called y"):
        named_results(["x/y", "z/y"])


def run(*arguments):
    command = [sys.executable, "-m", "llava.eval.suite.compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command(tmp_path):
    for folder, shift in (("all", 0), ("sparse", 2), ("top", 6)):
        for name, made in (results(shift) | {"bbh": report("bbh", [1, 0, 0])}).items():
            made.write(tmp_path / folder / f"{name}.json")
    done = run(tmp_path / "all", f"sparse 25%={tmp_path / 'sparse'}", tmp_path / "top", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "sparse 25%: 90.00%" in done.stdout
    assert json.loads((tmp_path / "out/comparison.json").read_text())["kept"]["top"]["value"] == pytest.approx(70)
    assert (tmp_path / "out/comparison.md").read_text() in done.stdout
    assert Image.open(tmp_path / "out/comparison.png").size[0] > 600


def test_a_reader_that_goes_away_loses_nothing(tmp_path):
    for folder, shift in (("all", 0), ("sparse", 2)):
        for name, made in results(shift).items():
            made.write(tmp_path / folder / f"{name}.json")
    command = f"{shlex.quote(sys.executable)} -m llava.eval.suite.compare all sparse | true; echo ${{PIPESTATUS[0]}}"
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("141\n", "")
    assert {path.suffix for path in (tmp_path / "comparison").iterdir()} == {".md", ".json", ".png"}


def test_scores_that_the_last_run_left_out_are_left_out_here(tmp_path):
    for folder in ("a", "b"):
        for name in ("gqa", "bbh"):
            report(name, [1, 0]).write(tmp_path / folder / f"{name}.json")
    (tmp_path / "b/summary.json").write_text(json.dumps({"left_out": {"gqa": "failed; gqa.json is an older score"}}))
    made, notes = current_results({name: tmp_path / name for name in ("a", "b")})
    assert [*made["a"]] == ["gqa", "bbh"]
    assert [*made["b"]] == ["bbh"]
    assert notes == ["GQA, b: left out: failed; gqa.json is an older score"]
    assert notes[0] in compare(made, "a", notes)["notes"]
    (tmp_path / "b/bbh.json").unlink()
    with pytest.raises(ComparisonError, match=r"b holds old scores only .* run all\.sh again"):
        current_results({"b": tmp_path / "b"})
    (tmp_path / "b/summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"b/summary\.json is broken"):
        current_results({"b": tmp_path / "b"})


def test_command_errors(tmp_path):
    report("gqa", [1, 0]).write(tmp_path / "a/gqa.json")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/gqa.json").write_text("{}")
    for arguments, words in (
        ([tmp_path / "a"], "needs at least two"),
        ([tmp_path / "a", tmp_path / "none"], "is not a folder of results"),
        ([tmp_path / "a", tmp_path / "empty"], "holds no score"),
        ([tmp_path / "a", tmp_path / "broken"], "is not a score written by"),
        ([tmp_path / "a", f"b={tmp_path / 'a'}", "--reference", "c"], "--reference c is not among a, b"),
    ):
        done = run(*arguments, "--output", tmp_path / "out")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
    assert not (tmp_path / "out").exists()
