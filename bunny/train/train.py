"""Trains a Bunny: llava's training with Bunny's flags and backbones (upstream: bunny/train/train.py)."""

from collections.abc import Sequence

import transformers

import llava.train.train
from bunny.train.arguments import ARGUMENTS
from llava.train.attention import AUTO


def train(argv: Sequence[str] | None = None) -> None:
    """Runs one training from the command line's flags."""
    llava.train.train.train(AUTO, argv, ARGUMENTS)


if __name__ == "__main__":
    transformers.logging.set_verbosity_warning()
    train()
