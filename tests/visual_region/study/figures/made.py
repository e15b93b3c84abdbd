"""Files that figures are drawn from, made for the cells of tests/fixtures/study.py."""

import json
from pathlib import Path

import numpy as np

from llava.files import write_json
from tests.fixtures.study import DEPTH, made_reports
from visual_region.curve_file import CheckpointCurve, Curve, Point
from visual_region.layers import LayerSelection

CORPORA = {
    "data/ocrvqa.json": ({"template": "v1"}, 2.4),
    "data/docvqa.json": ({"template": "v1"}, 30.0),
    "data/wikitext.txt": ({"documents": 1}, 11.4),
    "data/pile_10k.jsonl": ({"documents": 40}, 29.6),
}
SETS = ("docvqa", "ocrvqa", "tdiuc", "refcocog")


def made_curve(row: str, skill: float, layers: tuple[int, ...], seed: int, most: int = 4) -> Curve:
    """Every removed layer costs half a unit of skill, and less in a model tuned in a region."""
    points = [
        Point(
            n,
            tuple(range(n)),
            ("outside", "anywhere"),
            made_reports(row, skill - n / (2 if len(layers) == DEPTH else 4), seed),
        )
        for n in range(most + 1)
    ]
    return Curve(checkpoints=[CheckpointCurve("made", "0", DEPTH, layers, (), None, points)])


def made_reversion(seed: int) -> dict:
    """A file of `python -m visual_region perplexity` with the paper's quarters."""
    quarters = [f"{DEPTH * i // 4}-{DEPTH * (i + 1) // 4 - 1}" for i in range(4)]
    layers = {"as it is": ()} | {f"{s} reverted": LayerSelection.parse(s, DEPTH).layers for s in (*quarters, "all")}
    rng, rows = np.random.default_rng(seed), {}
    for place, (name, own) in enumerate(layers.items()):
        values = {
            c: v * (1 + 0.05 * place + 0.02 * rng.normal()) * (10 if len(own) == DEPTH else 1)
            for c, (_, v) in CORPORA.items()
        }
        cells = {c: {"value": v, "low": 0.95 * v, "high": 1.06 * v, "samples": 40} for c, v in values.items()}
        rows[name] = {"layers": list(own), "perplexity": cells}
    return {"settings": {}, "corpora": {name: details for name, (details, _) in CORPORA.items()}, "rows": rows}


def made_attention(seed: int, name: str, samples: int = 20) -> dict:
    rng = np.random.default_rng([seed, *name.encode()])
    rows = (rng.random((samples, DEPTH)) * np.linspace(0.4, 1.5, DEPTH)).tolist()
    entry = {"values": rows[0], "per_sample": rows, "weights": [1.0] * samples, "samples": samples}
    return {"num_layers": DEPTH, "metrics": {"image-attention": entry}, "data": {"file": f"{name}.json"}}


def complete(out: Path, measured: tuple[str, ...] = ("all layers",)) -> Path:
    """Gives cells of a made study with all the data curves, and those of the rows `measured` the other files too."""
    for file in sorted(out.glob("cells/*/cell.json")):
        cell = json.loads(file.read_text())
        if cell["selection"] is None or cell["share"] != 100:
            continue
        folder, layers, seed = file.parent, tuple(cell["layers"]), cell["seed"]
        if cell["selection"] == "all" or cell["row"] == "sparse-uniform":
            made_curve(cell["row"], 1.0, layers, seed).write(folder / "curve.json")
        if cell["row"] in measured:
            write_json(file, cell | {"experiments": [*cell["experiments"], "reversion", "attention"]})
            write_json(folder / "reversion.json", made_reversion(seed))
            for name in SETS:
                write_json(folder / "attention" / f"{name}.json", made_attention(seed, name))
    return out
