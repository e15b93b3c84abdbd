"""`python -m llava.eval.prepare NAME --raw DIR`"""

import argparse
import sys
from pathlib import Path

from llava.eval.prepare import PREPARERS, load_preparer
from llava.eval.prepare.common import Options

DATA = Path("playground/data/eval")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.prepare",
        description="Make question files from a benchmark's official download (see playground/data/eval/README.md)",
    )
    parser.add_argument("name", choices=sorted(PREPARERS))
    parser.add_argument("--raw", required=True, help="folder of the unpacked download")
    parser.add_argument("--out", help="default: playground/data/eval/NAME, where scripts/eval/NAME.sh looks")
    parser.add_argument("--any-count", action="store_true", help="go on where the counts are not the published ones")
    parser.add_argument("--skip-missing-images", action="store_true", help="leave out questions without their image")
    parser.add_argument("--overwrite", action="store_true", help="replace a question file that is there and differs")
    parser.add_argument("--sample", type=int, help="ask only so many questions, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--no-ocr", action="store_true", help="textvqa: prompts without OCR tokens")
    parser.add_argument("--template", help="refcocog: the prompt, with {} for the expression")
    args = parser.parse_args()
    options = Options(
        check_counts=not args.any_count,
        skip_missing_images=args.skip_missing_images,
        overwrite=args.overwrite,
        sample=args.sample,
        seed=args.seed,
        ocr=not args.no_ocr,
        template=args.template,
    )
    raw, out = Path(args.raw), Path(args.out) if args.out else DATA / PREPARERS[args.name][1]
    if not raw.is_dir():
        sys.exit(f"error: --raw {raw} is no folder")
    try:
        load_preparer(args.name)(raw, out, options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
