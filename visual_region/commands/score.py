"""`python -m visual_region score`: importance of every layer, to a file."""

import argparse
from pathlib import Path

from llava.eval.model_vqa_loader import add_model_flags
from llava.files import sha256_of, write_json
from visual_region.surgery import region_now

HELP = "angular distance of every layer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_flags(parser)
    parser.add_argument("--data-path", required=True, help="LLaVA JSON")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, help="score file to write")


def run(args: argparse.Namespace) -> None:
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
