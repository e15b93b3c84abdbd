"""Trains a Bunny: llava's training with Bunny's flags and backbones (upstream: bunny/train/train.py)."""

from collections.abc import Sequence

import llava.train.train
from llava.train.flag_names import AUTO


def train(argv: Sequence[str] | None = None) -> None:
    """Runs one training from the command line's flags."""
    llava.train.train.train(AUTO, argv, "bunny.train.arguments")


if __name__ == "__main__":
    train()
