"""`python -m visual_region COMMAND`: see `--help` of each."""

import argparse
import importlib
import sys

from visual_region.commands import COMMANDS

_INTERRUPTED = 130
"""What a shell gives for a program that Ctrl-C ended."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m visual_region", description="Decoder layers: choose, score, remove"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args()
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
