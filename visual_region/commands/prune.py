"""`python -m visual_region prune`: a checkpoint without some of its layers."""

import argparse
import json
from pathlib import Path
from typing import Any

from llava.files import folder_written_whole
from visual_region.layers import LayerSelection
from visual_region.surgery import SurgeryError, lowest_outside, region_now, remove_layers

HELP = "remove layers and write a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base")
    parser.add_argument("--vision-tower")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--layers", help="layers to remove, in the grammar of --tune_layers")
    parser.add_argument("--scores", help="score file; removes the lowest")
    parser.add_argument("--metric", default="angular")
    parser.add_argument("--remove", type=int, default=1, help="how many, by lowest score")
    parser.add_argument("--anywhere", action="store_true", help="the tuned region is not protected")
    parser.add_argument("--output", required=True)


def run(args: argparse.Namespace) -> None:
    """Removes layers from a checkpoint and writes a folder that loads like any other."""
    scores = read_scores(args.scores) if args.scores else None
    if (scores is None) == (args.layers is None):
        raise SurgeryError("give either --layers, or --scores with --remove")
    from llava.families import family_of
    from llava.model.builder import load_pretrained_model

    tokenizer, model, _, _ = load_pretrained_model(
        args.model_path, args.model_base, vision_tower=args.vision_tower, dtype=_dtype(args.dtype)
    )
    depth = model.config.num_hidden_layers
    if args.layers is not None:
        gone = LayerSelection.parse(args.layers, depth).layers
        inside = sorted(set(gone) & set(region_now(model.config)))
        if inside and not args.anywhere:
            raise SurgeryError(f"layers {inside} belong to the tuned region; --anywhere removes them all the same")
    else:
        if scores["num_layers"] != depth:
            raise SurgeryError(f"{args.scores} is of {scores['num_layers']} layers, the model has {depth}")
        protected = () if args.anywhere else region_now(model.config)
        gone = lowest_outside(scores["metrics"][args.metric]["values"], args.remove, protected)
    remove_layers(model, gone, family_of(model.config).layer_path)
    with folder_written_whole(args.output) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    print(f"removed layers {', '.join(map(str, gone))}; {model.config.num_hidden_layers} remain, in {args.output}")


def read_scores(path: str) -> dict[str, Any]:
    try:
        scores = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"num_layers": scores["num_layers"], "metrics": scores["metrics"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SurgeryError(f"{path} is not a score file of `python -m visual_region score` ({error})") from error


def _dtype(name: str | None) -> Any:
    from llava.eval.model_vqa_loader import DTYPES

    return DTYPES[name] if name else None
