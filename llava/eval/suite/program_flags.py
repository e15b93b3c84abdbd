"""Flags for the programs behind several benchmarks, checked before the first of them is started."""

import argparse
from collections.abc import Collection, Sequence

from llava.conversation import get_template
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import PARSERS, check_flags
from llava.eval.benchmarks import Benchmark
from llava.flags import Parser
from llava.names import close, did_you_mean

OF_ANSWERS = ("model_path", "question_file", "answers_file", "num_chunks", "chunk_idx")
"""What the script of one benchmark sets: with another value it would score other answers than were made."""
SET_BY_SCRIPTS = (*OF_ANSWERS, "shots_file", "text_file", "data_path", "report_file")
"""What the scripts set themselves: a second value would apply to every benchmark."""


def checkpoint_flags(flags: Sequence[str]) -> argparse.Namespace:
    """--model-base and --vision-tower among the flags of the programs."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model-base")
    parser.add_argument("--vision-tower")
    return parser.parse_known_args(list(flags))[0]


def check_program_flags(
    benchmarks: Sequence[Benchmark],
    flags: Sequence[str],
    own: Collection[str] = (),
    set_by_caller: Collection[str] = SET_BY_SCRIPTS,
) -> None:
    """Reads the flags as each benchmark's program (`Benchmark.program`) will read them.

    Args:
        own: flags of the caller, for suggestions.
        set_by_caller: what the flags must not set.

    Raises:
        EvaluationError: all flags that are unknown, set by the scripts themselves, or of a wrong value.
    """
    if not flags:
        return
    wrong: list[str] = []
    refused_by: dict[str, list[str]] = {}
    known: set[str] = set()
    for program in dict.fromkeys(benchmark.program for benchmark in benchmarks):
        names = [benchmark.name for benchmark in benchmarks if benchmark.program == program]
        parser = PARSERS[program]()
        known.update(parser.options)
        try:
            for flag in _unknown(parser, flags, set_by_caller):
                refused_by.setdefault(flag, []).extend(names)
        except ValueError as error:
            wrong.append(str(error))
    for flag, names in refused_by.items():
        hint = did_you_mean(*close(flag, {*known, *own}))
        if flag in known:
            hint = "; run these apart from the others (--only)"
        wrong.append(f"{flag} is no flag of {', '.join(names)}{hint}")
    if wrong:
        programs = ", ".join(dict.fromkeys(f"llava.eval.{b.program}" for b in benchmarks))
        raise EvaluationError(
            f"{'; '.join(dict.fromkeys(wrong))} (flags: python -m MODULE --help, MODULE one of {programs}; "
            "nothing was started)"
        )


def _unknown(parser: Parser, flags: Sequence[str], set_by_caller: Collection[str]) -> list[str]:
    """Flags that the parser does not know. Raises `ValueError` for a value that the program would refuse."""
    parser.raising(EvaluationError).set_defaults(**dict.fromkeys(SET_BY_SCRIPTS))
    args, unknown = parser.known(flags)
    taken = [f"--{name.replace('_', '-')}" for name in set_by_caller if getattr(args, name) is not None]
    if taken:
        raise EvaluationError(
            f"{', '.join(taken)}: the scripts set this themselves (other questions: --questions NAME=FILE; "
            "number of processes: the environment variable GPUS)"
        )
    check_flags(args)
    if args.conv_mode:
        get_template(args.conv_mode)
    return unknown
