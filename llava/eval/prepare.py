"""From a benchmark's official download to its question file: `python -m llava.eval.prepare NAME --raw DIR`."""

from dataclasses import fields
from pathlib import Path

from llava.eval.benchmarks import BY_NAME, DATA
from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.flags import Parser, run_program


def main() -> None:
    description = (
        "Make question files from a benchmark's download, official or of the Hub (see playground/data/eval/README.md)"
    )
    parser = Parser(prog="python -m llava.eval.prepare", description=description)
    parser.add_argument("name", choices=sorted(name for name, benchmark in BY_NAME.items() if benchmark.prepare))
    parser.add_argument("--raw", required=True, type=Path, help="folder of the unpacked download")
    parser.add_argument("--out", type=Path, help=f"default: {DATA}/NAME, where scripts/eval/NAME.sh looks")
    parser.add_argument("--any-count", dest="check_counts", action="store_false", help="accept counts not as published")
    parser.add_argument("--skip-missing-images", action="store_true", help="leave out questions without their image")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist here and differ")
    parser.add_argument("--sample", type=int, help="ask only so many questions, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--no-ocr", dest="ocr", action="store_false", help="textvqa: prompts without OCR tokens")
    parser.add_argument("--template", help="refcocog: the prompt, with {} for the expression")
    args = parser.parse_args()
    if not args.raw.is_dir():
        raise PrepareError(f"--raw {args.raw} is not a folder")
    options = Options(**{field.name: getattr(args, field.name) for field in fields(Options)})
    BY_NAME[args.name].prepare(args.raw, args.out or DATA / args.name, options)


if __name__ == "__main__":
    run_program(main)
