"""Runs llava's evaluation programs for Bunny: the same flags, and upstream's `--model-type`, which is checked."""

import runpy
import sys
from collections.abc import Sequence

from bunny.model.builder import check_checkpoint
from llava.checkpoint.folder import open_checkpoint
from llava.flags import Parser, run_program


def run(module: str, argv: Sequence[str] | None = None, **defaults: str) -> None:
    """Runs a program such as "llava.eval.model_vqa_loader", after a check that its checkpoint is a Bunny.

    `defaults` are Bunny's defaults of flags. Images are padded as in training, also in ScienceQA (not so upstream).
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model-type")
    flags, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    parser.add_argument("--model-path")
    parser.add_argument("--model-base")
    model, _ = parser.parse_known_args(rest)
    if model.model_path:

        def check() -> None:
            check_checkpoint(open_checkpoint(model.model_path, model.model_base, package="bunny"), flags.model_type)

        run_program(check, interrupted="")
    given = {word.partition("=")[0] for word in rest}
    for name, value in defaults.items():
        if f"--{name}" not in given:
            rest += [f"--{name}", value]
    sys.argv = [sys.argv[0], *rest]
    runpy.run_module(module, run_name="__main__")
