"""Speed and memory of `prune` and `revert` on disk, compared with copying the same files.

    python scripts/bench/prune.py --gigabytes 4.2 --folder FOLDER

Writes a synthetic checkpoint with Vicuna's widths and as many layers as fit the size, in shards of 2 GB. Then copies
its files, prunes it and reverts two layers, several times in turn; pruning and reverting run in separate processes.
Prints seconds, speeds, and the peak resident memory of these processes. Each run ends when its data is on disk (fsync).
All files are deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import LlamaConfig

sys.path.insert(0, str(Path(__file__).parents[2]))

from scripts.bench.checkpoints import copy_files, synthetic_checkpoint


def command(*arguments: str | Path) -> tuple[float, float, int]:
    """Runs a command of visual_region in a new process.

    Returns:
        total seconds; seconds without the imports, which take as long for a small model; peak memory in bytes. The peak
        is the kernel's VmHWM, because getrusage of a child includes the memory of its parent from before the exec.
    """
    code = (
        "import json, re, sys, time\n"
        "import torch, transformers, llava.model.builder, visual_region.pruning, visual_region.reversion\n"
        "from visual_region.__main__ import main\n"
        "begin = time.perf_counter()\n"
        "main()\n"
        "seconds = time.perf_counter() - begin\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "print(json.dumps([seconds, peak]))\n"
    )
    begin = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, peak = json.loads(process.stdout.splitlines()[-1])
    return time.perf_counter() - begin, seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.2)
    parser.add_argument("--folder", required=True, help="folder to write to; must not exist")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    root = Path(args.folder)
    if root.exists():
        sys.exit(f"error: {root} exists; give a folder that does not exist")
    root.mkdir(parents=True)
    needed = 2.2e9 * args.gigabytes
    if shutil.disk_usage(root).free < needed:
        root.rmdir()
        sys.exit(f"error: {root} needs {needed / 1e9:.0f} GB of free disk space")
    try:
        measure(root, args)
    finally:
        shutil.rmtree(root)


def measure(root: Path, args: argparse.Namespace) -> None:
    source, backbone = root / "source", root / "backbone"
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_attention_heads=32, vocab_size=32000, dtype=torch.float16
    )
    files = synthetic_checkpoint(source, args.gigabytes, config, "llava_llama")
    size = sum(file.stat().st_size for file in source.iterdir())
    # The backbone is a link to the same folder: `revert` copies the same number of bytes.
    backbone.symlink_to(source, target_is_directory=True)
    jobs = {
        "prune": ("prune", "--model-path", source, "--layers", "1"),
        "revert": ("revert", "--model-path", source, "--backbone", backbone, "--layers", "1-2"),
    }
    results: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ("copy", *jobs)}
    written = dict.fromkeys(results, 0)
    for _ in range(args.repeats):
        for name in results:
            target = root / "out"
            if name == "copy":
                seconds = copy_files(files, target)
                results[name].append((seconds, seconds, 0))
            else:
                results[name].append(command(*jobs[name], "--output", target))
            written[name] = sum(file.stat().st_size for file in target.iterdir())
            shutil.rmtree(target)
    print(f"checkpoint: {size / 1e9:.2f} GB, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    speeds = {name: written[name] / statistics.median(run[1] for run in runs) / 1e9 for name, runs in results.items()}
    for name, runs in results.items():
        seconds = " ".join(f"{run[1]:.2f}" for run in runs)
        line = f"{name:<7} {seconds} s, median {speeds[name]:.2f} GB/s written"
        if name != "copy":
            peak = max(run[2] for run in runs)
            line += f", {100 * speeds[name] / speeds['copy']:.0f}% of copying; peak resident memory {peak / 1e9:.2f} GB"
        print(line)


if __name__ == "__main__":
    main()
