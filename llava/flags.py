"""The parser and the error exit of every program, and shared flags. Does not import torch, so that `--help` is fast."""

import argparse
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from llava.names import close, did_you_mean

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended."""
_NO_READER = 141
"""The exit status of a program whose output nobody reads any more."""
_SECONDS_TO_END = 30
"""How long a program may take to end after Ctrl-C."""
DTYPE_NAMES = ("fp32", "fp16", "bf16")
"""Values of --dtype; `llava.dtypes.DTYPES` maps them to torch's."""


class Parser(argparse.ArgumentParser):
    """The parser of every program: what is wrong with the flags is one line, with what was probably meant.

    The `epilog` may be a function, which is called if --help is asked for.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"prog": _command()} | options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        # First, because a required flag that is misspelt would be reported as missing.
        if unknown := self.known(words)[1]:
            near = (word + did_you_mean(*close(word, self.options)) for word in unknown)
            self.error(f"no such {'flag' if unknown[0].startswith('-') else 'argument'}: {', '.join(near)}")
        return super().parse_args(words, namespace)

    @property
    def options(self) -> list[str]:
        """All flags, also their second names."""
        return list(self._option_string_actions)

    def known(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """What this parser reads of the words, none of which is required, and the flags that it does not know.

        If it knows all flags, these are the words that no flag takes.
        """
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        try:
            args, left = self.parse_known_args(list(words))
        finally:
            for action in required:
                action.required = True
        # Values of unknown flags are left over too.
        return args, [word.partition("=")[0] for word in left if word.startswith("-")] or left

    def format_help(self) -> str:
        if callable(self.epilog):
            self.epilog = self.epilog()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line, instead of the usage of all flags."""
        self.exit(2, f"error: {message} (all flags: {self.prog} --help)\n")

    def raising(self, kind: type[Exception]) -> "Parser":
        """This parser, whose errors are raised as this kind and do not end the program."""

        def error(message: str) -> NoReturn:
            raise kind(message)

        self.error = error
        return self

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(*close(str(value), map(str, action.choices)))
            raise


def _command() -> str:
    """How this program was started, as it can be typed again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else f"python {sys.argv[0]}"


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
    except BrokenPipeError as error:
        if not _has_no_reader():
            # A connection of a library.
            sys.exit(f"error: {error}")
        # The reader (head, less) has ended. The interpreter's last flush goes to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_NO_READER)
    except KeyboardInterrupt:
        print("\ninterrupted" + (f"; {interrupted}" if interrupted else ""), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except expected as error:
        if os.environ.get("LLAVA_TRACEBACK"):
            raise
        sys.exit(f"error: {error}")


def _has_no_reader() -> bool:
    """Whether standard output is a pipe whose reader has ended."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def run_command(command: Sequence[str], **options: Any) -> int:
    """Runs a command (`options`: of Popen) and returns its exit status; see `wait_for` about Ctrl-C."""
    return wait_for(subprocess.Popen(command, **options))[0]


def wait_for(*processes: subprocess.Popen) -> list[int]:
    """Exit statuses of programs that this one started.

    A terminal sends Ctrl-C to them too. They say so and end, and this program ends after them without another word.
    """
    try:
        return [process.wait() for process in processes]
    except KeyboardInterrupt:
        for process in processes:
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
        sys.exit(INTERRUPTED)


def add_checkpoint_flags(
    parser: argparse.ArgumentParser, dtype_help: str = "default: as stored", several: bool = False
) -> None:
    """--model-path, --model-base (lists if `several`), --vision-tower and --dtype."""
    path_help, kind = "checkpoint: full, LoRA, projector, merged or pruned", {"nargs": "+"} if several else {}
    parser.add_argument("--model-path", required=True, help=f"{path_help}{'; or several' if several else ''}", **kind)
    parser.add_argument("--model-base", help="base of a LoRA or a projector; default: the recorded one", **kind)
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


def device(text: str) -> str:
    """For `type=`: the name of a device, as torch has them; whether it exists is checked with torch."""
    if not re.fullmatch(r"(cpu|cuda|mps|xpu|npu|hpu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; cuda (the CPU if there is no GPU), cuda:1, cpu")
    return text
