"""Answers of the runner, and of models with fewer layers, with the weights of a preset. Rows of gpu.py.

Images are random features, so that neither the tower nor a disk is part of the time.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.dtypes import dtype_of
from llava.eval.answering.batching import BatchSize, plan
from llava.eval.answering.decoding import Prompt, decode
from scripts.bench.pruned import Variant
from scripts.bench.shared import in_turn, wait
from scripts.bench.train_step import PRESETS, language_model, shape_and_meter
from visual_region.cost import Recipe, flops_per_sample

_TEXT = 24
"""Ids of a prompt, with the image's; those before the image and its own are the same in all prompts."""
_SHORT, _LONG = 8, 64
"""New tokens of an answer."""


@cache
def _model(preset: str, device: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    model = language_model(preset, torch.device(device), dtype).eval()
    model.model.mm_projector.to(dtype)
    model.config.use_cache = True
    # Random weights never end an answer.
    model.generation_config.eos_token_id = None
    return model


def _on_gpu(args: argparse.Namespace) -> bool:
    return args.device.startswith("cuda")


def _prompts(preset: str, count: int, per_image: int) -> list[Prompt]:
    draw, vocabulary = random.Random(0), PRESETS[preset]["vocabulary"]
    texts = [[draw.randrange(3, vocabulary) for _ in range(_TEXT)] for _ in range(count)]
    return [Prompt((1, IMAGE_TOKEN_INDEX, *text), (i // per_image,)) for i, text in enumerate(texts)]


def _features(args: argparse.Namespace) -> torch.Tensor:
    """The tower's features of one image; all images have the same."""
    shape = PRESETS[args.preset]
    size = (shape["image"] // 14) ** 2, shape["tower"]["hidden_size"]
    return torch.randn(size, device=args.device, dtype=dtype_of(args.dtype))


def _one_by_one(args: argparse.Namespace, prompts: list[Prompt], new_tokens: int) -> tuple[Callable[[], None], int]:
    """Upstream's way, to be timed, and its number of batches."""
    model, features = _model(args.preset, args.device, dtype_of(args.dtype)), _features(args)

    def run() -> None:
        for prompt in prompts:
            ids = torch.tensor([prompt.ids], device=args.device)
            greedy = {"max_new_tokens": new_tokens, "do_sample": False, "use_cache": True, "pad_token_id": 0}
            model.generate(ids, image_features=features.unsqueeze(0), **greedy)

    return run, len(prompts)


def _runner(args: argparse.Namespace, prompts: list[Prompt], new_tokens: int) -> tuple[Callable[[], None], int]:
    """The runner's way: as many prompts at once as fit, what they share is read once. Planned before it is timed."""
    model, features = _model(args.preset, args.device, dtype_of(args.dtype)), _features(args)
    batches = plan(prompts, len(features), BatchSize.of(None, model, new_tokens), None, new_tokens)

    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            keys = list(dict.fromkeys(key for prompt in batch.prompts for key in prompt.images))
            blocks = dict(zip(keys, model.project_features(features.expand(len(keys), -1, -1)), strict=True))
            decode(model, batch.prompts, blocks, new_tokens, ())

    return run, len(batches)


def _timed(args: argparse.Namespace, run: Callable[[], None]) -> float:
    """Seconds of the second run: the first one loads kernels."""
    run()
    if _on_gpu(args):
        torch.cuda.reset_peak_memory_stats(args.device)
    wait(args.device)
    begin = time.perf_counter()
    run()
    wait(args.device)
    return time.perf_counter() - begin


def _answers(way: Callable[..., Any], count: int, per_image: int, args: argparse.Namespace) -> dict[str, Any]:
    count = count if _on_gpu(args) else max(2, count // 32)
    prompts = _prompts(args.preset, count, per_image)
    run, batches = way(args, prompts, _SHORT)
    speed = count / _timed(args, run)
    image = len(_features(args))
    recipe = Recipe("projector", _TEXT + _SHORT, image, _SHORT)
    flops = flops_per_sample(shape_and_meter(args.preset, dtype_of(args.dtype), True)[0], None, recipe).forward
    note = f"{count} prompts of {image + _TEXT + 1} tokens, {_SHORT} new ones; batches: {batches}"
    # With a shared image most of a prompt is not computed.
    tflops = {"tflops": speed * flops / 1e12} if per_image == 1 else {}
    return {"speed": speed, "unit": "answers/s", "note": note, **tflops}


def _pruned(part: int, args: argparse.Namespace) -> dict[str, Any]:
    """Speed without some eighths of the layers."""
    model, features = _model(args.preset, args.device, dtype_of(args.dtype)), _features(args)
    removed = PRESETS[args.preset]["layers"] * part // 8
    with torch.inference_mode():
        block = model.project_features(features.unsqueeze(0))[0]
    alone, many = (
        Variant(model, removed, prompts, dict.fromkeys(range(len(prompts)), block), _LONG)
        for prompts in (_prompts(args.preset, count, 1) for count in (1, 32 if _on_gpu(args) else 2))
    )
    in_turn({"alone": alone.answer, "many": many.answer}, 4, args.device)
    # The first round loads kernels.
    first, later, together = (statistics.median(times[1:]) for times in (alone.first, alone.later, many.later))
    count = len(many.prompts)
    note = (
        f"{removed} layers; first token after {1000 * first:.1f} ms; {count} at once: {count / together:.1f} tokens/s"
    )
    return {"speed": 1 / later, "unit": "tokens/s", "note": note}


ANSWERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "one by one, as upstream": partial(_answers, _one_by_one, 16, 1),
    "runner": partial(_answers, _runner, 128, 1),
    "runner, 10 questions an image": partial(_answers, _runner, 160, 10),
}
PRUNED: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "no layer removed": partial(_pruned, 0),
    "an eighth of the layers removed": partial(_pruned, 1),
    "a quarter of the layers removed": partial(_pruned, 2),
}
