"""Prepares the embedded default: `python -m playground.embedded.prepare [--out playground] [--seed 0] [--mixture]`.

Each part is a folder that is written completely or not at all. An existing part is not changed.
"""

import time
from pathlib import Path

from llava.flags import Parser, run_program


def prepare(out: Path, seed: int, mixture: bool = False) -> None:
    # These import torch, so they wait until the flags have been read.
    from playground.embedded.easy_vqa import prepare_evaluation, prepare_training
    from playground.embedded.smollm2 import prepare_smollm2
    from playground.embedded.tower import prepare_tower

    data, models = out / "data", out / "models"
    parts = [
        (data / "easy_vqa", lambda folder: prepare_training(folder, seed)),
        (data / "eval" / "easy_vqa", lambda folder: prepare_evaluation(folder, seed)),
        (models / "efficientnet-lite0-128", lambda folder: prepare_tower(folder, data / "easy_vqa/images/train")),
        (models / "SmolLM2-135M-Instruct", prepare_smollm2),
    ]
    if mixture:
        from playground.embedded.mixture import write
        from playground.embedded.wheels import wheel_folder

        # An error before anything is written.
        wheel_folder("sklearn")

        parts += [
            (data / "mixture", lambda folder: write.prepare_training(folder, seed)),
            (data / "eval" / "mixture", lambda folder: write.prepare_evaluation(folder, seed)),
        ]
    for folder, make in parts:
        if folder.is_dir():
            print(f"{folder}: exists already")
            continue
        start = time.perf_counter()
        make(folder)
        print(f"{folder}: written in {time.perf_counter() - start:.0f} s")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("playground"), help="folder of data/ and models/")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random questions")
    parser.add_argument("--mixture", action="store_true", help="also the mixture of tasks, for studies of layers")
    args = parser.parse_args()
    prepare(args.out, args.seed, args.mixture)


if __name__ == "__main__":
    run_program(main, (ValueError, OSError, ImportError))
