"""One benchmark on one checkpoint: `python -m llava.eval.suite.benchmark NAME CHECKPOINT [flags]`.

The flags are passed to the program that answers. `scripts/eval/NAME.sh CHECKPOINT [flags]` does the same. Environment
variables:

NAME        name of the answers (default: the checkpoint's folder; of RUN/checkpoint-500: RUN_checkpoint-500)
RESULT      where the score goes (default: next to the answers)
CONV        conversation template (default: what the checkpoint records; a plain language model's own)
DATA        the benchmark's folder (default: under playground/data/eval)
QUESTIONS   another question file of that folder, without its suffix
IMAGES      another folder of images
GPUS        processes that share the questions (default: one for each visible GPU; the perplexities run in one)
MISSING     what the scorer does about unanswered questions: error (default), wrong or skip
NO_SCORE=1  answer only, without annotations (a test split)
PYTHON      the interpreter
DRY_RUN=1   print the commands

`--help` prints these, and the benchmark's own.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

from llava.eval.benchmarks import BY_NAME, Benchmark
from llava.eval.benchmarks.base import LIMIT_PER_TASK
from llava.eval.suite.program_flags import OF_ANSWERS, check_program_flags
from llava.flags import Parser, run_command, run_program


def commands(
    benchmark: Benchmark, checkpoint: str, flags: Sequence[str], environment: Mapping[str, str]
) -> Iterator[list[str]]:
    """Modules with their flags, in the order in which they run: check what the scorer needs, answer, convert, score."""
    places = benchmark.places(checkpoint, environment)
    limit = environment.get(LIMIT_PER_TASK.name) if LIMIT_PER_TASK in benchmark.settings else None
    if limit:
        whole = benchmark.places(checkpoint, {**environment, LIMIT_PER_TASK.name: ""})
        yield ["llava.eval.answering.subset", "--question-file", whole["questions"], "--per-category", limit,
               "--output", places["questions"]]  # fmt: skip
    to_answer = benchmark.flags_to_answer(places, environment)
    if benchmark.score is None:
        # The program that answers writes the score itself.
        model = ["--model-path", checkpoint, "--report-file", places["report"]]
        yield [f"llava.eval.{benchmark.program}", *model, *to_answer, *flags]
        return
    score = ["llava.eval.score", benchmark.name, "--result-file", places["answers"], "--report-file", places["report"]]
    score += _given("--missing", environment, "MISSING")
    score += benchmark.flags_to_score(places, environment)
    if not environment.get("NO_SCORE"):
        yield [*score, "--check"]
    yield [
        *("llava.eval.answering.launch", *_given("--gpus", environment, "GPUS"), f"llava.eval.{benchmark.program}"),
        *("--model-path", checkpoint, "--answers-file", places["answers"], "--temperature", "0"),
        *_given("--conv-mode", environment, "CONV"),
        *to_answer,
        *flags,
    ]
    if benchmark.convert:
        yield [word.format(**places) for word in benchmark.convert]
    if not environment.get("NO_SCORE"):
        yield score


def _given(flag: str, environment: Mapping[str, str], name: str) -> list[str]:
    return [flag, environment[name]] if environment.get(name) else []


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    own = [f"{b.name}: {s.name}: {s.help}" for b in BY_NAME.values() for s in b.settings]
    parser.epilog = "variables of single benchmarks:\n" + "\n".join(own)
    parser.add_argument("benchmark", choices=list(BY_NAME))
    parser.add_argument("checkpoint")
    args, flags = parser.parse_known_args()
    benchmark = BY_NAME[args.benchmark]
    check_program_flags([benchmark], flags, set_by_caller=OF_ANSWERS if benchmark.score else ())
    python = os.environ.get("PYTHON") or sys.executable
    for command in commands(benchmark, args.checkpoint, flags, os.environ):
        command = [python, "-m", *command]
        if os.environ.get("DRY_RUN"):
            print(shlex.join(command))
        elif code := run_command(command):
            # The program has said what is wrong.
            sys.exit(code)


def program() -> None:
    """The command `llava-eval` of an installed package."""
    run_program(main, interrupted="")


if __name__ == "__main__":
    program()
