"""`python -m visual_region select`: a selection as a list and a picture."""

import argparse

from visual_region.layers import GRAMMAR, LayerSelection

HELP = "print a layer list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", help=GRAMMAR.replace("%", "%%"))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--num-layers", type=int)
    where.add_argument("--model-path")


def run(args: argparse.Namespace) -> None:
    """Prints a selection as a list and a picture."""
    if args.num_layers is None:
        from llava.model.builder import family_config

        args.num_layers = family_config(args.model_path)[1].num_hidden_layers
    print(LayerSelection.parse(args.spec, args.num_layers).describe())
