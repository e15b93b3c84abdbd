"""`python -m visual_region select`: selections as lists and pictures, their overlap and stability.

torch and matplotlib are imported in functions, so that a selection by name prints at once.
"""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava.files import write_json, written_whole
from llava.names import spec_labels
from llava.outputs import PICTURE, TABLE, FileKind, check_files
from llava.tables import markdown_table, text_table
from visual_region.layers import LayerSelection, LayerSelectionError, ScoreQuery
from visual_region.scores import ScoreFile

NOT_TRAININGS = (
    "stability resamples the samples that were scored. It does not cover another training of the model, which can "
    "have other scores and other layers"
)
SELECTIONS = FileKind("a file of selections", keys=frozenset({"selections", "jaccard"}))


def run(args: argparse.Namespace) -> None:
    outputs = {
        "--output": (args.output, SELECTIONS),
        "--markdown": (args.markdown, TABLE),
        "--picture": (args.picture, PICTURE),
    }
    check_files(outputs, _score_files(args.spec))
    if args.resamples < 1:
        raise LayerSelectionError(f"--resamples is a whole number from 1 on, not {args.resamples}")
    depth = _depth(args)
    selections = [LayerSelection.parse(spec, depth) for spec in args.spec]
    found = [_stability(selection, args) for selection in selections] if args.stability else []
    for i, selection in enumerate(selections):
        print(f"{selection.spec}\n  {selection.describe()}".replace("\n", "\n  "))
        print(f"  --tune_layers {selection.as_list_spec()}")
        if found:
            print(f"  {_describe(found[i], selection)}")
    if any(found):
        print(f"\n{NOT_TRAININGS}")
    overlaps = [[jaccard(set(a), set(b)) for b in selections] for a in selections]
    if len(selections) > 1:
        print("\nJaccard overlap (layers in both / layers in either)")
        # Numbered columns, so that long specs stay readable.
        rows: list[list[str]] = [["", *(f"({i + 1})" for i in range(len(selections)))]]
        for i, (selection, values) in enumerate(zip(selections, overlaps, strict=True)):
            rows.append([f"({i + 1}) {selection.spec}", *(f"{value:.2f}" for value in values)])
        print(text_table(rows))
    if args.output:
        content: list[dict[str, Any]] = [dict(selection.record.values) for selection in selections]
        for entry, stable in zip(content, found, strict=False):
            entry["stability"] = _stability_entry(stable, args)
        files = sorted(set(map(str, _score_files(args.spec))))
        write_json(args.output, {"selections": content, "jaccard": overlaps, "score_files": files})
        print(f"selections written to {args.output}")
    if args.markdown:
        with written_whole(args.markdown) as aside:
            aside.write_text(_markdown(selections, overlaps, found), encoding="utf-8")
        print(f"table written to {args.markdown}")
    if args.picture:
        from visual_region.pictures.stacks import draw_stacks

        shares = [entry.share if entry else [] for entry in found]
        draw_stacks(selections, args.picture, shares if any(shares) else ())
        print(f"picture written to {args.picture}")


def _depth(args: argparse.Namespace) -> int:
    """The number of layers: of the flag, the checkpoint, or the score files of the specs."""
    if args.num_layers is not None:
        return args.num_layers
    if args.model_path:
        from llava.checkpoint.folder import open_checkpoint

        return open_checkpoint(args.model_path, flag="--model-path", weights=False, with_base=False).depth
    depths = {ScoreFile.read(path).num_layers for path in _score_files(args.spec)}
    if len(depths) != 1:
        why = f"the score files are of {sorted(depths)} layers" if depths else "no score file is given"
        raise LayerSelectionError(f"the number of layers is not known: {why}; give --num-layers or --model-path")
    return depths.pop()


def _score_files(specs: list[str]) -> list[Path]:
    parts = [part for spec in specs for part in spec.split(",") if "#" in part]
    return [Path(part.rpartition("#")[0].strip()).expanduser() for part in parts]


def _entry(selection: LayerSelection) -> tuple[ScoreFile, ScoreQuery] | None:
    """The score file and its use; None unless the spec is one metric of one score file."""
    if "#" not in selection.spec or "," in selection.spec:
        return None
    query = ScoreQuery.parse(selection.spec)
    return ScoreFile.read(query.path), query


def _stability(selection: LayerSelection, args: argparse.Namespace) -> Any:
    """The stability of a selection by one metric; None for other selections, and without several samples."""
    if (source := _entry(selection)) is None:
        return None
    file, query = source
    if not file.has_samples(query.metric) or file.entry(query.metric)["samples"] < 2:
        return None
    from visual_region.importance.resampling import stability

    return stability(file.scores(query.metric), len(selection), query.order, args.resamples, args.seed)


def _stability_entry(found: Any, args: argparse.Namespace) -> dict[str, Any] | None:
    return asdict(found) | {"of": "samples", "resamples": args.resamples, "seed": args.seed} if found else None


def _describe(found: Any, selection: LayerSelection) -> str:
    if found is None:
        return "stability: none, because the selection does not come from several samples"

    def shares(layers: Iterable[int]) -> str:
        return ", ".join(f"{layer} {100 * found.share[layer]:.0f}%" for layer in layers) or "none"

    near = [i for i, share in enumerate(found.share) if share >= 0.05 and i not in selection]
    return (
        f"stability over samples: overlap with resamples {found.jaccard:.3f} [{found.low:.3f}, {found.high:.3f}]; "
        f"chosen in {shares(selection)}; others in 5% and more: {shares(near)}"
    )


def jaccard(a: set[int], b: set[int]) -> float:
    """Layers in both as a share of layers in either."""
    return len(a & b) / len(a | b)


def _markdown(selections: list[LayerSelection], overlaps: list[list[float]], found: list[Any]) -> str:
    """One row per selection; the overlap is with the last one."""
    labels = spec_labels([selection.spec for selection in selections], drop_single=True)
    head = [
        "selection",
        "layers",
        "scores [95% interval]",
        "stability over samples [95% interval]",
        f"overlap with {labels[-1]}",
    ]
    rows = []
    for i, selection in enumerate(selections):
        stable = found[i] if found else None
        stability = f"{stable.jaccard:.2f} [{stable.low:.2f}, {stable.high:.2f}]" if stable else ""
        scores = []
        if source := _entry(selection):
            entry = source[0].entry(source[1].metric)
            for layer in selection:
                interval = f" [{entry['low'][layer]:.3g}, {entry['high'][layer]:.3g}]" if "low" in entry else ""
                scores.append(f"{entry['values'][layer]:.3g}{interval}")
        layers = ", ".join(map(str, selection))
        rows.append([labels[i], layers, ", ".join(scores), stability, f"{overlaps[i][-1]:.2f}"])
    return markdown_table(head, rows)
