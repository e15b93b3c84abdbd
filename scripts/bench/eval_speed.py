"""Answers per second: one question after another, as upstream asks them, compared with the runner, in one run.

`python scripts/bench/eval_speed.py --model-path C --question-file Q --image-folder I [--device cuda --dtype fp16]`

All ways answer the same questions with the same weights. They are timed in turn, `--rounds` times, and the best time of
each is reported, because other programs on the machine can only make a run slower. `--per-image 10` asks 10 of the
file's questions about each image. `--image-tokens 576` uses random features of 576 tokens per image instead of the
tower's output, to measure the prompt lengths of LLaVA-1.5 with a small model.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

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

_READERS = 4
"""Number of workers that read images ahead, as in upstream."""


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
    times = in_turn(ways, args.rounds, model.device)
    first = next(iter(times.values()))
    rows = [("", "answers/s", "ratio", "other texts")]
    for name, way in times.items():
        other = sum(a != b for a, b in zip(first.result, way.result, strict=True))
        best = min(way.clock)
        rows.append((name, f"{len(questions) / best:.2f}", f"{min(first.clock) / best:.2f}", other))
    print(text_table(rows))


if __name__ == "__main__":
    run_program(main, interrupted="")
