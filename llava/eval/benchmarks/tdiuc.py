"""TDIUC, validation: accuracy, each question type, and the means per type, as the authors' script defines them.

The script compares class numbers; a reply belongs to the class of the answer that it equals without case, outer blanks
and a final full stop.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from llava.eval.benchmarks.base import Benchmark, Published, Setting
from llava.eval.benchmarks.preparing import SHORT, Options, check_count, find, question, set_up
from llava.eval.benchmarks.training import Sample, Source, Training, items
from llava.eval.scoring.pairing import Answers, ScoringError, expecting, pair, read_json
from llava.eval.scoring.report import Measure, Report, by_group, group, mean_of_group_means
from llava.eval.scoring.rules import harmonic_mean, normalise
from llava.eval.scoring.statistics import RESAMPLES, draw_counts, percentiles

IMAGES = "val2014"
ANNOTATIONS = "mscoco_val2014_annotations.json"
OFFICIAL_QUESTIONS = "OpenEnded_mscoco_val2014_questions.json"
PUBLISHED = Published(538868, "questions")
SPLITS = {"train": Published(1115299, "questions"), "val": PUBLISHED}
TYPES = (
    *("absurd", "activity_recognition", "attribute", "color", "counting", "object_presence", "object_recognition"),
    *("positional_reasoning", "scene_recognition", "sentiment_understanding", "sport_recognition"),
    "utility_affordance",
)
ABSURD = TYPES[0]
# The class of all reference answers that the answer key lacks.
OUTSIDE = "-1"
MEANS = {"arithmetic": lambda values: sum(values) / len(values), "harmonic": harmonic_mean}


def prepare(raw: Path, out: Path, options: Options) -> int:
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


def open_split(raw: Path, out: Path, split: str, options: Options) -> Source | None:
    """A split of the official files. All answers of the split are held in memory, a few texts by number of question."""
    year = f"{split}2014"
    places = _places(split)
    found = [next((raw / name for name in names if (raw / name).is_file()), None) for names in places]
    if None in found:
        return None
    questions, annotations = found

    def samples(_: bool) -> Iterator[Sample]:
        # Equal answers are one text in memory.
        with expecting(f"{questions} and {annotations.name} are not TDIUC's, or not of one split"):
            answers = {
                entry["question_id"]: sys.intern(str(entry["answers"][0]["answer"]))
                for entry in items(annotations, "annotations", "TDIUC's file of answers")
            }
            for entry in items(questions, "questions", "TDIUC's file of questions"):
                key, image = entry["question_id"], image_name(entry["image_id"], year)
                yield Sample(str(key), image, f"{entry['question']}\n{SHORT}", answers[key])

    return Source(find(raw, f"Images/{year}", year), samples, SPLITS[split])


def _places(split: str) -> tuple[list[str], list[str]]:
    """Where a download has the questions and the annotations of a split."""
    names = f"OpenEnded_mscoco_{split}2014_questions.json", f"mscoco_{split}2014_annotations.json"
    return tuple([f"{folder}/{name}", name] for folder, name in zip(("Questions", "Annotations"), names, strict=True))


def image_name(image: int | str, year: str) -> str:
    """The file of one of COCO's images."""
    return f"COCO_{year}_{str(image).zfill(12)}.jpg"


def score(
    answers: Answers, annotations: Mapping[str, Any], answer_key: Collection[str] | None = None, **pairing: Any
) -> Report:
    """Accuracy, and the means over types: of accuracies, and of accuracies averaged over answers within each type.

    Args:
        annotations: the official file: `annotations` with `question_id`, `question_type`, `answers` (the first counts).
        answer_key: the answers that are classes; a reference outside it counts as wrong, and all such references are
            one class. Default: all references of the file.
    """
    truths = references(annotations)
    vocabulary = {normalise(answer) for answer in answer_key or (answer for _, answer in truths.values())}
    paired = pair(answers, truths, **pairing)
    types = [reply.truth[0] for reply in paired.replies]
    classes = [normalise(reply.truth[1]) for reply in paired.replies]
    classes = [name if name in vocabulary else OUTSIDE for name in classes]
    hits = [
        float(reply.text is not None and name != OUTSIDE and normalise(reply.text) == name)
        for reply, name in zip(paired.replies, classes, strict=True)
    ]
    tally = Counter(zip(types, classes, hits, strict=True))
    # Right and wrong answers by class, `(2, classes)`; sorted: the order of the questions must not change the draws.
    cells = {
        kind: np.array([[tally[kind, name, hit] for name in sorted(set(names))] for hit in (1, 0)])
        for kind, names in by_group(types, classes).items()
    }
    unknown = sum(normalise(line["text"]) not in vocabulary for line in answers)
    metrics = {"accuracy": Measure.of(hits)} | means_per_type(cells)
    others = [hit for hit, kind in zip(hits, types, strict=True) if kind != ABSURD]
    if others and len(others) < len(hits):
        metrics["accuracy_without_absurd"] = Measure.of(others)
    details = {
        "vocabulary": "answer key" if answer_key else "reference answers of the annotations",
        "vocabulary_size": len(vocabulary),
        "out_of_vocabulary": unknown,
        "out_of_vocabulary_rate": unknown / len(answers),
        "references_outside_the_key": Counter(classes)[OUTSIDE],
        "normalised_per_type": {kind: float(_rates(found.reshape(1, -1))[0, 1]) for kind, found in cells.items()},
    }
    report = Report.of("tdiuc", paired, hits, metrics, groups={"type": group(types, hits)}, details=details)
    if absent := [kind for kind in TYPES if kind not in cells]:
        report.warnings.append(f"no question of type {', '.join(absent)}: the means are over {len(cells)} types")
    return report


def references(annotations: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Question id -> type, first answer."""
    with expecting("the annotations are not a TDIUC file with types and answers"):
        entries = annotations["annotations"]
        return {str(e["question_id"]): (e["question_type"], str(e["answers"][0]["answer"])) for e in entries}


def means_per_type(cells: Mapping[str, np.ndarray]) -> dict[str, Measure]:
    """Arithmetic and harmonic means over types, plain and normalised, with and without `absurd`.

    The plain arithmetic mean has the interval of `mean_of_group_means`. The others have the bootstrap's, with resamples
    of each type. All resamples of a type are equal if it is all right or all wrong (or a single question): with such a
    type among them, they have no interval.

    Args:
        cells: type -> right and wrong answers by class, integers `(2, classes)`.
    """
    rng = np.random.default_rng(0)
    rates = {kind: _rates(found.reshape(1, -1))[0] for kind, found in cells.items()}
    draws = {kind: draw_counts(found.reshape(-1), RESAMPLES, rng, _rates) for kind, found in cells.items()}
    measures = {}
    for suffix, kinds in (("", list(cells)), ("_without_absurd", [kind for kind in cells if kind != ABSURD])):
        if not kinds or (suffix and len(kinds) == len(cells)):
            continue
        samples = sum(int(cells[kind].sum()) for kind in kinds)
        all_vary = all(0 < rates[kind][0] < 1 for kind in kinds)
        for i, prefix in enumerate(("", "normalised_")):
            for name, mean in MEANS.items():
                interval = percentiles(mean([draws[kind][:, i] for kind in kinds])) if all_vary else None
                value = mean([rates[kind][i] for kind in kinds])
                measures[f"{prefix}{name}_mpt{suffix}"] = Measure.with_interval(value, interval, samples)
        hits = {kind: np.repeat([1.0, 0.0], cells[kind].sum(1)) for kind in kinds}
        measures[f"arithmetic_mpt{suffix}"] = mean_of_group_means(hits)
    return measures


def _rates(counts: np.ndarray) -> np.ndarray:
    """Accuracy, and the mean over classes of each class's accuracy `(n, 2)`, of counts `(n, 2 * classes)`."""
    right, wrong = np.split(counts, 2, axis=1)
    size = right + wrong
    normalised = (right / np.maximum(size, 1)).sum(1) / (size > 0).sum(1)
    return np.stack([right.sum(1) / size.sum(1), normalised], axis=1)


def read_answer_key(path: str | Path) -> set[str]:
    """The authors' sample_answerkey.csv: lines of answer, number."""
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
TDIUC_TRAINING = Training(open_split, tuple(SPLITS), "val", tuple(chain(*_places("train"), *_places("val"))))
