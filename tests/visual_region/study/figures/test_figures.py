"""Figures of a made study: they are written, their numbers are the statistics, and their texts can be read."""

import shutil
import warnings

import numpy as np
import pytest
from matplotlib import pyplot

from tests.fixtures.study import COLUMNS, DEPTH, MadeRow, made_reports, make_study
from tests.visual_region.study.figures.looks import faults
from tests.visual_region.study.figures.made import CORPORA, SETS, complete, made_curve, made_reversion
from visual_region.pictures import figure as pictures
from visual_region.scores import ScoreFile
from visual_region.study import figures
from visual_region.study.board import Board
from visual_region.study.figures import drawing
from visual_region.study.results import read_results
from visual_region.study.samples import StudyError, visual

LONG = "the layers that a metric with a rather long name chooses, the highest of each of 8 segments"


def draw(folder, to, columns=COLUMNS, write=True):
    """Draws a study's figures, of which no warning may come: name -> figure, still open."""
    found = {}

    def keep(figure, place, name):
        found[name] = figure
        return pictures.save_for_print(figure, place, name) if write else []

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(figures, "save_for_print", keep)
        patch.setattr(pyplot, "close", lambda figure: None)
        figures.draw_figures(read_results(folder), columns, to)
    return found


@pytest.fixture(scope="module")
def study(made_study, made_once):
    """The made study with every file that figures are drawn from."""
    return complete(made_once("made-figures", lambda to: shutil.copytree(made_study, to / "study")) / "study")


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    """The folder of the study's figures, and the figures by name."""
    folder = tmp_path_factory.mktemp("drawn")
    yield folder, draw(study, folder)
    pyplot.close("all")


def test_every_figure_is_written_with_its_labels_as_text(written):
    folder, found = written
    assert list(found) == list(figures.FIGURES)
    names = [*(f"{name}.{kind}" for name in figures.FIGURES for kind in ("png", "svg")), figures.CAPTIONS]
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    for name in figures.FIGURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    labels = {
        "selections": ("sparse-uniform", "all layers", "tuned layers"),
        "figure1-reversion": ("0–2", "wikitext", "perplexity"),
        "figure1-pruning": ("GQA", "removed layers"),
        "figure2-depths": ("10% of the data", f"tuned layers, of {DEPTH}"),
        "figure3-hours": ("device minutes",),
        "figure4-pruning": ("sparse-uniform",),
        "figure5-attention": SETS,
        "metrics": ("seed 2", "1 - cosine"),
    }
    for name, texts in labels.items():
        svg = (folder / f"{name}.svg").read_text()
        assert not [text for text in texts if f">{text}</" not in svg], name
    captions = (folder / figures.CAPTIONS).read_text()
    assert captions.count("![") == len(figures.FIGURES)
    assert "3 seeds" in captions


def test_the_same_figures_are_the_same_files(study, written, tmp_path, monkeypatch):
    few = {name: figures.FIGURES[name] for name in ("selections", "figure3-hours")}
    monkeypatch.setattr(figures, "FIGURES", few)
    for file in figures.draw_figures(read_results(study), COLUMNS, tmp_path)[:-1]:
        assert file.read_bytes() == (written[0] / file.name).read_bytes(), file


@pytest.mark.parametrize(
    ("depth", "seeds", "questions"),
    [(32, (0,), 20), (40, (0, 1, 2), 4)],
    ids=["one seed", "40 layers, wide intervals"],
)
def test_texts_can_be_read(depth, seeds, questions, tmp_path, monkeypatch):
    """16 rows, half of them with long names; 8 numbers of layers, which are close to each other."""
    for module in ("tests.fixtures.study", "tests.visual_region.study.figures.made"):
        monkeypatch.setattr(f"{module}.DEPTH", depth)
    every = ("selections", "shares", "curve")
    rows = {
        "all layers": MadeRow("all", 1.0, every, seeds, (100, 25, 10)),
        "sparse-uniform": MadeRow(f"sparse-uniform:{depth // 4}", 0.95, every, seeds, (100, 25, 10)),
        **{
            name: MadeRow(f"{name}:{depth // 4}", 0.6, ("selections",), seeds)
            for name in ("lower", "lower-middle", "upper-middle", "top", "hybrid")
        },
        **{f"{LONG} ({i})": MadeRow(f"random:8@{i}", 0.5 + i / 20, ("selections",), seeds) for i in range(9)},
        **{f"{n} layers": MadeRow(f"sparse-uniform:{n}", 0.9, ("depths",), seeds) for n in (1, 2, 4, 6, 7, 16)},
    }
    make_study(tmp_path, rows, questions)
    found = draw(complete(tmp_path, ("all layers", "sparse-uniform", f"{LONG} (0)")), tmp_path / "figures", write=False)
    assert list(found) == list(figures.FIGURES)
    wrong = {name: faults(figure) for name, figure in found.items()}
    pyplot.close("all")
    assert {name: texts for name, texts in wrong.items() if texts} == {}


def test_points_are_the_paired_differences(study, written):
    stack, points = written[1]["selections"].axes
    board = Board([r for r in read_results(study) if r.cell.share == 100], visual(COLUMNS), "selections")
    rows = sorted(board.rows, key=lambda row: -board.value(row, board.averaged).value)
    assert [label.get_text() for label in stack.get_yticklabels()] == [row.name for row in rows]
    whole = next(row for row in rows if row.tunes_all)
    for row, bars in zip(rows, points.containers, strict=True):
        expected = board.difference(row, whole, board.averaged)
        line, _, whiskers = bars.lines
        assert line.get_xdata()[0] == pytest.approx(expected.value)
        if row is not whole:
            assert whiskers[0].get_segments()[0][:, 0] == pytest.approx([expected.low, expected.high])
    tuned = stack.collections[0].get_array().reshape(len(rows), DEPTH)
    assert [row.sum() for row in tuned] == pytest.approx([row.number for row in rows])
    kept = {text.get_text() for text in points.texts}
    assert f"{100 * board.ratio(rows[-1], whole, board.averaged).value:.1f}%" in kept


def test_lines_by_depth_are_the_scores(study, written):
    average = written[1]["figure2-depths"].axes[0]
    board = Board(read_results(study), visual(COLUMNS))
    assert average.get_title() == "average of 3"
    own = {100: {"all layers", "sparse-uniform", "top layer", "sparse-uniform, half"}}
    for bars, share in zip(average.containers, (100, 25, 10), strict=True):
        names = own.get(share, {"all layers", "sparse-uniform"})
        rows = [row for row in board.rows if row.share == share and row.name in names]
        expected = [board.value(row, board.averaged).value for row in sorted(rows, key=lambda row: row.number)]
        assert bars.lines[0].get_ydata() == pytest.approx(expected)
    marks = [line.get_ydata()[0] for line in average.lines if line.get_transform() == average.get_yaxis_transform()]
    whole = {row.share: board.value(row, board.averaged).value for row in board.rows if row.name == "all layers"}
    assert marks == pytest.approx([0.98 * whole[share] for share in (100, 25, 10)])


def test_hours_are_those_of_the_runs(study, written):
    (axis,) = written[1]["figure3-hours"].axes
    by_size = {}
    for result in read_results(study):
        if result.cell.share == 100 and {"depths", "shares"} & set(result.cell.experiments):
            by_size.setdefault(len(result.cell.layers), []).append(60 * result.run["device_hours"])
    expected = [np.mean(by_size[size]) for size in sorted(by_size)]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx(expected)


def test_curves_are_the_scores_without_layers(study, written):
    figure = written[1]["figure4-pruning"]
    gqa = next(axis for axis in figure.axes if axis.get_title() == "GQA")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["sparse-uniform", "all layers"]
    whole = written[1]["figure1-pruning"].axes[0].containers[-1]
    for bars, row, cost in ((gqa.containers[0], "sparse-uniform", 4), (gqa.containers[1], "all layers", 2)):
        scores = [
            [made_reports(row, 1.0 - n / cost, seed)["gqa"].headline.value for seed in range(3)] for n in range(5)
        ]
        assert bars.lines[0].get_ydata() == pytest.approx(100 * np.mean(scores, axis=1))
    assert whole.lines[0].get_ydata() == pytest.approx(gqa.containers[1].lines[0].get_ydata())


def test_perplexities_are_geometric_means(written):
    axes = written[1]["figure1-reversion"].axes
    for axis, corpus in zip(axes, CORPORA, strict=True):
        tables = [made_reversion(seed)["rows"] for seed in range(3)]
        values = [[table[name]["perplexity"][corpus]["value"] for table in tables] for name in tables[0]]
        *parts, backbone = np.exp(np.log(values).mean(1))
        assert [bars.lines[0].get_xdata()[0] for bars in axis.containers] == pytest.approx(parts)
        assert [text.get_text() for text in axis.texts] == [f"{backbone:.3g} →"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["none", "0–2", "3–5", "6–8", "9–11", "all"]


def test_heat_maps_hold_the_files(study, written):
    files = [ScoreFile.read(study / f"cells/all-layers_seed{seed}_100/attention/{min(SETS)}.json") for seed in range(3)]
    image = written[1]["figure5-attention"].axes[0].images[0].get_array()
    expected = np.concatenate([file.entry("image-attention")["per_sample"] for file in files])
    assert np.allclose(image.data, expected)
    line, _, below, _ = written[1]["metrics"].axes
    values = [
        ScoreFile.read(study / f"cells/all-layers_seed{seed}_100/scores.json").entry("bi")["values"]
        for seed in range(3)
    ]
    assert line.lines[0].get_ydata() == pytest.approx(np.mean(values, axis=0))
    assert np.allclose(below.images[0].get_array().data, values)


def test_what_is_missing_is_said(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    shutil.rmtree(folder / "cells/sparse-uniform_seed2_100")
    for cell in folder.glob("cells/all-layers_*_10"):
        shutil.rmtree(cell / "results")
    shutil.rmtree(folder / "cells/all-layers_seed1_100/attention")
    assert list(draw(folder, tmp_path, write=False)) == list(figures.FIGURES)
    pyplot.close("all")
    text = (tmp_path / figures.CAPTIONS).read_text()
    assert "- sparse-uniform lacks seed 2\n" in text
    assert "- 3 cells without a score: all-layers_seed0_10, all-layers_seed1_10, all-layers_seed2_10\n" in text
    assert "- 1 cell without attention/*.json: all-layers_seed1_100\n" in text
    assert "2 to 3 seeds" in text


def test_nothing_is_drawn_of_nothing(tmp_path, capsys):
    (captions,) = figures.draw_figures([], COLUMNS, tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" is not drawn: ")[0] for line in printed] == list(figures.FIGURES)
    assert captions.read_text().count("Not drawn: ") == len(figures.FIGURES)


def test_a_broken_file_costs_its_own_figure_only(study, tmp_path, capsys):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    (folder / "cells/all-layers_seed0_100/attention/docvqa.json").write_text("{")
    (folder / "cells/all-layers_seed1_100/reversion.json").write_text("[]")
    found = draw(folder, tmp_path, (*COLUMNS, "vqa"), write=False)
    pyplot.close("all")
    lost = {
        "figure5-attention": "docvqa.json is not a score file",
        "figure1-reversion": "reversion.json is not a file of",
    }
    assert list(found) == [name for name in figures.FIGURES if name not in lost]
    printed = {line.partition(" is not drawn: ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert printed.keys() == lost.keys()
    assert all(text in printed[name] for name, text in lost.items())
    assert "- not measured for any row: vqa\n" in (tmp_path / figures.CAPTIONS).read_text()
    with pytest.raises(StudyError, match="'gqa/' is no column"):
        figures.draw_figures([], ["gqa/"], tmp_path)


def test_any_name_is_shown_as_it_is(tmp_path):
    odd = "_a $x$ & <b>"
    make_study(
        tmp_path,
        {"all": MadeRow("all", 1.0, ("selections", "curve")), odd: MadeRow("top:3", 0.5, ("curve", "selections"))},
        4,
    )
    complete(tmp_path)
    made_curve(odd, 1.0, (9, 10, 11), 0).write(tmp_path / "cells" / f"{odd.replace(' ', '-')}_seed0_100/curve.json")
    found = draw(tmp_path, tmp_path / "figures", write=False)
    assert odd in [label.get_text() for label in found["selections"].axes[0].get_yticklabels()]
    assert odd in [text.get_text() for text in found["figure4-pruning"].legends[0].get_texts()]
    pyplot.close("all")


def test_names_are_wrapped_and_stay_apart():
    assert drawing.wrapped("short") == "short"
    assert [len(line) <= 30 for line in drawing.wrapped(LONG).split("\n")] == [True, True]
    assert len(set(drawing.wrapped_all([f"{LONG} {i} {LONG}" for i in range(3)]))) == 3
