"""Shared flags, and the error exit of every program. Does not import torch, so that `--help` is fast."""

import argparse
import os
import sys
from collections.abc import Callable

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended."""
DTYPE_NAMES = ("fp32", "fp16", "bf16")
"""Values of --dtype; `llava.dtypes.DTYPES` maps them to torch's."""


def run_program(
    main: Callable[[], None],
    expected: tuple[type[BaseException], ...] = (ValueError, OSError),
    interrupted: str = "the same command goes on from here",
) -> None:
    """Runs an entry point. Errors in `expected` end it with one line on standard error.

    LLAVA_TRACEBACK=1 prints their traceback. `interrupted` follows "interrupted" on Ctrl-C.
    """
    try:
        main()
    except BrokenPipeError:
        # The reader (head, less) has ended. The interpreter's last flush goes to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("\ninterrupted" + (f"; {interrupted}" if interrupted else ""), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except expected as error:
        if os.environ.get("LLAVA_TRACEBACK"):
            raise
        sys.exit(f"error: {error}")


def add_checkpoint_flags(parser: argparse.ArgumentParser, dtype_help: str = "default: as stored") -> None:
    """--model-path, --model-base, --vision-tower and --dtype."""
    parser.add_argument("--model-path", required=True, help="checkpoint: full, LoRA, projector, merged or pruned")
    parser.add_argument("--model-base", help="base of a LoRA or a projector; default: the recorded one")
    parser.add_argument("--vision-tower", help="tower folder, if config.json records one of another machine")
    parser.add_argument("--dtype", choices=DTYPE_NAMES, help=dtype_help)


def add_output_flags(parser: argparse.ArgumentParser, output_help: str = "folder to write") -> None:
    """--output and --overwrite, for a program that writes a checkpoint."""
    parser.add_argument("--output", required=True, help=output_help)
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that --output holds")


def positive(text: str) -> int:
    """For `type=`: a whole number from 1 on."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
