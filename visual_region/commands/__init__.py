"""The commands of `python -m visual_region`: one module each.

A module has `HELP` (one line), `add_arguments(parser)` and `run(args)`; bad input raises ValueError or OSError,
which `__main__` prints as one line.
"""

COMMANDS: dict[str, str] = {
    name: f"visual_region.commands.{name}"
    for name in ("select", "score", "picture", "plan", "perplexity", "prune", "revert", "heal", "export")
}
"""Name on the command line -> module."""
