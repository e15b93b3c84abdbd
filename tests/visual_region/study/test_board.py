"""Values, averages and pairs of a made study, against the scores' files read by plain loops."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from llava.eval.scoring.report import Measure, read_report
from tests.fixtures.study import COLUMNS, ROWS, MadeRow, made_scores, make_cell, perplexity_report, share_report
from visual_region.study.board import AVERAGE, BEST, TIED, Board, reference_name
from visual_region.study.cell import Cell
from visual_region.study.results import CellResult, read_results
from visual_region.study.samples import Column, StudyError, columns_of
from visual_region.study.statistics import QUESTIONS
from visual_region.study.tables.notes import notes

VISUAL = columns_of(COLUMNS[:3])


def board(out, columns=VISUAL, experiment="selections", **settings):
    return Board(read_results(out), columns, experiment, **settings)


def row_of(one, name, share=100):
    return next(row for row in one.rows if (row.name, row.share) == (name, share))


def scores(out, name, seed, column, share=100):
    """One cell's scores in a column, read apart."""
    folder = next(
        file.parent
        for file in (out / "cells").glob("*/cell.json")
        if (cell := Cell.read(file.parent)).row == name and (cell.seed, cell.share) == (seed, share)
    )
    report = read_report(folder / "results" / f"{column.benchmark}.json")
    return {key: report.per_question[key] for key in report.parts.get(column.part, report.per_question)}


def result(row, selection, seed, reports, share=100.0, **changes):
    """A cell with reports that are given."""
    cell = Cell(f"{row}-{seed}-{share}", row, selection, seed, share, ("selections", "text"), **changes)
    return CellResult(cell, None, {}, reports, True)


def test_columns():
    assert Column.parse("gqa").title == "GQA"
    assert Column.parse("easy_vqa/shape").title == "shape"
    assert Column.parse("mmlu").is_text
    assert not Column.parse("of my own").is_text
    for wrong in ("", "/shape", "gqa/"):
        with pytest.raises(StudyError, match="BENCHMARK/PART"):
            Column.parse(wrong)


def test_values_are_the_means_of_the_files(made_study):
    found = board(made_study)
    entries = found.entries(found.rows)
    for name in ("all layers", "top"):
        means = [[np.mean(list(scores(made_study, name, s, c).values())) for s in (0, 1, 2)] for c in VISUAL]
        for column, by_seed in zip(VISUAL, means, strict=True):
            value = entries[name][column.name].value
            assert value.value == pytest.approx(100 * np.mean(by_seed))
            assert value.sd == pytest.approx(100 * np.std(by_seed, ddof=1))
            assert value.low < value.value < value.high
            assert value.seeds == 3
        assert entries[name][AVERAGE].value.value == pytest.approx(100 * np.mean(means))
        assert entries[name][AVERAGE].value.questions == 40 + 40 + 80


def test_differences_are_paired_by_seed_and_question(made_study):
    found = board(made_study)
    top, reference = row_of(found, "top"), row_of(found, "all layers")
    column = Column.parse("gqa")
    pairs = [(scores(made_study, "top", s, column), scores(made_study, "all layers", s, column)) for s in (0, 1, 2)]
    expected = np.mean([ours[key] - theirs[key] for ours, theirs in pairs for key in ours])
    entry = found.entries(found.rows)["top"]["gqa"]
    assert entry.difference.value == pytest.approx(100 * expected)
    assert entry.difference.high < 0
    kept = np.mean([list(ours.values()) for ours, _ in pairs]) / np.mean([list(theirs.values()) for _, theirs in pairs])
    assert entry.ratio.value == pytest.approx(kept)
    assert entry.ratio.low < kept < entry.ratio.high < 1
    assert found.difference(top, reference, [column]) == entry.difference


def test_the_reference_has_no_difference_and_the_best_is_marked(made_study):
    found = board(made_study)
    entries = found.entries(found.rows)
    assert entries["all layers"][AVERAGE].difference is None
    marks = {name: entry[AVERAGE].mark for name, entry in entries.items()}
    assert sorted(marks.values()).count(BEST) == 1
    assert {marks["all layers"], marks["sparse-uniform"]} == {BEST, TIED}
    assert marks["top"] == ""


def right(number, of=40):
    """A report with so many right answers."""
    return {"gqa": share_report("gqa", {str(i): float(i < number) for i in range(of)})}


def test_rows_with_other_seeds_than_the_best_row():
    """What is better than the best on the seeds that both have is not marked as worse."""
    best = [result("best", "0", seed, right(number)) for seed, number in enumerate((20, 39, 39))]
    others = [
        result("better", "1", 0, right(32)),
        result("worse", "2", 0, right(4)),
        result("alone", "3", 3, right(30)),
    ]
    found = Board([*best, *others], columns_of(["gqa"]))
    marks = {name: entry["gqa"].mark for name, entry in found.entries(found.rows).items()}
    assert marks == {"best": BEST, "better": TIED, "worse": "", "alone": ""}
    assert "alone is not compared with the best, best: no seed has both scores" in notes(found)
    lower = {"perplexity": perplexity_report([100.0, 240.0], [100, 200])}
    higher = {"perplexity": perplexity_report([110.0, 260.0], [100, 200])}
    rows = [
        result("best", "0", 0, higher),
        result("best", "0", 1, {"perplexity": perplexity_report([9, 9], [100, 200])}),
    ]
    found = Board([*rows, result("better", "1", 0, lower)], columns_of(["perplexity"]))
    assert [entry["perplexity"].mark for entry in found.entries(found.rows).values()] == [BEST, TIED]


def test_each_share_has_its_own_reference(made_study):
    found = board(made_study, experiment="shares")
    few = row_of(found, "sparse-uniform", 10)
    assert found.reference_of(few).share == 10
    entries = found.entries([row for row in found.rows if row.share == 10])
    pairs = [
        np.mean(list(scores(made_study, name, s, c, share=10).values()))
        for name in ("sparse-uniform", "all layers")
        for s in (0, 1, 2)
        for c in VISUAL
    ]
    assert entries["sparse-uniform"][AVERAGE].ratio.value == pytest.approx(sum(pairs[:9]) / sum(pairs[9:]))

    whole = [np.mean(list(scores(made_study, "all layers", s, c).values())) for s in (0, 1, 2) for c in VISUAL]
    assert entries["sparse-uniform"][AVERAGE].of_whole.value == pytest.approx(sum(pairs[:9]) / sum(whole))
    assert board(made_study).whole is None


def test_perplexity_is_a_ratio_and_lower_is_better(made_study):
    found = board(made_study, columns_of(["perplexity", "mmlu"]), "text")
    entries = found.entries(found.rows)
    entry = entries["sparse-uniform"]["perplexity"]
    logs = {
        name: [math.log(found.sample(row_of(found, name), Column("perplexity")).own[s].value) for s in (0, 1, 2)]
        for name in ("all layers", "sparse-uniform")
    }
    assert entry.value.value == pytest.approx(math.exp(np.mean(logs["sparse-uniform"])))
    assert entry.difference is None
    assert entry.ratio.value == pytest.approx(math.exp(np.mean(logs["sparse-uniform"]) - np.mean(logs["all layers"])))
    assert entry.ratio.low < entry.ratio.value < entry.ratio.high
    assert AVERAGE not in entries["all layers"]
    best = min(logs, key=lambda name: np.mean(logs[name]))
    assert entries[best]["perplexity"].mark == BEST


def test_the_backbone_is_paired_with_every_seed(made_study):
    found = board(made_study, columns_of(["mmlu"]), "text")
    entry = found.entries(found.rows)["backbone"]["mmlu"]
    assert (entry.value.seeds, entry.value.covers) == (1, QUESTIONS)
    assert entry.difference.seeds == 3
    own = scores(made_study, "backbone", 0, Column("mmlu"))
    others = [scores(made_study, "all layers", s, Column("mmlu")) for s in (0, 1, 2)]
    assert entry.difference.value == pytest.approx(100 * np.mean([own[k] - o[k] for o in others for k in own]))


def test_common_seeds_are_paired(made_study, tmp_path):
    out = shutil.copytree(made_study, tmp_path / "study")
    shutil.rmtree(next((out / "cells").glob("top_seed2_*")))
    found = board(out)
    entry = found.entries(found.rows)["top"]["gqa"]
    assert (entry.value.seeds, entry.difference.seeds) == (2, 2)


def test_one_seed_has_the_interval_of_its_file(tmp_path):
    rows = {"all": MadeRow("all", 1, seeds=(7,)), "top": MadeRow("top:25%", 0.5, seeds=(7,))}
    for name, made in rows.items():
        make_cell(tmp_path, name, made, 7, 100)
    found = board(tmp_path)
    value = found.entries(found.rows)["top"]["gqa"].value
    measure = Measure.of(list(scores(tmp_path, "top", 7, Column("gqa")).values()))
    assert (value.low, value.high) == pytest.approx((100 * measure.low, 100 * measure.high))
    assert value.sd is None


def test_a_metric_that_is_no_mean_of_questions():
    """It has its own interval, and no differences; the average has no interval."""

    def reports(value):
        circular = share_report("mmbench", {"a": 1.0, "b": 0.0})
        circular.metrics["accuracy"] = Measure(value, value - 0.1, value + 0.1, 2)
        return {"mmbench": circular, "gqa": share_report("gqa", {"x": 1.0, "y": 0.0, "z": 1.0})}

    cells = [result("all", "all", 0, reports(0.7)), result("all", "all", 1, reports(0.72))]
    cells += [result("top", "top:1", 0, reports(0.6)), result("top", "top:1", 1, reports(0.6))]
    found = Board(cells, columns_of(["mmbench", "gqa"]))
    entries = found.entries(found.rows)
    value = entries["all"]["mmbench"].value
    assert value.value == pytest.approx(71)
    assert value.low < 71 < value.high
    assert entries["top"]["mmbench"].ratio is None
    average = entries["top"][AVERAGE]
    assert average.value.value == pytest.approx((60 + 100 * 2 / 3) / 2)
    assert not average.value.has_interval
    assert average.ratio is None


def test_a_whole_benchmark_is_not_averaged_with_its_parts(made_study):
    found = board(made_study, columns_of(["easy_vqa", "easy_vqa/shape", "easy_vqa/colour", "gqa"]))
    assert [column.name for column in found.averaged] == ["easy_vqa/shape", "easy_vqa/colour", "gqa"]


def test_an_average_over_fewer_columns(made_study, tmp_path):
    out = shutil.copytree(made_study, tmp_path / "study")
    for seed in (0, 1, 2):
        next((out / "cells").glob(f"top_seed{seed}_*/results/gqa.json")).unlink()
    found = board(out)
    entries = found.entries(found.rows)
    entry = entries["top"][AVERAGE]
    assert entry.columns == entry.kept_over == ("easy_vqa/shape", "easy_vqa/colour")
    assert entry.mark == ""
    both = row_of(found, "top"), row_of(found, "all layers")
    assert entry.ratio == found.ratio(*both, columns_of(COLUMNS[:2]))


def test_scores_of_other_questions_are_left_out(made_study):
    results = read_results(made_study)
    odd = next(r for r in results if r.cell.row == "top" and r.cell.seed == 1)
    other = replace(odd, reports=odd.reports | {"gqa": share_report("gqa", made_scores("gqa", 10, 1, 0, "top"))})
    found = Board([other if r is odd else r for r in results], VISUAL, "selections")
    assert found.sample(row_of(found, "top"), Column("gqa")).seeds == (0, 2)
    assert any("10" in note and odd.cell.name in note and "left out" in note for note in found.left_out)
    # Also if it is the first cell of the reference.
    results = [replace(r, reports=other.reports) if r.cell.name == "all-layers_seed0_100" else r for r in results]
    found = Board(results, VISUAL, "selections")
    assert found.sample(row_of(found, "all layers"), Column("gqa")).seeds == (1, 2)
    assert len(found.left_out) == 1


def test_parts_of_other_questions_are_left_out(made_study):
    results = read_results(made_study)
    odd = next(r for r in results if r.cell.row == "top" and r.cell.seed == 1)
    whole = odd.reports["easy_vqa"]
    fewer = replace(whole, parts=whole.parts | {"shape": whole.parts["shape"][:5]})
    results = [replace(r, reports=r.reports | {"easy_vqa": fewer}) if r is odd else r for r in results]
    found = Board(results, VISUAL, "selections")
    assert found.sample(row_of(found, "top"), Column.parse("easy_vqa/shape")).seeds == (0, 2)
    assert found.sample(row_of(found, "top"), Column.parse("easy_vqa/colour")).seeds == (0, 1, 2)
    assert any("different questions in this part" in note for note in found.left_out)


def test_files_without_parts_are_read(made_study):
    results = read_results(made_study)
    older = [replace(r, reports={k: replace(v, parts={}) for k, v in r.reports.items()}) for r in results]
    found = Board(older, VISUAL, "selections")
    assert [column.name for column in found.columns] == ["gqa"]
    assert [column.name for column in found.absent] == ["easy_vqa/shape", "easy_vqa/colour"]


def test_references(made_study):
    results = read_results(made_study)
    assert reference_name(results) == "all layers"
    assert reference_name(results, "top") == "top"
    assert reference_name([], "not begun") == "not begun"
    typed = [result("every layer", "0-3", 0, {}, layers=(0, 1, 2, 3), depth=4), result("one", "0", 0, {})]
    assert reference_name(typed) == "every layer"
    assert reference_name(typed[1:]) is None


def test_replies_that_were_not_read_are_named():
    rows = {"all": (10, 30), "top": (1, 1), "lower": (0, 0)}
    cells = []
    for name, failures in rows.items():
        for seed, failed in enumerate(failures):
            cells.append(result(name, name, seed, {"gqa": replace(right(20)["gqa"], parse_failures=failed)}))
    found = Board(cells, columns_of(["gqa"]))
    assert "gqa: replies that are empty or that the rule cannot read: all 50%, top 2%, lower 0%" in notes(found)
    found = Board([cell for cell in cells if cell.cell.row == "lower"], columns_of(["gqa"]))
    assert not [note for note in notes(found) if "cannot read" in note]


def test_the_same_layers_under_several_names():
    names = {"bi": (0, 1), "multimodal-bi": (0, 1), "angular": (0, 2)}
    cells = [result(n, n, seed, right(20), layers=layers, depth=4) for n, layers in names.items() for seed in (0, 1)]
    said = [note for note in notes(Board(cells, columns_of(["gqa"]))) if "the same layers" in note]
    assert said == ["the same layers and seeds under several names: bi, multimodal-bi"]
    said = notes(Board([*cells[:3], *cells[4:]], columns_of(["gqa"])))
    assert not [note for note in said if "the same layers" in note]


def test_a_seed_that_is_not_trained_yet(made_study):
    results = [
        replace(r, cell=replace(r.cell, layers=None), run={}, reports={}) if r.cell.name == "top_seed1_100" else r
        for r in read_results(made_study)
    ]
    found = Board(results, VISUAL, "selections")
    row = row_of(found, "top")
    assert (row.layers, row.number, row.choices) == ((9, 10, 11), 3, {(9, 10, 11): 2})
    said = [note for note in notes(found) if "each seed tunes other layers" in note]
    assert [note.rpartition(": ")[2] for note in said] == ["random"]


def test_a_score_that_is_being_written_is_none_yet(made_study, tmp_path):
    out = shutil.copytree(made_study, tmp_path / "study")
    next((out / "cells").glob("top_seed1_*/results")).joinpath(".gqa.77.json").write_text("{")
    assert [r.reports.keys() for r in read_results(out)] == [r.reports.keys() for r in read_results(made_study)]


def test_a_perplexity_that_is_no_number_is_not_the_best():
    tokens = [100, 200]
    broken = {"perplexity": perplexity_report([math.nan, 1.0], tokens)}
    rows = [broken] + [{"perplexity": perplexity_report([size, 2.1 * size], tokens)} for size in (100, 110)]
    found = Board([result(f"row {i}", str(i), 0, row) for i, row in enumerate(rows)], columns_of(["perplexity"]))
    assert [entry["perplexity"].mark for entry in found.entries(found.rows).values()] == ["", BEST, ""]


def test_two_cells_of_one_row_share_and_seed_are_refused():
    with pytest.raises(StudyError, match="the same row"):
        Board([result("a", "0", 0, {}), result("a", "1", 0, {})], VISUAL)


def test_made_rows_are_as_made(made_study):
    assert {row.name for row in board(made_study, experiment=None).rows} == set(ROWS)
