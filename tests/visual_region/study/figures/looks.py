"""What is wrong with the look of a figure: texts on each other, outside, or too small for print."""

from collections.abc import Iterator

from matplotlib.figure import Figure
from matplotlib.text import Text


def drawn_texts(figure: Figure) -> Iterator[Text]:
    """Every text that the figure shows; matplotlib keeps labels of ticks outside the axes, which it does not draw."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        if not axes.axison:
            continue
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        for axis in (axes.xaxis, axes.yaxis):
            yield axis.get_offset_text()
            for tick in axis._update_ticks():
                yield from (label for label in (tick.label1, tick.label2) if label.get_visible())


def faults(figure: Figure, least: float = 7.0) -> list[str]:
    """Texts below `least` points, outside the figure, or on another text; the layout is computed first."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in drawn_texts(figure) if text.get_visible() and text.get_text().strip()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    names = [repr(text.get_text()) for text in texts]
    found = [
        f"{name} is of {t.get_fontsize()} pt" for name, t in zip(names, texts, strict=True) if t.get_fontsize() < least
    ]
    page = figure.bbox
    for name, box in zip(names, boxes, strict=True):
        if box.x0 < page.x0 - 1 or box.y0 < page.y0 - 1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1:
            found.append(f"{name} is cut off")
    for i, (name, box) in enumerate(zip(names, boxes, strict=True)):
        for other, theirs in zip(names[i + 1 :], boxes[i + 1 :], strict=True):
            if (
                min(box.x1, theirs.x1) - max(box.x0, theirs.x0) > 0.5
                and min(box.y1, theirs.y1) - max(box.y0, theirs.y0) > 0.5
            ):
                found.append(f"{name} lies on {other}")
    return found
