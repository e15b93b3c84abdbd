"""Figures of a made study: they are written, their numbers are the statistics, and their texts can be read."""

import shutil
import warnings

import numpy as np
import pytest
from matplotlib import pyplot

from tests.fixtures.study import COLUMNS, DEPTH, MadeRow, make_study
from tests.visual_region.study.figures.looks import faults
from tests.visual_region.study.figures.made import SETS, complete
from visual_region.study import figures
from visual_region.study.board import Board
from visual_region.study.figures import drawing
from visual_region.study.figures.scores import visual
from visual_region.study.results import read_results

LONG = "the layers that a metric with a rather long name chooses, the highest of each of 8 segments"
METRICS = ("lower", "lower-middle", "upper-middle", "top", "hybrid")


@pytest.fixture(scope="module")
def study(made_study, made_once):
    """The made study with every file that figures are drawn from."""
    return complete(made_once("figures", lambda to: shutil.copytree(made_study, to / "study")) / "study")


@pytest.fixture
def drawn(monkeypatch):
    """Draws a study's figures without a warning and keeps them open: (folder, columns) -> name -> figure."""
    found = {}

    def draw(folder, columns=COLUMNS, out=None):
        def keep(figure, to, name):
            found[name] = figure
            return save(figure, to, name)

        save = figures.save_for_print
        monkeypatch.setattr(figures, "save_for_print", keep)
        monkeypatch.setattr(pyplot, "close", lambda figure: None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figures.draw_figures(read_results(folder), columns, out or folder / "figures")
        return found

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def test_every_figure_is_written_with_its_labels_as_text(study, tmp_path, drawn):
    found = drawn(study, out=tmp_path)
    assert list(found) == list(figures.FIGURES)
    for name in figures.FIGURES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    labels = {
        "selections": ("sparse-uniform", "all layers", "tuned layers"),
        "figure1-reversion": ("0–2", "wikitext", "perplexity"),
        "figure1-pruning": ("gqa", "removed layers"),
        "figure2-depths": ("10% of the data", f"tuned layers, of {DEPTH}"),
        "figure3-hours": ("device minutes",),
        "figure4-pruning": ("sparse-uniform",),
        "figure5-attention": ("attention per image token", *SETS),
        "metrics": ("seed 2", "1 - cosine"),
    }
    for name, texts in labels.items():
        svg = (tmp_path / f"{name}.svg").read_text().lower()
        assert not [text for text in texts if f">{text.lower()}" not in svg], name
    captions = (tmp_path / figures.CAPTIONS).read_text()
    assert captions.count("![") == len(figures.FIGURES)
    assert "3 seeds" in captions


def test_the_same_figures_are_the_same_files(study, tmp_path):
    for folder in ("a", "b"):
        figures.draw_figures(read_results(study), COLUMNS, tmp_path / folder)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == sorted([*(f"{n}.{kind}" for n in figures.FIGURES for kind in ("png", "svg")), figures.CAPTIONS])
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


SITUATIONS = {
    "one seed": {"seeds": (0,)},
    "two seeds": {"seeds": (0, 1)},
    "wide intervals": {"questions": 4},
    "40 layers": {"depth": 40},
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_texts_can_be_read(situation, tmp_path, drawn, monkeypatch):
    given = SITUATIONS[situation]
    depth, seeds = given.get("depth", 32), given.get("seeds", (0, 1, 2))
    for module in ("tests.fixtures.study", "tests.visual_region.study.figures.made"):
        monkeypatch.setattr(f"{module}.DEPTH", depth)
    names = {"all": 1.0} | {f"{name}:{depth // 4}": 0.6 for name in (*METRICS, "sparse-uniform")}
    rows = {name: MadeRow(name, skill, ("selections",), seeds) for name, skill in names.items()}
    rows["sparse-uniform"] = MadeRow(
        f"sparse-uniform:{depth // 4}", 0.95, ("selections", "shares", "curve"), seeds, (100, 25, 10)
    )
    rows["all"] = MadeRow("all", 1.0, ("selections", "shares", "curve", "reversion", "attention"), seeds, (100, 25, 10))
    rows |= {f"{n} layers": MadeRow(f"sparse-uniform:{n}", 0.9, ("depths",), seeds) for n in (1, 2, 4, 6, 7, 16)}
    rows |= {f"{LONG} ({i})": MadeRow(f"random:8@{i}", 0.5 + i / 10, ("selections",), seeds) for i in range(8)}
    make_study(tmp_path, rows, given.get("questions", 20))
    found = drawn(complete(tmp_path))
    assert list(found) == list(figures.FIGURES)
    assert {name: faults(figure) for name, figure in found.items() if faults(figure)} == {}


def test_points_are_the_paired_differences(study, tmp_path, drawn):
    figure = drawn(study, out=tmp_path)["selections"]
    stack, points = figure.axes
    board = Board(read_results(study), visual(COLUMNS), "selections")
    rows = sorted(board.rows, key=lambda row: -board.value(row, board.averaged).value)
    assert [label.get_text() for label in stack.get_yticklabels()] == [row.name for row in rows]
    whole = next(row for row in rows if row.name == "all layers")
    for row, bars in zip(rows, points.containers, strict=True):
        expected = board.difference(row, whole, board.averaged)
        (line, _, whiskers) = bars.lines
        assert line.get_xdata()[0] == pytest.approx(expected.value)
        if row is not whole:
            ends = whiskers[0].get_segments()[0][:, 0]
            assert ends == pytest.approx([expected.low, expected.high])
    tuned = stack.collections[0].get_array().reshape(len(rows), DEPTH)
    assert [row.sum() for row in tuned] == pytest.approx([row.number for row in rows])
    kept = {text.get_text() for text in points.texts}
    assert f"{100 * board.ratio(rows[-1], whole, board.averaged).value:.1f}%" in kept


def test_lines_by_depth_are_the_scores(study, tmp_path, drawn):
    figure = drawn(study, out=tmp_path)["figure2-depths"]
    board = Board(read_results(study), visual(COLUMNS))
    average = figure.axes[0]
    assert average.get_title() == "average of 3"
    for bars, share in zip(average.containers, (100, 25, 10), strict=True):
        rows = [r for r in board.rows if r.share == share and r.name in ("all layers", "sparse-uniform")]
        rows += [r for r in board.rows if share == 100 and r.name in ("top layer", "sparse-uniform, half")]
        expected = [board.value(row, board.averaged).value for row in sorted(rows, key=lambda row: row.number)]
        assert bars.lines[0].get_ydata() == pytest.approx(expected)
    marks = [
        line.get_ydata()[0] for line in average.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    ]
    whole = [board.value(r, board.averaged).value for r in board.rows if r.name == "all layers"]
    assert marks == pytest.approx([0.98 * value for value in whole])


def test_hours_are_those_of_the_runs(study, tmp_path, drawn):
    (axis,) = drawn(study, out=tmp_path)["figure3-hours"].axes
    results = [r for r in read_results(study) if r.cell.share == 100 and {"depths", "shares"} & set(r.cell.experiments)]
    by_size = {}
    for result in results:
        by_size.setdefault(len(result.cell.layers or ()), []).append(60 * result.run["device_hours"])
    assert axis.get_ylabel() == "device minutes"
    expected = [np.mean(by_size[size]) for size in sorted(by_size)]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx(expected)


def test_what_is_missing_is_said(study, tmp_path, drawn):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    for cell in folder.glob("cells/sparse-uniform_seed2_100"):
        shutil.rmtree(cell)
    for cell in folder.glob("cells/all-layers_*_10"):
        shutil.rmtree(cell / "results")
    shutil.rmtree(next(folder.glob("cells/all-layers_seed1_100")) / "attention")
    found = drawn(folder)
    assert list(found) == list(figures.FIGURES)
    text = (folder / "figures" / figures.CAPTIONS).read_text()
    assert "- seed 2 of sparse-uniform\n" in text
    assert "- a score of the cells all-layers_seed0_10, all-layers_seed1_10, all-layers_seed2_10\n" in text
    assert "- seed 1 of all layers\n" in text
    assert "2 to 3 seeds" in text


def test_nothing_is_drawn_of_nothing(tmp_path, capsys):
    (written,) = figures.draw_figures([], COLUMNS, tmp_path)
    assert written.name == figures.CAPTIONS
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" is not drawn: ")[0] for line in printed] == list(figures.FIGURES)
    assert written.read_text().count("Not drawn: ") == len(figures.FIGURES)


def test_names_are_wrapped_and_cut():
    assert drawing.wrapped("short") == "short"
    assert all(len(line) <= 30 for line in drawing.wrapped(LONG).split("\n"))
    assert drawing.wrapped(LONG).count("\n") == 1
