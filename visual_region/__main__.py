"""`python -m visual_region {select,score,prune}`: see `--help` of each."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from llava.files import folder_written_whole, sha256_of, write_json
from visual_region.layers import GRAMMAR, LayerSelection
from visual_region.surgery import SurgeryError, lowest_outside, region_now, remove_layers


def select(args: argparse.Namespace) -> None:
    """Prints a selection as a list and a picture."""
    if args.num_layers is None:
        from llava.model.builder import family_config

        args.num_layers = family_config(args.model_path)[1].num_hidden_layers
    print(LayerSelection.parse(args.spec, args.num_layers).describe())


def score(args: argparse.Namespace) -> None:
    """Angular distance of every layer, to a score file that `--tune_layers` and `prune` read."""
    from llava.conversation import get_template
    from llava.data.records import open_records
    from llava.eval.model_vqa_loader import make_answerer, recorded_template
    from llava.families import family_of
    from visual_region.importance.angular import angular_distances
    from visual_region.importance.samples import first_questions, prompt_batches

    questions = first_questions(open_records(args.data_path), args.samples, args.seed)
    template = get_template(args.conv_mode or recorded_template(args.model_path))
    answerer = make_answerer(args, template, Path(args.image_folder))
    if answerer.feature_cache is not None:
        images = [answerer.image_folder / q.image for q in questions]
        answerer.feature_cache.ensure(images, answerer.model.get_vision_tower(), device=answerer.model.device)
    layer_path = family_of(answerer.model.config).layer_path
    scores = angular_distances(answerer.model, prompt_batches(answerer, questions, args.batch_size), layer_path)
    write_json(
        args.output,
        {
            "model": str(Path(args.model_path).resolve()),
            "num_layers": len(scores.values),
            "data": {"file": args.data_path, "sha256": sha256_of(args.data_path), "samples": len(questions)},
            "region": list(region_now(answerer.model.config)),
            "metrics": {"angular": {"values": scores.values}},
        },
    )
    for i, value in enumerate(scores.values):
        print(f"layer {i:3d}  {value:.4f}  {'#' * round(200 * value)}")
    print(f"scores written to {args.output}")


def prune(args: argparse.Namespace) -> None:
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


def main() -> None:
    from llava.eval.model_vqa_loader import add_model_flags

    parser = argparse.ArgumentParser(
        prog="python -m visual_region", description="Decoder layers: choose, score, remove"
    )
    commands = parser.add_subparsers(required=True)

    sub = commands.add_parser("select", help="print a layer list")
    sub.add_argument("spec", help=GRAMMAR.replace("%", "%%"))
    where = sub.add_mutually_exclusive_group(required=True)
    where.add_argument("--num-layers", type=int)
    where.add_argument("--model-path")
    sub.set_defaults(run=select)

    sub = commands.add_parser("score", help="angular distance of every layer")
    add_model_flags(sub)
    sub.add_argument("--data-path", required=True, help="LLaVA JSON")
    sub.add_argument("--samples", type=int, default=64)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--output", required=True, help="score file to write")
    sub.set_defaults(run=score)

    sub = commands.add_parser("prune", help="remove layers and write a checkpoint")
    sub.add_argument("--model-path", required=True)
    sub.add_argument("--model-base")
    sub.add_argument("--vision-tower")
    sub.add_argument("--dtype", choices=("fp32", "fp16", "bf16"))
    sub.add_argument("--layers", help="layers to remove, in the grammar of --tune_layers")
    sub.add_argument("--scores", help="score file; removes the lowest")
    sub.add_argument("--metric", default="angular")
    sub.add_argument("--remove", type=int, default=1, help="how many, by lowest score")
    sub.add_argument("--anywhere", action="store_true", help="the tuned region is not protected")
    sub.add_argument("--output", required=True)
    sub.set_defaults(run=prune)

    args = parser.parse_args()
    try:
        args.run(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
