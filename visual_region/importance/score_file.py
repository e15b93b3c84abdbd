"""Writing a score file (its format: visual_region/scores.py)."""

import json
import math
from pathlib import Path
from typing import Any

from llava.files import written_whole
from llava.names import listed
from visual_region.importance.means import Scores
from visual_region.importance.resampling import CONFIDENCE, interval
from visual_region.scores import ScoreError


def entry_of(scores: Scores, resamples: int, seed: int, parts: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file's entry of one metric; `parts` are the metrics whose mean it is."""
    rows = [None if row.isnan().any() else row.tolist() for row in scores.per_sample]
    samples, bounds = sum(row is not None for row in rows), {}
    if samples > 1:
        low, high = interval(scores, resamples, seed)
        bounds = {"low": low.tolist(), "high": high.tolist(), "confidence": CONFIDENCE}
    return {
        "values": scores.values().tolist(),
        **bounds,
        "samples": samples,
        "per_sample": rows,
        **({"parts": list(parts)} if parts else {"weights": scores.weights.tolist()}),
    }


def write_scores(path: str | Path, content: dict[str, Any]) -> None:
    """Writes the file; raises `ScoreError` for a score that is not a finite number."""
    for name, entry in content["metrics"].items():
        wrong = [i for i, value in enumerate(entry["values"]) if not math.isfinite(value)]
        if wrong:
            why = "hidden states or weights overflowed there. Score in another --dtype (bf16 or fp32)"
            raise ScoreError(f"the {name} of {listed('layer', wrong)} is not a finite number: {why}")
    with written_whole(path) as aside:
        aside.write_text(_readable(content), encoding="utf-8")


def _readable(content: dict[str, Any]) -> str:
    """JSON with one line per key of the upper levels, and long lists on one line."""

    def lines(value: Any, depth: int) -> str:
        if not depth or not isinstance(value, dict) or not value:
            return json.dumps(value, ensure_ascii=False)
        indent = "  " * (4 - depth)
        rows = [f"{indent}{json.dumps(key)}: {lines(item, depth - 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent[2:]}}}"

    return lines(content, 3) + "\n"
