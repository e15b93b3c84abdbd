"""A benchmark on a model in memory: the questions, flags and rule of `suite.benchmark`, without an answers file."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.checkpoint.opened import Checkpoint
from llava.eval.answering import perplexity
from llava.eval.answering.answers_file import HeldAnswers
from llava.eval.answering.arguments import Loaded, answerer_of, check_asked_in, question_template
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import PARSERS, SHARE, check_flags
from llava.eval.answering.mmlu import answer_rows, read_items
from llava.eval.answering.program import READERS
from llava.eval.answering.questions import Question, described, unusable_images
from llava.eval.answering.runner import answer_all, check_sees, describe_template, keep_features
from llava.eval.answering.subset import write_spread, write_subset
from llava.eval.benchmarks import DATA, Benchmark
from llava.eval.benchmarks.base import LIMIT_PER_TASK
from llava.eval.benchmarks.mmlu import Item
from llava.eval.scoring.pairing import InputsFit
from llava.eval.scoring.report import Report
from llava.eval.suite.summary import rule_of
from llava.files import sha256_of
from llava.flags import positive
from llava.names import agree, listed, model_name

_MMLU = "model_mmlu"
_OF_THE_MODEL = ("model_path", "model_base", "vision_tower", "dtype", "device", "vision_feature_cache")
_OF_SPEED = ("batch_size", "share_prefix", "num_workers")
_PLACES = (
    *("image_folder", "question_file", "answers_file", "num_chunks", "chunk_idx", "shots_file", "text_file"),
    *("data_path", "report_file", "result_file", "annotation_file", "base_dir", "output_file", "output_result"),
    *("predictions", "check", "skip_missing_images"),
)
"""Flags that a score does not depend on, or that `settings` records otherwise."""


@dataclass
class LoadedBenchmark:
    """A benchmark with the flags of its programs, for any number of models.

    Attributes:
        files: the question file, then the annotations.
        args: the flags of the program that answers (`llava.eval.answering.flags.PARSERS`).
        scoring: the flags of the scorer; None if the program writes the score itself.
        inputs: what `Benchmark.score_inputs` read.
        questions: those of the question file, if they are questions; empty for MMLU and for texts.
        items: MMLU's rows and examples (`read_items`).
    """

    benchmark: Benchmark
    files: tuple[str, ...]
    args: argparse.Namespace
    scoring: argparse.Namespace | None
    inputs: Any = None
    questions: Sequence[Question] = ()
    items: tuple[list[dict[str, Any]], dict[str, list[Item]]] = field(default_factory=lambda: ([], {}))

    @classmethod
    def open(
        cls,
        benchmark: Benchmark,
        environment: Mapping[str, str],
        given: Mapping[str, Any],
        limit: int | None,
        folder: Path,
    ) -> "LoadedBenchmark":
        """Reads and checks everything that needs no model.

        Args:
            environment: the variables of `suite.benchmark`.
            given: flags by name, in place of those that the benchmark declares; None leaves a flag as it is.
            limit: so many questions at most, evenly spaced over the file; of texts the first so many documents. A text
                of one document is read whole, or up to MAX_TOKENS.
            folder: for the question file of a part; it must stay until the benchmark has been measured.

        Raises:
            ValueError, OSError: files that are missing, broken or do not belong together, impossible flags.
        """
        with _named(benchmark.name):
            places = benchmark.places("", environment)
            annotations = [f"{places['data']}/{name}" for name in benchmark.annotations]
            if given.get("annotation_file"):
                annotations[-1:] = [given["annotation_file"]]
            whole = benchmark.places("", {**environment, LIMIT_PER_TASK.name: ""})["questions"]
            whole = given.get("question_file") or whole
            if lacking := [file for file in (whole, *annotations) if not Path(file).exists()]:
                where = f"{DATA}/README.md says where to get the data, and how to prepare it"
                missing = f"{listed('file', lacking)} {agree(len(lacking), 'does', 'do')} not exist"
                raise EvaluationError(f"{missing}; {where}")
            places["questions"] = _part(benchmark, whole, environment, limit, folder)
            parser = PARSERS[benchmark.program]().raising(EvaluationError)
            # Flags that are required name places for answers, which there are none of here.
            args, _ = parser.known(["--temperature", "0", *benchmark.flags_to_answer(places, environment)])
            _put(args, {"samples": limit, **given, "question_file": None})
            if benchmark.score is None:
                return cls(benchmark, (places["questions"],), args, None)
            check_flags(args)
            scorer = benchmark.score_parser().raising(EvaluationError)
            scoring, _ = scorer.known(benchmark.flags_to_score(places, environment))
            _put(scoring, {"annotation_file": given.get("annotation_file")})
            found = cls(benchmark, (places["questions"], *annotations), args, scoring)
            found._read()
            return found

    def _read(self) -> None:
        """Reads questions and annotations, and checks that they belong together and have their images."""
        if self.benchmark.program == _MMLU:
            self.items = read_items(self.args.question_file, self.args.shots_file)
        else:
            self.questions = READERS[self.benchmark.program](self.args)
            folder = Path(self.args.image_folder)
            if unusable := unusable_images(self.questions, folder):
                remedy = "complete the folder, or prepare the questions again with --skip-missing-images"
                raise EvaluationError(f"{described(unusable, self.questions, folder)}; {remedy}")
        self.inputs = self.benchmark.score_inputs(self.scoring)
        checked = argparse.Namespace(**{**vars(self.scoring), "check": True})
        with suppress(InputsFit):
            self.benchmark.report(checked, self.inputs, [])

    def __len__(self) -> int:
        """Its questions; 1 for a text."""
        return len(self.questions) or len(self.items[0]) or 1

    @property
    def name(self) -> str:
        return self.benchmark.name

    @property
    def sees(self) -> bool:
        return any(question.image for question in self.questions)

    @property
    def settings(self) -> dict[str, Any]:
        """What a score depends on besides the model, for JSON: SHA-256 of the files, flags that are not the default."""
        parsers = {"args": PARSERS[self.benchmark.program](), "scoring": self.scoring and self.benchmark.score_parser()}
        flags = {
            name: value
            for kind, parser in parsers.items()
            if parser
            for name, value in vars(getattr(self, kind)).items()
            if name not in (*_OF_THE_MODEL, *_OF_SPEED, *_PLACES) and value != parser.get_default(name)
        }
        files = {Path(file).name: sha256_of(file) for file in self.files}
        return {"files": files, "flags": flags, **rule_of(self.benchmark)}

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises `ValueError` if the checkpoint cannot be asked, before its weights are loaded."""
        with _named(self.benchmark.name):
            if self.scoring is None:
                perplexity.check_flags(self.args, checkpoint)
                perplexity.Corpus.open(self.args, checkpoint)
                return
            check_sees(self.args, checkpoint, self.questions)
            check_asked_in(self.args, checkpoint)

    def report(self, checkpoint: Checkpoint, loaded: Loaded) -> Report:
        """The score of the model in memory, which may differ from the checkpoint that it was loaded from."""
        args, benchmark = self.args, self.benchmark
        tokenizer, model, processor = loaded
        if self.scoring is None:
            corpus = perplexity.Corpus.open(args, checkpoint)
            pieces, details = corpus.measure(model, tokenizer, processor)
            details["dtype"] = str(model.dtype)
            return perplexity.report_of(pieces, args.unit, details, checkpoint.name)
        answerer, held = answerer_of(args, checkpoint, loaded, self.sees), HeldAnswers()
        model_id = model_name(checkpoint.name)
        asked_in = describe_template(question_template(args, checkpoint))
        if benchmark.program == _MMLU:
            places = range(len(self.items[0]))
            answer_rows(args, answerer, *self.items, places, held, model_id)
            # The other method uses no template.
            asked_in = asked_in if args.method == "generate" else None
        else:
            if answerer.feature_cache is not None:
                keep_features(answerer, self.questions)
            share = SHARE[args.share_prefix]
            answer_all(answerer, self.questions, held, model_id, args.batch_size, share, args.num_workers)
        lines = [json.loads(held.lines[place]) for place in sorted(held.lines)]
        return benchmark.report(self.scoring, self.inputs, lines, asked_in)


def _part(benchmark: Benchmark, questions: str, environment: Mapping[str, str], limit: int | None, folder: Path) -> str:
    """A question file of LIMIT_PER_TASK questions of each task, and of `limit` of these, if they are given."""
    per_task = environment.get(LIMIT_PER_TASK.name) if LIMIT_PER_TASK in benchmark.settings else None
    if per_task:
        part = folder / f"{benchmark.name}.per_task{Path(questions).suffix}"
        try:
            write_subset(Path(questions), positive(per_task), part)
        except argparse.ArgumentTypeError as error:
            raise EvaluationError(f"{LIMIT_PER_TASK.name}: {error}") from error
        questions = str(part)
    if limit and benchmark.score:
        part = folder / f"{benchmark.name}.part{Path(questions).suffix}"
        write_spread(Path(questions), limit, part)
        questions = str(part)
    return questions


def _put(args: argparse.Namespace, values: Mapping[str, Any]) -> None:
    """Gives flags that the program has another value; None leaves a flag as it is."""
    vars(args).update({name: value for name, value in values.items() if name in vars(args) and value is not None})


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the benchmark's name before its errors."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise EvaluationError(f"{name}: {error}") from error
