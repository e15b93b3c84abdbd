"""What the removal of decoder layers gains at inference: time to first token, tokens a second, memory, in one run.

`python scripts/bench/pruned.py [--preset 7b --device cuda --dtype bf16]`

A Llama with random weights answers prompts of one image (random features, 576 tokens) and `--prompt` text tokens each
with `--new` tokens. Layers are removed in memory by the project's own surgery. The variants run in turn, `--rounds`
times; "share" is the median, over the rounds, of the time divided by the time without removal in the same round. The
expected share is layers left / layers: embeddings and the output head remain, so the measured one is a little higher.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.constants import IMAGE_TOKEN_INDEX
from llava.dtypes import dtype_of
from llava.eval.answering.decoding import decode, read_prompts
from llava.eval.answering.forest import Prompt
from llava.families import FAMILIES
from llava.flags import Parser, run_program
from llava.tables import text_table
from scripts.bench.shared import in_turn, median_ratio
from visual_region.surgery import layers_removed

_LLAMA = FAMILIES["llava_llama"]
PRESETS = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 32,
        "num_attention_heads": 8,
        "vocab_size": 8192,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
}
"""Shapes: SmolLM2-135M, a model of 32 layers for a CPU, LLaVA-1.5-7B."""
REMOVED = {30: (0, 1, 2, 3, 4), 32: (0, 4, 8)}
"""Numbers of removed layers by depth, if --removed does not name them."""


class Variant:
    """The model without some layers, and how long its answers took.

    Attributes:
        first: seconds to the first token, round by round.
        later: seconds per later token of a row, round by round.
        weights, cache: bytes of the parameters, and of keys and values after the prompts.
    """

    def __init__(self, model: Any, removed: int, prompts: list[Prompt], blocks: dict, new: int) -> None:
        # With random weights it does not matter which; the first layer stays.
        self.cut = partial(layers_removed, model, range(1, 1 + removed), _LLAMA.layer_path)
        self.model, self.prompts, self.blocks, self.new = model, prompts, blocks, new
        self.first: list[float] = []
        self.later: list[float] = []
        with self.cut(), torch.inference_mode():
            self.weights = sum(parameter.nbytes for parameter in model.parameters())
            # As many bytes as after `answer`'s first step; it also loads the kernels before anything is timed.
            state = read_prompts(model, prompts, blocks)
            self.cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in state.cache.layers)

    def answer(self) -> None:
        reached: list[float] = []

        def ended(tokens: list[int]) -> bool:
            if len(tokens) > len(reached):
                reached.append(time.perf_counter())
            return False

        with self.cut():
            begin = time.perf_counter()
            decode(self.model, self.prompts, self.blocks, self.new, (), ended)
        self.first.append(reached[0] - begin)
        self.later.append((reached[-1] - reached[0]) / (self.new - 1))


def random_model(preset: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A LLaVA without tower and projector: the image tokens are random too."""
    config = _LLAMA.load_config_class()(**PRESETS[preset], max_position_embeddings=4096)
    torch.set_default_dtype(dtype)
    with device:
        model = _LLAMA.load_model_class()(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--removed", type=int, nargs="+", help="numbers of removed layers, 0 first")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="prompts answered at once")
    parser.add_argument("--prompt", type=int, default=64, help="text tokens of a prompt")
    parser.add_argument("--image-tokens", type=int, default=576)
    parser.add_argument("--new", type=int, default=32, help="new tokens, at least 2")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    depth = PRESETS[args.preset]["num_hidden_layers"]
    counts = list(args.removed or REMOVED[depth])
    if counts[0] != 0 or max(counts) >= depth or min(counts) < 0:
        parser.error(f"--removed is {counts}; give 0 first, then numbers from 1 to {depth - 1}")
    if args.new < 2:
        parser.error(f"--new is {args.new}; at least 2 new tokens are needed for a time per token")
    torch.manual_seed(0)
    device, dtype = torch.device(args.device), dtype_of(args.dtype)
    model = random_model(args.preset, device, dtype)
    print(
        f"preset {args.preset}, {depth} layers, prompts of {args.image_tokens} image and {args.prompt} text tokens, "
        f"{args.new} new tokens, {args.device} {args.dtype}, {torch.get_num_threads()} threads, {args.rounds} rounds",
        flush=True,
    )
    rows = [("removed", "batch", "first token s", "share", "tokens/s", "share", "expected", "weights MB", "cache MB")]
    for batch in args.batch:
        # Different first ids and images: nothing is shared between prompts.
        ids = torch.randint(3, model.config.vocab_size, (batch, args.prompt)).tolist()
        prompts = [Prompt((*row[:-1], IMAGE_TOKEN_INDEX, row[-1]), (i,)) for i, row in enumerate(ids)]
        size = args.image_tokens, model.config.hidden_size
        blocks = {i: torch.randn(size).to(device, dtype) for i in range(batch)}
        variants = {n: Variant(model, n, prompts, blocks, args.new) for n in counts}
        in_turn({n: variant.answer for n, variant in variants.items()}, args.rounds, device)
        whole = variants[0]
        for n, found in variants.items():
            rows.append(
                (
                    n,
                    batch,
                    f"{statistics.median(found.first):.3f}",
                    f"{median_ratio(found.first, whole.first):.2f}",
                    f"{batch / statistics.median(found.later):.1f}",
                    f"{median_ratio(found.later, whole.later):.2f}",
                    f"{(depth - n) / depth:.2f}",
                    f"{found.weights / 1e6:.1f}",
                    f"{found.cache / 1e6:.1f}",
                )
            )
    print(text_table(rows))


if __name__ == "__main__":
    run_program(main, interrupted="")
