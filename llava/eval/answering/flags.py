"""The flags of the evaluation programs. Without torch, so that a wrong flag is refused at once."""

import argparse
from collections.abc import Callable
from functools import partial

from llava.eval.answering.errors import EvaluationError
from llava.eval.benchmarks.mmbench import SUFFIXES
from llava.eval.benchmarks.mmlu import METHODS
from llava.flags import Parser, add_checkpoint_flags, device, positive

SHARE = {"auto": None, "on": True, "off": False}
DEFAULT_CONTEXT = 2048
CONV_HELP = "conversation template; default: the one that the checkpoint records; a plain language model's own"
UNITS = ("token", "byte", "word")


def add_model_flags(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Upstream's flags of model and generation, and ours for speed; `several` checkpoints as `add_checkpoint_flags`."""
    add_checkpoint_flags(parser, "default: fp16 on a GPU, fp32 on a CPU", several)
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--conv-mode", help=CONV_HELP)
    parser.add_argument("--temperature", type=float, default=0.2, help="0 takes the most probable token")
    parser.add_argument("--top_p", type=float)
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0, help="of sampling; a question's draw depends on no other's")
    stop_help = "end an answer before this text; may be repeated"
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help=stop_help)
    parser.add_argument("--raw-prompt", action="store_true", help="give the question's text without a conversation")
    batch_help = "questions at once; auto (default): what fits, halved when memory runs out; fp32 answers stay the same"
    parser.add_argument("--batch-size", type=_batch_size, metavar="N|auto", help=batch_help)
    share_help = "read once what several questions begin with (an image, examples); auto: if that is faster"
    parser.add_argument("--share-prefix", choices=SHARE, default="auto", help=share_help)
    parser.add_argument("--num-workers", type=int, default=4, help="threads that read images ahead")
    parser.add_argument("--device", type=device, default="cuda", help="default: cuda, or cpu without a GPU")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")


def question_parser(description: str, max_new_tokens: int, question_file: str | None = None) -> Parser:
    """A parser with all the flags of a model_vqa program, with upstream's defaults of that program."""
    parser = _answers_parser(description, max_new_tokens, question_file)
    skip_help = "answer the other questions if images are missing; NAME.run.json next to the answers lists them"
    parser.add_argument("--skip-missing-images", action="store_true", help=skip_help)
    return parser


def _answers_parser(description: str, max_new_tokens: int, question_file: str | None = None) -> Parser:
    parser = Parser(description=description)
    add_model_flags(parser)
    parser.set_defaults(max_new_tokens=max_new_tokens)
    parser.add_argument("--question-file", required=question_file is None, default=question_file)
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--num-chunks", type=int, default=1, help="processes that share the questions, round-robin")
    parser.add_argument("--chunk-idx", type=int, default=0, help="which of them this is, from 0")
    return parser


def _batch_size(text: str) -> int | None:
    try:
        return None if text == "auto" else positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of at least 1") from error


def check_flags(args: argparse.Namespace) -> None:
    """Raises `EvaluationError` that names all flags with impossible values."""
    wrong = [
        f"{flag} {value}: {allowed}"
        for flag, value, allowed, ok in (
            ("--temperature", args.temperature, "0 or more", args.temperature >= 0),
            ("--top_p", args.top_p, "more than 0, at most 1", args.top_p is None or 0 < args.top_p <= 1),
            ("--num_beams", args.num_beams, "1 or more", args.num_beams >= 1),
            ("--max_new_tokens", args.max_new_tokens, "1 or more", args.max_new_tokens >= 1),
            ("--num-workers", args.num_workers, "0 or more", args.num_workers >= 0),
            ("--stop", args.stop, "no empty text", all(args.stop)),
            ("--conv-mode", args.conv_mode, "not together with --raw-prompt", not (args.raw_prompt and args.conv_mode)),
        )
        if not ok
    ]
    if wrong:
        raise EvaluationError("; ".join(wrong))


def add_corpus_flags(parser: argparse.ArgumentParser, repeated: bool = False) -> None:
    """--text-file or --data-path (as lists if `repeated`), and how they are read."""
    kind = {"action": "append", "default": []} if repeated else {}
    parser.add_argument("--text-file", help="plain text (.txt: one stream), JSON lines with a 'text' (.jsonl)", **kind)
    parser.add_argument("--data-path", help="LLaVA JSON: perplexity of its answers", **kind)
    parser.add_argument("--samples", type=int, help="read only the first N documents or samples")
    parser.add_argument("--max-tokens", type=int, help="of text: read only the first N tokens")
    parser.add_argument("--context", type=int, help=f"tokens of a window; default: {DEFAULT_CONTEXT}, or what fits")
    parser.add_argument("--stride", type=int, help="tokens from window to window; default: the context, no overlap")
    parser.add_argument("--bos", choices=("auto", "none"), default="auto", help="auto: as the tokenizer does by itself")
    rolling = "each document of --text-file as lm-eval's wikitext and pile_10k; --bos none: as before lm-eval 0.4.9.2"
    parser.add_argument("--as-lm-eval", action="store_true", help=rolling)
    unit = "unit of the headline; all units are written, unless answers were cut off"
    parser.add_argument("--unit", choices=UNITS, default="token", help=unit)


loader_parser = partial(question_parser, "Answer a question file", 128)
long_parser = partial(
    question_parser, "Answer a question file, with up to 1024 new tokens", 1024, "tables/question.jsonl"
)


def mmbench_parser() -> Parser:
    parser = question_parser("Answer MMBench", 1024, "tables/question.jsonl")
    parser.add_argument("--all-rounds", action="store_true", help="once for each rotation of the options")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--lang", choices=SUFFIXES, default="en", help="of the request for the letter")
    return parser


def science_parser() -> Parser:
    parser = question_parser("Answer ScienceQA", 1024, "tables/question.json")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--answer-prompter", action="store_true", help="has no effect, as in upstream")
    return parser


def mmlu_parser() -> Parser:
    parser = _answers_parser("Answer MMLU's questions", 16)
    parser.set_defaults(temperature=0.0)
    parser.add_argument("--shots-file", required=True, help="shots.json, as llava.eval.prepare writes it")
    parser.add_argument("--method", choices=METHODS, default="generate")
    return parser


def perplexity_parser() -> Parser:
    parser = Parser(description="Perplexity of a text, or of answers to images")
    add_model_flags(parser)
    add_corpus_flags(parser)
    parser.add_argument("--report-file", required=True, help="JSON file to write")
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "model_vqa": long_parser,
    "model_vqa_loader": loader_parser,
    "model_vqa_mmbench": mmbench_parser,
    "model_vqa_science": science_parser,
    "model_mmlu": mmlu_parser,
    "perplexity": perplexity_parser,
}
"""The parsers of the programs in llava.eval that a benchmark can run."""
