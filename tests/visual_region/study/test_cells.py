"""The cells of a plan: each training once, in folders that tell what they are."""

import pytest

from visual_region.study.cells import cell_name, cells_of
from visual_region.study.plan_file import read_plan
from visual_region.study.yaml_file import PlanError


def test_a_training_that_two_experiments_need_is_one_cell(small_study):
    cells = cells_of(read_plan(small_study.file))
    assert [planned.name for planned in cells] == [
        *("all-seed0", "all-seed1", "top-seed0", "bi-seed0", "backbone", "top-seed0-share25", "top-seed1", "bi-seed1"),
    ]
    by_name = {planned.name: planned for planned in cells}
    assert by_name["all-seed0"].cell.experiments == ("selections", "text", "reversion", "attention")
    assert by_name["top-seed0"].cell.experiments == ("selections", "shares", "curve")
    assert by_name["top-seed0-share25"].cell.share == 25
    assert by_name["backbone"].cell.selection is None
    bi = by_name["bi-seed1"]
    assert (bi.needs, bi.cell.selection) == ("all-seed1", "out/cells/all-seed1/scores.json#bi:2")
    assert [planned.name for planned in cells if planned.gives_scores] == ["all-seed0", "all-seed1"]


def test_scores_come_from_a_cell_that_no_experiment_asks_for(small_study):
    small_study.change("selections: {rows: [all, top, bi]}", "selections: {rows: [bi], seeds: [5]}")
    cells = cells_of(read_plan(small_study.file))
    assert cells[0].name == "all-seed5"
    assert cells[0].cell.experiments == ()
    assert cells[0].gives_scores
    assert "bi-seed5" in {planned.name for planned in cells}


def test_a_seed_is_in_the_selection(small_study):
    small_study.change("top: top:2", "top: random:2@{seed}")
    selections = {planned.name: planned.cell.selection for planned in cells_of(read_plan(small_study.file))}
    assert selections["top-seed1"] == "random:2@1"


def test_names_are_folders():
    assert cell_name("Sparse & uniform", 3, 100.0) == "sparse-uniform-seed3"
    assert cell_name("8 layers", 0, 12.5) == "8-layers-seed0-share12.5"
    assert cell_name("LLM", None, 100.0) == "llm"
    assert cell_name("../..", 0, 100.0) == "row-seed0"
    assert cell_name("層", 0, 100.0) == "row-seed0"


def test_two_rows_in_one_folder_are_an_error(small_study):
    small_study.change("  backbone: null", "  Top: 1\n  backbone: null")
    small_study.change("selections: {rows: [all, top, bi]}", "selections: {rows: [all, top, Top]}")
    with pytest.raises(
        PlanError, match="'top' and 'Top' would share the folder top-seed0; give one of them another name"
    ):
        cells_of(read_plan(small_study.file))
