"""The files of a study's tables: every format holds the same numbers, and says what is missing."""

import csv
import json
import re
import shutil

import pytest

from llava.files import write_json
from llava.tables import latex_text
from tests.fixtures.study import COLUMNS, DEPTH, MadeRow, make_cell
from visual_region.study.board import Board
from visual_region.study.results import read_results
from visual_region.study.samples import StudyError, columns_of
from visual_region.study.sentence import result_sentence
from visual_region.study.tables import write_tables

NAMES = ("selections", "depths", "shares", "text", "cost", "importance")


@pytest.fixture(scope="module")
def tables(made_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_tables(read_results(made_study), COLUMNS, folder)
    return folder


def records(folder, name):
    with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_every_table_in_every_format(made_study, tmp_path):
    files = write_tables(read_results(made_study), COLUMNS, tmp_path)
    assert {file.name for file in files} == {f"{n}.{s}" for n in NAMES for s in ("md", "tex", "csv", "json")}
    assert set(files) == set(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_csv_and_json_hold_the_same(tables, name):
    rows, lines = content(tables, name)["rows"], records(tables, name)
    assert len(rows) == len(lines) > 0
    for row, line in zip(rows, lines, strict=True):
        assert row.keys() == line.keys()
        for key, value in row.items():
            if isinstance(value, int | float):
                assert float(line[key]) == value
            else:
                assert line[key] == (" ".join(map(str, value)) if isinstance(value, list) else value or "")


@pytest.mark.parametrize("name", NAMES)
def test_latex_is_balanced(tables, name):
    text = "\n".join(line for line in (tables / f"{name}.tex").read_text().splitlines() if not line.startswith("%"))
    plain = re.sub(r"\\[\\%_&#${}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert not set("%_#") & set(plain)
    assert plain.count("$") % 2 == 0
    assert text.count("\\begin{") == text.count("\\end{") > 0
    for table in re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert len(lines) > 1
        # One cell for each letter of the columns.
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(table[0])}


@pytest.mark.parametrize("name", NAMES)
def test_markdown_rows_are_as_long_as_their_head(tables, name):
    text = (tables / f"{name}.md").read_text(encoding="utf-8")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_numbers_are_the_boards(made_study, tables):
    board = Board(read_results(made_study), columns_of(COLUMNS[:3]), "selections")
    entries = board.entries(board.rows)
    for row in content(tables, "selections")["rows"]:
        entry = entries[row["row"]][row["column"]]
        assert (row["value"], row["sd"], row["low"], row["high"]) == (
            *(entry.value.value, entry.value.sd),
            *(entry.value.low, entry.value.high),
        )
        assert row["mark"] == entry.mark
        if row["row"] != "all layers":
            assert (row["difference"], row["difference_low"]) == (entry.difference.value, entry.difference.low)
            assert row["ratio"] == entry.ratio.value


def test_selections_as_markdown(tables):
    lines = (tables / "selections.md").read_text(encoding="utf-8").splitlines()
    head = next(line for line in lines if line.startswith("|  |"))
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        *("", "layers", "seeds", "shape", "colour", "GQA", "average", "kept", "less sparse-uniform")
    ]
    first = lines[lines.index(head) + 2]
    assert first.startswith(f"| all layers | {DEPTH} of {DEPTH} | 3 | ")
    assert re.search(r"\| 100% \| [+-]\d\.\d \(-\d+\.\d to \d+\.\d\) \|$", first), first
    top = next(line for line in lines if line.startswith("| top |"))
    assert re.search(r"\| \d\d\.\d% \(\d\d\.\d to \d\d\.\d\) \| -\d+\.\d \(-\d+\.\d to -\d+\.\d\) \|$", top), top
    claim = next(line for line in lines if line.startswith("| sparse-uniform |"))
    assert claim.endswith("| – |")
    assert "**" not in top
    assert any("each seed tunes other layers" in line and "random" in line for line in lines)


def test_depths_go_down_and_shares_have_blocks(tables):
    depths = [row["number"] for row in content(tables, "depths")["rows"]]
    assert depths == sorted(depths, reverse=True)
    shares = [row["share"] for row in content(tables, "shares")["rows"]]
    assert shares == sorted(shares, reverse=True)
    assert set(shares) == {100, 25, 10}
    text = (tables / "shares.md").read_text(encoding="utf-8")
    assert "| 25% |" in text
    assert re.search(rf"\| all layers \| {DEPTH} of {DEPTH} \| 100% \|.*\| 100% \| 100% \|\n", text)


def test_a_row_that_equals_all_layers_has_its_interval(tmp_path):
    for name, share in (("all", 100), ("top", 100), ("all", 25)):
        make_cell(tmp_path, name, MadeRow("all" if name == "all" else "top:25%", 1.0, ("shares",)), 0, share)
    results = [next(tmp_path.glob(f"cells/{name}_seed0_100/results/gqa.json")) for name in ("all", "top")]
    report = json.loads(results[0].read_text())
    scores = report["per_question"]
    ids = {value: next(key for key, other in scores.items() if other == value) for value in (0.0, 1.0)}
    swapped = scores | {ids[0.0]: 1.0, ids[1.0]: 0.0}
    results[1].write_text(json.dumps(report | {"per_question": swapped}))
    write_tables(read_results(tmp_path), ["gqa"], tmp_path / "tables")
    line = next(row for row in (tmp_path / "tables/shares.md").read_text().splitlines() if row.startswith("| top "))
    assert re.search(r"\| 100\.0% \([\d. to]+\) \| 100\.0% \([\d. to]+\) \|$", line), line


def test_the_table_of_text(tables):
    """Text benchmarks have their own table, whether they are asked for or not."""
    rows = content(tables, "text")["rows"]
    assert {row["column"] for row in rows} == {"mmlu", "perplexity"}
    assert rows[-1]["row"] == "backbone"
    assert {row["column"] for row in content(tables, "selections")["rows"]} == {*COLUMNS[:3], "average"}
    text = (tables / "text.md").read_text(encoding="utf-8")
    assert "×" in text
    assert "has no seed" in text


def test_text_benchmarks_need_not_be_asked_for(made_study, tmp_path):
    write_tables(read_results(made_study), COLUMNS[:3], tmp_path)
    assert {row["column"] for row in content(tmp_path, "text")["rows"]} == {"mmlu", "perplexity"}


def test_cost(tables):
    rows = {(row["row"], row["share"], row["column"]): row for row in content(tables, "cost")["rows"]}
    hours = rows["sparse-uniform", 100, "device_hours"]
    made = [2 * (100 + 10 * 3 + seed) / 3600 for seed in (0, 1, 2)]
    assert hours["value"] == pytest.approx(sum(made) / 3)
    assert hours["ratio"] == pytest.approx(sum((130 + s) / (220 + s) for s in (0, 1, 2)) / 3)
    assert rows["all layers", 100, "trained_parameters"]["value"] == pytest.approx(1e-6 * (1000 + 500 * DEPTH))
    assert not any(row["row"] == "backbone" for row in rows.values())


def test_importance(tables, made_study):
    rows = content(tables, "importance")["rows"]
    assert len(rows) == DEPTH * 2
    values = [
        json.loads(f.read_text())["metrics"]["bi"]["values"] for f in (made_study / "cells").glob("*/scores.json")
    ]
    first = next(row for row in rows if (row["metric"], row["layer"]) == ("bi", 0))
    assert (first["value"], first["seeds"]) == (pytest.approx(sum(v[0] for v in values) / 3), 3)


def test_missing_cells_are_said(made_study, tmp_path):
    out = shutil.copytree(made_study, tmp_path / "study")
    cells = out / "cells"
    shutil.rmtree(next(cells.glob("top_seed2_*")) / "results")
    for seed in (0, 1, 2):
        shutil.rmtree(next(cells.glob(f"random_seed{seed}_*")) / "results")
    next(cells.glob("sparse-uniform_seed1_100/results/gqa.json")).unlink()
    next(cells.glob("sparse-uniform_seed1_100/done.json")).unlink()
    (next(cells.glob("all-layers_seed0_100")) / "scores.json").write_text("{}")
    write_tables(read_results(out), [*COLUMNS, "tdiuc"], tmp_path)
    text = (tmp_path / "selections.md").read_text(encoding="utf-8")
    for note in (
        "- not measured for any row: tdiuc",
        "- no scores yet: random",
        "- sparse-uniform (seed 1) has no score yet in GQA",
        "- not finished: 1 cell (sparse-uniform_seed1_100)",
        "top (seeds 0, 1)",
    ):
        assert note in text, note
    assert "| random | 3 of 12 | 0 | – | – | – | – | – |" in text
    assert "is not a score file" in (tmp_path / "importance.md").read_text(encoding="utf-8")
    line = next(line for line in records(tmp_path, "selections") if line["row"] == "random")
    assert line["value"] == line["ratio"] == ""


def test_trainings_that_differ_are_said(made_study, tmp_path):
    out = shutil.copytree(made_study, tmp_path / "study")
    own = {"batch_size": 4, "commit": "1" * 40, "versions": {"torch": "2.13.0"}, "dtype": "float32"}
    for file in out.glob("cells/*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | own))
    write_tables(read_results(out), COLUMNS, tmp_path)
    assert "trained with different" not in (tmp_path / "selections.md").read_text(encoding="utf-8")
    other = {"batch_size": 8, "commit": "2" * 40, "versions": {"torch": "2.14.0"}, "devices": {"number": 4}}
    file = next(out.glob("cells/top_seed2_100/run.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | other | {"dtype": None}))
    write_tables(read_results(out), COLUMNS, tmp_path)
    text = (tmp_path / "selections.md").read_text(encoding="utf-8")
    for note in (
        "batch sizes: 4 (all-layers_seed0_100, all-layers_seed1_100",
        "; 8 (top_seed2_100)",
        "numbers of devices: ",
        "number formats: float32",
        "; not recorded (top_seed2_100)",
        "versions: torch 2.13.0",
        "commits of this project: 1111111",
        "; 2222222 (top_seed2_100)",
    ):
        assert note in text, note
    # The same commit, in a checkout whose files were changed.
    file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": "1" * 40 + "+"}))
    write_tables(read_results(out), COLUMNS, tmp_path)
    assert "; 1111111+ (top_seed2_100)" in (tmp_path / "selections.md").read_text(encoding="utf-8")


def test_a_reference_that_scores_nothing(tmp_path):
    """There is no share of it, but a difference."""
    for name, skill in (("all", -9.0), ("top", 0.5)):
        make_cell(tmp_path, name, MadeRow("all" if name == "all" else "top:25%", skill), 0, 100)
    write_tables(read_results(tmp_path), COLUMNS[:3], tmp_path)
    text = (tmp_path / "selections.md").read_text(encoding="utf-8")
    assert re.search(r"Difference to all in points(.|\n)*\| top \| 3 of 12 \| \+\d", text), text


def test_without_a_reference_nothing_is_compared(tmp_path):
    for name in ("top", "lower"):
        make_cell(tmp_path, name, MadeRow(f"{name}:25%", 0.5), 0, 100)
    write_tables(read_results(tmp_path), COLUMNS, tmp_path)
    text = (tmp_path / "selections.md").read_text(encoding="utf-8")
    assert "no row tunes all layers" in text
    assert "one seed, so that the interval covers questions only, not other seeds: every row" in text
    assert "(95% interval over questions only)" in text
    assert "kept" not in text


def test_nothing_measured_makes_no_table(tmp_path):
    assert write_tables([], COLUMNS, tmp_path / "tables") == []
    assert not (tmp_path / "tables").exists()


def test_columns_without_any_score(made_study, tmp_path):
    """Of a study that has just begun, or with a slip of the pen."""
    write_tables(read_results(made_study), ["easy_vqa/shapes"], tmp_path)
    text = (tmp_path / "depths.md").read_text(encoding="utf-8")
    assert "- not measured for any row: easy_vqa/shapes\n- easy_vqa has the parts shape, colour\n" in text
    assert "| all layers | 12 of 12 | 0 |" in text
    assert {line["value"] for line in records(tmp_path, "depths")} == {""}


def test_a_wrong_column(made_study, tmp_path):
    with pytest.raises(StudyError, match="BENCHMARK/PART"):
        write_tables(read_results(made_study), ["gqa/"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_reference_without_cells_is_said(made_study, tmp_path):
    """As while the first cells of a study run."""
    results = [result for result in read_results(made_study) if result.cell.row != "all layers"]
    write_tables(results, COLUMNS, tmp_path, reference="all layers")
    text = (tmp_path / "selections.md").read_text(encoding="utf-8")
    assert "all layers has no cell with 100% of the data: no comparison there" in text


def test_names_with_signs(tmp_path):
    """Of LaTeX, of Markdown and of CSV."""
    row = 'a_b & 25% of {x}, "so|so"'
    for name, selection in (("all", "all"), (row, "top:25%")):
        folder = make_cell(tmp_path, "row", MadeRow(selection, 0.5), 0, 100)
        cell = json.loads((folder / "cell.json").read_text())
        write_json(folder / "cell.json", cell | {"row": name, "name": selection})
        folder.rename(folder.with_name(selection.replace(":", "-")))
    write_tables(read_results(tmp_path), COLUMNS, tmp_path)
    assert row in {line["row"] for line in records(tmp_path, "selections")}
    assert latex_text(row) in (tmp_path / "selections.tex").read_text()
    assert r'| a_b & 25% of {x}, "so\|so" |' in (tmp_path / "selections.md").read_text()


def test_latex_text():
    assert latex_text("50% of a_b & c ± 1") == r"50\% of a\_b \& c $\pm$ 1"
    assert latex_text("\\{}") == r"\textbackslash{}\{\}"


def test_the_main_sentence(made_study):
    results = read_results(made_study)
    sentence = result_sentence(results, COLUMNS)
    assert re.fullmatch(
        r"Tuning 3 layers of 12, spread over the depth, keeps (\d+\.\d)% \(95% interval \d+\.\d to \d+\.\d; "
        r"3 tasks, 160 questions and 3 seeds\) of the score of tuning all layers\.",
        sentence,
    )
    board = Board(results, columns_of(COLUMNS[:3]), "selections")
    kept = board.entries(board.rows)["sparse-uniform"]["average"].ratio
    assert f"keeps {100 * kept.value:.1f}% (95% interval {100 * kept.low:.1f} to {100 * kept.high:.1f};" in sentence
    assert "(top) keeps" in result_sentence(results, COLUMNS, row="top")
    with pytest.raises(StudyError, match="no row 'spread'"):
        result_sentence(results, COLUMNS, row="spread")
    with pytest.raises(StudyError, match="no row tunes the layers of sparse-uniform:25%"):
        result_sentence([r for r in results if r.cell.row != "sparse-uniform"], COLUMNS)


def test_a_record_names_the_selection_of_every_seed(tables):
    """Once, if all seeds have the same."""
    found = {row["row"]: row["selection"] for name in ("selections", "text") for row in content(tables, name)["rows"]}
    assert found["random"] == "random:3@0; random:3@1; random:3@2"
    assert found["top"] == "top:25%"
    assert found["backbone"] is None
    assert {line["selection"] for line in records(tables, "cost") if line["row"] == "random"} == {found["random"]}


def test_selections_with_several_shares(tmp_path):
    """Each row is compared with the spread quarter of its share; a quarter row that lacks a column is marked."""
    rows = {
        "all": MadeRow("all", 1.0, shares=(100, 25)),
        "spread": MadeRow("sparse-uniform:25%", 0.9, shares=(100, 25)),
        "top": MadeRow("top:25%", 0.5, shares=(100, 25)),
    }
    for name, made in rows.items():
        for seed in made.seeds:
            for share in made.shares:
                folder = make_cell(tmp_path / "study", name, made, seed, share)
                cell = json.loads((folder / "cell.json").read_text())
                write_json(folder / "cell.json", cell | {"experiments": ["selections"]})
                if (name, share) == ("spread", 25):
                    (folder / "results/gqa.json").unlink()
    results = read_results(tmp_path / "study")
    write_tables(results, COLUMNS, tmp_path)
    text = (tmp_path / "selections.md").read_text(encoding="utf-8")
    assert "Kept of 100%: as a share of that of all with 100% of the data. Less spread: the average less" in text
    found = {(r["row"], r["share"]): r for r in content(tmp_path, "selections")["rows"] if r["column"] == "average"}
    board = Board(results, columns_of(COLUMNS[:3]), "selections")
    by_key = {(row.name, row.share): row for row in board.rows}
    for share, number in ((100, 3), (25, 2)):
        columns = [c for c in board.averaged if board.sample(by_key["spread", share], c)]
        assert len(columns) == number
        expected = board.difference(by_key["top", share], by_key["spread", share], columns)
        assert found["top", share]["to_claim"] == pytest.approx(expected.value)
        assert found["top", share]["to_claim_over"] == [column.name for column in columns]
        assert found["spread", share]["to_claim"] is None
    (line,) = (line for line in text.split("Difference to")[0].splitlines() if line.startswith("| top | 3 of 12 | 25%"))
    assert re.search(r", 2 of 3 \(-?\d+\.\d to -?\d+\.\d\) \|$", line), line
