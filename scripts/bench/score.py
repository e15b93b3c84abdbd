"""What scoring costs: the shared pass relative to a plain forward pass, comparing checkpoints relative to a copy.

`OMP_NUM_THREADS=2 python scripts/bench/score.py [--only pass,memory,parameters] [--gigabytes 4] [--folder /tmp]`

- pass: seconds of the metrics of hidden states, without and with the image attention score, relative to a plain forward
  pass of the same decoder on the same batches (a Llama with random weights and grouped heads; half of the rows padded).
- memory: peak memory above that of the plain forward pass, for few and many samples and layers, in separate processes.
- parameters: comparing two synthetic bfloat16 checkpoints and copying them; peak memory of the comparing process.

The ways that are compared run in turn, for several rounds; the figures are medians of the rounds' ratios.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.checkpoint.folder import open_checkpoint
from llava.devices import peak_memory
from llava.flags import Parser, run_program
from llava.tables import text_table
from scripts.bench.shared import copy_files, in_process, in_turn, median_ratio, synthetic_checkpoint
from visual_region.importance.angular import AngleRecorder
from visual_region.importance.angular_param import angular_param
from visual_region.importance.angular_param_vector import angular_param_vector
from visual_region.importance.block_influence import CosineRecorder
from visual_region.importance.image_attention import ImageAttentionRecorder
from visual_region.importance.parameter_change import parameter_change
from visual_region.importance.parameters import check_comparable, compare_layers
from visual_region.importance.sweep import sweep
from visual_region.importance.tokens import ANSWER, IMAGE, PADDING, PROMPT, TokenBatch
from visual_region.importance.weights import decoder_weights

IMAGE_TOKENS, LENGTH = 64, 256
WAYS = ("plain", "states", "states and attention")


def make_model(layers: int, hidden: int = 576) -> Any:
    """A Llama with random weights, in fp32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    return LlamaForCausalLM(config).eval()


def make_batches(model: Any, count: int, size: int = 4) -> list[TokenBatch]:
    """Batches of image and text tokens. Every second row is shorter by a quarter, and padded."""
    kinds = torch.full((size, LENGTH), PROMPT)
    kinds[:, 8 : 8 + IMAGE_TOKENS] = IMAGE
    kinds[:, -LENGTH // 4 :] = ANSWER
    kinds[1::2, -LENGTH // 4 :] = PADDING
    mask = kinds != PADDING
    batches = []
    for i in range(count):
        embeds = torch.randn(size, LENGTH, model.config.hidden_size, generator=torch.Generator().manual_seed(i))
        inputs = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        batches.append(TokenBatch(inputs, kinds, tuple(range(i * size, (i + 1) * size))))
    return batches


def run_way(way: str, model: Any, batches: Iterable[TokenBatch]) -> None:
    if way == "plain":
        with torch.no_grad():
            for batch in batches:
                model.model(**batch.inputs, use_cache=False)
        return
    recorders: list[Any] = [CosineRecorder(), AngleRecorder()]
    recorders += [ImageAttentionRecorder()] * (way == "states and attention")
    for _ in sweep(model, batches, recorders, "model.layers"):
        pass


def bench_pass(args: argparse.Namespace) -> None:
    """Compares the shared pass with a plain forward pass."""
    model = make_model(layers=4)
    batches = make_batches(model, 1)
    ways = {way: partial(run_way, way, model, batches) for way in WAYS}
    in_turn(ways, 1)
    times = in_turn(ways, args.rounds)
    plain = times["plain"]
    print(f"\npass: 4 layers of 576, a batch of 4 x {LENGTH} tokens ({IMAGE_TOKENS} image tokens), fp32, decoder only")
    rows = [("", f"best of {args.rounds} rounds", "ratio", "median ratio", "of processor time", "limit of the median")]
    for way, limit in zip(WAYS, ("", "1.25", "2"), strict=True):
        best = min(times[way].clock)
        clock = median_ratio(times[way].clock, plain.clock)
        processor = median_ratio(times[way].processor, plain.processor)
        ratios = (f"{ratio:.3f}" for ratio in (best / min(plain.clock), clock, processor))
        rows.append((way, f"{best:.3f} s", *ratios, limit))
    print(text_table(rows))


def bench_memory(args: argparse.Namespace) -> None:
    """Measures peak memory above that of the plain forward pass, per number of samples and layers."""
    print("\nmemory: peak of a separate process above that of the plain forward pass, MiB")
    rows = [("samples", "layers", *WAYS[1:], "all hidden states would take")]
    for samples, layers in ((4, 4), (16, 4), (64, 4), (4, 16), (16, 16)):
        plain, *peaks = (_in_process("peak", way, samples, layers) for way in WAYS)
        stack = samples * (layers + 1) * LENGTH * 576 * 4 / 2**20
        rows.append((samples, layers, *(f"{(peak - plain) / 2**20:.1f}" for peak in peaks), f"{stack:.0f}"))
    print(text_table(rows))


def peak_of_way(way: str, samples: str, layers: str) -> int:
    """Peak memory of this process, after running the way. Batches are made one at a time."""
    model = make_model(int(layers))
    run_way(way, model, (make_batches(model, 1)[0] for _ in range(int(samples) // 4)))
    return peak_memory(torch.device("cpu"))


def bench_parameters(args: argparse.Namespace) -> None:
    """Compares two checkpoints, and copies them."""
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-score-") as root:
        theta, trained = Path(root) / "theta", Path(root) / "trained"
        config = LlamaConfig(
            hidden_size=2048, intermediate_size=5504, num_attention_heads=16, vocab_size=1000, dtype=torch.bfloat16
        )
        files = synthetic_checkpoint(theta, args.gigabytes / 2, config)
        files += synthetic_checkpoint(trained, args.gigabytes / 2, config, scale=1.01)
        size = sum(file.stat().st_size for file in files) / 1e9
        copied = Path(root) / "copy"
        ways = {"copy": partial(copy_files, files, copied), "compare": partial(compare, trained, theta)}
        times = in_turn(ways, args.rounds_on_disk)
        shutil.rmtree(copied)
        peak = _in_process("compare", trained, theta)
    ratio = median_ratio(times["copy"].clock, times["compare"].clock)
    print(f"\nparameters: two synthetic checkpoints, {size:.1f} GB together, bfloat16, {args.rounds_on_disk} rounds")
    rows = [("", "seconds", "GB/s", "processor seconds")]
    for way, values in times.items():
        middle, processor = statistics.median(values.clock), statistics.median(values.processor)
        rows.append((way, f"{middle:.2f}", f"{size / middle:.2f}", f"{processor:.2f}"))
    print(text_table(rows))
    print(f"speed of comparing relative to copying: {100 * ratio:.0f}% (at least 60%)")
    print(f"peak memory of a process that compares: {peak / 2**30:.2f} GiB (under 1.5)")


def compare(trained: str | Path, theta: str | Path) -> int:
    """Computes all parameter metrics. Returns the peak memory of this process."""
    pair = decoder_weights(open_checkpoint(trained)), decoder_weights(open_checkpoint(theta))
    check_comparable(*pair)
    sums = list(compare_layers(*pair, range(len(pair[0].layers))))
    parameter_change(sums), angular_param(sums), angular_param_vector(sums)
    return peak_memory(torch.device("cpu"))


def _in_process(*arguments: object) -> int:
    # Tensors get separate memory maps, which return to the system when freed: the peak counts only live tensors.
    return in_process(__file__, "--in-process", *arguments, MALLOC_MMAP_THRESHOLD_="65536")


SECTIONS = {"pass": bench_pass, "memory": bench_memory, "parameters": bench_parameters}
"""The sections that --only accepts."""
IN_PROCESS = {"peak": peak_of_way, "compare": compare}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--rounds-on-disk", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=8.2, help="size of all synthetic weights together")
    parser.add_argument("--folder", help="folder for the temporary synthetic checkpoints; default: the system's")
    parser.add_argument("--in-process", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process:
        name, *arguments = args.in_process
        print(IN_PROCESS[name](*arguments))
        return
    names = args.only.split(",") if args.only else list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise ValueError(f"unknown section {', '.join(unknown)}; the sections are {', '.join(SECTIONS)}")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    print(f"{torch.get_num_threads()} threads, {processor}, torch {torch.__version__}, load {load:.1f} at the start")
    for name in names:
        SECTIONS[name](args)


if __name__ == "__main__":
    run_program(main, interrupted="")
