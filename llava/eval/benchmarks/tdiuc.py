"""TDIUC, validation: accuracy, each question type, and the means per type, as the authors' script defines them.

The script compares class numbers; a reply belongs to the class of the answer that it equals without case, outer blanks
and a final full stop. Replies that equal no answer of the vocabulary are counted.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava.eval.benchmarks.base import Benchmark, Published, Setting
from llava.eval.benchmarks.preparing import SHORT, Options, check_count, find, question, set_up
from llava.eval.scoring.group_means import mean_of_group_means
from llava.eval.scoring.pairing import ScoringError, expecting, pair, read_json
from llava.eval.scoring.report import Measure, Report, group
from llava.eval.scoring.rules import arithmetic_mean, harmonic_mean, normalise
from llava.eval.scoring.statistics import RESAMPLES, draw_counts, percentiles

IMAGES = "val2014"
ANNOTATIONS = "mscoco_val2014_annotations.json"
OFFICIAL_QUESTIONS = "OpenEnded_mscoco_val2014_questions.json"
PUBLISHED = Published(538868, "questions")
_TYPES = (
    "absurd activity_recognition attribute color counting object_presence object_recognition positional_reasoning "
    "scene_recognition sentiment_understanding sport_recognition utility_affordance"
)
TYPES = tuple(_TYPES.split())
ABSURD = "absurd"
# The class of all reference answers that the answer key lacks.
OUTSIDE = "-1"
MEANS: dict[str, Callable[[Sequence[float]], float]] = {"arithmetic": arithmetic_mean, "harmonic": harmonic_mean}
# Right and wrong answers, by class of the reference answer.
Cells = dict[str, list[int]]


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl of the validation split; --sample makes a set that can be answered in reasonable time."""
    source = find(raw, f"Questions/{OFFICIAL_QUESTIONS}", OFFICIAL_QUESTIONS)
    annotations = find(raw, f"Annotations/{ANNOTATIONS}", ANNOTATIONS)
    images = find(raw, f"Images/{IMAGES}", IMAGES)
    answered = references(read_json(annotations))
    with expecting(f"{source} is not TDIUC's file of questions, or lacks annotations"):
        rows = [
            question(
                entry["question_id"],
                f"COCO_val2014_{str(entry['image_id']).zfill(12)}.jpg",
                f"{entry['question']}\n{SHORT}",
                category=answered[str(entry["question_id"])][0],
            )
            for entry in read_json(source)["questions"]
        ]
    check_count(PUBLISHED, len(rows), options)
    check_count(Published(len(rows), "annotations"), len(answered), options)
    return set_up(out, {ANNOTATIONS: annotations, IMAGES: images}, "questions.jsonl", rows, options, images)


def score(
    answers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    answer_key: Collection[str] | None = None,
    asked: Sequence[str] | None = None,
    missing: str = "error",
) -> Report:
    """Accuracy, and the means over types: of accuracies, and of accuracies averaged over answers within each type.

    Args:
        annotations: the official file: `annotations` with `question_id`, `question_type`, `answers` (the first counts).
        answer_key: the answers that are classes; a reference outside it counts as wrong, and all such references are
            one class. Default: all references of the file.
    """
    truths = references(annotations)
    vocabulary = {normalise(answer) for answer in answer_key or (answer for _, answer in truths.values())}
    paired = pair(answers, truths, asked=asked, missing=missing)
    types = [reply.truth[0] for reply in paired.replies]
    classes = [normalise(reply.truth[1]) for reply in paired.replies]
    classes = [name if name in vocabulary else OUTSIDE for name in classes]
    hits = [
        float(reply.text is not None and name != OUTSIDE and normalise(reply.text) == name)
        for reply, name in zip(paired.replies, classes, strict=True)
    ]
    cells: dict[str, Cells] = {}
    for kind, name, hit in zip(types, classes, hits, strict=True):
        cells.setdefault(kind, {}).setdefault(name, [0, 0])[0 if hit else 1] += 1
    # The bootstrap draws in this order; sorted, the order of the questions does not matter.
    cells = {kind: dict(sorted(found.items())) for kind, found in sorted(cells.items())}
    unknown = [line for line in answers if normalise(line["text"]) not in vocabulary]
    metrics = {"accuracy": Measure.of(hits)} | means_per_type(cells)
    others = [hit for hit, kind in zip(hits, types, strict=True) if kind != ABSURD]
    if others and len(others) < len(hits):
        metrics["accuracy_without_absurd"] = Measure.of(others)
    details = {
        "vocabulary": "answer key" if answer_key else "reference answers of the annotations",
        "vocabulary_size": len(vocabulary),
        "out_of_vocabulary": len(unknown),
        "out_of_vocabulary_rate": len(unknown) / len(answers),
        "references_outside_the_key": Counter(classes)[OUTSIDE],
        "normalised_per_type": {kind: _normalised(kinds) for kind, kinds in cells.items()},
    }
    report = Report.of("tdiuc", paired, hits, metrics, groups={"type": group(types, hits)}, details=details)
    if absent := [kind for kind in TYPES if kind not in cells]:
        report.warnings.append(f"no question of type {', '.join(absent)}: the means are over {len(cells)} types")
    return report


def references(annotations: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Question id -> type, first answer.

    Raises:
        ScoringError: another kind of file.
    """
    with expecting("the annotations are not a TDIUC file with types and answers"):
        entries = annotations["annotations"]
        return {str(e["question_id"]): (e["question_type"], str(e["answers"][0]["answer"])) for e in entries}


def means_per_type(cells: Mapping[str, Cells]) -> dict[str, Measure]:
    """Arithmetic and harmonic means over types, plain and normalised, with and without `absurd`.

    The plain arithmetic mean has the interval of `mean_of_group_means`. The others have a bootstrap's, which draws anew
    within each type, so that every draw has every type. Drawing cannot move a type that is all right or all wrong (or a
    single question): with such a type among them, they have no interval.
    """
    rng = np.random.default_rng(0)
    draws = {
        kind: draw_counts(np.array(list(found.values())).T.reshape(-1), RESAMPLES, rng, _drawn)
        for kind, found in cells.items()
    }
    tables = {
        prefix: ({kind: value(found) for kind, found in cells.items()}, {kind: d[:, i] for kind, d in draws.items()})
        for i, (prefix, value) in enumerate({"": _accuracy, "normalised_": _normalised}.items())
    }
    measures = {}
    for suffix, left_out in (("", ()), ("_without_absurd", (ABSURD,))):
        kinds = [kind for kind in cells if kind not in left_out]
        if not kinds or (left_out and len(kinds) == len(cells)):
            continue
        samples = sum(sum(map(sum, cells[kind].values())) for kind in kinds)
        all_vary = all(0 < _accuracy(cells[kind]) < 1 for kind in kinds)
        for prefix, (values, of_draws) in tables.items():
            for name, mean in MEANS.items():
                drawn = mean([of_draws[kind] for kind in kinds])
                measures[f"{prefix}{name}_mpt{suffix}"] = Measure.with_interval(
                    mean([values[kind] for kind in kinds]),
                    percentiles(np.asarray(drawn)) if all_vary else None,
                    samples,
                )
        measures[f"arithmetic_mpt{suffix}"] = mean_of_group_means({kind: _hits(cells[kind]) for kind in kinds})
    return measures


def _hits(cells: Cells) -> list[float]:
    return [1.0] * sum(right for right, _ in cells.values()) + [0.0] * sum(wrong for _, wrong in cells.values())


def _accuracy(cells: Cells) -> float:
    return sum(right for right, _ in cells.values()) / sum(map(sum, cells.values()))


def _normalised(cells: Cells) -> float:
    """Mean over classes of each class's accuracy: common answers weigh no more than rare ones."""
    return arithmetic_mean([right / (right + wrong) for right, wrong in cells.values()])


def _drawn(drawn: np.ndarray) -> np.ndarray:
    """`_accuracy` and `_normalised` `(n, 2)` of drawn counts `(n, 2 * classes)`, right ones first."""
    right, wrong = np.split(drawn, 2, axis=1)
    size = right + wrong
    mean = (right / np.maximum(size, 1)).sum(1) / (size > 0).sum(1)
    return np.stack([right.sum(1) / size.sum(1), mean], axis=1)


def read_answer_key(path: str | Path) -> set[str]:
    """Answers of the authors' sample_answerkey.csv: lines of answer, number."""
    with open(path, encoding="utf-8", newline="") as file:
        answers = {row[0] for row in csv.reader(file) if row}
    if not answers:
        raise ScoringError(f"{path} holds no answers")
    return answers


def finish(args: argparse.Namespace, report: Report, file: str | Path) -> None:
    rate = 100 * report.details["out_of_vocabulary_rate"]
    print(f"out of vocabulary: {rate:.2f}% of the replies ({report.details['vocabulary']})")


TDIUC = Benchmark(
    name="tdiuc",
    column="TDIUC",
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    images="{data}/val2014",
    answer_flags=("--max_new_tokens", "32"),
    settings=(Setting("ANSWER_KEY", "the authors' sample_answerkey.csv", score_flag="--answer-key"),),
    published=PUBLISHED,
    count=lambda annotations, args: len(annotations["annotations"]),
    annotation_help=ANNOTATIONS,
    add_score_flags=lambda parser: parser.add_argument(
        "--answer-key", help="sample_answerkey.csv; default: all reference answers are classes"
    ),
    options=lambda args: {"answer_key": read_answer_key(args.answer_key) if args.answer_key else None},
    finish=finish,
)
