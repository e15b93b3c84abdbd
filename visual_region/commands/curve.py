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
from llava.eval.answering.flags import add_model_flags
from llava.eval.answering.questions import Question, check_images, read_questions
from llava.eval.benchmarks.easy_vqa import score
from llava.families import family_of
from llava.files import write_json
from llava.names import count as counted
from llava.outputs import FileKind, check_cache, check_files
from visual_region.scores import ScoreFile
from visual_region.surgery import layers_removed, lowest_outside

CURVE = FileKind("a pruning curve", keys=frozenset({"removed", "layers", "accuracy"}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_flags(parser)
    parser.set_defaults(temperature=0.0, max_new_tokens=8)
    parser.add_argument("--question-file", required=True)
    parser.add_argument("--annotation-file", required=True)
    parser.add_argument("--scores", required=True, help="score file of `python -m visual_region score`")
    parser.add_argument("--most", type=int, default=4, help="the largest number of layers to remove")
    parser.add_argument("--limit", type=int, help="the number of questions to use, from the first; default: all")
    parser.add_argument("--output", required=True, help="JSON file to write; the points that it holds are kept")


def run(args: argparse.Namespace) -> None:
    """Writes the file after each point, so that an interrupted run continues there."""
    check_files({"--output": (args.output, CURVE)}, [args.question_file, args.annotation_file, args.scores])
    check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower])
    checkpoint = open_model(args)
    questions = read_questions(args.question_file)[: args.limit]
    check_images(questions, Path(args.image_folder))
    annotations = json.loads(Path(args.annotation_file).read_text(encoding="utf-8"))
    values = ScoreFile.read(args.scores).entry("angular")["values"]
    output = Path(args.output)
    done = json.loads(output.read_text(encoding="utf-8") or "[]") if output.exists() else []
    answerer = make_answerer(args, checkpoint)
    for entries in curve(answerer, questions, annotations, values, args.most, args.batch_size, done):
        write_json(output, entries)
    print(f"the curve is in {output}")


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
