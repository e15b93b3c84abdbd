"""The table of Figure 1, left: perplexity with a part of the layers set back to the backbone's weights."""

from collections.abc import Sequence

from visual_region.study.missing import rows_with
from visual_region.study.results import REVERSION_FILE, CellResult
from visual_region.study.reversions import part_label, reversions_of
from visual_region.study.statistics import covers_text
from visual_region.study.tables.page import NONE, Grid, Page, Text
from visual_region.study.tables.scores import interval_text, labels, numbers, row_record

_DIGITS = 3
"""After the point: a perplexity of known answers is near 1."""


def reversion_page(results: Sequence[CellResult]) -> Page | None:
    """The perplexities of every row by the layers that are set back; None without a file.

    Raises:
        StudyError: a file is not one of perplexities, or none holds one.
    """
    rows, missing = rows_with(results, "reversion", REVERSION_FILE)
    if not rows:
        return None
    found = reversions_of(rows)
    shares = len({row.share for row in rows}) > 1
    blocks, records = [], []
    for row in rows:
        own, lines = found.values[row.name, row.share], []
        for variant, layers in found.variants.items():
            line = [*labels(row, shares), Text(str(len(row.cells))), Text(part_label(layers, row.depth))]
            for corpus, title in found.titles.items():
                value = own.get((variant, corpus))
                line.append(Text(f"{value.value:.{_DIGITS}f}", interval_text(value, _DIGITS)) if value else Text(NONE))
                records.append(
                    row_record(row)
                    | {"set_back": list(layers), "corpus": title, "answers": corpus in found.answers}
                    | numbers("", value)
                )
            lines.append(line)
        blocks.append(lines)
    kinds = [f"{title} ({'answers' if name in found.answers else 'text'})" for name, title in found.titles.items()]
    covered = covers_text((len(row.cells) for row in rows), "pieces of text")
    caption = (
        "Perplexity (lower is better) of the trained model as it is, and with parts of its layers set back to the "
        f"backbone's weights: of answers to images, or of text. Geometric mean over the seeds (95% interval over "
        f"{covered})."
    )
    head = ["", "layers", *(["data"] if shares else []), "seeds", "set back", *kinds]
    return Page("reversion", "Layers set back (Figure 1, left)", [Grid(caption, head, blocks)], missing, records)
