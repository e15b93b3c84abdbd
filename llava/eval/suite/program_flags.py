"""Flags for the programs behind several benchmarks, checked before the first of them is started."""

import argparse
import difflib
from collections.abc import Collection, Sequence
from importlib import import_module

from llava.conversation import get_template
from llava.eval.answering.arguments import check_flags
from llava.eval.answering.errors import EvaluationError
from llava.eval.benchmarks import Benchmark

# What the scripts give themselves: a second value would go to every benchmark alike.
_SET_BY_SCRIPTS = (
    "model_path",
    "question_file",
    "answers_file",
    "num_chunks",
    "chunk_idx",
    "shots_file",
    "text_file",
    "data_path",
    "report_file",
)


def check_program_flags(benchmarks: Sequence[Benchmark], flags: Sequence[str], own: Collection[str] = ()) -> None:
    """Reads the flags as each benchmark's program (`Benchmark.program`) will read them.

    Args:
        own: flags of the caller, for which another may be a slip.

    Raises:
        EvaluationError: in one line, every flag that a program does not know, that the scripts set themselves, or
            whose value it refuses.
    """
    if not flags:
        return
    wrong: list[str] = []
    refused_by: dict[str, list[str]] = {}
    known: set[str] = set()
    for program in dict.fromkeys(benchmark.program for benchmark in benchmarks):
        names = [benchmark.name for benchmark in benchmarks if benchmark.program == program]
        parser = import_module(f"llava.eval.{program}").make_parser()
        known |= {flag for action in parser._actions for flag in action.option_strings}
        try:
            unknown = _unknown(parser, flags)
        except ValueError as error:
            wrong.append(str(error))
            continue
        for flag in unknown:
            refused_by.setdefault(flag, []).extend(names)
    for flag, names in refused_by.items():
        if flag in known:
            wrong.append(f"{flag} is no flag of {', '.join(names)}; run these apart from the others (--only)")
            continue
        near = difflib.get_close_matches(flag.partition("=")[0], {*known, *own}, n=1)
        wrong.append(f"{flag} is no flag of {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else ""))
    if wrong:
        programs = ", ".join(dict.fromkeys(f"llava.eval.{b.program}" for b in benchmarks))
        raise EvaluationError(
            f"{'; '.join(dict.fromkeys(wrong))} (flags: python -m MODULE --help, MODULE one of {programs}; "
            "nothing was started)"
        )


def _unknown(parser: argparse.ArgumentParser, flags: Sequence[str]) -> list[str]:
    """What the parser does not know; raises `ValueError` for a value that the program would refuse."""

    def refuse(message: str) -> None:
        raise EvaluationError(message)

    parser.error = refuse
    for action in parser._actions:
        action.required = False
    parser.set_defaults(**dict.fromkeys(_SET_BY_SCRIPTS))
    args, left = parser.parse_known_args(list(flags))
    taken = [f"--{name.replace('_', '-')}" for name in _SET_BY_SCRIPTS if getattr(args, name) is not None]
    if taken:
        raise EvaluationError(
            f"{', '.join(taken)}: the scripts set this themselves (other questions: --questions NAME=FILE; "
            "number of processes: the environment variable GPUS)"
        )
    check_flags(args)
    if args.conv_mode:
        get_template(args.conv_mode)
    # Values of unknown flags are left over too; they are named only where no flag is.
    return [word for word in left if word.startswith("-")] or left
