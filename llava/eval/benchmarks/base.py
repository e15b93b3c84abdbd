"""What a benchmark declares (files, answering program, preparation, scoring), and the one scoring program.

A benchmark is one file of this package that ends in a `Benchmark`, and one row of the table in `__init__.py`. Nothing
in this package imports torch.
"""

import argparse
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.eval.answering.answers_file import read_record
from llava.eval.scoring.pairing import CHECK, MISSING, Answers, InputsFit, asked_ids, read_answers, read_json
from llava.eval.scoring.report import Report, report_path
from llava.flags import Parser
from llava.names import model_name
from llava.outputs import REPORT, FileKind, check_files

Outputs = Mapping[str, tuple[str | Path | None, FileKind]]
ScoreInputs = tuple[dict[str, Any], Any, Any]
"""Keyword arguments of `Benchmark.score`, truths, and the keys of the questions that were asked (None: all)."""
DATA = Path("playground/data/eval")
"""Holds one folder per benchmark."""


def answers_name(environment: Mapping[str, str]) -> str:
    """NAME; empty without one, and for the name of the machine, which WSL sets as NAME in every shell."""
    name = environment.get("NAME", "")
    is_machine = "WSL_DISTRO_NAME" in environment and name.lower() == socket.gethostname().lower()
    return "" if is_machine else name


@dataclass(frozen=True)
class Published:
    """The size of a benchmark as published, in units of `what`; `also`: those of other published forms of it."""

    count: int
    what: str
    also: tuple[int, ...] = ()

    def __contains__(self, found: int) -> bool:
        return found in (self.count, *self.also)

    def __str__(self) -> str:
        return " or ".join(f"{count:,}" for count in (self.count, *self.also))

    def warning(self, found: int) -> list[str]:
        """A warning if the annotations hold another number; else nothing."""
        if found in self:
            return []
        held = f"the annotations hold {found:,} {self.what}"
        return [f"not the published benchmark: {held}, published are {self}"]


@dataclass(frozen=True)
class Options:
    """The flags of `llava.eval.prepare`: how a download is prepared."""

    check_counts: bool = True
    skip_missing_images: bool = False
    overwrite: bool = False
    sample: int | None = None
    seed: int = 0
    ocr: bool = True
    template: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Setting:
    """An environment variable that the script of a benchmark reads.

    Attributes:
        answer_flag, score_flag: the flag of the answering program, or of the scorer, that takes the value.
        default: the value if the variable is empty or not set; without a default the flag is left out.
        switch: the flag takes no value: it is given if the variable is not empty.
        path: how the value appears in `Benchmark.answers`, so that different settings have different answers.
    """

    name: str
    help: str
    answer_flag: str = ""
    score_flag: str = ""
    default: str = ""
    switch: bool = False
    path: str = "/{}"

    def value(self, environment: Mapping[str, str]) -> str:
        return environment.get(self.name) or self.default


LIMIT_PER_TASK = Setting(
    "LIMIT_PER_TASK", "only N questions of each task, always the same ones (llava.eval.answering.subset)"
)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    The flags below may name places in braces: {data} (its folder), {questions}, {images}, {answers}, {answers_stem}
    (without .jsonl), {answers_folder}, {checkpoint}, {name} (of the answers) and {stem} (of the question file).

    Attributes:
        name: that of its folder under playground/data/eval, of its script, and of its score among the results.
        column: its heading in the paper's table.
        questions: the question file in its folder.
        annotations: the other files in its folder that answering and scoring need.
        prepare: makes the questions from a download: (raw folder, its folder, options) -> number of questions.
        score: (answers, truths, asked=..., missing=..., **options) -> Report; None if the program writes the score.
        visual: whether the average in the paper's table includes it.
        paper: whether it is one of the paper's; others have a column only if they were measured.
        text: whether it asks about text alone, without images (the paper's Table 4).
        rule: the present rule, if it was another one before: an older score is then made again from its answers.
        program: the module of llava.eval that answers it.
        answer_flags: flags of the program, besides those that all scripts give (checkpoint, answers, temperature).
        answers: path of the answers in its folder; {other} is "/STEM" if another question file was named, else empty,
            and a setting's name in braces is its value in the form of `Setting.path`.
        score_flags: flags of the scorer; default: the last of `annotations` and the questions.
        settings: environment variables that only this benchmark's script reads.
        convert: module and flags of the program that writes the answers in another format, for a server or a script.
        count: (truths, args) -> what is compared with `published`; None if these truths are of another part.
        annotation_help: the scorer's help for --annotation-file; empty if `add_score_flags` adds the flag, or none.
        result_files: the scorer's flags -> answer files; default: --result-file, which is required.
        read_truths: (args) -> what answers are scored against.
        read_asked: (--question-file or None) -> the keys of the questions that were asked.
        options: (args) -> keyword arguments of `score`.
        outputs: (args) -> the files that `finish` writes, with their kinds, by flag.
        finish: (args, report, answer file): prints and writes what only this benchmark has, before the table.
    """

    name: str
    column: str
    questions: str = "questions.jsonl"
    annotations: tuple[str, ...] = ()
    prepare: Callable[[Path, Path, Options], int] | None = None
    score: Callable[..., Report] | None = None
    visual: bool = True
    paper: bool = True
    text: bool = False
    rule: str = ""
    program: str = "model_vqa_loader"
    answer_flags: tuple[str, ...] = ()
    images: str = ""
    answers: str = "answers{other}/{name}.jsonl"
    score_flags: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    convert: tuple[str, ...] = ()
    published: Published | None = None
    count: Callable[[Any, argparse.Namespace], int | None] = lambda truths, args: len(truths)
    annotation_help: str = ""
    add_score_flags: Callable[[argparse.ArgumentParser], Any] = lambda parser: None
    result_files: Callable[[argparse.Namespace], Sequence[str | Path]] | None = None
    read_truths: Callable[[argparse.Namespace], Any] = lambda args: read_json(args.annotation_file)
    read_asked: Callable[[str | None], Any] = asked_ids
    read_answers: Callable[[str | Path], Answers] = read_answers
    options: Callable[[argparse.Namespace], dict[str, Any]] = lambda args: {}
    outputs: Callable[[argparse.Namespace], Outputs] = lambda args: {}
    finish: Callable[[argparse.Namespace, Report, str | Path], Any] = lambda args, report, file: None

    @property
    def data(self) -> tuple[str, ...]:
        """The files that it needs, under playground/data/eval; the first holds the questions."""
        return tuple(f"{self.name}/{file}" for file in (self.questions, *self.annotations))

    def missing_data(self, root: Path = DATA) -> list[Path]:
        """The files that it lacks under `root`."""
        return [root / file for file in self.data if not (root / file).is_file()]

    def asking(self, questions: str) -> "Benchmark":
        """The same with another question file of its folder, named without the suffix."""
        return replace(self, questions=questions + Path(self.questions).suffix)

    def places(self, checkpoint: str, environment: Mapping[str, str]) -> dict[str, str]:
        """Every place that flags can name, by this benchmark's settings and the variables that all scripts read.

        Those are DATA (its folder), QUESTIONS (another question file in it, without the suffix), IMAGES, NAME (of the
        answers; default: `model_name` of the checkpoint) and RESULT (the score; default: next to the answers).
        """
        data = environment.get("DATA") or f"./{DATA}/{self.name}"
        named, questions = environment.get("QUESTIONS", ""), Path(self.questions)
        stem = named or questions.stem
        if LIMIT_PER_TASK in self.settings and (limit := environment.get(LIMIT_PER_TASK.name)):
            stem = f"{stem}.limit-{limit}"
        found = {
            "data": data,
            "checkpoint": checkpoint,
            "name": answers_name(environment) or model_name(checkpoint),
            "stem": stem,
            "other": f"/{stem}" if named else "",
            "questions": f"{data}/{stem}{questions.suffix}",
            "images": environment.get("IMAGES") or self.images.format(data=data),
        }
        in_paths = {s.name: s.path.format(v) if (v := s.value(environment)) else "" for s in self.settings}
        answers = f"{data}/{self.answers.format(**found, **in_paths)}"
        return found | {
            "answers": answers,
            "answers_stem": answers.removesuffix(".jsonl"),
            "answers_folder": str(Path(answers).parent),
            "report": environment.get("RESULT") or f"{answers.removesuffix('.jsonl')}.score.json",
        }

    def flags_to_answer(self, places: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
        images = ("--image-folder", "{images}") if self.images else ()
        questions = ("--question-file", "{questions}") if self.score else ()
        flags = (*questions, *images, *self.answer_flags)
        return self._flags(flags, places, "answer_flag", environment)

    def flags_to_score(self, places: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
        flags = self.score_flags
        if not flags:
            flags = ("--annotation-file", f"{{data}}/{self.annotations[-1]}", "--question-file", "{questions}")
        return self._flags(flags, places, "score_flag", environment)

    def _flags(
        self, templates: Sequence[str], places: Mapping[str, str], kind: str, environment: Mapping[str, str]
    ) -> list[str]:
        flags = [flag.format(**places) for flag in templates]
        for setting in self.settings:
            flag, value = getattr(setting, kind), setting.value(environment)
            if flag and value:
                flags += [flag] if setting.switch else [flag, value]
        return flags

    def score_main(self, argv: Sequence[str] | None = None) -> None:
        """The scoring program: reads flags, annotations, questions and answers; prints the score and writes it."""
        args = self.score_parser().parse_args(argv)
        files = self.result_files(args) if self.result_files else [args.result_file]
        inputs = [*files, args.question_file, vars(args).get("annotation_file")]
        flag = "--report-file" if args.report_file else "the score next to the answers,"
        for file in files:
            check_files({flag: (report_path(args.report_file, file), REPORT), **self.outputs(args)}, inputs)
        with suppress(InputsFit):
            read = self.score_inputs(args)
            for file in files:
                answers = [] if args.check else self.read_answers(file)
                # Older records do not have it, and files of other programs have no record.
                report = self.report(args, read, answers, read_record(Path(file)).get("asked_in"))
                self.finish(args, report, file)
                report.publish(report_path(args.report_file, file))

    def score_inputs(self, args: argparse.Namespace) -> ScoreInputs:
        """What answers are scored with, by the flags of `score_parser`."""
        return self.options(args), self.read_truths(args), self.read_asked(args.question_file)

    def report(
        self, args: argparse.Namespace, inputs: ScoreInputs, answers: Answers, asked_in: str | None = None
    ) -> Report:
        """The score of answers; with --check it raises `InputsFit`.

        Args:
            args: the flags of `score_parser`.
            inputs: what `score_inputs` read by them.
            asked_in: the template of the questions, if it is known.
        """
        options, truths, asked = inputs
        missing = CHECK if args.check else args.missing
        report = self.score(answers, truths, asked=asked, missing=missing, **options)
        if self.published and (found := self.count(truths, args)) is not None:
            report.warnings += self.published.warning(found)
        if self.annotation_help:
            report.details["file"] = Path(args.annotation_file).name
        if asked_in:
            report.details["asked_in"] = asked_in
        return report

    def score_parser(self) -> Parser:
        parser = Parser(prog=f"python -m llava.eval.score {self.name}", description=f"Score {self.column} answers")
        answers = f"answers, as llava.eval.{self.program} writes them"
        parser.add_argument("--result-file", required=self.result_files is None, help=answers)
        parser.add_argument("--question-file", help="the questions that were asked, if not the whole benchmark")
        if self.annotation_help:
            parser.add_argument("--annotation-file", required=True, help=self.annotation_help)
        parser.add_argument("--missing", choices=MISSING, default="error", help="what to do about unanswered questions")
        parser.add_argument("--report-file", help="the score as JSON; default: next to the answers, NAME.score.json")
        parser.add_argument("--check", action="store_true", help="read all but the answers, and say what is wrong")
        self.add_score_flags(parser)
        return parser
