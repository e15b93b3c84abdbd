"""Writes the results of the quickstart to report.json, report.md and report.png."""

import json
import sys
from pathlib import Path
from typing import Any

from llava.checkpoint.record import LayerRecord
from llava.eval.benchmarks.easy_vqa import EASY_VQA, KINDS
from llava.files import write_json, written_whole
from llava.flags import Parser, run_program
from llava.names import listed
from llava.outputs import PICTURE, FileKind, check_files
from llava.palette import MARKED, PLAIN, SERIES
from llava.tables import markdown_table, text_table
from visual_region.curve_file import OUTSIDE, WAYS, Point, curve_of_entries, read_curve
from visual_region.layers import LayerSelection

STAGES = (
    *("install", "prepare", "pretrain", "finetune", "evaluate", "wrong_image", "score"),
    *("curve", "remove", "heal", "healed"),
)
FILES = {
    "report.json": FileKind("a report of the quickstart", keys=frozenset({"accuracy", "wrong_image", "blind"})),
    "report.md": FileKind("a report of the quickstart as text", ".md", begins=b"# Quickstart"),
    "report.png": PICTURE,
}

EASY = EASY_VQA.name


def collect(out: Path, blind: Path) -> dict[str, Any]:
    """The results of all stages in one object."""
    region = LayerSelection.of_record(LayerRecord.of(_read(out / "lora/config.json")))
    scores = {"accuracy": _read(out / "accuracy.json"), "wrong_image": _read(out / "wrong_image.json")}
    scores |= {"blind": _read(blind)["sample"], "blind_whole_test": _read(blind)["test"]}
    removed = LayerRecord.of(_read(out / "healed/config.json")).removed
    (curve,) = read_curve(out / "curve.json").checkpoints
    measured = {point.layers: point.reports[EASY].extra for point in curve.points}
    scores |= {"before": measured[()], "removed": measured[tuple(removed)]}
    (healed,) = read_curve(out / "healed.json").checkpoints
    scores |= {"healed": healed.points[0].reports[EASY].extra}
    return {
        **{name: {key: score[key] for key in (*KINDS, "questions")} for name, score in scores.items()},
        "without": removed,
        "tuned_layers": list(region.layers),
        "num_layers": region.num_layers,
        "unpruned": _entry(curve.line(OUTSIDE)[0], OUTSIDE),
        "pruned": [_entry(point, way) for way in WAYS for point in curve.line(way)[1:]],
        "seconds": {
            name: int((out / "stages" / name).read_text()) for name in STAGES if (out / "stages" / name).exists()
        },
    }


def _entry(point: Point, way: str) -> dict[str, Any]:
    measure = point.reports[EASY].headline
    layers = {"removed": point.removed, "layers": list(point.layers), "protected": way == OUTSIDE}
    return {**layers, "accuracy": measure.value, "questions": measure.samples}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(report: dict[str, Any]) -> str:
    layers = LayerSelection(tuple(report["tuned_layers"]), report["num_layers"], "tuned")
    names = {
        "accuracy": "this model",
        "wrong_image": "the same model with wrong images",
        "blind": "blind: the most common answer to each question",
        "blind_whole_test": "blind, whole test set",
    }
    gone = listed("layer", report["without"])
    kept = {"before": "unpruned", "removed": f"without {gone}", "healed": f"without {gone}, healed"}
    whole = report["unpruned"]
    accuracy = f"{100 * whole['accuracy']:.1f}"
    removed = [[0, "", accuracy, "", accuracy]]
    by_key = {(entry["protected"], entry["removed"]): entry for entry in report["pruned"]}
    for number in sorted({entry["removed"] for entry in report["pruned"]}):
        entries = [by_key[(protected, number)] for protected in (True, False)]
        cells = [(", ".join(map(str, e["layers"])), f"{100 * e['accuracy']:.1f}") for e in entries]
        removed.append([number, *cells[0], *cells[1]])
    spent = ", ".join(f"{name} {seconds} s" for name, seconds in report["seconds"].items())
    parts = [
        "# Quickstart",
        f"Tuned: {layers.describe()}".replace("\n", "\n\n"),
        _accuracies(report, names),
        f"Accuracy without some layers, on {whole['questions']} of the questions. After another training, other layers "
        "can have the least distance, and their removal can cost more or less:",
        markdown_table(["removed layers", "outside the tuned region", "accuracy", "anywhere", "accuracy"], removed),
        "Healing: the model without these layers learned the unpruned model's answers on training data. The same "
        f"{whole['questions']} questions:",
        _accuracies(report, kept),
        f"Time: {sum(report['seconds'].values())} s ({spent}); of an interrupted stage, that of its last start.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _accuracies(report: dict[str, Any], names: dict[str, str]) -> str:
    rows = [
        [name, report[key]["questions"], *(f"{100 * report[key][kind]:.1f}" for kind in KINDS)]
        for key, name in names.items()
    ]
    return markdown_table(["easy-VQA", "questions", "all", "shape", "colour", "yes/no"], rows)


def models(report: dict[str, Any], out: Path) -> str:
    """The folders of models, their accuracies, which one to use, and how to chat with it."""
    gone, depth = len(report["without"]), report["num_layers"]
    rows = [
        (f"{out}/lora", "before", depth, "a LoRA"),
        (f"{out}/pruned2", "removed", depth - gone, "a full model; healed needs it"),
        (f"{out}/healed", "healed", depth - gone, "a LoRA on pruned2"),
    ]
    table = [(folder, f"{n} layers", f"{100 * report[key]['all']:.1f}%", what) for folder, key, n, what in rows]
    image = "playground/data/easy_vqa/images/test/0.png"
    return "\n".join(
        [
            f"Models, and their accuracy on the same {report['before']['questions']} questions:",
            text_table(table, "<>><"),
            f"Use {out}/lora, or {out}/healed where fewer layers matter more than the difference. Chat with it:",
            f"  {sys.executable} -m llava.serve.cli --model-path {out}/lora --image-file {image}",
        ]
    )


def picture(report: dict[str, Any], path: Path) -> None:
    """Left: accuracy per kind of question. Right: accuracy against the number of removed layers."""
    # These import torch, so they wait until the flags have been read.
    from visual_region.pictures.curves import axis_label, lines_of, pruning_curve
    from visual_region.pictures.figure import new_figure, save

    figure, (bars, lines) = new_figure(1, 2, 11, 4.2)
    series = (
        ("accuracy", "this model", MARKED),
        ("wrong_image", "wrong images", SERIES[2]),
        ("blind", "blind", PLAIN),
    )
    for i, (key, name, colour) in enumerate(series):
        values = [100 * report[key][kind] for kind in KINDS]
        drawn = bars.bar([x + 0.27 * (i - 1) for x in range(len(KINDS))], values, width=0.25, label=name, color=colour)
        bars.bar_label(drawn, fmt="%.0f", fontsize=8, padding=1)
    bars.set_xticks(range(len(KINDS)), ["all", "shape", "colour", "yes/no"])
    bars.set_ylim(0, 118)
    bars.set_yticks(range(0, 101, 20))
    bars.set_ylabel("accuracy, %")
    bars.set_title(f"easy-VQA, {report['accuracy']['questions']} test questions")
    bars.legend(ncols=3, fontsize=8, loc="upper center")
    (curve,) = curve_of_entries([report["unpruned"], *report["pruned"]]).checkpoints
    pruning_curve(lines, lines_of([("", curve)], EASY), "accuracy")
    lines.set_xlabel(axis_label([curve]))
    lines.axhline(100 * report["blind"]["all"], color=PLAIN, linestyle=":", label="blind")
    point = [len(report["without"])], [100 * report["healed"]["all"]]
    lines.plot(*point, label="healed", color=SERIES[3], marker="*", markersize=14, linestyle="none")
    lines.legend(fontsize=8)
    lines.set_title(f"removed layers of {report['num_layers']}, {report['unpruned']['questions']} test questions")
    save(figure, path)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--blind", type=Path, required=True)
    args = parser.parse_args()
    files = {f"--out: {kind.title}": (args.out / name, kind) for name, kind in FILES.items()}
    check_files(files, [args.blind])
    report = collect(args.out, args.blind)
    write_json(args.out / "report.json", report)
    text = markdown(report)
    with written_whole(args.out / "report.md") as aside:
        aside.write_text(text, encoding="utf-8")
    picture(report, args.out / "report.png")
    print(f"\n{text}")
    print(models(report, args.out))
    print(f"Report: {args.out}/report.md, report.json and report.png.")
    if Path(sys.prefix, "bin/activate").is_file():
        print(f"For further commands in this environment, type: source {sys.prefix}/bin/activate")
    print("With a GPU and LLaVA's data in playground/data, the same scripts train LLaVA-1.5-7B:")
    print("  SIZE=7b bash scripts/train/pretrain.sh")
    print("  SIZE=7b TUNE_LAYERS=sparse-uniform:25% bash scripts/train/finetune_lora.sh")


if __name__ == "__main__":
    run_program(main, interrupted="")
