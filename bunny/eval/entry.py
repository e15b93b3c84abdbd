"""Runs llava's evaluation programs for Bunny: the same flags, and upstream's `--model-type`, which is checked."""

import importlib
import sys
from collections.abc import Sequence

from llava.flags import Parser, run_program


def run(module: str, argv: Sequence[str] | None = None, **defaults: str) -> None:
    """Runs a program such as "llava.eval.model_vqa_loader", after a check that its checkpoint is a Bunny.

    `defaults` are Bunny's defaults of flags. Images are padded as in training, also in ScienceQA (not so upstream).
    """
    program = importlib.import_module(module)
    own = Parser(add_help=False, allow_abbrev=False)
    own.add_argument("--model-type")
    words = sys.argv[1:] if argv is None else list(argv)
    flags, rest = own.parse_known_args(words)
    given = {word.partition("=")[0] for word in rest}
    for name, value in defaults.items():
        if f"--{name}" not in given:
            rest += [f"--{name}", value]
    # A scorer has no checkpoint.
    if hasattr(program, "make_parser"):
        parser = program.make_parser()
        parser.add_argument("--model-type", help="such as phi-2; the checkpoint must be that")
        args = parser.parse_args(rest)
        run_program(lambda: _check(args.model_path, args.model_base, flags.model_type), interrupted="")
    sys.argv = [sys.argv[0], *rest]
    program.main()


def _check(path: str, base: str | None, model_type: str | None) -> None:
    # These import torch, so they wait until the flags have been read.
    from bunny.model.builder import check_checkpoint
    from llava.checkpoint.folder import open_checkpoint

    check_checkpoint(open_checkpoint(path, base, package="bunny"), model_type)
