"""The commands' flags. Without torch, so that a wrong flag is refused at once."""

import argparse
from collections.abc import Callable

from llava.flags import DTYPE_NAMES, Parser, add_checkpoint_flags, add_output_flags, device, positive
from visual_region.layers import GRAMMAR

MODES = ("lora", "full", "projector")
"""Ways to train, of `plan`."""


_STABILITY = "resample the samples of selections by score; not the training, which can vary more"


def _add_sample_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of the samples and of how they are run."""
    parser.add_argument("--data-path", help="LLaVA JSON, or image-caption pairs")
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--samples", default="64", help="how many, drawn at random; or 'all'")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn samples and of the bootstrap")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the checkpoint records")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")


def _select(parser: Parser) -> None:
    parser.add_argument("spec", nargs="+", help=GRAMMAR.replace("%", "%%"))
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--num-layers", type=int)
    where.add_argument("--model-path", help="checkpoint with this number of layers; default: the score file's")
    parser.add_argument("--stability", action="store_true", help=_STABILITY)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="PNG to write: one row per selection")
    parser.add_argument("--output", help="JSON to write")
    parser.add_argument("--markdown", help="table to write: layers with scores and intervals, stability, overlap")


def _score(parser: Parser) -> None:
    parser.epilog = _about_metrics
    dtype = "default: for samples fp16 on a GPU, fp32 on a CPU; for a LoRA's weights in metrics of parameters fp32"
    add_checkpoint_flags(parser, dtype)
    parser.add_argument("--metrics", help="comma-separated; default: all that the given inputs allow")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples behind the 95%% intervals")
    parser.add_argument("--backbone", help="what the language model was trained from, for the metrics of parameters")
    _add_sample_flags(parser)
    parser.add_argument("--mark", help="layers to mark in the picture; default: the tuned region")
    parser.add_argument("--output", required=True, help="score file to write; the pictures are next to it, as .png")


def _picture(parser: Parser) -> None:
    parser.add_argument(
        "kind",
        choices=("bars", "heatmap", "curves"),
        help="bars: a score file's metrics by layer; heatmap: samples by layers, one panel per score file (the "
        "paper's Figure 5); curves: scores against layers removed, a panel per benchmark (its Figure 4)",
    )
    parser.add_argument("files", nargs="+", help="score files, or files of `curve`")
    parser.add_argument("--metric", help="bars: comma-separated, default all of the paper; heatmap: one")
    parser.add_argument("--mark", help="bars: layers to mark, in the grammar of --tune_layers; default: tuned region")
    parser.add_argument("--names", help="comma-separated titles of the panels, or of checkpoints in curves")
    parser.add_argument("--output", required=True, help="PNG to write")


def _plan(parser: Parser) -> None:
    parser.add_argument("--model-path", required=True, help="folder (its config.json is enough) or hub id")
    selection = f"a selection; may be repeated, to compare. Default: all and sparse-uniform:25%. {GRAMMAR}"
    parser.add_argument("--tune-layers", action="append", help=selection.replace("%", "%%"))
    parser.add_argument("--mode", choices=MODES, default="lora", help="projector: stage 1")
    parser.add_argument("--lora-r", type=int, default=128)
    parser.add_argument("--lora-dropout", type=float, default=0.05)
    parser.add_argument("--dtype", choices=DTYPE_NAMES, default="bf16")
    vision = parser.add_argument_group("vision (defaults are of LLaVA-1.5: CLIP ViT-L/14 at 336 pixels)")
    vision.add_argument("--vision-tower", help="tower folder; default: the one that the model records, if it exists")
    vision.add_argument("--image-tokens", type=int, help="tokens per image; 0: text only. Default: the projector's")
    vision.add_argument("--mm-hidden-size", type=int, help="width of a feature; default: the tower's")
    vision.add_argument("--mm-projector-type", help="default: the model's, else mlp2x_gelu")
    vision.add_argument("--freeze-mm-mlp-adapter", action="store_true", help="the projector does not train")
    data = parser.add_argument_group("data (defaults are of LLaVA-1.5's 665K instructions)")
    data.add_argument("--data-path", help="LLaVA JSON, to count its samples")
    data.add_argument("--samples", type=int, help="default: as many as --data-path has, else 665298")
    data.add_argument("--epochs", type=float, default=1)
    data.add_argument("--text-tokens", type=int, default=192, help="text tokens of a sample")
    data.add_argument("--labelled-tokens", type=int, help="of these, with a label; default: two fifths")
    data.add_argument("--all-logits", action="store_true", help="the head runs on every token, as upstream's does")
    data.add_argument("--batch-size", type=int, default=16, help="samples of one device at once")
    data.add_argument("--tflops", type=float, help="peak of one device in TFLOP/s, for device hours")
    data.add_argument("--utilization", type=float, default=0.4, help="share of --tflops that is reached; default: 0.4")
    parser.add_argument("--output", help="JSON file to write")


def _perplexity(parser: Parser) -> None:
    # Imports numpy, which the other commands' flags do without.
    from llava.eval.answering.flags import add_corpus_flags, add_model_flags

    add_model_flags(parser)
    parser.add_argument("--backbone", help="folder of the plain language model; default: a LoRA's base")
    revert = "layers to set back, for a row of the table; may be repeated. Default: each quarter of the layers, and all"
    parser.add_argument("--revert", action="append", help=revert)
    add_corpus_flags(parser, repeated=True)
    parser.add_argument("--output", required=True, help="JSON file to write; values that it holds are not measured")


def _prune(parser: Parser) -> None:
    add_checkpoint_flags(parser, "default: as stored; of a merged LoRA fp32")
    which = parser.add_argument_group("which layers (numbers are of the model as it is now)")
    which.add_argument("--layers", help="layers to remove, in the grammar of --tune_layers")
    which.add_argument("--scores", help="score file; removes the layers of lowest score")
    which.add_argument("--metric", default="angular", help="a metric of the score file")
    which.add_argument("--remove", type=int, default=1, help="how many, by lowest score")
    block = "remove this many consecutive layers, of lowest angular distance across them (Gromov et al. 2024)"
    which.add_argument("--block", type=int, help=block)
    which.add_argument("--block-scores", help="file of block distances; measured on --data-path if it does not exist")
    which.add_argument("--anywhere", action="store_true", help="the tuned region is not protected")
    _add_sample_flags(parser.add_argument_group("what blocks are measured on"))
    add_output_flags(parser)
    base = "of a LoRA: folder for the pruned base; --output gets a renumbered adapter. Default: one merged folder"
    parser.add_argument("--base-output", help=base)


def _curve(parser: Parser) -> None:
    # They import numpy, which the other commands' flags do without.
    from llava.eval.answering.flags import add_model_flags
    from llava.eval.benchmarks import BY_NAME, DATA

    add_model_flags(parser, several=True)
    parser.set_defaults(temperature=0.0, max_new_tokens=None)
    asked = parser.add_argument_group("what is measured")
    what = "default: easy_vqa; METHOD, MAX_TOKENS and other variables of scripts/eval apply, but not DATA, QUESTIONS "
    what += "and IMAGES: use --data, --questions, --image-folder"
    names = {"choices": list(BY_NAME), "metavar": "NAME", "default": ["easy_vqa"]}
    asked.add_argument("--benchmarks", nargs="+", help=what, **names)
    asked.add_argument("--data", help=f"folder with a folder for each benchmark; default: {DATA}")
    other = "another question file in a benchmark's folder, without its suffix"
    asked.add_argument("--questions", nargs="+", default=[], metavar="NAME=FILE", help=other)
    asked.add_argument("--question-file", help="of a single benchmark; default: the one in its folder")
    asked.add_argument("--annotation-file", help="of a single benchmark; default: the one in its folder")
    limit = "at most N questions of each benchmark, evenly spaced over its question file; default: all. "
    limit += "Of wikitext and pile_10k: the first N documents. It does not shorten perplexity: use MAX_TOKENS"
    asked.add_argument("--limit", type=positive, metavar="N", help=limit)
    which = parser.add_argument_group("which layers are removed (numbers are of the model as it is now)")
    scores = "score file of `python -m visual_region score`; of several checkpoints one each, in their order"
    which.add_argument("--scores", nargs="+", help=scores)
    which.add_argument("--metric", default="angular", help="a metric of the score file; the lowest is removed first")
    which.add_argument("--order", help="layers to remove, such as 21,22,5, the first one first; in place of --scores")
    where = "outside: the tuned region is protected, unless it is all layers; default: both"
    which.add_argument("--where", choices=("outside", "anywhere", "both"), default="both", help=where)
    which.add_argument("--most", type=int, default=4, help="the largest number of layers to remove")
    parser.add_argument("--output", required=True, help="JSON file to write; the points that it holds are kept")


def _revert(parser: Parser) -> None:
    parser.add_argument("--model-path", required=True, help="full, merged or LoRA folder")
    parser.add_argument("--backbone", help="folder of the plain language model; default: the recorded one")
    parser.add_argument("--model-base", help="base of a LoRA; default: the recorded one")
    parser.add_argument("--layers", required=True, help="layers to set back: " + GRAMMAR.replace("%", "%%"))
    add_output_flags(parser)


def _heal(parser: Parser) -> None:
    parser.add_argument("--model-path", required=True, help="the pruned model: a full checkpoint")
    parser.add_argument("--teacher", required=True, help="the unpruned model: full, merged or LoRA folder")
    parser.add_argument("--teacher-base", help="base of a LoRA teacher; default: the one that it records")
    tower = "tower folder for both models, if the recorded ones differ or are not on this machine"
    parser.add_argument("--vision-tower", help=tower)
    parser.add_argument("--data-path", required=True, help="LLaVA JSON: the training data")
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--tune-layers", default="all", help="layers that train: " + GRAMMAR.replace("%", "%%"))
    parser.add_argument("--lora-r", type=int, default=64, help="rank; 0: the layers' own weights train")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--ce-weight", type=float, default=0.0, help="of the cross-entropy on the data's own answers")
    parser.add_argument("--train-projector", action="store_true", help="the projector trains too")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--save-steps", type=int, default=50, help="a checkpoint to resume from after this many steps")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")
    parser.add_argument("--output", required=True, help="folder to write; an interrupted run continues there")
    parser.add_argument("trainer_flags", nargs="*", metavar="-- FLAGS", help="further flags of llava/train/train.py")


def _export(parser: Parser) -> None:
    add_checkpoint_flags(parser, "of what is written; default: as stored")
    parser.add_argument(
        "--format",
        choices=("transformers", "gguf"),
        default="transformers",
        help="transformers: a folder that stock transformers loads; gguf: files for llama.cpp",
    )
    # The same as --dtype, under the name and with the values that llama.cpp's own converter has.
    parser.add_argument(
        "--outtype",
        dest="dtype",
        type=_outtype,
        metavar="{f32,f16,bf16}",
        help="--dtype in llama.cpp's words",
    )
    parser.add_argument("--text-only", action="store_true", help="gguf: leave vision tower and projector out")
    parser.add_argument("--conv-mode", help="conversation template to write; default: the checkpoint's")
    add_output_flags(parser)


def _demo(parser: Parser) -> None:
    parser.add_argument("--model-path", help="checkpoint to ask: full, LoRA, projector, merged or pruned")
    parser.add_argument("--model-base", help="base of a LoRA or a projector; default: the recorded one")
    parser.add_argument("--compare", help="second checkpoint, whose answers are shown next to the first one's")
    parser.add_argument("--compare-base", help="its base; default: the recorded one")
    parser.add_argument("--vision-tower", help="tower folder, if config.json records one of another machine")
    parser.add_argument("--conv-mode", help="conversation template; default: the one that each checkpoint records")
    parser.add_argument("--device", type=device, default="cuda", help="cuda (the CPU if there is no GPU), cuda:1, cpu")
    parser.add_argument("--dtype", choices=DTYPE_NAMES, help="default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--scores", help="score file, for the page that chooses layers; enough without a checkpoint")
    parser.add_argument("--port", type=int, help="of 127.0.0.1; default: the first free one from 7860 on")


def _study(parser: Parser) -> None:
    from visual_region.study.cell import EXPERIMENTS

    parser.add_argument("plan", metavar="PLAN.yaml", help="docs/studies.md describes it; plans/ has examples")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print every cell: done, running, failed or left; the cost")
    what.add_argument("--dry-run", action="store_true", help="print the commands that would run, for a shell")
    what.add_argument("--draw", action="store_true", help="only write tables and figures of what is finished")
    publish = "copy the results of finished steps, without weights and logs, to FOLDER, with tables and figures"
    what.add_argument("--publish", metavar="FOLDER", help=publish)
    parser.add_argument("--cell", metavar="NAME", help="only this cell: its name, or its number in --list")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, help="only what these experiments need")
    parser.add_argument("--out", help="folder of the study; default: the plan's")
    change = "another value for a key of the plan, such as seeds=[0,1,2] or train.environment.STEPS=10; may be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=change)


def _outtype(text: str) -> str:
    names = dict(zip(("f32", "f16", "bf16"), DTYPE_NAMES, strict=True))
    if text not in names:
        smaller = "llama.cpp's llama-quantize makes smaller types of them"
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}; {smaller}")
    return names[text]


def _about_metrics() -> str:
    # Imports torch, so it waits until --help is asked for.
    from visual_region.importance import METRICS

    metrics = "; ".join(f"{metric.name}: {metric.title}" for metric in METRICS.values())
    return f"metrics: {metrics}. After an interruption, the same command continues where it stopped."


ADD_FLAGS: dict[str, Callable[[Parser], None]] = {
    "select": _select,
    "score": _score,
    "picture": _picture,
    "plan": _plan,
    "perplexity": _perplexity,
    "prune": _prune,
    "curve": _curve,
    "revert": _revert,
    "heal": _heal,
    "export": _export,
    "demo": _demo,
    "study": _study,
    "doctor": lambda parser: None,
}
"""Command -> what adds its flags to a parser."""
