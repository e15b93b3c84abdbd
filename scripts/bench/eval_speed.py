"""Answers per second: one question after another, as upstream asks them, compared with the runner, in one run.

`python scripts/bench/eval_speed.py --model-path C --question-file Q --image-folder I [--device cuda --dtype fp16]`

All ways answer the same questions with the same weights. They are timed in turn, `--rounds` times, and the best time of
each is reported, because other programs on the machine can only make a run slower. `--per-image 10` asks 10 of the
file's questions about each image. `--image-tokens 576` uses random features of 576 tokens per image instead of the
tower's output, to measure the prompt lengths of LLaVA-1.5 with a small model.

The machine's own speed is measured in the same rounds: the products of all linear modules of the decoder, with as many
rows as the runner's largest batch has tokens. "Prompt tokens" and "new tokens" are those that the decoder computed,
with padding. The FLOPs are the decoder's and its head's, without image tower and projector. The last column is the
way's FLOPs a second, divided by the machine's. The time of tower and projector is included: it is a lower bound.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.eval.answering.answerer import Answerer
from llava.eval.answering.arguments import make_answerer, open_model
from llava.eval.answering.flags import add_model_flags, check_flags
from llava.eval.answering.questions import Question, check_images, read_questions
from llava.eval.answering.runner import answer_stream
from llava.flags import Parser, run_program
from llava.tables import text_table
from llava.tokenization import ids_to_text
from scripts.bench.shared import in_turn
from visual_region.cost import LayerShape

_READERS = 4
"""Number of workers that read images ahead, as in upstream."""

_MOST_ROWS = 2048
"""Rows of the products that measure the machine; more are not faster."""

_MACHINE = "matrix products alone"


class RandomFeatures:
    """Replaces the feature cache: random features `(tokens, width)` that depend only on the name of the image."""

    def __init__(self, tokens: int, width: int, dtype: torch.dtype) -> None:
        self.shape, self.dtype = (tokens, width), dtype

    def features(self, path: Path) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, str(path))))
        return torch.randn(self.shape, generator=generator).to(self.dtype)


class WideAnswerer(Answerer):
    """An answerer whose images have as many tokens as the random features."""

    @property
    def image_tokens(self) -> int:
        return self.feature_cache.shape[0]


def one_by_one(answerer: Answerer, questions: list[Question]) -> list[str]:
    """Upstream's way: workers read the images; tower and `generate` run for one question at a time."""
    texts = []
    with ThreadPoolExecutor(_READERS) as pool, torch.inference_mode():
        for question, image in zip(questions, pool.map(answerer.load, questions), strict=True):
            ids = answerer.prompt_ids(question).unsqueeze(0).to(answerer.model.device)
            name = "images" if answerer.feature_cache is None else "image_features"
            output = answerer.model.generate(
                ids,
                **{name: image.unsqueeze(0).to(answerer.model.device, answerer.model.dtype)},
                **answerer.generation.arguments(),
                use_cache=True,
                pad_token_id=answerer.tokenizer.pad_token_id,
                eos_token_id=sorted(answerer.stops()[0]),
            )
            texts.append(ids_to_text(answerer.tokenizer, output[0]).strip())
    return texts


def batched(answerer: Answerer, questions: list[Question], size: int | None, share: bool | None) -> list[str]:
    """The runner's way, without an answers file."""
    answerer.forget_images()
    found: dict[int, str] = {}
    for asked, texts in answer_stream(answerer, questions, answerer.batches(questions, size, share), _READERS):
        found |= dict(zip((q.index for q in asked), texts, strict=True))
    return [found[q.index] for q in questions]


class Work:
    """Counts what the decoder computes, padding included: tokens of prompts, new tokens, and FLOPs with its head.

    A forward with one position per row reads a new token, all others read prompts. Attention counts the positions that
    are looked at.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        layers = [LayerShape.of(layer, config) for layer in model.get_model().layers]
        self.per_token = 2 * sum(n_in * n_out for layer in layers for _, n_in, n_out in layer.linears)
        self.per_pair = 4 * sum(layer.attention for layer in layers)
        self.per_row = 2 * config.hidden_size * config.vocab_size
        self.first_layer = model.get_model().layers[0]

    def of(self, way: Callable[[], Any]) -> Any:
        """Runs a way; `prompts`, `new` and `flops` are its counts."""
        self.prompts = self.new = self.flops = 0
        hook = self.first_layer.register_forward_pre_hook(self._count, with_kwargs=True)
        try:
            return way()
        finally:
            hook.remove()

    def _count(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        rows, length = (args[0] if args else kwargs["hidden_states"]).shape[:2]
        tokens = rows * length
        self.prompts += tokens if length > 1 else 0
        self.new += tokens if length == 1 else 0
        # A position of a joined row looks at those of its own prompt only: as many as its number there.
        pairs = int(kwargs["position_ids"].expand(rows, length).sum()) + tokens
        self.flops += tokens * self.per_token + pairs * self.per_pair + rows * self.per_row


def products_alone(model: Any, rows: int) -> tuple[int, Callable[[], None]]:
    """FLOPs, and a function that multiplies `rows` rows by the weight of each linear module of the decoder."""
    weights = [module.weight for module in model.get_model().layers.modules() if isinstance(module, nn.Linear)]
    like = {"dtype": model.dtype, "device": model.device}
    inputs = {size: torch.randn(rows, size).to(**like) for size in {weight.shape[1] for weight in weights}}
    outputs = {size: torch.empty(rows, size, **like) for size in {weight.shape[0] for weight in weights}}

    @torch.inference_mode()
    def multiply() -> None:
        for weight in weights:
            torch.mm(inputs[weight.shape[1]], weight.T, out=outputs[weight.shape[0]])

    return 2 * rows * sum(weight.numel() for weight in weights), multiply


def choose(questions: list[Question], count: int, per_image: int | None) -> list[Question]:
    """The first `count` questions. With `per_image`, asks that many of its texts about each of its first images."""
    if per_image is None:
        return questions[:count]
    images = list(dict.fromkeys(q.image for q in questions))[: -(-count // per_image)]
    texts = list(dict.fromkeys(q.text for q in questions))
    return [
        replace(questions[0], index=i, text=texts[i % len(texts)], image=images[i // per_image]) for i in range(count)
    ]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(parser)
    parser.set_defaults(temperature=0.0, max_new_tokens=8)
    parser.add_argument("--question-file", required=True)
    parser.add_argument("--questions", type=int, default=128, help="number of questions to answer")
    parser.add_argument("--per-image", type=int, help="number of questions per image")
    parser.add_argument("--image-tokens", type=int, help="use random features with this many tokens per image")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    check_flags(args)
    questions = choose(read_questions(args.question_file), args.questions, args.per_image)
    check_images(questions, Path(args.image_folder))
    answerer = make_answerer(args, open_model(args))
    model = answerer.model
    if args.image_tokens:
        # `generate` cuts prompts to the training length, as upstream does; the runner warns and does not cut.
        model.config.tokenizer_model_max_length = None
        features = RandomFeatures(args.image_tokens, model.config.mm_hidden_size, model.dtype)
        answerer = WideAnswerer(
            model, answerer.tokenizer, None, answerer.template, answerer.image_folder, answerer.generation, features
        )
    size = args.batch_size
    runner = f"runner, batch size {size or 'auto'}"
    ways = {
        "one by one, as upstream": partial(one_by_one, answerer, questions),
        "runner, batch size 1": partial(batched, answerer, questions, 1, False),
        runner: partial(batched, answerer, questions, size, False),
        f"{runner}, shared prefixes": partial(batched, answerer, questions, size, True),
    }
    lengths = [len(answerer.prompt(q).ids) - 1 + answerer.image_tokens for q in questions]
    images = len({q.image for q in questions})
    print(
        f"{len(questions)} questions on {images} images, prompts of {min(lengths)} to {max(lengths)} tokens "
        f"({answerer.image_tokens} per image), up to {args.max_new_tokens} new tokens, {model.dtype}, "
        f"{torch.get_num_threads()} threads, {model.device}"
    )
    if model.device.type == "cuda":
        # Warm-up: the kernels for each shape are selected and loaded before anything is timed.
        in_turn(ways, 1, model.device)
    work = {name: Work(model) for name in ways}
    ways = {name: partial(work[name].of, way) for name, way in ways.items()}
    largest = max(sum(lengths[i] for i in batch.rows) for batch in answerer.batches(questions, size, False))
    flops, multiply = products_alone(model, min(largest, _MOST_ROWS))
    times = in_turn(ways | {_MACHINE: multiply}, args.rounds, model.device)
    machine = flops / min(times.pop(_MACHINE).clock)
    first = next(iter(times.values()))
    rows = [
        ("", "answers/s", "ratio", "other texts", "prompt tokens", "new tokens", "GFLOP", "GFLOP/s", "of the machine")
    ]
    for name, way in times.items():
        other = sum(a != b for a, b in zip(first.result, way.result, strict=True))
        best, done = min(way.clock), work[name]
        speed = f"{len(questions) / best:.2f}", f"{min(first.clock) / best:.2f}", other
        reached = f"{done.flops / best / 1e9:.1f}", f"{done.flops / best / machine:.0%}"
        rows.append((name, *speed, done.prompts, done.new, f"{done.flops / 1e9:.1f}", *reached))
    print(f"the machine's own speed: {machine / 1e9:.1f} GFLOP/s ({min(largest, _MOST_ROWS)} rows, {model.dtype})")
    print(text_table(rows))


if __name__ == "__main__":
    run_program(main, interrupted="")
