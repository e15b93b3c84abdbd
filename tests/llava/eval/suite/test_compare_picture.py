"""The picture of a comparison, measured: nothing overlaps, nothing is cut off, everything is named."""

import warnings

import matplotlib
import pytest
from PIL import Image

from llava.eval.benchmarks import VISUAL
from llava.eval.suite.compare import compare
from llava.eval.suite.compare_picture import draw, picture
from tests.llava.eval.suite.test_compare import perplexity, report, results

matplotlib.use("Agg")
LONG = "llava-v1.5-7b-lora-sparse-uniform-25-percent-of-layers_seed42_a-name-that-never-ends-" * 3
TEXTS = ("perplexity", "wikitext", "pile_10k")
NLL = [20.0 + 3 * (i % 5) for i in range(40)]


def whole(shift):
    made = results(shift) | {
        "mmlu": report("mmlu", [1, 0, 1, 0]),
        "bbh": report("bbh", [1] * (9 - shift) + [0] * (9 + shift)),
    }
    return made | {"perplexity": perplexity([x + shift for x in NLL])}


def only_bbh(right):
    return {"bbh": report("bbh", [1] * right + [0] * (20 - right))}


CASES = {
    "three, every benchmark": {"all": results() | only_bbh(9), "a": results(2) | only_bbh(4), "b": results(4)},
    "two": {"all layers": results(), "sparse 25%": results(4)},
    "long names": {
        LONG + "all": results(),
        "_" + LONG: results(2),
        "of $x_1$ or $y": results(4),
        "w " * 200: results(),
    },
    "perplexity alone": {
        "all": {"perplexity": perplexity(NLL)},
        LONG: {"perplexity": perplexity([1 + x for x in NLL])},
    },
    "one piece": {"all": {"perplexity": perplexity([20.0])}, "b": {"perplexity": perplexity([18.0])}},
    "three corpora of two": {
        f"model {i}": results(i) | dict.fromkeys(TEXTS, perplexity([x + i for x in NLL])) for i in range(3)
    },
    "nothing kept": {"all": only_bbh(9), "region": only_bbh(3)},
    "equal": {"all": results(names=VISUAL[:1]), "copy": results(names=VISUAL[:1])},
    "everything of 13": {
        f"model {i}": results(i) | {"perplexity": perplexity([x + i for x in NLL])} for i in range(13)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps_or_is_cut_off(case):
    made = CASES[case]
    figure = picture(compare(made, next(iter(made))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.canvas.draw()
        frame, legend = figure.bbox, figure.legends[0]
        boxes = [legend.get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)]
        for box in boxes:
            assert box.x0 >= frame.x0 - 1
            assert box.y0 >= frame.y0 - 1
            assert box.x1 <= frame.x1 + 1
            assert box.y1 <= frame.y1 + 1
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
        for axes in figure.axes:
            assert axes.has_data()
            assert axes.get_window_extent().height > 60
            texts = [text.get_window_extent() for text in axes.texts]
            for i, box in enumerate(texts):
                assert not any(box.overlaps(other) for other in texts[:i])
                assert axes.bbox.y0 < box.y0 < box.y1 < axes.bbox.y1
                assert axes.bbox.x0 < box.x0 < box.x1 < axes.bbox.x1
            # Every point lies inside its axes.
            for line in axes.lines:
                for x, y in line.get_transform().transform(line.get_xydata()):
                    assert axes.bbox.x0 - 1 <= x <= axes.bbox.x1 + 1
                    assert axes.bbox.y0 - 1 <= y <= axes.bbox.y1 + 1
        named = [text.get_text() for text in legend.get_texts()]
        assert len(named) == len(made)
        assert "(reference)" in named[0].replace("\n", " ")
        for name, said in zip(made, named, strict=True):
            assert said.startswith(name.strip()[:40])
    finally:
        matplotlib.pyplot.close(figure)


def test_panels_say_what_they_show():
    made = {"all": results() | {"perplexity": perplexity(NLL)}, "b": whole(2)}
    figure = picture(compare(made, "all"))
    assert [axes.get_xlabel().split("\n")[0] for axes in figure.axes] == [
        "difference to the reference,",
        "% of the reference's average kept,",
        "perplexity as a multiple of the",
    ]
    assert [axes.texts[0].get_text() for axes in figure.axes[1:]] == ["90.0%", "x1.221"]
    matplotlib.pyplot.close(figure)


def test_perplexities_are_ratios_and_no_points():
    """Of every corpus, not of WikiText-2's stream only."""
    made = {
        "all": results() | dict.fromkeys(TEXTS, perplexity(NLL)),
        "b": results(2) | dict.fromkeys(TEXTS, perplexity([x + 1 for x in NLL])),
        "c": results(4) | {"wikitext": perplexity([x + 2 for x in NLL])},
    }
    figure = picture(compare(made, "all"))
    points, _, ratios = figure.axes
    assert not {"perplexity", "WikiText", "Pile-10k"} & {label.get_text() for label in points.get_yticklabels()}
    corpora = ["perplexity", "WikiText", "WikiText", "Pile-10k"]
    assert [label.get_text() for label in ratios.get_yticklabels()] == corpora
    assert [text.get_text() for text in ratios.texts] == ["x1.105", "x1.105", "x1.221", "x1.105"]
    matplotlib.pyplot.close(figure)
    figure = picture(compare({name: {"wikitext": reports["wikitext"]} for name, reports in made.items()}, "all"))
    assert [axes.get_xlabel().split("\n")[0] for axes in figure.axes] == ["perplexity as a multiple of the"]
    matplotlib.pyplot.close(figure)


def test_file(tmp_path):
    draw(compare({"all": whole(0), "sparse": whole(4)}, "all"), tmp_path / "c.png")
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
    assert Image.open(tmp_path / "c.png").size[0] > 600
