"""Trains a LLaVA: stage 1, full, or LoRA, in the decoder layers of `--tune_layers`. The work is in run.py.

Imports torch only after the names of the flags were checked.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.flags import run_program
from llava.train.flag_names import HUGE_PAGES, LLAVA, ConfigurationError, check_names, is_main_process

_GRACE = 10
"""Seconds that the other processes leave to the first to report an error that all of them find."""


def train(
    attn_implementation: str | None = None,
    argv: Sequence[str] | None = None,
    arguments: str | tuple[type, type, type] = LLAVA,
    make_trainer: Callable[..., Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Runs one training from the command line's flags; resumes if the output folder holds a checkpoint of this run.

    Settings that cannot work end the program with one message, before weights are loaded.

    Args:
        attn_implementation: used if `--attn_implementation` is not given.
        arguments: the classes of the flags, or the module whose `ARGUMENTS` they are; other packages have their own.
        make_trainer: makes a trainer from LLaVATrainer's arguments; for healing, one that distils.
        settings: what `make_trainer` depends on; a run is resumed only if they are the same.
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def main() -> None:
        # Torch reads it when it first needs memory. Without it, glibc cannot use much of what is freed again.
        os.environ.setdefault(HUGE_PAGES, "1")
        classes = arguments
        if isinstance(arguments, str):
            check_names(words, arguments)
            classes = importlib.import_module(arguments).ARGUMENTS
        from llava.train.run import run

        run(attn_implementation, words, classes, make_trainer, settings or {})

    def once() -> None:
        try:
            main()
        except ConfigurationError:
            if not is_main_process():
                # The launcher ends this process as soon as the first one has reported the same and ended.
                time.sleep(_GRACE)
            raise

    run_program(once, interrupted="the same command resumes from the newest checkpoint-N, if there is one")


if __name__ == "__main__":
    train()
