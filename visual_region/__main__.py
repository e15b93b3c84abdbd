"""`python -m visual_region COMMAND`: see `--help` of each."""

import importlib
import sys

from llava.flags import Parser, run_program
from llava.names import close, did_you_mean
from llava.tables import text_table
from visual_region.commands import COMMANDS, RESUMABLE
from visual_region.commands.flags import ADD_FLAGS

_PROGRAM = "python -m visual_region"


def main() -> None:
    name, *arguments = sys.argv[1:] or [""]
    if name in COMMANDS:
        left = "the same command goes on from here" if name in RESUMABLE else ""
        run_program(lambda: _run(name, arguments), interrupted=left)
    elif name in ("-h", "--help"):
        print(_help())
    elif not name:
        sys.exit(_help())
    else:
        hint = did_you_mean(*close(name, COMMANDS)) or f"; there are {', '.join(COMMANDS)}"
        sys.exit(f"error: there is no command {name!r}{hint}")


def make_parser(name: str) -> Parser:
    """The parser of a command."""
    parser = Parser(prog=f"{_PROGRAM} {name}", description=COMMANDS[name])
    ADD_FLAGS[name](parser)
    return parser


def _run(name: str, arguments: list[str]) -> None:
    args = make_parser(name).parse_args(arguments)
    importlib.import_module(f"visual_region.commands.{name}").run(args)


def _help() -> str:
    what = "Decoder layers: choose, score, remove. Each command has its own --help."
    commands = text_table([(f"  {name}", line) for name, line in COMMANDS.items()], "<<")
    return f"usage: {_PROGRAM} COMMAND ...\n\n{what}\n\n{commands}"


if __name__ == "__main__":
    main()
