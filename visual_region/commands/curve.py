"""`python -m visual_region curve`: accuracy on easy-VQA against layers removed (the paper, section 6 and Figure 4)."""

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers.utils.logging import tqdm

from llava.checkpoint.record import LayerRecord
from llava.eval.answering.answerer import Answerer
from llava.eval.answering.arguments import make_answerer, open_model
from llava.eval.answering.questions import Question, check_images, read_questions
from llava.eval.benchmarks.easy_vqa import score
from llava.families import family_of
from llava.files import write_json
from llava.names import count as counted
from llava.names import some
from llava.outputs import FileKind, check_cache, check_files
from llava.reading import read_json
from visual_region.scores import ScoreError, ScoreFile
from visual_region.surgery import layers_removed, lowest_outside

CURVE = FileKind("a pruning curve", keys=frozenset({"removed", "layers", "accuracy"}))


def run(args: argparse.Namespace) -> None:
    """Writes the file after each point, so that an interrupted run continues there."""
    check_files({"--output": (args.output, CURVE)}, [args.question_file, args.annotation_file, args.scores])
    check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower])
    checkpoint = open_model(args)
    questions = read_questions(args.question_file)[: args.limit]
    check_images(questions, Path(args.image_folder))
    annotations = _read_annotations(args.annotation_file, questions)
    values = ScoreFile.read(args.scores).entry("angular")["values"]
    output = Path(args.output)
    done = json.loads(output.read_text(encoding="utf-8") or "[]") if output.exists() else []
    answerer = make_answerer(args, checkpoint)
    for entries in curve(answerer, questions, annotations, values, args.most, args.batch_size, done):
        write_json(output, entries)
    print(f"the curve is in {output}")


def _read_annotations(path: str, questions: list[Question]) -> dict[str, str]:
    """Question id -> answer; raises `ScoreError` if a question has none."""
    annotations = read_json(path, "annotation file")
    if not isinstance(annotations, dict):
        raise ScoreError(f"annotation file {path} is no object with an answer for each question id")
    without = [q.question_id for q in questions if str(q.question_id) not in annotations]
    if without:
        those = f"{len(without)} of the {len(questions)} questions: {some(without)}"
        raise ScoreError(f"annotation file {path} has no answer to {those}; is it of another split?")
    return annotations


def curve(
    answerer: Answerer,
    questions: list[Question],
    annotations: dict[str, str],
    scores: list[float],
    most: int,
    batch_size: int | None,
    done: list[dict[str, Any]],
) -> Iterator[list[dict[str, Any]]]:
    """Yields all entries `{removed, layers, protected, accuracy, scores}`, `done` included, after each new one.

    The first is the whole model (`removed` 0). The same layers are measured once.
    """
    config = answerer.model.config
    layer_path, region = family_of(config).layer_path, LayerRecord.of(config).region
    entries = list(done)
    for protected, first in ((True, 0), (False, 1)):
        for count in range(first, most + 1):
            if any(e["removed"] == count and e["protected"] == protected for e in entries):
                continue
            layers = lowest_outside(scores, count, region if protected else ())
            result = next((e["scores"] for e in entries if e["layers"] == list(layers)), None)
            known = "" if result is None else "; the same layers as before"
            if result is None:
                with layers_removed(answerer.model, layers, layer_path) if layers else nullcontext():
                    result = score(_answers(answerer, questions, batch_size), annotations)
            entry = {"removed": count, "layers": list(layers), "protected": protected}
            entries.append(entry | {"accuracy": result["all"], "scores": result})
            where = "outside the region" if protected else "anywhere"
            named = f" {where} ({', '.join(map(str, layers))}{known})" if layers else ""
            print(f"removed {counted(count, 'layer')}{named}: {100 * result['all']:.2f}%", flush=True)
            yield entries


def _answers(answerer: Answerer, questions: list[Question], batch_size: int | None) -> list[dict[str, Any]]:
    rows = []
    with tqdm(total=len(questions), desc="answers", unit="question", leave=False) as bar:
        for batch in answerer.batches(questions, batch_size):
            asked = [questions[i] for i in batch.rows]
            texts = answerer.answer(asked, batch.prompts)
            rows += [{"question_id": q.question_id, "text": text} for q, text in zip(asked, texts, strict=True)]
            bar.update(len(asked))
    return rows
