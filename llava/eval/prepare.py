"""From a benchmark's official download to its question file: `python -m llava.eval.prepare NAME --raw DIR`."""

from dataclasses import fields
from pathlib import Path

from llava.eval.benchmarks import BY_NAME, DATA, TRAINING
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.benchmarks.training import write_training
from llava.flags import Parser, positive, run_program


def main() -> None:
    description = (
        "Make question files from a benchmark's download, official or of the Hub (see playground/data/eval/README.md)"
    )
    parser = Parser(prog="python -m llava.eval.prepare", description=description)
    prepared = {name for name, benchmark in BY_NAME.items() if benchmark.prepare}
    parser.add_argument("name", choices=sorted({*prepared, *TRAINING}))
    parser.add_argument("--raw", required=True, type=Path, help="folder of the unpacked download")
    parser.add_argument("--out", type=Path, help=f"default: {DATA}/NAME, where scripts/eval/NAME.sh looks")
    parser.add_argument("--any-count", dest="check_counts", action="store_false", help="accept counts not as published")
    parser.add_argument("--skip-missing-images", action="store_true", help="leave out questions without their image")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist here and differ")
    sample_help = "only N questions, or samples, drawn at random"
    parser.add_argument("--sample", "--limit", type=positive, metavar="N", help=sample_help)
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--no-ocr", dest="ocr", action="store_false", help="textvqa: prompts without OCR tokens")
    parser.add_argument("--template", help="refcocog: the prompt, with {} for the expression")
    as_training = f"write LLaVA JSON with answers in place of questions: {', '.join(TRAINING)}"
    parser.add_argument("--as-training", type=Path, metavar="OUTPUT.json", help=as_training)
    split_help = "of --as-training; default: train, or without it the split that the benchmark uses"
    parser.add_argument("--split", help=split_help)
    args = parser.parse_args()
    if not args.raw.is_dir():
        raise PrepareError(f"--raw {args.raw} is not a folder")
    options = Options(**{field.name: getattr(args, field.name) for field in fields(Options)})
    out = args.out or DATA / args.name
    if args.as_training:
        if args.name not in TRAINING:
            raise PrepareError(f"--as-training is for {', '.join(TRAINING)}, not for {args.name}")
        write_training(TRAINING[args.name], args.name, args.raw, out, args.as_training, options)
        return
    if args.split or args.name not in prepared:
        needs = "--split is of --as-training" if args.split else f"{args.name} is training data, and no benchmark"
        raise PrepareError(f"{needs}; give --as-training OUTPUT.json")
    BY_NAME[args.name].prepare(args.raw, out, options)


if __name__ == "__main__":
    run_program(main)
