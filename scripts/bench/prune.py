"""Speed and memory of `prune` and `revert` on disk, compared with copying the same files.

    python scripts/bench/prune.py --gigabytes 4.2 --folder FOLDER

Writes a synthetic checkpoint with Vicuna's widths and as many layers as fit the size, in shards of 2 GB. Then copies
its files, prunes it and reverts two layers, several times in turn; pruning and reverting run in separate processes,
whose imports are not timed. Each run ends when its data is on disk (fsync). All files are deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
from transformers import LlamaConfig

sys.path.insert(0, str(Path(__file__).parents[2]))

import visual_region.pruning
import visual_region.reversion  # noqa: F401  (not to be timed)
from llava.devices import peak_memory
from llava.flags import Parser, run_program
from llava.tables import text_table
from scripts.bench.shared import copy_files, in_process, in_turn, synthetic_checkpoint
from visual_region.__main__ import main as visual_region_main


def main() -> None:
    if sys.argv[1:2] == ["--in-process"]:
        del sys.argv[1]
        times = in_turn({"command": visual_region_main}, 1)
        print(json.dumps([times["command"].clock[0], peak_memory(torch.device("cpu"))]))
        return
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.2)
    parser.add_argument("--folder", required=True, help="folder to write to; must not exist")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    root = Path(args.folder)
    root.mkdir(parents=True)
    try:
        needed = 2.2e9 * args.gigabytes
        if shutil.disk_usage(root).free < needed:
            raise ValueError(f"{root} needs {needed / 1e9:.0f} GB of free disk space")
        measure(root, args)
    finally:
        shutil.rmtree(root)


def measure(root: Path, args: argparse.Namespace) -> None:
    source, backbone, target = root / "source", root / "backbone", root / "out"
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_attention_heads=32, vocab_size=32000, dtype=torch.float16
    )
    files = synthetic_checkpoint(source, args.gigabytes, config, "llava_llama")
    size = sum(file.stat().st_size for file in source.iterdir())
    # The backbone is a link to the same folder: `revert` copies the same number of bytes.
    backbone.symlink_to(source, target_is_directory=True)
    commands = {
        "copy": [],
        "prune": ["prune", "--model-path", source, "--layers", "1"],
        "revert": ["revert", "--model-path", source, "--backbone", backbone, "--layers", "1-2"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    written, peaks = dict.fromkeys(commands, 0), dict.fromkeys(commands, 0)
    for _ in range(args.repeats):
        for name, command in commands.items():
            if command:
                took, peak = in_process(__file__, "--in-process", *command, "--output", target)
                peaks[name] = max(peaks[name], peak)
            else:
                took = in_turn({"copy": partial(copy_files, files, target)}, 1)["copy"].clock[0]
            seconds[name].append(took)
            written[name] = sum(file.stat().st_size for file in target.iterdir())
            shutil.rmtree(target)
    print(f"checkpoint: {size / 1e9:.2f} GB, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    speeds = {name: written[name] / statistics.median(seconds[name]) / 1e9 for name in commands}
    rows = [("", "seconds", "GB/s written (median)", "of copying", "peak memory")]
    for name, speed in speeds.items():
        took, peak = " ".join(f"{value:.2f}" for value in seconds[name]), f"{peaks[name] / 1e9:.2f} GB"
        rows.append((name, took, f"{speed:.2f}", f"{speed / speeds['copy']:.0%}", peak if peaks[name] else ""))
    print(text_table(rows))


if __name__ == "__main__":
    run_program(main, interrupted="")
